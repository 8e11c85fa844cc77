"""A moment is read from our clock, or asked for by whoever is about to use the database."""

from __future__ import annotations

import time
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from pytest_arena import _process
from pytest_arena._postgresql._control import ControlFailure
from pytest_arena._postgresql.isolation import ServerIsolation
from pytest_arena._postgresql.journal import _server
from pytest_arena._postgresql.journal._server import ServerJournal
from pytest_arena.errors import ArenaError
from tests.servers.postgresql import connect, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_arena._postgresql.registry import ServerRegistry

TAI = time.CLOCK_TAI


class Database:
    """Which is used, and asked for the time."""

    def __init__(self, own: ServerRegistry, template: str) -> None:
        self.uses = self.asked = 0
        self.waiting: list[Callable[[], None]] = []
        self.is_quiet = True
        self.isolation = ServerIsolation(own, template, "undo", uses=self, tell=print)

    def __call__(self) -> int:
        """How often it was used."""
        return self.uses

    def before_next(self, call: Callable[[], None]) -> bool:
        """As the gate has it."""
        if self.is_quiet:
            self.waiting = [call]
        return self.is_quiet

    def write(self, value: int) -> None:
        """As somebody does who takes a connection."""
        for call in self.waiting:
            call()
        self.waiting = []
        self.uses += 1
        run(f"INSERT INTO plain VALUES ({value})", database=self.isolation.live.address.database)

    def changed(self, *moments: object) -> set[object]:
        """What has come, between two moments."""
        tables = self.isolation.rows_changed(*moments)
        return {value for table in tables for (value, *_) in table.come}


