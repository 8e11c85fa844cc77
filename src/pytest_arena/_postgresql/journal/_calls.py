"""How is the change journal of a database told and asked, over the connection kept for it?"""

# ruff: noqa: S608 - the schema is one of our own two, texts are written by literal()

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql._control import Failed, literal
from pytest_arena._postgresql.journal._functions import ALTERED, CRASHED
from pytest_arena._postgresql.journal._state import latest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_arena._postgresql._control import Control

__all__ = [
    "ALTERED",
    "AT_WORK",
    "MOMENT",
    "PATIENCE",
    "SETTINGS",
    "archive",
    "begin",
    "enter",
    "forget",
    "holders",
    "leave",
    "look",
    "marks",
    "missed",
    "note",
    "prepare",
    "read",
    "recover",
    "restore",
    "rewind",
    "shapes",
    "size",
    "vacuum",
]

# Plans are made once and for few rows: nothing is read whole but what has to be. With these goes
# the role `replica`, for the connection's whole life: to switch it has all statements planned anew.
SETTINGS = {
    "arena.undo": "1",
    "plan_cache_mode": "force_generic_plan",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_material": "off",
    "enable_seqscan": "off",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "row_security": "off",
    "xmloption": "content",
    "search_path": "",
    "work_mem": "64MB",
    # Shorter than deadlock_timeout: if one has to give way, it is not the app.
    "lock_timeout": "500ms",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "synchronous_commit": "off",
}
PATIENCE = {"lock_timeout": "1s"}
MOMENT, AT_WORK = "EXECUTE moment", "EXECUTE at_work"
_ANY_LEVEL = 2**31 - 1
_CARRIED_BYTES = 1_000_000


def begin(schema: str) -> str:
    """Write what a connection needs to read images as they were written.

    Libpq lets variables of the shell decide on some of it, whatever is asked for when it connects.
    """
    return (
        f"SELECT pg_catalog.set_config(c.name, c.value, false) FROM {schema}.canon c "
        # What a database may have for all its sessions, in versions that know it.
        "UNION ALL SELECT pg_catalog.set_config(n, '0', false) "
        "FROM unnest(ARRAY['idle_session_timeout', 'transaction_timeout']) n "
        "WHERE pg_catalog.current_setting(n, true) IS NOT NULL "
        f"UNION ALL SELECT {schema}.settle()::pg_catalog.text"
    )


def prepare(schema: str) -> str:
    """Write what is planned once for a connection."""
    return (
        "DEALLOCATE ALL; "
        f"PREPARE enter(int) AS SELECT {_as_text(f'{schema}.enter($1)')}; "
        f"PREPARE leave(int) AS SELECT {_as_text(f'{schema}.leave($1)')}; "
        f"PREPARE rewind(int) AS SELECT {schema}.rewind($1)::pg_catalog.text; "
        f"PREPARE forget(int) AS SELECT {schema}.forget($1)::pg_catalog.text; "
        "PREPARE moment AS SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text || ' ' || "
        f"{schema}.alterations(); "
        f"PREPARE at_work AS SELECT {_as_text(f'{schema}.at_work()')}"
    )


def _as_text(answer: str) -> str:
    return f"pg_catalog.array_to_json({answer})::pg_catalog.text"


def read(answer: str | None) -> list[str]:
    """Read what came of entering or leaving: nothing, or the journal's size and then marks."""
    found: list[str] = json.loads(answer) if answer is not None else []
    return found


def enter(level: int) -> str:
    """Ask to enter a level; for ``read``."""
    return f"EXECUTE enter({level})"


def leave(level: int) -> str:
    """Ask to leave a level; for ``read``: nothing is said where nothing had changed."""
    return f"EXECUTE leave({level})"


def forget(level: int) -> str:
    """Ask to close a level and keep its changes."""
    return f"EXECUTE forget({level})"


def rewind(level: int) -> str:
    """Ask to set sequences back to where a level began."""
    return f"EXECUTE rewind({level})"


def recover(schema: str) -> str:
    """Ask to take back all levels."""
    return f"SELECT {schema}.recover()"


def look(schema: str, level: int | None) -> str:
    """Ask what has changed and who writes."""
    of = f"{_ANY_LEVEL}, NULL" if level is None else f"{level}, {level}"
    return f"SELECT * FROM {schema}.look({of})"


def vacuum(schema: str) -> str:
    """Give back the room of what was undone."""
    return f"VACUUM {schema}.j, {schema}.jold"


