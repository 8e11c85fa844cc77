"""A level by another isolation than the one below it: on a copy, which goes with the level."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena._postgresql import isolation as choosing
from pytest_arena._postgresql.isolation import isolate
from pytest_arena._postgresql.isolation._isolation import KINDS
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
        self.isolation = isolate(
            own,
            name,
            template,
            shown="here",
            place="the tests",
            uses=CountedUsage(lambda: self.uses),
            note=self.told.append,
        )
        self.generations = [self.isolation.generation]

    @property
    def database(self) -> str:
        """The one that is live."""
        return self.isolation.live.address.database

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


@pytest.fixture(params=["undo", pytest.param("clone", marks=pytest.mark.slow)])
def switching(
    request: pytest.FixtureRequest, own: ServerRegistry, template: str
) -> Iterator[Switching]:
    """One of either kind."""
    made = Switching(own, template, request.param)
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
        below = switching.database
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
        assert switching.database != below
        assert switching.names() == stands
    assert switching.leave()
    assert switching.names() == FIRST
    generations = switching.generations
    assert generations == sorted(generations)


def test_such_levels_one_after_the_other_share_a_copy(
    switching: Switching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the database below was used in between: what is there now has to be seen."""
    other, made = OTHER[switching.isolation.name], list[str]()
    prepare = KINDS[other].prepare

    def counted(live: Any, name: str) -> None:
        made.append(other)
        prepare(live, name)

    monkeypatch.setattr(KINDS[other], "prepare", counted)
    for _ in range(3):
        switching.enter(other)
        assert switching.names() == FIRST
        switching.write("x")
        assert switching.leave()
    assert made == [other]
    switching.write("below")
    switching.enter(other)
    assert made == [other] * 2
    assert switching.names() == [*FIRST, "below"]
    switching.leave()
    switching.enter()
    switching.leave()
    switching.enter(other)
    assert made == [other] * 3
    switching.leave()


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


def test_a_copy_has_a_journal_only_where_it_is_undone(switching: Switching) -> None:
    """Where triggers are unwelcome, there are none."""
    for name in ("undo", "clone"):
        switching.enter(name)
        [(count,)] = rows(
            "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal", switching.database
        )
        assert bool(count) == (name == "undo")
        [(count,)] = rows("SELECT count(*) FROM pg_event_trigger", switching.database)
        assert bool(count) == (name == "undo")
        switching.leave()


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


def test_an_open_transaction_below_is_not_ended_for_it(switching: Switching) -> None:
    """Nothing is done then; the same can be entered as usual."""
    other = OTHER[switching.isolation.name]
    with connect(switching.database) as app:
        app.execute("BEGIN")
        app.execute("INSERT INTO dancers (name) VALUES ('open')")
        switching.uses += 1
        with pytest.raises(Held):
            switching.enter(other)
        app.execute("ROLLBACK")
        assert app.execute("SELECT 1").fetchone() == (1,)
    switching.enter()
    assert switching.isolation.name != other
    assert switching.names() == FIRST
    switching.leave()


def test_a_copy_that_cannot_be_made_changes_nothing(
    switching: Switching, own: ServerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is not left lying about."""
    own.rest()
    before = names_on_server(beginning="arena_live")

    def refused(*_: object, **__: object) -> None:
        raise IsolationError("no", why="", cause="", fix="")

    with monkeypatch.context() as patch:
        patch.setattr(KINDS[OTHER[switching.isolation.name]], "prepare", refused)
        with pytest.raises(IsolationError):
            switching.enter(OTHER[switching.isolation.name])
    own.rest()
    assert names_on_server(beginning="arena_live") == before
    switching.enter()
    switching.write("x")
    assert switching.leave()
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
    kind, found = switching.isolation.name, list[str]()

    def check() -> None:
        found.append(switching.database)
        raise IsolationError("different", why="", cause="", fix="")

    below = switching.database
    switching.enter(OTHER[kind])
    switching.isolation.call_after_leave(check)
    switching.write("x")
    with pytest.raises(IsolationError, match="different"):
        switching.leave()
    assert found == [below]
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
    monkeypatch.setattr(f"{choosing.__name__}.templates.why_no_undo", lambda _: "the moon is full")
    with pytest.raises(ConfigError, match="the moon is full"):
        Switching(own, template, "undo")
    made = Switching(own, template, "auto")
    assert made.isolation.name == "clone"
    [line] = made.told
    assert line.startswith("here: tests are isolated by clone, since the moon is full. For undo: ")
    made.isolation.close()


@pytest.mark.slow
def test_undo_of_a_schema_that_no_journal_can_bring_back(own: ServerRegistry) -> None:
    """There is nothing to grant: the line names what is in the way, and no way that leads away."""
    name = own.create("building")
    run("CREATE TABLE docs (parts xml[])", database=name)
    own.freeze(name)
    template = own.finish_template(name, fingerprint="documents", manifest="")
    with pytest.raises(ConfigError, match=r"arena_isolation = undo: \S*docs") as caught:
        Switching(own, template, "undo")
    assert "clone" in caught.value.fix
    made = Switching(own, template, "auto")
    assert made.isolation.name == "clone"
    [line] = made.told
    assert line.startswith("here: tests are isolated by clone, since public.docs"), line
    assert "undo" not in line, line
    made.isolation.close()
