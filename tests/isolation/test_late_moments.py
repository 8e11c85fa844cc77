"""The server is asked for a moment by the first connection that uses the database after it."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing, nullcontext
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql._control import ControlFailure
from pytest_arena._postgresql.isolation import ServerIsolation
from pytest_arena._postgresql.journal._server import ServerJournal
from pytest_arena.errors import ArenaError
from tests.servers.postgresql import connect, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._postgresql.registry import ServerRegistry


class Database:
    """Which is used, and asked for the time."""

    def __init__(self, own: ServerRegistry, template: str) -> None:
        self.uses = self.asked = 0
        self.waiting: list[Callable[[], None]] = []
        self.is_quiet = True
        self.isolation = ServerIsolation(own, template, "undo", uses=self, note=print)

    def __call__(self) -> int:
        """How often it was used."""
        return self.uses

    def may_have_others(self) -> bool:
        """There is no other process."""
        return False

    def before_next(self, call: Callable[[], None]) -> bool:
        """As the gate has it."""
        if self.is_quiet:
            self.waiting = [call]
        return self.is_quiet

    def alone(self) -> AbstractContextManager[None]:
        """There are no other threads."""
        return nullcontext()

    def use(self) -> None:
        """As the gate does when a connection is taken from its pool."""
        for call in self.waiting:
            call()
        self.waiting = []
        self.uses += 1

    def write(self, value: int) -> None:
        """Commit a row on another connection."""
        self.use()
        run(f"INSERT INTO plain VALUES ({value})", database=self.isolation.live.address.database)

    def changed(self, *moments: object) -> set[object]:
        """What has come, between two moments."""
        tables = self.isolation.rows_changed(*moments)
        return {value for table in tables for (value, *_) in table.added}


@pytest.fixture
def database(
    own: ServerRegistry, template: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    """One in a level, which counts how often the server is asked for a moment."""
    database, ask = Database(own, template), ServerJournal.moment

    def counted(journal: ServerJournal) -> str:
        database.asked += 1
        return ask(journal)

    monkeypatch.setattr(ServerJournal, "moment", counted)
    database.isolation.enter()
    yield database
    database.isolation.close()


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
    with pytest.raises(ArenaError, match="level was left"):
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


def test_a_transaction_over_moments(database: Database) -> None:
    """It is told where it was committed, although it was begun before."""
    database.write(10)
    moments = [database.isolation.moment()]
    with closing(connect(database.isolation.live.address.database)) as other:
        database.use()
        other.execute("BEGIN")
        other.execute("INSERT INTO plain VALUES (11)")
        database.is_quiet = False
        moments.append(database.isolation.moment())
        assert database.asked == 2
        database.write(12)
        other.execute("COMMIT")
    database.is_quiet = True
    moments.append(database.isolation.moment())
    database.write(13)
    assert database.asked == 3
    assert [database.changed(*pair) for pair in pairwise(moments)] == [set(), {11, 12}]
    assert database.changed(None, moments[0]) == {10}
    assert database.changed(moments[2]) == {13}
