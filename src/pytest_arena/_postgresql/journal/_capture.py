"""How is a database told to write down each change of its rows?"""

# ruff: noqa: S608 - the schema is one of our own two, conditions are constants

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
from pytest_arena._postgresql.journal._triggers import Capture, captures, standing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_arena._postgresql._control import Control
    from pytest_arena._postgresql.journal._tables import JournalTable, Setting
    from pytest_arena._values import Address


def install(address: Address) -> list[JournalGap]:
    """Make a journal in a database, or bring it up to date with a schema that has changed.

    From then on each change of a row is in it, and each change of the schema leaves a mark. It is
    empty then: what stands now is its level 0. In proportion to the number of tables, 1 to 2 ms
    each for the first time; one transaction up to some hundreds of them.

    Returns:
        What the journal cannot see or undo. Where one of them is fatal, nothing was installed, but
            maybe triggers on some of many hundreds of tables: the database is of no use then.

    Raises:
        Failed: the role lacks rights, or somebody holds a table locked for a second. Of some
            hundreds of tables, some may have their triggers then.
    """
    with closing(open_control(address)) as control:
        return _installed(control, find_schema(control) or _fitting_schema(control))


def _fitting_schema(control: Control) -> str:
    """Return where the role that is connected may install one."""
    return (
        HIDDEN_SCHEMA
        if control.rows("SHOW is_superuser") == [("on",)]
        else PLAIN_SCHEMA
    )


def _installed(control: Control, schema: str) -> list[JournalGap]:
    found: list[JournalGap] = []
    try:
        with _transaction(control):
            tables = read_tables(control)
            sequences = read_sequences(control)
            found += _unfit(control, tables, sequences)
            if not any(one.is_fatal for one in found):
                canon = read_canon(control)
                control.run(layout(schema))
                _run_all(
                    control, _triggers(control, schema, tables, canon), at_once=2000
                )
                control.run(event_triggers(schema))
                _check_that_refreshes_are_noticed(control)
                _run_all(control, recorded_facts(schema, tables, canon), at_once=400)
                control.run(undo_script(schema, tables, sequences))
    except ControlFailure as error:
        # An extension may have tables of its own that take no triggers such as ours.
        if error.sqlstate not in _UNSUPPORTED:
            raise
        found.append(JournalGap(str(error), is_fatal=True))
    return found


def _check_that_refreshes_are_noticed(control: Control) -> None:
    """Refuse a view that can be refreshed CONCURRENTLY if there are no event triggers.

    Raises:
        ControlFailure: there is such a view. Its refresh changes rows that have no triggers, and
            nothing in the catalog.
    """
    for (name,) in control.rows(_REFRESHED_IN_PLACE):
        raise ControlFailure(
            f"the materialized view {name} can be refreshed CONCURRENTLY, which only event "
            "triggers notice, and this role may not make them",
            _FEATURE_NOT_SUPPORTED,
        )


def capture_new(control: Control, schema: str) -> list[str]:
    """Journal the tables that were created since the journal was installed.

    Existing rows are journaled as inserts, because the table was created in this level. The level
    has marks, so that the database is replaced and nothing else needs to be undone.

    ``control`` has the settings that images are written under. Cost: some round trips and 1 to 2 ms
    for each new table, and a copy of its rows.

    Returns:
        The names of those that could not be had: somebody is writing to them, or they are not ours.

    Raises:
        Failed: the server is gone.
    """
    if not control.rows(
        f"{_BARE} AND p.pronamespace = {literal(schema)}::regnamespace)"
    ):
        return []
    with _transaction(
        control, _WIDELY
    ):  # each of its questions looks through the whole catalog
        found = _Found(
            read_tables(control),
            set(control.rows(_THERE.format(schema=literal(schema)))),
            {oid for (oid,) in control.rows(f"SELECT oid::int8 FROM {schema}.tables")},
        )
        canon = read_canon(control, f"{schema}.canon")
    missed: list[str] = []
    for table in filter(found.is_incomplete, found.tables):
        path = "" if table.has_names else f"{LIKE_THE_APP};"
        try:
            control.run(
                f"{_AS_OURS}; {_BRIEFLY}; {path}{found.completed(table, schema, canon)}"
            )
        except ControlFailure as error:
            if error.is_lost:
                raise
            missed.append(f"{table.schema}.{table.name}")
    return missed


