"""How is each table given back its rows? One function for all of them, written when they are known.

Its statements are static, so that each is planned once and no name is put together at run time; a
binary tree of IFs leads to those of a table. Row images are cancelled before, as a multiset, so no
order of the changes is needed: what is left of new images is deleted, what is left of old ones is
inserted, all deletes of a table first.
"""

# ruff: noqa: S608 - names are written by identifier() alone

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_arena._postgresql.journal._tables import JournalTable


# These functions work with the app's path: what is PostgreSQL's own is named in full.
_EQUALS = "OPERATOR(pg_catalog.=)"
CONTRADICTION = "AR001"  # the SQLSTATE of a journal that contradicts its table

# An image that came and went as often is not there. `j` is not read where only an archive counts.
_NET = """
        SELECT n.rel,
            EXISTS (SELECT FROM {s}.tables e WHERE e.oid = n.rel AND e.was_empty)
            AND NOT EXISTS (SELECT FROM {s}.filled f WHERE f.rel = n.rel AND f.level < begun)
            AND begun IS NOT NULL AS was_empty,
            pg_catalog.array_agg(n.r) FILTER (WHERE n.c > 0) AS gone,
            pg_catalog.array_agg(n.c) FILTER (WHERE n.c > 0) AS gone_times,
            pg_catalog.array_agg(n.r) FILTER (WHERE n.c < 0) AS come,
            pg_catalog.array_agg(-n.c) FILTER (WHERE n.c < 0) AS come_times,
            pg_catalog.max(pg_catalog.abs(n.c)) AS most
        FROM (
            SELECT m.rel, m.r, pg_catalog.sum(m.op) AS c
            FROM (SELECT j.rel, j.op, j.r FROM {s}.j WHERE with_j
                UNION ALL
                SELECT o.rel, o.op, o.r FROM {s}.jold o WHERE o.level BETWEEN lowest AND highest) m
            GROUP BY m.rel, m.r HAVING pg_catalog.sum(m.op) <> 0) n
        GROUP BY n.rel
"""


def apply_function(schema: str, tables: Sequence[JournalTable]) -> str:
    """Write the function that takes back what is journaled, of all tables that have changed.

    ``with_j``: what stands in ``j``; ``lowest``, ``highest``: what is archived of these levels;
    ``begun``: the level whose start is to stand again. A table that was empty then is emptied,
    whatever is journaled; none is where it is NULL.
    """
    known = sorted(tables, key=lambda table: table.oid)
    return f"""
CREATE OR REPLACE FUNCTION {schema}.apply(with_j bool, lowest int, highest int, begun int)
RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $arena$
DECLARE
    t record;
    n int8;
BEGIN
    FOR t IN {_NET.format(s=schema)} LOOP
{_tree(schema, known)}
    END LOOP;
END
$arena$;
"""


def _tree(schema: str, tables: Sequence[JournalTable]) -> str:
    if not tables:
        return _contradiction("t.rel::pg_catalog.regclass::pg_catalog.text")
    if len(tables) == 1:
        return "\n".join(_back(schema, tables[0]))
    middle = len(tables) // 2
    lower = _tree(schema, tables[:middle])
    upper = _tree(schema, tables[middle:])
    return f"IF t.rel < {tables[middle].oid} THEN\n{lower}\nELSE\n{upper}\nEND IF;"


def _contradiction(name: str) -> str:
    """``name`` is an expression of SQL's."""
    return (
        f"RAISE EXCEPTION USING ERRCODE = '{CONTRADICTION}', MESSAGE = "
        f"'the journal contradicts table ' || {name} || ': changed past its triggers';"
    )


def _back(schema: str, table: JournalTable) -> Iterator[str]:
    name = literal(f"{table.schema}.{table.name}")
    # A table without a key may have equal rows; with one, two equal images cannot be right.
    wrong = f"t.rel <> {table.oid}" + (" OR t.most > 1" if table.key else "")
    yield f"IF {wrong} THEN {_contradiction(name)} END IF;"
    yield f"IF t.was_empty THEN DELETE FROM {_alone(table)}; ELSE"
    yield "IF t.gone IS NOT NULL THEN"
    yield from _deletes(schema, table)
    yield f"IF n <> {_number(table)} THEN {_contradiction(name)} END IF;"
    yield "END IF;"
    yield f"IF t.come IS NOT NULL THEN {_inserts(table)}; END IF;"
    yield "END IF;"