@pytest.fixture
def ours(own: ServerRegistry, template: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """One in a level, which counts how often the server is asked for a moment."""
    database, ask = Database(own, template), ServerJournal.moment

    def counted(journal: ServerJournal) -> str:
        database.asked += 1
        return ask(journal)

    monkeypatch.setattr(ServerJournal, "moment", counted)
    database.isolation.enter()
    yield database
    database.isolation.close()


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Database:
    """One of which our clock says nothing."""
    monkeypatch.setattr(_process.machine, "read", lambda: 0)
    found: Database = request.getfixturevalue("ours")
    return found


def test_nobody_is_asked_until_somebody_uses_it_pitfall_066(database: Database) -> None:
    """Between two uses there is one moment; the last one of a level is never asked for."""
    start = database.isolation.moment()
    database.write(10)
    middle = database.isolation.moment()
    assert database.isolation.moment() is middle
    assert database.asked == 0
    database.write(11)
    assert database.asked == 1
    end = database.isolation.moment()
    assert database.changed(start, middle) == {10}
    assert database.changed(middle, end) == {11}
    asked = database.asked
    database.write(12)
    last = database.isolation.moment()
    database.isolation.leave()
    database.write(13)
    assert database.asked == asked
    assert len({id(moment) for moment in (start, middle, end, last)}) == 4


def test_it_is_asked_at_once_while_somebody_may_be_using_it(database: Database) -> None:
    """A moment is not after what came after it."""
    database.is_quiet = False
    database.write(10)
    moment = database.isolation.moment()
    assert database.asked == 1
    database.write(11)
    assert database.changed(None, moment) == {10}


def test_whoever_wants_to_know_asks(database: Database) -> None:
    """Nobody has used the database since."""
    database.write(10)
    moment = database.isolation.moment()
    assert database.changed(None, moment) == {10}
    asked = database.asked
    database.write(11)
    assert database.asked == asked
    assert database.changed(moment) == {11}


def test_moments_of_a_level_go_with_it(database: Database) -> None:
    """One that nobody knew by then is none of the next level's."""
    database.write(10)
    lost = database.isolation.moment()
    database.isolation.leave()
    database.isolation.enter()
    with pytest.raises(ArenaError, match="level is gone"):
        database.changed(lost)


def test_a_server_that_is_gone_is_told_to_whoever_wants_to_know(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not to whoever takes a connection."""

    def fail(_journal: ServerJournal) -> str:
        raise ControlFailure("gone", "XX000")

    database.write(10)
    with monkeypatch.context() as patch:
        patch.setattr(ServerJournal, "moment", fail)
        moment = database.isolation.moment()
        database.write(11)
    with pytest.raises(ArenaError, match="gone"):
        database.changed(moment)


# By the clock.


def test_nobody_is_asked_where_the_clock_is_the_servers(ours: Database) -> None:
    """Each moment is one of its own, also the start and what was asked for."""
    moments = [ours.isolation.moment()]
    for value in range(10, 15):
        ours.write(value)
        moments.append(ours.isolation.moment())
    assert ours.asked == 0
    ours.is_quiet = False
    moments.append(ours.isolation.moment())
    ours.write(15)
    ours.is_quiet = True
    moments.append(ours.isolation.moment())
    assert ours.asked == 0
    told = [ours.changed(*pair) for pair in pairwise(moments)]
    assert told == [{10}, {11}, {12}, {13}, {14}, set(), {15}]
    assert ours.changed(moments[2], moments[4]) == {12, 13}


def test_a_transaction_over_moments_of_both_kinds(ours: Database) -> None:
    """It is told where it was committed, although it was begun before."""
    ours.write(10)
    moments = [ours.isolation.moment()]
    with closing(connect(ours.isolation.live.address.database)) as other:
        ours.uses += 1
        other.execute("BEGIN")
        other.execute("INSERT INTO plain VALUES (11)")
        ours.is_quiet = False
        moments.append(ours.isolation.moment())
        assert ours.asked == 1
        ours.write(12)
        other.execute("COMMIT")
    ours.is_quiet = True
    moments.append(ours.isolation.moment())
    ours.write(13)
    assert ours.asked == 1
    assert [ours.changed(*pair) for pair in pairwise(moments)] == [set(), {11, 12}]
    assert ours.changed(None, moments[0]) == {10}
    assert ours.changed(moments[2]) == {13}


def test_moments_of_a_level_that_may_make_tables_are_asked_for(ours: Database) -> None:
    """Until it is left."""
    for asked in (1, 2):
        ours.write(10 + asked)
        ours.isolation.live.is_to_be_asked = True
        ours.isolation.moment()
        ours.write(20 + asked)
        assert ours.asked == asked
    ours.isolation.leave()
    ours.isolation.enter()
    ours.write(30)
    ours.isolation.moment()
    ours.write(31)
    assert ours.asked == 2


def test_a_clock_that_was_set_is_believed_no_more(
    ours: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has told is told as not known; from then on the server is asked."""
    ours.write(10)
    moment = ours.isolation.moment()
    monkeypatch.setattr(_process.machine, "read", lambda: 0)
    with pytest.raises(ArenaError, match="the clock of this machine was set meanwhile"):
        ours.changed(moment)
    ours.write(11)
    later, asked = ours.isolation.moment(), ours.asked
    ours.write(12)
    assert ours.asked == asked + 1
    assert ours.changed(later) == {12}


@pytest.fixture
def leads(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """What journals find out of our clock."""
    found: list[int | None] = []
    find = ServerJournal._lead_of_our_clock

    def found_out(journal: ServerJournal) -> int | None:
        found.append(find(journal))
        return found[-1]

    monkeypatch.setattr(ServerJournal, "_lead_of_our_clock", found_out)
    return found


def test_a_clock_that_goes_otherwise_is_another_machines(
    own: ServerRegistry, template: str, monkeypatch: pytest.MonkeyPatch, leads: list[int | None]
) -> None:
    """Whole seconds are none: leap seconds are counted by one of the two."""
    clock = _process.MachineClock()
    for shift in (-400_000, 400_000, 37_000_000):
        monkeypatch.setattr(_process.machine, "read", lambda by=shift: clock.read() + by)
        ServerIsolation(own, template, "undo", uses=lambda: 0, tell=print).close()
    *others, leap = leads
    assert set(others) == {None}
    assert leap is not None
    assert leap % 1_000_000 == 0


def test_another_kernel_has_a_clock_of_its_own(
    own: ServerRegistry,
    template: str,
    monkeypatch: pytest.MonkeyPatch,
    leads: list[int | None],
    tmp_path: Path,
) -> None:
    """However well the two go together."""
    (tmp_path / "boot_id").write_text("0b2dc3b6-0000-0000-0000-000000000000\n")
    for file in (tmp_path / "boot_id", tmp_path / "no Linux"):
        monkeypatch.setattr(_server, "_KERNEL", str(file))
        ServerIsolation(own, template, "undo", uses=lambda: 0, tell=print).close()
    assert leads
    assert set(leads) == {None}


@pytest.mark.parametrize("step", [-1_000_000_000, -20_000, 20_000, 1_000_000_000])
def test_a_machines_clock_sees_that_it_was_set(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """By the time since the machine was started. It never forgets."""
    clock, read = _process.MachineClock(), time.clock_gettime_ns
    first, second = clock.read(), clock.read()
    assert 0 < first <= second
    with monkeypatch.context() as patch:
        patch.setattr(time, "clock_gettime_ns", lambda which: read(which) + step * (which == TAI))
        assert not clock.read()
    assert not clock.read()
    assert _process.MachineClock().read() >= second