def uninstall(address: Address) -> None:
    """Take all of it out of a database, if it is there: no trace is left, and the rows stay.

    Raises:
        Failed: somebody is inside a transaction, or the server is gone.
    """
    with closing(open_control(address, {"lock_timeout": "1s"})) as control:
        if schema := find_schema(control):
            # All triggers and event triggers go with the functions that they call.
            control.run(f"{_AS_OURS}; DROP SCHEMA {schema} CASCADE")


_FEATURE_NOT_SUPPORTED = "0A000"
_UNSUPPORTED = (_FEATURE_NOT_SUPPORTED, "42809")
# An app's own event triggers might forbid what we do, or note it.
_AS_OURS = "SET LOCAL session_replication_role = replica; SET LOCAL arena.undo = 1"
_CALMLY = "SET LOCAL lock_timeout = '1s'; SET LOCAL jit = off"
_BEGIN = f"BEGIN; {_AS_OURS}; {_CALMLY}; {LIKE_THE_APP}"
# A request may be waiting for it: what cannot be had now is tried again after the next one.
_BRIEFLY = "SET LOCAL lock_timeout = '50ms'"
_WIDELY = "BEGIN; SET LOCAL enable_hashjoin = on; SET LOCAL enable_seqscan = on"


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
    """A transaction holds a lock on each table and index that it has named: not on thousands."""
    for start in range(0, len(statements), at_once):
        if start:
            control.run(f"COMMIT; {_BEGIN}")
        control.run("".join(statements[start : start + at_once]))


_Fact: TypeAlias = tuple[str, str, str, str, bool]


def _triggers(
    control: Control,
    schema: str,
    tables: Sequence[JournalTable],
    canon: Sequence[Setting],
) -> list[str]:
    """Write the difference between the triggers that there are and those that there should be."""
    wanted = [capture for table in tables for capture in captures(table, schema, canon)]
    bodies = dict(control.rows(_BODIES.format(schema=literal(schema))))
    there = set(control.rows(_THERE.format(schema=literal(schema))))
    stale = [
        one for one in wanted if one.options or bodies.get(one.function) != one.body
    ]
    unwanted = bodies.keys() - {one.function for one in wanted}
    return [
        *_changed(schema, there, wanted, stale),
        *(f"DROP FUNCTION {schema}.{name}();" for name in unwanted),
    ]


def _changed(
    schema: str, there: set[_Fact], wanted: list[Capture], stale: list[Capture]
) -> Iterator[str]:
    """Write the functions that are ``stale``, and the difference between the triggers."""
    yield from (one.create_function(schema) for one in stale)
    for space, name, trigger, *_ in there - {_fact(one) for one in wanted}:
        yield f"DROP TRIGGER {identifier(trigger)} ON {identifier(space)}.{identifier(name)};"
    yield from (one.create_trigger(schema) for one in wanted if _fact(one) not in there)


def _fact(capture: Capture) -> _Fact:
    """By this a trigger is known to be the one that is wanted."""
    relation = capture.relation
    return (
        relation.schema,
        relation.name,
        capture.trigger,
        capture.function,
        capture.is_row,
    )


class _Found(NamedTuple):
    """What there is in a schema that has changed, and what of it writes down changes by now."""

    tables: list[JournalTable]
    triggers: set[_Fact]
    installed: set[int]  # the tables that there were when the journal was installed

    def is_incomplete(self, table: JournalTable) -> bool:
        """Whether a table is new, has a new partition or is inherited since."""
        there = self._triggers_of(table)
        if table.by_row and any(
            not fact[-1] and fact[2] != _ON_TRUNCATE for fact in there
        ):
            return True  # its children's rows would be told twice
        named = {fact[:2] for fact in there}
        # One that had its triggers when the journal was installed has been robbed of them by a
        # test: it is not new, and what stands in it has not come.
        return any(
            (one.schema, one.name) not in named and one.oid not in self.installed
            for one in table.relations
        )

    def _triggers_of(self, table: JournalTable) -> set[_Fact]:
        names = {(one.schema, one.name) for one in table.relations}
        return {fact for fact in self.triggers if fact[:2] in names}

    def completed(
        self, table: JournalTable, schema: str, canon: Sequence[Setting]
    ) -> str:
        """Write what gives a table the triggers that it lacks, and notes rows that none has seen.

        Those of a new table; of a new partition, where its root sees no row itself.
        """
        there = self._triggers_of(table)
        wanted = list(captures(table, schema, canon))
        lacking = [one for one in wanted if _fact(one) not in there]
        seen = {fact[:2] for fact in there}
        unseen = [
            one
            for one in table.relations
            if one.is_leaf
            and one.oid not in self.installed
            and (not there or (table.by_row and (one.schema, one.name) not in seen))
        ]
        noted = [f"{standing(table, one, schema)};" for one in unseen]
        return "".join([*_changed(schema, there, wanted, lacking), *noted])


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


