"""Two connections write at random in up to three levels. Each leave restores the matching enter."""

from __future__ import annotations

import random
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pytest_arena._postgresql._control import ControlFailure
from pytest_arena._postgresql.journal._journal_templates import install
from tests.journal.random_history import HOSTILE, Schema
from tests.journal.world import World, database, journaled, tamper
from tests.servers.postgresql import address, connect, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._postgresql.journal._journal import State

    # Changes something in a database with a journal. Returns whether there was something to change.
    Plant = Callable[[str], object]

ROLE = "arena_random_app"
SHORT = (0,)
LONG = (*range(1, 4), *range(100, 200))
STEPS = 90


@pytest.fixture(scope="module", autouse=True)
def role() -> Iterator[None]:
    """Create the role of the second connection."""
    run(f"DROP ROLE IF EXISTS {ROLE}", f"CREATE ROLE {ROLE}")
    yield
    run(f"DROP ROLE {ROLE}")


def difference(was: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Return the values that differ, before and after."""
    return {key: (was[key], now[key]) for key in was if was[key] != now[key]}


def number_of_rows(found: dict[str, Any]) -> int:
    """Return the number of rows of all tables."""
    return sum(len(rows) for name, rows in found.items() if name.startswith("table "))


class History:
    """One database, and the work on it."""

    def __init__(self, name: str, template: str, chance: random.Random, schema: Schema) -> None:
        self.template, self.chance, self.schema = template, chance, schema
        self.world = World(name)
        self.journal = self.world.journal
        self.hands = [self.world.app, connect(name)]
        self.hands[1].execute(f"SET ROLE {ROLE}")
        self.levels: list[tuple[State, dict[str, Any]]] = []
        self.done: list[str] = []
        self.is_over = False

    def close(self) -> None:
        """Close all connections."""
        self.hands[1].close()
        self.world.close()

    def step(self) -> None:
        """Take a step, mostly a statement."""
        number = self.chance.random()
        if number < 0.02 and self.levels:
            self.done.append(f"-- forget {len(self.levels)}")
            self.levels.pop()
        elif number < 0.08 and len(self.levels) < 3:
            self.enter()
        elif number < 0.12 and self.levels:
            self.leave()
        else:
            self.work(self.chance.randrange(2))

    def enter(self) -> None:
        """Open a level, also inside of open transactions, if no lock prevents a look."""
        try:
            state = self.world.state()
        except psycopg.Error:  # an uncommitted TRUNCATE
            return
        self.done.append(f"-- enter {len(self.levels)}")
        start, marks = self.journal.state(self.world.base)
        self.levels.append((start, state))
        self.note(marks)

    def leave(self) -> None:
        """Restore a level after all transactions have ended."""
        for hand in self.hands:
            with suppress(psycopg.Error):  # a deferred constraint may refuse
                hand.execute(self.chance.choice(("COMMIT", "ROLLBACK")))
        self.done.append(f"-- leave {len(self.levels)}")
        start, before = self.levels[-1]
        check = self.chance.random()
        if check < 0.1:
            self.carry()
        elif check < 0.4:
            self.compare_changes()
        _, marks = self.journal.undo(start)
        self.note(marks)
        self.levels.pop()
        if not self.is_over:
            assert difference(before, self.world.state()) == {}

    def compare_changes(self) -> None:
        """The changes have as many rows more as the tables."""
        start, before = self.levels[-1]
        try:
            changes = self.journal.rows_changed(start, None, None)
        except ControlFailure as error:  # Python has no date before year 1
            assert "too small" in str(error) or "too large" in str(error)  # noqa: PT017 - of many
            return
        rows = [one for one in changes if one.table != "the schema"]
        more = sum(len(one.added) - len(one.removed) for one in rows)
        assert more == number_of_rows(self.world.state()) - number_of_rows(before)

    def carry(self) -> None:
        """A copy of the template with the entries of the levels below equals the level's start."""
        start, before = self.levels[-1]
        if self.journal.state(self.world.base)[1]:
            return
        entries = self.journal.entries(self.world.base, start)
        with journaled(template=self.template) as copy:
            copy.journal.redo(self.world.base, start, entries)
            assert difference(before, copy.state()) == {}

    def note(self, marks: str) -> None:
        """Accept a mark if there is a reason for it."""
        if marks:
            assert "keeps its snapshot" in marks, marks
            self.is_over = True

    def work(self, number: int) -> None:
        """Execute a statement, or begin or end a transaction."""
        hand = self.hands[number]
        statement = self.chance.choices(
            (
                *("statement", "BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"),
                *("BEGIN ISOLATION LEVEL SERIALIZABLE", "SAVEPOINT s", "ROLLBACK TO s", "COMMIT"),
                "ROLLBACK",
                *(self.chance.choice(HOSTILE), "SET session_replication_role = replica", "copy"),
            ),
            (70, 6, 1, 1, 4, 2, 7, 2, 3, 1, 2),
        )[0]
        if statement.endswith("replica") and self.schema.has_deferred:
            return  # PostgreSQL does not check deferred unique keys then
        if statement == "statement":
            statement = self.schema.statement()
        self.done.append(f"{number}: {statement}")
        try:
            self._execute(hand, statement)
        except psycopg.Error as error:
            self.done.append(f"-- {str(error).splitlines()[0]}")
            if hand.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
                self._recover(hand)

    def _execute(self, hand: psycopg.Connection[Any], statement: str) -> None:
        is_truncate = statement.startswith("TRUNCATE")
        if is_truncate and self._keeps_snapshot(hand) and self.chance.random() < 0.8:
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
    """Create a random schema with a journal."""
    chance = random.Random(seed)  # noqa: S311 - it must be repeatable
    schema = Schema(chance, knows_xml=False)  # a table with xml has no journal, but a mark
    with database() as template:
        fill(template, schema)
        install(address(template))
        if plant is not None:
            plant(template)
        with database(template=template) as live:
            run(f"ALTER DATABASE {live} SET lock_timeout = '20ms'")  # so that RESET ALL sets it
            with closing(History(live, template, chance, schema)) as history:
                yield history


def fill(name: str, schema: Schema) -> None:
    """Create the schema. Some inserts of rows may fail."""
    with connect(name) as app:
        for statement in schema.statements:
            is_work = statement.startswith(
                ("INSERT", "UPDATE", "DELETE", "TRUNCATE", "WITH", "MERGE")
            )
            with suppress(*((psycopg.Error,) if is_work else ())):
                app.execute(statement.replace("{role}", ROLE))


def play(seed: int, plant: Plant | None = None) -> None:
    """Do all steps of one history."""
    with history(seed, plant) as played:
        try:
            for _ in range(STEPS):
                if not played.is_over:
                    played.step()
            while played.levels and not played.is_over:
                played.leave()
        except BaseException as error:
            error.add_note("\n".join([f"seed {seed}", *played.schema.statements, *played.done]))
            raise


@pytest.mark.parametrize(
    "seed", [*SHORT, *(pytest.param(seed, marks=pytest.mark.slow) for seed in LONG)]
)
def test_each_leave_restores_the_state_of_its_enter(seed: int) -> None:
    """Rows column by column, sequences, and the catalog."""
    play(seed)


# Defects that a maintainer might make: a function of the journal, a pattern in it, and its
# replacement.
DEFECTS = {
    "sequences_stay": ("rewind", r"PERFORM setval\([^;]*;", ""),
    "equal_rows_count_once": (
        "apply",
        r"generate_series\(1, abs\(m.c\)\)",
        "generate_series(1, 1)",
    ),
    "inserted_rows_stay": ("apply", r"IF d.surplus IS NOT NULL", "IF false"),
    "deleted_rows_stay_away": ("apply", r"IF d.missing IS NOT NULL", "IF false"),
    "open_transactions_belong_below": (
        "since",
        r"NOT pg_visible_in_snapshot\(j.x, start\)",
        "j.x >= pg_snapshot_xmax(start)",
    ),
    "settings_of_the_session_by_statement": (
        "by_statement",
        r"SET \"?(?!search)\w+\"? TO [^\n]*",
        "",
    ),
    "settings_of_the_session_by_row": ("by_row", r"SET \"?(?!search)\w+\"? TO [^\n]*", ""),
    "updates_lose_the_old_row": ("by_statement", r"TG_OP <> 'INSERT'", "TG_OP = 'DELETE'"),
    "truncate_takes_children": ("by_truncate", r"FROM ONLY", "FROM"),
    "what_was_undone_stays": ("leave", r"DELETE FROM pg_arena.j\s[^;]*;", ""),
}
OF_TABLES = {
    "triggers_are_not_always_on": ("ALTER TABLE ONLY %1$s ENABLE TRIGGER %2$I", "true"),
    "no_truncate_is_seen": ("DROP TRIGGER %2$I ON %1$s", "tgname = '!arena_TRUNCATE'"),
    "partitions_have_no_triggers": (
        "DROP TRIGGER %2$I ON %1$s",
        "EXISTS (SELECT FROM pg_inherits WHERE inhrelid = tgrelid)",
    ),
    "children_are_taken": (
        "UPDATE pg_arena.t SET take = replace(take, ''ONLY '', '''') WHERE rel = %1$L::regclass",
        "true",
    ),
}


def is_found(plant: Plant) -> bool:
    """Return whether one of the first histories fails."""
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
    """The histories find the defect."""
    of, pattern, new = DEFECTS[defect]
    assert is_found(lambda name: tamper(name, pattern, new, of=of))


@pytest.mark.slow
@pytest.mark.parametrize("defect", OF_TABLES)
def test_a_defect_of_a_tables_triggers_is_found(defect: str) -> None:
    """The histories find the defect."""
    statement, which = OF_TABLES[defect]
    script = (
        "SET arena.undo = 1; DO $do$ DECLARE t record; BEGIN FOR t IN "
        "SELECT tgrelid::regclass AS c, tgname AS n FROM pg_trigger "
        f"WHERE tgname ~ '^!arena_' AND {which} "
        f"LOOP EXECUTE format('{statement}', t.c, t.n); END LOOP; END $do$;"
    )

    def plant(name: str) -> bool:
        run(script, database=name)
        return True

    assert is_found(plant)
