"""Installs the change journal in a database, and removes it."""

# ruff: noqa: S608 - the schema is one of the journal's two, conditions are constants

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from pytest_arena._postgresql._content import LIKE_THE_APP
from pytest_arena._postgresql._control import (
    ControlFailure,
    identifier,
    literal,
    open_control,
)
from pytest_arena._postgresql.journal._functions import undo_script
from pytest_arena._postgresql.journal._state import (
    EXACT_SEQUENCES,
    event_triggers,
    layout,
    recorded_facts,
)
from pytest_arena._postgresql.journal._stored_values import unsteady_values
from pytest_arena._postgresql.journal._tables import (
    APPS_OWN,
    HIDDEN_SCHEMA,
    PLAIN_SCHEMA,
    JournalGap,
    find_schema,
    read_canon,
    read_sequences,
    read_tables,
)
from pytest_arena._postgresql.journal._triggers import (
    Capture,
    captures,
    existing_rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_arena._postgresql._control import Control
    from pytest_arena._postgresql.journal._tables import JournalTable, Setting
    from pytest_arena._values import Address


def install(address: Address) -> list[JournalGap]:
    """Install a journal in a database, or adapt it to a changed schema.

    From then on the journal records each change of a row, and a mark for each change of the schema.
    The current content is level 0. The first installation costs 1 to 2 ms for each table. Up to
    some hundreds of tables this is one transaction.

    Returns:
        The gaps: changes that the journal cannot see or undo. If a gap is fatal, the journal was
            not installed. With many hundreds of tables, some tables may have triggers then, and the
            database cannot be used.

    Raises:
        ControlFailure: the role lacks rights, or another session locks a table for a second. With
            some hundreds of tables, some tables may have triggers then.
    """
    with closing(open_control(address)) as control:
        schema = find_schema(control)
        if not schema:
            is_superuser = control.rows("SHOW is_superuser") == [("on",)]
            schema = HIDDEN_SCHEMA if is_superuser else PLAIN_SCHEMA
        gaps: list[JournalGap] = []
        try:
            with _transaction(control):
                _install_in(control, schema, gaps)
        except ControlFailure as error:
            # Tables of an extension may not accept such triggers.
            if error.sqlstate not in _UNSUPPORTED:
                raise
            gaps.append(JournalGap(str(error), is_fatal=True))
        return gaps


def _install_in(control: Control, schema: str, gaps: list[JournalGap]) -> None:
    tables = read_tables(control)
    sequences = read_sequences(control)
    gaps += _find_gaps(control, tables, sequences)
    if any(gap.is_fatal for gap in gaps):
        return
    settings = read_canon(control)
    control.run(layout(schema))
    _run_all(control, _triggers(control, schema, tables, settings), at_once=2000)
    control.run(event_triggers(schema))
    _refuse_unnoticed_refreshes(control)
    _run_all(control, recorded_facts(schema, tables, settings), at_once=400)
    control.run(undo_script(schema, tables, sequences))


def _refuse_unnoticed_refreshes(control: Control) -> None:
    """Refuse a view that can be refreshed CONCURRENTLY if no event triggers are installed.

    Raises:
        ControlFailure: the database has such a view. Its refresh changes rows that have no
            triggers, and leaves the catalog unchanged.
    """
    for (name,) in control.rows(_REFRESHED_IN_PLACE):
        raise ControlFailure(
            f"the materialized view {name} can be refreshed CONCURRENTLY, which only event "
            "triggers notice, and this role may not create them",
            _FEATURE_NOT_SUPPORTED,
        )


def capture_new(control: Control, schema: str) -> list[str]:
    """Journal the tables that were created since the journal was installed.

    pytest-arena journals existing rows as inserts, because the table was created in this level. The
    level has marks, so a copy replaces the database and no other change has to be undone.

    ``control`` has the settings of the images. Cost: some round trips and 1 to 2 ms for each new
    table, and a copy of its rows.

    Returns:
        The names of the tables that could not get triggers, because another session writes to
            them, or because the role does not own them.

    Raises:
        ControlFailure: the server does not answer.
    """
    if not control.rows(
        f"{_BARE} AND p.pronamespace = {literal(schema)}::regnamespace)"
    ):
        return []
    # Each query reads the whole catalog.
    with _transaction(control, _BEGIN_READING):
        tables = read_tables(control)
        installed = control.rows(f"SELECT oid::int8 FROM {schema}.tables")
        existing = _ExistingTriggers(
            set(control.rows(_EXISTING.format(schema=literal(schema)))),
            {oid for (oid,) in installed},
        )
        settings = read_canon(control, f"{schema}.canon")
    missed = []
    for table in filter(existing.are_missing_on, tables):
        path = "" if table.has_names else f"{LIKE_THE_APP};"
        script = existing.completing_script(table, schema, settings)
        try:
            control.run(f"{_UNNOTICED}; {_BRIEFLY}; {path}{script}")
        except ControlFailure as error:
            if error.is_lost:
                raise
            missed.append(f"{table.schema}.{table.name}")
    return missed


def uninstall(address: Address) -> None:
    """Remove the journal from a database, if it has one. The rows stay.

    Raises:
        ControlFailure: another session is inside a transaction, or the server does not answer.
    """
    with closing(open_control(address, {"lock_timeout": "1s"})) as control:
        schema = find_schema(control)
        if schema:
            # CASCADE drops the triggers and event triggers that call the functions.
            control.run(f"{_UNNOTICED}; DROP SCHEMA {schema} CASCADE")


_FEATURE_NOT_SUPPORTED = "0A000"
_UNSUPPORTED = (_FEATURE_NOT_SUPPORTED, "42809")
# With this the app's event triggers cannot forbid or record the statements.
_UNNOTICED = "SET LOCAL session_replication_role = replica; SET LOCAL arena.undo = 1"
_BEGIN = (
    f"BEGIN; {_UNNOTICED}; SET LOCAL lock_timeout = '1s'; SET LOCAL jit = off; "
    f"{LIKE_THE_APP}"
)
# A request may wait for the result. The next call tries a locked table again.
_BRIEFLY = "SET LOCAL lock_timeout = '50ms'"
_BEGIN_READING = "BEGIN; SET LOCAL enable_hashjoin = on; SET LOCAL enable_seqscan = on"


@contextmanager
def _transaction(control: Control, begin: str = _BEGIN) -> Iterator[None]:
    try:
        control.run(begin)
        yield
    except BaseException:
        control.run("ROLLBACK")
        raise
    control.run("COMMIT")


def _run_all(control: Control, statements: Sequence[str], *, at_once: int) -> None:
    """Run statements in several transactions, to limit the locks that one transaction holds."""
    for start in range(0, len(statements), at_once):
        if start:
            control.run(f"COMMIT; {_BEGIN}")
        control.run("".join(statements[start : start + at_once]))


# The schema and name of the table, the names of the trigger and its function, and whether it fires
# for each row.
_TriggerKey: TypeAlias = tuple[str, str, str, str, bool]


def _triggers(
    control: Control,
    schema: str,
    tables: Sequence[JournalTable],
    settings: Sequence[Setting],
) -> list[str]:
    """Write the statements that adapt the existing triggers to the current tables."""
    wanted = [
        capture for table in tables for capture in captures(table, schema, settings)
    ]
    bodies = dict(control.rows(_BODIES.format(schema=literal(schema))))
    existing = set(control.rows(_EXISTING.format(schema=literal(schema))))
    stale = [
        capture
        for capture in wanted
        if capture.options or bodies.get(capture.function) != capture.body
    ]
    statements = list(_replacing(schema, existing, wanted, stale))
    unwanted = bodies.keys() - {capture.function for capture in wanted}
    return statements + [f"DROP FUNCTION {schema}.{name}();" for name in unwanted]


def _replacing(
    schema: str, existing: set[_TriggerKey], wanted: list[Capture], stale: list[Capture]
) -> Iterator[str]:
    """Write the statements for the functions of ``stale``, and for missing and extra triggers."""
    for capture in stale:
        yield capture.create_function(schema)
    for space, name, trigger, *_ in existing - set(map(_key, wanted)):
        yield f"DROP TRIGGER {identifier(trigger)} ON {identifier(space)}.{identifier(name)};"
    for capture in wanted:
        if _key(capture) not in existing:
            yield capture.create_trigger(schema)


def _key(capture: Capture) -> _TriggerKey:
    relation = capture.relation
    return (
        relation.schema,
        relation.name,
        capture.trigger,
        capture.function,
        capture.is_row,
    )


class _ExistingTriggers(NamedTuple):
    """The journal's triggers in a schema that has changed."""

    keys: set[_TriggerKey]
    installed: set[int]  # the oids of the tables at the installation of the journal

    def are_missing_on(self, table: JournalTable) -> bool:
        """Return whether a table or partition is new, or another table now inherits from it."""
        keys = self._keys_of(table)
        if table.by_row:
            for *_, trigger, _, is_row in keys:
                if not is_row and trigger != _ON_TRUNCATE:
                    return True  # this trigger would journal the rows of children twice
        watched = {key[:2] for key in keys}
        # If a test has dropped the triggers of an installed table, the table's rows are not new.
        return any(
            (relation.schema, relation.name) not in watched
            and relation.oid not in self.installed
            for relation in table.relations
        )

    def _keys_of(self, table: JournalTable) -> set[_TriggerKey]:
        names = {(relation.schema, relation.name) for relation in table.relations}
        return {key for key in self.keys if key[:2] in names}

    def completing_script(
        self, table: JournalTable, schema: str, settings: Sequence[Setting]
    ) -> str:
        """Write the script that creates a table's missing triggers and journals its new rows.

        All rows of a new table are new. If the triggers fire for each row, the rows of a new
        partition are new, too.
        """
        keys = self._keys_of(table)
        wanted = list(captures(table, schema, settings))
        missing = [capture for capture in wanted if _key(capture) not in keys]
        statements = list(_replacing(schema, keys, wanted, missing))
        watched = {key[:2] for key in keys}
        for relation in table.relations:
            if not relation.is_leaf or relation.oid in self.installed:
                continue
            is_watched = (relation.schema, relation.name) in watched
            if not keys or (table.by_row and not is_watched):
                statements.append(f"{existing_rows(table, relation, schema)};")
        return "".join(statements)


_ON_TRUNCATE = "!arena_t"
_BARE = f"""
SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND {APPS_OWN} AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
    WHERE t.tgrelid = c.oid
"""
_BODIES = """
SELECT proname::text, prosrc FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n
ON n.oid = p.pronamespace WHERE n.nspname = {schema} AND proname ~ '^[iudt][0-9]+$'
"""
# A disabled trigger gets the function name '', so that it is dropped and created again.
_EXISTING = """
SELECT m.nspname::text, c.relname::text, t.tgname::text,
    CASE WHEN t.tgenabled = 'A' THEN p.proname::text ELSE '' END, t.tgtype::int4 & 1 = 1
FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace m ON m.oid = c.relnamespace
WHERE n.nspname = {schema}
"""


# Gaps. A fatal gap would silently give wrong results. Any other gap concerns data outside the
# database, or pytest-arena notices it when it undoes the change. Then a copy replaces the database.

_BIG = 16 * 1024 * 1024


def _find_gaps(
    control: Control,
    tables: Sequence[JournalTable],
    sequences: Sequence[tuple[int, str]],
) -> list[JournalGap]:
    """Return the gaps of a schema and its rows, in a few round trips.

    Raises:
        ControlFailure: the server does not answer, or hides its catalog.
    """
    gaps = list(_inner_xml(tables))
    gaps += [JournalGap(*row) for row in control.rows(_GAPS)]
    gaps += unsteady_values(control)
    uncallable = list(_uncallable(control, tables))
    # Reading the rows of a table may call such a function, too.
    gaps += uncallable or _violated(control)
    gaps += _without_key(control, tables)
    if len(sequences) > EXACT_SEQUENCES:
        gaps.append(
            JournalGap(
                f"{len(sequences)} sequences are too many to be read one by one: "
                "pytest-arena does not see setval(…, false) on a sequence that was never used"
            )
        )
    return gaps


def _inner_xml(tables: Sequence[JournalTable]) -> Iterator[JournalGap]:
    """Yield a gap for each column with xml inside a value, whose text loses its encoding."""
    for table in tables:
        for column in table.columns:
            if column.has_inner_xml:
                yield JournalGap(
                    f"{table.schema}.{table.name}.{column.name} has xml inside an array or a "
                    "composite value, which cannot be restored to the letter",
                    is_fatal=True,
                )


def _uncallable(
    control: Control, tables: Sequence[JournalTable]
) -> Iterator[JournalGap]:
    """Yield a gap for each function that PostgreSQL cannot call when a row is restored.

    A function may name objects without a schema. If a table has images of names, pytest-arena reads
    and writes it without a search_path.
    """
    path = LIKE_THE_APP
    if any(table.has_names for table in tables):
        path = "SET LOCAL search_path = ''"
    for name, values in control.rows(_CALLED):
        try:
            control.run(f"SAVEPOINT arena_trial; {path}; SELECT {name}({values})")
        except ControlFailure as error:
            if error.sqlstate in _UNKNOWN_NAMES:
                reason = (
                    f"{name}, called by an index, a check or a generated column, "
                    f"names an object without its schema: {error.first_line} "
                    f"(ALTER FUNCTION {name} SET search_path = … helps)"
                )
                yield JournalGap(reason, is_fatal=True)
        control.run("ROLLBACK TO SAVEPOINT arena_trial")


def _violated(control: Control) -> Iterator[JournalGap]:
    """Yield a gap for each NOT VALID constraint that rows violate. They cannot be restored."""
    for schema, table, constraint, condition in control.rows(_NOT_VALID):
        name = f"{identifier(schema)}.{identifier(table)}"
        if control.rows(f"SELECT FROM ONLY {name} WHERE NOT ({condition}) LIMIT 1"):
            yield JournalGap(
                f"rows of {schema}.{table} break its constraint {constraint}, which is NOT VALID: "
                "a test that changes them gets a new database afterwards"
            )


def _without_key(
    control: Control, tables: Sequence[JournalTable]
) -> Iterator[JournalGap]:
    for table in tables:
        has_plain = any(column.not_null and column.is_plain for column in table.columns)
        if not table.key and not has_plain and _size(control, table) > _BIG:
            yield JournalGap(
                f"{table.schema}.{table.name} has neither a key nor a column that is NOT NULL: "
                "to undo a change of it, PostgreSQL reads all its rows"
            )


def _size(control: Control, table: JournalTable) -> int:
    leaves = [relation for relation in table.relations if relation.is_leaf]
    oids = ",".join(str(leaf.oid) for leaf in leaves)
    sizes = control.rows(
        "SELECT coalesce(sum(pg_catalog.pg_relation_size(o)), 0)::int8 "
        f"FROM unnest('{{{oids}}}'::regclass[]) o"
    )
    return int(sizes[0][0])


_NAMED = "n.nspname || '.' || c.relname"
_RELATIONS = (
    "pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n "
    f"ON n.oid = c.relnamespace AND {APPS_OWN}"
)
_TRIGGERS = f"""
SELECT {_NAMED} || ' has the trigger ' || t.tgname || ', which is ENABLE ' ||
    CASE t.tgenabled WHEN 'A' THEN 'ALWAYS' ELSE 'REPLICA' END ||
    ': it would fire when rows are restored'
FROM {_RELATIONS} JOIN pg_catalog.pg_trigger t ON t.tgrelid = c.oid
JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
JOIN pg_catalog.pg_namespace f ON f.oid = p.pronamespace
WHERE t.tgenabled IN ('A', 'R') AND f.nspname NOT IN ('pg_arena', 'arena_journal')
AND c.relkind IN ('r', 'p') ORDER BY 1
"""
# CONCURRENTLY requires a unique index on columns, over all rows.
_REFRESHED_IN_PLACE = f"""
SELECT {_NAMED} FROM {_RELATIONS} WHERE c.relkind = 'm'
AND EXISTS (SELECT FROM pg_catalog.pg_index x WHERE x.indrelid = c.oid
    AND x.indisunique AND x.indpred IS NULL AND x.indexprs IS NULL)
AND NOT EXISTS (SELECT FROM pg_catalog.pg_event_trigger e WHERE e.evtname = '!arena_changed')
ORDER BY 1 LIMIT 1
"""
_RULES = f"""
SELECT {_NAMED} || ' has the rule ' || r.rulename || ', which is ENABLE ' ||
    CASE r.ev_enabled WHEN 'A' THEN 'ALWAYS' ELSE 'REPLICA' END ||
    ': it would change the statements that restore rows'
FROM {_RELATIONS} JOIN pg_catalog.pg_rewrite r ON r.ev_class = c.oid
WHERE r.ev_enabled IN ('A', 'R') AND c.relkind IN ('r', 'p') ORDER BY 1
"""
_HIDDEN = f"""
SELECT {_NAMED} || ' has row-level security, and this role does not see all of its rows '
    '(ALTER ROLE ' || pg_catalog.quote_ident(current_user) || ' BYPASSRLS)'
FROM {_RELATIONS} WHERE c.relkind IN ('r', 'p') AND pg_catalog.row_security_active(c.oid)
ORDER BY 1
"""
_FOREIGN = f"""
SELECT {_NAMED} || ' is a foreign table: what a test writes to it stays in another database'
FROM {_RELATIONS} WHERE c.relkind = 'f' ORDER BY 1
"""
_OBJECTS = """
SELECT 'there are large objects, and only a superuser may see whether a test writes to one'
WHERE EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)
AND NOT has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')
"""
_FATAL = (_TRIGGERS, _RULES, _HIDDEN, _OBJECTS)
_OTHERS = (_FOREIGN,)
_GAPS = " UNION ALL ".join(
    f"(SELECT gap.reason, {ask in _FATAL} FROM ({ask}) gap(reason))"
    for ask in (*_FATAL, *_OTHERS)
)
# The SQLSTATEs for an unknown function, table, type or setting, and schema.
_UNKNOWN_NAMES = ("42883", "42P01", "42704", "3F000")
# The functions that PostgreSQL calls when a row is restored, with values for their arguments. Only
# functions in a language that names objects count.
_CALLED = """
SELECT p.pronamespace::regnamespace || '.' || quote_ident(p.proname), array_to_string(ARRAY(
    SELECT CASE t.typcategory WHEN 'S' THEN '''''' WHEN 'N' THEN '0' WHEN 'A' THEN '''{}'''
        WHEN 'D' THEN '''epoch''' ELSE 'NULL' END
        || '::' || t.typnamespace::regnamespace || '.' || quote_ident(t.typname)
    FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY a(type, place)
    JOIN pg_catalog.pg_type t ON t.oid = a.type ORDER BY a.place), ', ')
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE l.lanname NOT IN ('internal', 'c') AND p.prokind = 'f' AND p.provariadic = 0
AND NOT p.proargtypes::oid[] && ARRAY(SELECT t.oid FROM pg_catalog.pg_type t WHERE t.typtype = 'p')
AND EXISTS (SELECT FROM pg_catalog.pg_depend d
    WHERE d.refclassid = 'pg_catalog.pg_proc'::regclass AND d.refobjid = p.oid
    AND (d.classid IN ('pg_catalog.pg_class'::regclass, 'pg_catalog.pg_constraint'::regclass)
        OR d.classid = 'pg_catalog.pg_attrdef'::regclass AND p.provolatile = 'i'))
ORDER BY 1
"""
_NOT_VALID = f"""
SELECT n.nspname::text, c.relname::text, k.conname::text,
    CASE WHEN k.contype = 'c' THEN pg_catalog.pg_get_expr(k.conbin, k.conrelid)
    ELSE pg_catalog.quote_ident(a.attname) || ' IS NOT NULL' END
FROM {_RELATIONS} JOIN pg_catalog.pg_constraint k ON k.conrelid = c.oid
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.conkey[1]
WHERE c.relkind = 'r' AND k.contype IN ('c', 'n') AND NOT k.convalidated
ORDER BY 1, 2, 3
"""
