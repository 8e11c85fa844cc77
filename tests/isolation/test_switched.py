"""A level by another isolation than the one below it: on a copy, which goes with the level."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql import isolation as choosing
from pytest_arena._postgresql.isolation import ServerIsolation, isolate
from pytest_arena._product import Held
from pytest_arena.errors import ConfigError, IsolationError
from tests.isolation.server_world import CountedUsage
from tests.servers.postgresql import (
    connect,
    names_on_server,
    rows,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._postgresql.registry import ServerRegistry

OTHER = {"undo": "clone", "clone": "undo"}


class Switching:
    """An isolation that was chosen, and its database."""

    def __init__(self, own: ServerRegistry, template: str, name: str) -> None:
        self.uses, self.told = 0, list[str]()
        self.own = own
        isolation = isolate(
            own,
            name,
            template,
            shown="here",
            place="the tests",
            uses=CountedUsage(lambda: self.uses),
            note=self.told.append,
        )
        assert isinstance(isolation, ServerIsolation)
        self.isolation = isolation
        self.generations = [self.isolation.generation]

    @property
    def database(self) -> str:
        """The one that is live."""
        return self.isolation.address.database

    def write(self, name: str) -> None:
        """Commit a row."""
        self.uses += 1
        run(f"INSERT INTO dancers (name) VALUES ('{name}')", database=self.database)

    def names(self) -> list[str]:
        """What stands."""
        self.uses += 1
        return [
            str(name) for (name,) in rows("SELECT name FROM dancers ORDER BY id", self.database)
        ]

    def next_number(self) -> object:
        """What the sequence gives, which counts as a change."""
        self.uses += 1
        return rows("SELECT nextval('dancers_id_seq')", self.database)[0][0]

    def enter(self, name: str = "") -> None:
        """Enter a level, by an isolation that may be another."""
        self.isolation.choose_next_isolation(name)
        self.isolation.enter()
        self.generations.append(self.isolation.generation)

    def leave(self) -> bool:
        """Leave it."""
        is_changed = self.isolation.leave()
        self.generations.append(self.isolation.generation)
        return is_changed


@pytest.fixture
def switching(own: ServerRegistry, template: str) -> Iterator[Switching]:
    """One of either kind."""
    made = Switching(own, template, "undo")
    yield made
    made.isolation.close()
    own.rest()


FIRST = ["Sand", "Dune"]


def test_it_starts_from_what_stands_and_leaves_no_trace_pitfall_006(switching: Switching) -> None:
    """P2, P6: rows and sequences of levels below, of both kinds, and nested levels above."""
    kind = switching.isolation.name
    switching.enter()
    switching.write("wide")
    stands, number = [*FIRST, "wide"], None
    for _ in range(2):
        switching.enter()
        switching.write("before")
        assert switching.leave()
        switching.enter(OTHER[kind])
        assert switching.isolation.name == OTHER[kind]
        assert switching.names() == stands
        switching.write("other")
        switching.enter()
        switching.write("example")
        assert switching.names() == [*stands, "other", "example"]
        assert switching.leave()
        assert switching.names() == [*stands, "other"]
        found = switching.next_number()
        assert number in {None, found}
        number = found
        assert switching.leave()
        assert switching.isolation.name == kind
        assert switching.names() == stands
    assert switching.leave()
    assert switching.names() == FIRST
    generations = switching.generations
    assert generations == sorted(generations)


@pytest.mark.slow
def test_connections_know_where_they_are_at_home(switching: Switching) -> None:
    """No generation comes twice, for two databases: a pool's connection is known by it."""
    seen: dict[int, str] = {}

    def note() -> None:
        generation, database = switching.isolation.generation, switching.database
        assert seen.setdefault(generation, database) == database

    note()
    for name in ("", OTHER[switching.isolation.name], "", OTHER[switching.isolation.name]):
        switching.enter(name)
        note()
        switching.write("x")
        switching.enter()
        note()
        switching.write("y")
        switching.leave()
        note()
        switching.leave()
        note()


def test_what_is_not_left_by_itself_is_left_by_force(switching: Switching) -> None:
    """An open writer keeps the level; by force, its copy goes, whoever is in it."""
    switching.enter()
    switching.write("wide")
    switching.enter(OTHER[switching.isolation.name])
    with connect(switching.database) as app:
        app.execute("BEGIN")
        app.execute("INSERT INTO dancers (name) VALUES ('open')")
        switching.uses += 1
        assert switching.isolation.writers() == {app.info.backend_pid}
        with pytest.raises(Held):
            switching.leave()
        switching.isolation.leave_by_force()
        assert switching.own.rest()
        with pytest.raises(Exception, match=r"terminat|closed"):
            app.execute("COMMIT")
    assert switching.names() == [*FIRST, "wide"]
    switching.leave()
    assert switching.names() == FIRST


def test_a_level_that_turns_out_to_be_none(switching: Switching) -> None:
    """One that was entered and is forgotten, since another database could not be entered."""
    kind = switching.isolation.name
    switching.enter()
    switching.write("wide")
    switching.enter(OTHER[kind])
    assert switching.isolation.is_clean()
    switching.isolation.forget()
    assert switching.isolation.name == kind
    assert switching.names() == [*FIRST, "wide"]
    switching.leave()
    assert switching.names() == FIRST


def test_a_failed_check_leaves_the_level_there(switching: Switching) -> None:
    """Whoever verifies a level finds it, and leaves it by force."""
    kind = switching.isolation.name

    def check() -> None:
        raise IsolationError("different", why="", cause="", fix="")

    switching.enter(OTHER[kind])
    switching.isolation.call_after_leave(check)
    switching.write("x")
    with pytest.raises(IsolationError, match="different"):
        switching.leave()
    assert switching.isolation.name == OTHER[kind]
    switching.isolation.call_after_leave(lambda: None)
    switching.isolation.leave_by_force()
    assert switching.isolation.name == kind
    assert switching.names() == FIRST


def test_what_changed_is_told_of_all_levels(switching: Switching) -> None:
    """The copy's own, and those below it, which stand in the other database."""
    switching.enter()
    switching.write("wide")
    switching.enter(OTHER[switching.isolation.name])
    switching.write("test")
    told = [switching.isolation.rows_changed(depth=depth) for depth in range(2)]
    assert [[row[1] for table in tables for row in table.added] for tables in told] == [
        ["test"],
        ["wide"],
    ]
    switching.leave()
    switching.leave()


@pytest.mark.slow
def test_it_is_closed_in_the_middle(switching: Switching, own: ServerRegistry) -> None:
    """P7: both, and the database between them."""
    with suppress(IsolationError):
        switching.enter(OTHER[switching.isolation.name])
    switching.write("x")
    switching.isolation.close()
    own.rest()
    own.rest()
    assert switching.database not in names_on_server(beginning="arena_live")


def test_undo_that_is_asked_for_where_it_cannot_be(
    own: ServerRegistry, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name it is an error, else there is a line and clones."""
    monkeypatch.setattr(f"{choosing.__name__}.why_no_undo", lambda _: "the moon is full")
    with pytest.raises(ConfigError, match="the moon is full"):
        Switching(own, template, "undo")
    made = Switching(own, template, "auto")
    assert made.isolation.name == "clone"
    [line] = made.told
    assert line.startswith("here: tests are isolated by clone, since the moon is full. For undo: ")
    made.isolation.close()