def _alone(table: JournalTable) -> str:
    """A root of partitions has no rows of its own, a table with children has only these."""
    return f"ONLY {table.quoted}" if table.is_inherited else table.quoted


def _number(table: JournalTable) -> str:
    if table.key:
        return "pg_catalog.cardinality(t.gone)"
    return "(SELECT pg_catalog.sum(a.c) FROM pg_catalog.unnest(t.gone_times) a(c))"


def _deletes(schema: str, table: JournalTable) -> Iterator[str]:
    rows = f"pg_catalog.unnest(t.gone::{table.quoted}[]) u"
    keys = [identifier(name) for name in table.key]
    if not keys:
        yield f"n := {schema}.take_{table.oid}(t.gone, t.gone_times);"
        return
    if len(keys) == 1:
        # Three times as quick as a join.
        which = (
            f"WHERE x.{keys[0]} {_EQUALS} ANY (ARRAY(SELECT u.{keys[0]} FROM {rows}))"
        )
    else:
        which = f"USING {rows} WHERE " + " AND ".join(
            f"x.{key} {_EQUALS} u.{key}" for key in keys
        )
    yield f"DELETE FROM {_alone(table)} x {which};"
    yield "GET DIAGNOSTICS n = ROW_COUNT;"


def _inserts(table: JournalTable) -> str:
    names = [
        identifier(column.name) for column in table.columns if not column.generated
    ]
    images = "t.come"
    if not table.key:
        images = (
            "ARRAY(SELECT w.r FROM ROWS FROM (pg_catalog.unnest(t.come), pg_catalog.unnest("
            "t.come_times)) w(r, c), pg_catalog.generate_series(1, w.c))"
        )
    into = (
        f"{table.quoted} ({', '.join(names)}) OVERRIDING SYSTEM VALUE"
        if names
        else table.quoted
    )
    values = ", ".join(f"u.{name}" for name in names)
    rows = f"pg_catalog.unnest({images}::{table.quoted}[]) u"
    return f"INSERT INTO {into} SELECT {values} FROM {rows}"


def taking_function(schema: str, table: JournalTable) -> str:
    """Write the function of a table without a key: as many rows of an image as it is given go."""
    # The connection does without these plans; here a table has to be read whole. Parameters have no
    # names that a column may have, too.
    path = "SET search_path = ''" if table.has_names else "SET search_path FROM CURRENT"
    return f"""
CREATE OR REPLACE FUNCTION {schema}.take_{table.oid}(text[], int8[]) RETURNS int8
LANGUAGE plpgsql SET enable_hashjoin = on SET enable_seqscan = on {path} AS $arena$
DECLARE
    n int8;
BEGIN
    WITH found AS (
        SELECT c.ctid AS place, c.tableoid AS part, w.times,
            pg_catalog.row_number() OVER (PARTITION BY w.image) AS number
        FROM {_alone(table)} c JOIN {_wanted(table)}
    )
    {_taken(table)};
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END
$arena$;
"""


def _wanted(table: JournalTable) -> str:
    """Rows are found by the columns that have an equality of their own, and told by their image."""
    same = [
        f"c.{identifier(column.name)} {_EQUALS} w.v{number}"
        for number, column in enumerate(table.columns)
        if column.is_plain and column.not_null and not column.generated
    ]
    same.append(f"{table.image('c')} = w.image")
    names = ", ".join(
        ["image", "times", *(f"v{number}" for number in range(len(table.columns)))]
    )
    source = "pg_catalog.unnest($1), pg_catalog.unnest($2)"
    if table.columns:
        source += f", pg_catalog.unnest($1::{table.quoted}[])"
    return f"ROWS FROM ({source}) w({names}) ON {' AND '.join(same)}"


def _taken(table: JournalTable) -> str:
    if table.is_leaf:
        places = "SELECT f.place FROM found f WHERE f.number <= f.times"
        return f"DELETE FROM {_alone(table)} d WHERE d.ctid = ANY (ARRAY({places}))"
    return (
        f"DELETE FROM {_alone(table)} d USING found f "
        "WHERE d.ctid = f.place AND d.tableoid = f.part AND f.number <= f.times"
    )
