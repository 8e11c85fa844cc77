"""Whatever two connections do in up to three levels, each leave gives back what stood at enter."""

from __future__ import annotations

import random
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pytest_arena._postgresql._control import ControlFailure
from pytest_arena._postgresql.journal._capture import install
from tests.journal.random_history import HOSTILE, Schema
from tests.journal.world import World, database, journaled, knows_xml, tamper
from tests.servers.postgresql import address, connect, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    # Changes something in a database with a journal. Returns whether there was something to change.
    Plant = Callable[[str], object]

ROLE = "arena_random_app"
SHORT = (0,)
LONG = (*range(1, 4), *range(100, 200))
STEPS = 90


@pytest.fixture(scope="module", autouse=True)
def role() -> Iterator[None]:
    """What the second connection is."""
    run(f"DROP ROLE IF EXISTS {ROLE}", f"CREATE ROLE {ROLE}")
    yield
    run(f"DROP ROLE {ROLE}")


def difference(was: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Return what is not the same, as it was and as it is."""
    return {key: (was[key], now[key]) for key in was if was[key] != now[key]}


def number_of_rows(found: dict[str, Any]) -> int:
    """Count them, of all tables."""
    return sum(len(rows) for name, rows in found.items() if name.startswith("table "))


class History:
    """One database, and what is done to it."""

    def __init__(self, name: str, template: str, chance: random.Random, schema: Schema) -> None:
        self.template, self.chance, self.schema = template, chance, schema
        self.world = World(name)
        self.journal = self.world.journal
        self.hands = [self.world.app, connect(name)]
        self.hands[1].execute(f"SET ROLE {ROLE}")
        self.stood: list[dict[str, Any]] = []
        self.done: list[str] = []
        self.is_over = False

    def close(self) -> None:
        """Close all connections."""
        self.hands[1].close()
        self.world.close()

    def step(self) -> None:
        """Do something, mostly a statement."""
        number = self.chance.random()
        if number < 0.02 and self.stood:
            self.forget()
        elif number < 0.08 and len(self.stood) < 3:
            self.enter()
        elif number < 0.12 and self.stood:
            self.leave()
        else:
            self.work(self.chance.randrange(2))

    def enter(self) -> None:
        """Open a level, whoever is inside a transaction, if it can be told what stands."""
        try:
            self.stood.append(self.world.state())
        except psycopg.Error:  # a TRUNCATE is not committed yet
            return
        self.done.append(f"-- enter {len(self.stood)}")
        self.take(self.journal.enter(len(self.stood)))

    def forget(self) -> None:
        """Close a level, and keep what was written in it."""
        self.done.append(f"-- forget {len(self.stood)}")
        self.journal.forget(len(self.stood))
        self.stood.pop()

    def leave(self) -> None:
        """Take a level back, once nobody is inside a transaction."""
        for hand in self.hands:
            with suppress(psycopg.Error):  # a deferred constraint may say no
                hand.execute(self.chance.choice(("COMMIT", "ROLLBACK")))
        self.done.append(f"-- leave {len(self.stood)}")
        check = self.chance.random()
        if check < 0.1:
            self.redone()
        elif check < 0.4:
            self.told()
        left = self.journal.leave(len(self.stood))
        self.take(left.marks)
        stood = self.stood.pop()
        if not self.is_over:
            assert self.world.inside("SELECT FROM {s}.j") == []
            assert difference(stood, self.world.state()) == {}

    def told(self) -> None:
        """What is told of the level is as many rows as there are more than when it began."""
        try:
            changes = self.journal.rows_changed(level=len(self.stood), is_top=True)
        except ControlFailure as error:  # a date before year 1 is none of Python's
            assert "too small" in str(error) or "too large" in str(error)  # noqa: PT017 - of many
            return
        more = sum(len(one.added) - len(one.removed) for one in changes)
        stood, now = number_of_rows(self.stood[-1]), number_of_rows(self.world.state())
        assert more == now - stood

    def redone(self) -> None:
        """What is archived of the levels below, brought into a copy, is where this one began."""
        level = len(self.stood)
        if self.journal.look().marks:
            return
        archived = self.journal.archive(level)
        with journaled(template=self.template) as copy:
            copy.journal.restore(archived, level)
            assert difference(self.stood[-1], copy.state()) == {}

    def take(self, marks: tuple[str, ...]) -> None:
        """A mark is an answer as well, where there is reason for it."""
        if marks:
            assert all("keeps its snapshot" in mark for mark in marks), marks
            self.is_over = True

    def work(self, number: int) -> None:
        """A statement, or something around it."""
        hand = self.hands[number]
        statement = self.chance.choices(
            (
                *("statement", "BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"),
                *("BEGIN ISOLATION LEVEL SERIALIZABLE", "SAVEPOINT s", "ROLLBACK TO s", "COMMIT"),
                *(
                    "ROLLBACK",
                    self.chance.choice(HOSTILE),
                    "SET session_replication_role = replica",
                ),
                "copy",
            ),
            (70, 6, 1, 1, 4, 2, 7, 2, 3, 1, 2),
        )[0]
        if statement.endswith("replica") and self.schema.has_deferred:
            return  # unique keys that are deferred are not checked then: none of them is one
        if statement == "statement":
            statement = self.schema.statement()
        self.done.append(f"{number}: {statement}")
        try:
            self._say(hand, statement)
        except psycopg.Error as error:
            self.done.append(f"-- {str(error).splitlines()[0]}")
            if hand.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
                self._recover(hand)

    def _say(self, hand: psycopg.Connection[Any], statement: str) -> None:
        if (
            statement.startswith("TRUNCATE")
            and self._keeps_snapshot(hand)
            and self.chance.random() < 0.8
        ):
            return
        if statement == "copy":
            with hand.cursor().copy("COPY public.audit FROM STDIN") as copy:
                copy.write("copied\t1\ncopied\t1\n\\N\t2\n")
            return
        hand.execute(statement)

    def _keeps_snapshot(self, hand: psycopg.Connection[Any]) -> bool:
        found = hand.execute("SHOW transaction_isolation").fetchone()
        return found != ("read committed",)

    def _recover(self, hand: psycopg.Connection[Any]) -> None:
        with suppress(psycopg.Error):
            hand.execute("ROLLBACK TO s")
            return
        hand.execute("ROLLBACK")


@contextmanager
def history(seed: int, plant: Plant | None = None) -> Iterator[History]:
    """A schema by chance, with a journal, and what was done if something is wrong."""
    chance = random.Random(seed)  # noqa: S311 - it is to be repeatable
    schema = Schema(chance, knows_xml=knows_xml())
    with database() as template:
        fill(template, schema)
        assert not [unfit for unfit in install(address(template)) if unfit.is_fatal]
        if plant is not None:
            plant(template)
        with database(template=template) as live:
            run(f"ALTER DATABASE {live} SET lock_timeout = '20ms'")  # so that RESET ALL sets it
            with closing(History(live, template, chance, schema)) as history:
                yield history


def fill(name: str, schema: Schema) -> None:
    """Make it; of the rows, those that can be."""
    with connect(name) as app:
        for statement in schema.statements:
            is_work = statement.startswith(
                ("INSERT", "UPDATE", "DELETE", "TRUNCATE", "WITH", "MERGE")
            )
            with suppress(*((psycopg.Error,) if is_work else ())):
                app.execute(statement.replace("{role}", ROLE))


def play(seed: int, plant: Plant | None = None) -> None:
    """Live through one."""
    with history(seed, plant) as played:
        try:
            for _ in range(STEPS):
                if not played.is_over:
                    played.step()
            while played.stood and not played.is_over:
                played.leave()
        except BaseException as error:
            error.add_note("\n".join([f"seed {seed}", *played.schema.statements, *played.done]))
            raise


@pytest.mark.parametrize(
    "seed", [*SHORT, *(pytest.param(seed, marks=pytest.mark.slow) for seed in LONG)]
)
def test_each_leave_gives_back_what_stood_at_enter(seed: int) -> None:
    """Column by column, with sequences and the catalog."""
    play(seed)


# Defects that somebody might make, planted in what stands in the database: in which functions, a
# pattern there, and what is put in its place. OWN is the number of the table that one belongs to.
CAPTURES = "^[iud][0-9]+$"
XML_AS_IT_IS_SHOWN = "xml_as_it_is_shown"
DEFECTS = {
    "sequences_stay": (
        "^(leave|rewind)$",
        r"pg_catalog\.setval\(x\.oid::pg_catalog\.regclass, x\.number, x\.called\)\s+END",
        "0 END",
    ),
    "filled_tables_count_as_empty": ("^enter$", r"WHERE e\.was_empty;", "WHERE false;"),
    "equal_rows_count_once": ("^apply$", r"generate_series\(1, w\.c\)", "generate_series(1, 1)"),
    "the_archive_is_left": (
        "^leave$",
        r"apply\(true, top, top, top\)",
        "apply(true, -9, -9, top)",
    ),
    "what_is_archived_stays": (
        "^enter$",
        r"DELETE FROM pg_arena\.j RETURNING rel, op, r",
        "SELECT rel, op, r FROM pg_arena.j",
    ),
    "a_place_in_any_partition": ("^take_", r"AND d\.tableoid = f\.part ", ""),
    "children_go_as_well": ("^(take_.*|apply)$", "DELETE FROM ONLY", "DELETE FROM"),
    "what_is_forgotten_stays_above": (
        "^forget$",
        r"SET level = top - 1 WHERE",
        "SET level = top WHERE",
    ),
    "settings_of_the_session": (CAPTURES, r"IF NOT \(", "IF false AND NOT ("),
    "columns_in_a_partitions_own_order": (
        CAPTURES,
        (
            r"\(SELECT ROW\([^):]*\)::pg_catalog\.text "
            r"FROM \(SELECT (r|NEW|OLD)\.[^)]*\) AS x \([^)]*\)\)"
        ),
        r"(\1.*)::pg_catalog.text",
    ),
    "partitions_by_their_own_number": (CAPTURES, r"SELECT \d+, ", "SELECT OWN, "),
    XML_AS_IT_IS_SHOWN: (CAPTURES, r"\b(x\.c\d+)::pg_catalog\.text", r"\1"),
}
OF_TRIGGERS = {
    "triggers_are_not_always_on": ("true", "ALTER TABLE ONLY %I.%I ENABLE TRIGGER %I"),
    "no_truncate_is_seen": ("tgname = '!arena_t'", "DROP TRIGGER %3$I ON %1$I.%2$I"),
    "children_have_none_of_their_own": (
        "NOT c.relispartition AND EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid)",
        "DROP TRIGGER %3$I ON %1$I.%2$I",
    ),
}


def is_found(plant: Plant) -> bool:
    """Whether one of the first histories goes wrong, or is at least known to."""
    planted = 0

    def count(name: str) -> None:
        nonlocal planted
        planted += bool(plant(name))

    for seed in range(60):
        try:
            play(seed, count)
        except (AssertionError, ControlFailure):
            return planted > 0
    return False


@pytest.mark.slow
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_in_a_function_is_found(defect: str) -> None:
    """A test that finds nothing proves nothing."""
    if defect == XML_AS_IT_IS_SHOWN and not knows_xml():
        pytest.skip("this server was built without libxml")
    of, pattern, new = DEFECTS[defect]
    assert is_found(lambda name: tamper(name, pattern, new, of=of))


@pytest.mark.slow
@pytest.mark.parametrize("which, statement", OF_TRIGGERS.values(), ids=OF_TRIGGERS.keys())
def test_a_trigger_that_is_missing_is_found(which: str, statement: str) -> None:
    """Or that does not fire whenever it should."""
    script = (
        "SET arena.undo = 1; DO $do$ DECLARE t record; BEGIN FOR t IN "
        "SELECT n.nspname AS n, c.relname AS c, tgname AS t FROM pg_trigger "
        "JOIN pg_class c ON c.oid = tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
        f"WHERE tgname ~ '^!arena_' AND tgparentid = 0 AND {which} "
        f"LOOP EXECUTE format('{statement}', t.n, t.c, t.t); END LOOP; END $do$;"
    )

    def plant(name: str) -> bool:
        run(script, database=name)
        return True

    assert is_found(plant)
