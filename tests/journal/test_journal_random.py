"""Whatever two connections do in up to three levels, each leave gives back what stood at enter."""

from __future__ import annotations

import random
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pytest_arena._dialects._postgresql._control import Failed, open_control
from pytest_arena._dialects._postgresql_journal import _capture as capture
from pytest_arena._dialects._postgresql_journal import _tables as journal
from pytest_arena._dialects._postgresql_journal import _triggers as triggers
from pytest_arena._dialects._postgresql_journal._capture import fitting_schema, install
from pytest_arena._dialects._postgresql_journal._functions import undo_script
from pytest_arena._journal._server import ServerJournal
from tests.journal.capture_world import database, knows_xml
from tests.journal.random_history import HOSTILE, Schema
from tests.servers.postgresql import address, connect, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._dialects._postgresql._control import Control

ROLE = "arena_random_app"
SHORT = range(4)
LONG = range(100, 200)
STEPS = 90
SEQUENCES = "SELECT c.oid::regclass::text FROM pg_class c WHERE relkind = 'S' ORDER BY 1"
TABLES = """
SELECT n.nspname::text, c.relname::text, format(
    'SELECT tableoid::regclass::text%s FROM ONLY %I.%I',
    string_agg(', ' || quote_ident(a.attname) || '::text', '' ORDER BY a.attnum),
    n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind = 'r' AND n.nspname IN ('public', 'S two') GROUP BY n.nspname, c.relname
"""
CATALOG = """
SELECT md5(string_agg(x, ' ')) FROM (
    SELECT format('%s %s %s %s', oid, relname, relkind, relacl) FROM pg_class
        WHERE relnamespace IN ('public'::regnamespace, '"S two"'::regnamespace)
    UNION ALL SELECT format('%s %s %s', tgrelid, tgname, tgenabled) FROM pg_trigger
    UNION ALL SELECT format('%s %s %s', attrelid, attname, atttypid) FROM pg_attribute
    ORDER BY 1) s (x)
"""


@pytest.fixture(scope="module", autouse=True)
def role() -> Iterator[None]:
    """What the second connection is."""
    run(f"DROP ROLE IF EXISTS {ROLE}", f"CREATE ROLE {ROLE}")
    yield
    run(f"DROP ROLE {ROLE}")


def state(witness: Control) -> dict[str, Any]:
    """All rows column by column, all sequences, the catalog."""
    found: dict[str, Any] = {"catalog": witness.rows(CATALOG)}
    for schema, name, question in witness.rows(TABLES):
        found[f"table {schema}.{name}"] = sorted(map(repr, witness.rows(question)))
    for (name,) in witness.rows(SEQUENCES):
        found[f"sequence {name}"] = witness.rows(f"SELECT last_value, is_called FROM {name}")
    return found


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
        self.journal = ServerJournal(address(name))
        self.witness = open_control(address(name))
        self.witness.run("SET jit = off")
        self.hands = [connect(name), connect(name)]
        self.hands[1].execute(f"SET ROLE {ROLE}")
        self.stood: list[dict[str, Any]] = []
        self.done: list[str] = []
        self.is_over = False

    def close(self) -> None:
        """Close all connections."""
        for hand in self.hands:
            hand.close()
        self.journal.close()
        self.witness.close()

    def state(self) -> dict[str, Any]:
        """What stands in the live database."""
        return state(self.witness)

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
            self.stood.append(self.state())
        except Failed:  # a TRUNCATE is not committed yet
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
            assert self.witness.rows("SELECT FROM pg_arena.j") == []
            assert difference(stood, self.state()) == {}

    def told(self) -> None:
        """What is told of the level is as many rows as there are more than when it began."""
        try:
            changes = self.journal.rows_changed(level=len(self.stood), is_top=True)
        except Failed as error:  # a date before year 1 is none of Python's
            assert "too small" in str(error) or "too large" in str(error)  # noqa: PT017 - of many
            return
        more = sum(len(one.come) - len(one.gone) for one in changes)
        stood, now = number_of_rows(self.stood[-1]), number_of_rows(self.state())
        assert more == now - stood

    def redone(self) -> None:
        """What is archived of the levels below, brought into a copy, is where this one began."""
        level = len(self.stood)
        if self.journal.look().marks:
            return
        archived = self.journal.archive(level)
        with (
            database(template=self.template) as copy,
            closing(ServerJournal(address(copy))) as again,
        ):
            again.restore(archived, level)
            with closing(open_control(address(copy))) as witness:
                assert difference(self.stood[-1], state(witness)) == {}

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
def history(seed: int) -> Iterator[History]:
    """A schema by chance, with a journal, and what was done if something is wrong."""
    chance = random.Random(seed)  # noqa: S311 - it is to be repeatable
    schema = Schema(chance, knows_xml=knows_xml())
    with database() as template:
        fill(template, schema)
        with closing(open_control(address(template))) as control:
            unfit = install(control, fitting_schema(control))
            assert not [one for one in unfit if one.is_fatal]
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


