"""How is a database told to write down each change of its rows?"""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_arena._dialects._postgresql_capture_ddl import event_triggers
from pytest_arena._dialects._postgresql_capture_layout import content, layout
from pytest_arena._dialects._postgresql_capture_triggers import Relation, captures
from pytest_arena._dialects._postgresql_capture_unfit import unfit
from pytest_arena._dialects._postgresql_control import Failed, identifier, literal
from pytest_arena._dialects._postgresql_journal import (
    HIDDEN_SCHEMA,
    PLAIN_SCHEMA,
    Unfit,
    read_canon,
    read_sequences,
    read_tables,
)
from pytest_arena._dialects._postgresql_undo import undo_script

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_arena._dialects._postgresql_capture_triggers import Capture
    from pytest_arena._dialects._postgresql_control import Control
    from pytest_arena._dialects._postgresql_journal import JournalTable, Setting

__all__ = ["fitting_schema", "install", "uninstall"]


def fitting_schema(control: Control) -> str:
    """Return where the role that is connected may install one."""
    is_superuser = control.rows(
        "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"
    )
    return HIDDEN_SCHEMA if is_superuser[0][0] else PLAIN_SCHEMA


def install(control: Control, schema: str) -> list[Unfit]:
    """Make a journal in a database, or bring it up to date with a schema that has changed.

    From then on each change of a row is in it, and each change of the schema leaves a mark. It is
    empty then: what stands now is its level 0. In proportion to the number of tables, 1 to 2 ms
    each for the first time; one transaction up to some hundreds of them.

    Returns:
        What the journal cannot see or undo. Where one of them is fatal, nothing was installed.

    Raises:
        Failed: the role lacks rights, or somebody holds a table locked for a second. Of some
            hundreds of tables, some may have their triggers then.
    """
    found: list[Unfit] = []
    try:
        with _transaction(control):
            tables, sequences = read_tables(control), read_sequences(control)
            found.extend(unfit(control, tables, sequences))
            if not any(one.is_fatal for one in found):
                _install(control, schema, tables, sequences)
    except Failed as error:
        # An extension may have tables of its own that take no triggers such as ours.
        if error.sqlstate not in _UNSUPPORTED:
            raise
        found.append(Unfit(str(error), is_fatal=True))
    return found


def uninstall(schema: str) -> str:
    """Write what takes all of it out again: no trace is left, and the rows stay as they are.

    Several statements, to be run at once: that makes them one transaction.
    """
    # All triggers and event triggers go with the functions that they call.
    return f"{_AS_OURS}; DROP SCHEMA IF EXISTS {schema} CASCADE;"


_UNSUPPORTED = ("0A000", "42809")
# An app's own event triggers might forbid what we do, or note it.
_AS_OURS = "SET LOCAL session_replication_role = replica; SET LOCAL arena.undo = 1"
_CALMLY = "SET LOCAL search_path = ''; SET LOCAL lock_timeout = '1s'; SET LOCAL jit = off"
_BEGIN = f"BEGIN; {_AS_OURS}; {_CALMLY}"


@contextmanager
def _transaction(control: Control) -> Iterator[None]:
    try:
        control.run(_BEGIN)
        yield
    except BaseException:
        control.run("ROLLBACK")
        raise
    control.run("COMMIT")


def _install(
    control: Control,
    schema: str,
    tables: Sequence[JournalTable],
    sequences: Sequence[tuple[int, str]],
) -> None:
    canon = read_canon(control)
    control.run(layout(schema))
    _run_all(control, _triggers(control, schema, tables, canon), at_once=2000)
    control.run(event_triggers(schema))
    _run_all(control, content(schema, tables, canon), at_once=400)
    control.run(undo_script(schema, tables, sequences))


def _run_all(control: Control, statements: Sequence[str], *, at_once: int) -> None:
    """A transaction holds a lock on each table and index that it has named: not on thousands."""
    for start in range(0, len(statements), at_once):
        if start:
            control.run(f"COMMIT; {_BEGIN}")
        control.run("".join(statements[start : start + at_once]))


def _triggers(
    control: Control, schema: str, tables: Sequence[JournalTable], canon: Sequence[Setting]
) -> list[str]:
    """Write the difference between the triggers that there are and those that there should be."""
    branches = _branches(control)
    wanted = [
        capture
        for table in tables
        for capture in captures(table, branches[table.oid] or [_itself(table)], schema, canon)
    ]
    bodies = dict(control.rows(_BODIES.format(schema=literal(schema))))
    there = set(control.rows(_THERE.format(schema=literal(schema))))
    return [
        *(one.create_function(schema) for one in wanted if _is_new(one, bodies)),
        *_removed(there - {_facts(one) for one in wanted}),
        *(one.create_trigger(schema) for one in wanted if _facts(one) not in there),
        *_dropped_functions(schema, bodies, {one.function for one in wanted}),
    ]


def _is_new(capture: Capture, bodies: dict[str, str]) -> bool:
    return bool(capture.options) or bodies.get(capture.function) != capture.body


def _facts(capture: Capture) -> tuple[str, str, str, str, bool]:
    """By these a trigger is known to be the one that is wanted."""
    relation = capture.relation
    return (relation.schema, relation.name, capture.trigger, capture.function, capture.is_row)


def _removed(triggers: set[tuple[str, str, str, str, bool]]) -> Iterator[str]:
    for schema, name, trigger, *_ in triggers:
        yield f"DROP TRIGGER {identifier(trigger)} ON {identifier(schema)}.{identifier(name)};"


def _dropped_functions(schema: str, there: dict[str, str], wanted: set[str]) -> Iterator[str]:
    for name in there.keys() - wanted:
        yield f"DROP FUNCTION {schema}.{name}();"


def _itself(table: JournalTable) -> Relation:
    return Relation(table.oid, table.schema, table.name, is_leaf=True)


def _branches(control: Control) -> dict[int, list[Relation]]:
    branches: dict[int, list[Relation]] = defaultdict(list)
    for root, *facts in control.rows(_BRANCHES):
        branches[root].append(Relation(*facts))
    return branches


_BRANCHES = """
SELECT c.oid::int8, l.oid::int8, n.nspname::text, l.relname::text, l.relkind = 'r'
FROM pg_catalog.pg_class c, pg_catalog.pg_partition_tree(c.oid) t
JOIN pg_catalog.pg_class l ON l.oid = t.relid
JOIN pg_catalog.pg_namespace n ON n.oid = l.relnamespace
WHERE c.relkind = 'p' AND NOT c.relispartition AND l.relkind IN ('r', 'p')
"""
_BODIES = """
SELECT proname::text, prosrc FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n
ON n.oid = p.pronamespace WHERE n.nspname = {schema} AND proname ~ '^[iudt][0-9]+$'
"""
# One that was disabled is none: it is dropped, and made again.
_THERE = """
SELECT m.nspname::text, c.relname::text, t.tgname::text,
    CASE WHEN t.tgenabled = 'A' THEN p.proname::text ELSE '' END, t.tgtype::int4 & 1 = 1
FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace m ON m.oid = c.relnamespace
WHERE n.nspname = {schema}
"""