# What in a database can the journal not see, or not bring back? What is fatal would be wrong in
# silence. All else is either not the database's own, or is noticed at the latest when it is to be
# undone, and the database is replaced then.

_BIG = 16 * 1024 * 1024


def _unfit(
    control: Control,
    tables: Sequence[JournalTable],
    sequences: Sequence[tuple[int, str]] = (),
) -> list[JournalGap]:
    """Look at a schema and its rows, in a few round trips.

    Returns:
        A line for each thing; an undo beside those that are not fatal keeps all that it promises.

    Raises:
        Failed: the server is gone, or hides its catalog.
    """
    many = (
        f"{len(sequences)} sequences, more than are read one by one: setval(…, false) on one that "
        "was never used is not seen"
    )
    uncallable = [*_uncallable(control, tables)]  # by whoever reads such a table, too
    return [
        *_inner_xml(tables),
        *(JournalGap(*row) for row in control.rows(_GAPS)),
        *unsteady_values(control),
        *(uncallable or _violated(control)),
        *_without_key(control, tables),
        *([JournalGap(many)] if len(sequences) > EXACT_SEQUENCES else []),
    ]


def _inner_xml(tables: Sequence[JournalTable]) -> Iterator[JournalGap]:
    """Written out inside of another value, xml loses the encoding that it declares."""
    for table in tables:
        for column in table.columns:
            if column.has_inner_xml:
                yield JournalGap(
                    f"{table.schema}.{table.name}.{column.name} holds xml inside of an array or "
                    "composite value, which cannot be brought back to the letter",
                    is_fatal=True,
                )


def _uncallable(
    control: Control, tables: Sequence[JournalTable]
) -> Iterator[JournalGap]:
    """Try what is called when a row is put back: another path than ours may lead to what it names.

    Images of names are written and read without a path, and so are the tables that have them.
    """
    path = (
        "SET LOCAL search_path = ''"
        if any(one.has_names for one in tables)
        else LIKE_THE_APP
    )
    for name, values in control.rows(_CALLED):
        try:
            control.run(f"SAVEPOINT arena_trial; {path}; SELECT {name}({values})")
        except ControlFailure as error:
            if error.sqlstate in _UNKNOWN_NAMES:
                reason = (
                    f"{name}, called by an index, a check or a generated column, "
                    f"names without a schema what is not found: {error.first_line} "
                    f"(ALTER FUNCTION {name} SET search_path = … mends that)"
                )
                yield JournalGap(reason, is_fatal=True)
        control.run("ROLLBACK TO SAVEPOINT arena_trial")


def _violated(control: Control) -> Iterator[JournalGap]:
    """A row that breaks such a check stands all the same, and could not be put back."""
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
                "whatever is changed there, all its rows are read to undo it"
            )


def _size(control: Control, table: JournalTable) -> int:
    oids = ",".join(str(one.oid) for one in table.relations if one.is_leaf)
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
    ': it would fire when rows are put back'
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
    ': it would change what is done to put rows back'
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
SELECT {_NAMED} || ' is a foreign table: what is written to it lies elsewhere, and stays'
FROM {_RELATIONS} WHERE c.relkind = 'f' ORDER BY 1
"""
_OBJECTS = """
SELECT 'there are large objects, and this role may not ask whether a test writes to one: only a '
    'superuser may'
WHERE EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)
AND NOT has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')
"""
_FATAL = (_TRIGGERS, _RULES, _HIDDEN, _OBJECTS)
_OTHERS = (_FOREIGN,)
_GAPS = " UNION ALL ".join(
    f"(SELECT gap.reason, {ask in _FATAL} FROM ({ask}) gap(reason))"
    for ask in (*_FATAL, *_OTHERS)
)
# Of a function, a table, a type or setting, a schema.
_UNKNOWN_NAMES = ("42883", "42P01", "42704", "3F000")
# What is called when a row is put back, in a language that names things; with values of its types.
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