def play(seed: int) -> History:
    """Live through one."""
    with history(seed) as played:
        try:
            for _ in range(STEPS):
                if not played.is_over:
                    played.step()
            while played.stood and not played.is_over:
                played.leave()
        except BaseException as error:
            error.add_note("\n".join([f"seed {seed}", *played.schema.statements, *played.done]))
            raise
    return played


@pytest.mark.parametrize("seed", SHORT)
def test_each_leave_gives_back_what_stood_at_enter(seed: int) -> None:
    """Column by column, with sequences and the catalog."""
    play(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", LONG)
def test_each_leave_gives_back_what_stood_at_enter_long(seed: int) -> None:
    """The same, many times."""
    play(seed)


# Defects that somebody might make, in what is written into a database to take changes back.
IN_UNDO = {
    "sequences_stay": (
        "pg_catalog.setval(x.oid::pg_catalog.regclass, x.number, x.called) END",
        "0 END",
    ),
    "filled_tables_count_as_empty": ("WHERE e.was_empty;", "WHERE false;"),
    "equal_rows_count_once": ("generate_series(1, w.c)", "generate_series(1, 1)"),
    "the_archive_is_left": ("apply(true, top, top, top)", "apply(true, -9, -9, top)"),
    "what_is_archived_stays": (
        "DELETE FROM pg_arena.j RETURNING rel, op, r",
        "SELECT rel, op, r FROM pg_arena.j",
    ),
    "a_place_in_any_partition": ("AND d.tableoid = f.part ", ""),
    "children_go_as_well": ("DELETE FROM ONLY", "DELETE FROM"),
    "what_is_forgotten_stays_above": ("SET level = top - 1 WHERE", "SET level = top WHERE"),
}
# And in what writes changes down.
AFTER_INSTALL = {
    "triggers_are_not_always_on": "ALTER TABLE ONLY %I.%I ENABLE TRIGGER %I",
    "no_truncate_is_seen": "DROP TRIGGER %3$I ON %1$I.%2$I",
}
IN_CAPTURE: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "settings_of_the_session": lambda patch: patch.setattr(triggers, "needed", lambda *_: []),
    "columns_in_a_partitions_own_order": lambda patch: patch.setattr(
        triggers, "_image", lambda table, _, alias: table.image(alias)
    ),
    "partitions_by_their_own_number": lambda patch: patch.setattr(
        triggers, "_of_changes", _by_own_number
    ),
    "inherited_rows_by_statement": lambda patch: patch.setattr(
        triggers, "_of_changes", _by_statement
    ),
    "xml_as_it_is_shown": lambda patch: patch.setattr(capture, "read_tables", _without_xml),
}
_of_changes = triggers._of_changes


def _by_own_number(table: Any, relation: Any, schema: str, settings: Any) -> Iterator[Any]:
    for one in _of_changes(table, relation, schema, settings):
        body = one.body.replace(f"SELECT {table.oid}, ", f"SELECT {relation.oid}, ")
        yield replace(one, body=body)


def _by_statement(table: Any, relation: Any, schema: str, settings: Any) -> Iterator[Any]:
    yield from _of_changes(replace(table, by_row=False), relation, schema, settings)


def _without_xml(control: Any) -> list[Any]:
    return [
        replace(
            table,
            has_xml=False,
            columns=tuple(replace(column, is_xml=False) for column in table.columns),
        )
        for table in journal.read_tables(control)
    ]


def is_found() -> bool:
    """Whether one of the first histories goes wrong, or is at least known to."""
    for seed in range(60):
        try:
            play(seed)
        except AssertionError:
            return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("old, new", IN_UNDO.values(), ids=IN_UNDO.keys())
def test_a_defect_of_undo_is_found(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that finds nothing proves nothing."""

    def with_defect(*given: Any) -> str:
        script = undo_script(*given)
        assert old in script
        return script.replace(old, new)

    monkeypatch.setattr(capture, "undo_script", with_defect)
    assert is_found()


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_CAPTURE)
def test_a_defect_of_capture_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for what is written down."""
    if "xml" in name and not knows_xml():
        pytest.skip("this server was built without libxml")
    IN_CAPTURE[name](monkeypatch)
    assert is_found()


@pytest.mark.slow
@pytest.mark.parametrize("name", AFTER_INSTALL)
def test_a_trigger_that_is_missing_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or that does not fire whenever it should."""
    only = "tgname = '!arena_t'" if "truncate" in name else "tgname ~ '^!arena_'"
    statement = AFTER_INSTALL[name]
    script = (
        "DO $do$ DECLARE t record; BEGIN FOR t IN "
        "SELECT n.nspname AS n, c.relname AS c, tgname AS t FROM pg_catalog.pg_trigger "
        "JOIN pg_catalog.pg_class c ON c.oid = tgrelid "
        f"JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE {only} LOOP "
        f"EXECUTE pg_catalog.format('{statement}', t.n, t.c, t.t); END LOOP; END $do$;"
    )
    monkeypatch.setattr(capture, "undo_script", lambda *given: undo_script(*given) + script)
    assert is_found()