def size(schema: str) -> str:
    """Ask how large the journal is, in bytes."""
    return f"SELECT {schema}.size()"


def marks(schema: str) -> str:
    """Ask for marks alone: that works whatever has become of the schema."""
    return f"SELECT DISTINCT what FROM {schema}.ddl"


def shapes(schema: str, level: int) -> str:
    """Ask for what tells one schema from another: now, and at the start of a level."""
    return f"SELECT {schema}.shape(), was.shape FROM ({latest(schema, str(level))}) was"


def missed(table: str) -> str:
    """Return the mark of a table of which not all rows are known at a moment."""
    return f"not all rows of {table} are told: it could not be locked"


def note(schema: str, mark: str) -> str:
    """Write down a mark, as of now."""
    return f"INSERT INTO {schema}.ddl VALUES ({literal(mark)})"


def holders(schema: str) -> str:
    """Ask who is in the way, in words: first who has written, then who may have locked rows."""
    here = "(SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())"
    return f"""
        SELECT 'inside a transaction with changes: backend ' || h.pid FROM (
            SELECT DISTINCT l.pid FROM pg_catalog.pg_locks l
            WHERE l.relation IN ('{schema}.j'::regclass, '{schema}.ddl'::regclass)
            AND l.database = {here} AND l.pid <> pg_catalog.pg_backend_pid() AND l.granted) h
        UNION ALL
        SELECT 'a prepared transaction: ' || p.gid FROM pg_catalog.pg_prepared_xacts p
        WHERE p.database = current_database()
        UNION ALL
        SELECT 'inside a transaction: backend ' || a.pid FROM pg_catalog.pg_stat_activity a
        WHERE a.datname = current_database() AND a.state ~ '^idle in transaction'
    """


def archive(control: Control, schema: str, below: int) -> list[tuple[Any, ...]]:
    """Read what is archived of the levels below one, and what triggers did not see there."""
    states = control.rows(
        f"SELECT 'state', level, number, called, objects, settings, shape FROM {schema}.state "
        f"WHERE level <= {below} ORDER BY level"
    )
    if not states:
        raise Failed(CRASHED, "0A000")
    if len({state[4:] for state in states}) > 1:
        raise Failed("a wide level has made large objects, or changed settings or schema", "0A000")
    rows = control.rows(
        f"SELECT 'row', level, rel::int8, op, r FROM {schema}.jold WHERE level < {below}"
    )
    filled = control.rows(
        f"SELECT 'filled', level, rel::int8 FROM {schema}.filled WHERE level < {below}"
    )
    return [*states[1:], *rows, *filled]


def restore(schema: str, archived: Iterable[tuple[Any, ...]], level: int) -> Iterator[str]:
    """Write what fills a copy's archive with it, and then brings the copy to a level's start."""
    found: dict[str, list[tuple[Any, ...]]] = {"row": [], "filled": [], "state": []}
    for kind, at, *values in archived:
        # A level began with its state, and had no rows then.
        if at < level or (kind == "state" and at == level):
            found[kind].append((at, *values))
    yield from _inserts(
        f"INSERT INTO {schema}.jold (level, rel, op, r) VALUES ", found["row"], _row
    )
    yield from _inserts(f"INSERT INTO {schema}.filled (level, rel) VALUES ", found["filled"], str)
    for at, number, called, *_ in found["state"]:
        # The other things are the copy's own, and were the same there.
        yield (
            f"INSERT INTO {schema}.state SELECT {at}, '{_array(number)}', '{_array(called)}', "
            f"s.objects, s.settings, s.shape FROM {schema}.state s WHERE s.level = 0 "
            "ON CONFLICT (level) DO UPDATE SET number = excluded.number, called = excluded.called"
        )
    yield f"SELECT {schema}.redo({level})"


def _row(values: tuple[Any, ...]) -> str:
    level, rel, op, image = values
    return f"({level}, {rel}, {op}, {literal(image)})"


def _array(values: list[Any]) -> str:
    return "{" + ",".join(str(value).lower() for value in values) + "}"


def _inserts(
    head: str, rows: list[tuple[Any, ...]], write: Callable[[tuple[Any, ...]], str]
) -> Iterator[str]:
    """Write as few statements as fit their size into memory, here and there."""
    part: list[str] = []
    written = 0
    for row in rows:
        part.append(write(row))
        written += len(part[-1])
        if written > _CARRIED_BYTES:
            yield head + ", ".join(part)
            part, written = [], 0
    if part:
        yield head + ", ".join(part)
