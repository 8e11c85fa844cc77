"""The image of a row is the row, to the letter, whatever the session that wrote it had set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena._postgresql.journal._capture import install
from tests.journal.world import DONE, World, database, journaled, knows_xml
from tests.servers.postgresql import address, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

TYPES = """
CREATE TYPE mood AS ENUM ('so "so"', 'it''s, fine', 'Größe');
CREATE TYPE pair AS (a int, b text);
CREATE TYPE nest AS (p pair, ps pair[], d date);
CREATE TYPE lengths AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN page AS xml;
"""
# A column's type, and values that something could be lost of.
VALUES = {
    "json": ["""'{"b": 1, "a": 2, "b":  3}'""", "'null'"],
    "jsonb": ["""'{"b": 1, "a": 1.10}'""", "'null'"],
    "xml": ["""'<?xml version="1.0" encoding="UTF-8"?><a b="c">d</a>'""", "'text only'"],
    "page": ["""'<?xml version="1.0" encoding="UTF-8"?><a/>'"""],
    "numeric": ["1.0", "1.00", "'NaN'", "-0.000", "123456789012345678901234567890.5"],
    "float8": ["'NaN'", "'-0'", "0.1::float8 + 0.2", "1e-320", "'-Infinity'"],
    "real": ["'1.17549435e-38'", "0.3"],
    "text": ["E'tab\\t line\\n quote\\' double\" back\\\\slash'", "''", "'(a,b)'", "' '", "'NULL'"],
    "char(4)": ["'a'", "''"],
    '"char"': ["'x'", "''"],
    "varchar": ["'ü'", "repeat('long ', 20000)"],
    "name": ["'n'"],
    "bytea": ["'\\x00ff27225c'", "''"],
    "timestamp": ["'infinity'", "'4713-01-01 00:00 BC'", "'2026-03-29 02:30:00.000001'"],
    "timestamptz": ["'-infinity'", "'2026-10-25 02:30+02'", "'1800-01-01 00:00+00'"],
    "date": ["'infinity'", "'0044-03-15 BC'", "'2026-02-03'"],
    "time": ["'24:00'", "'23:59:59.999999'"],
    "timetz": ["'24:00+14'", "'04:05:06-12:34'"],
    "interval": ["'1 mon'", "'30 days'", "'-1 year 2 days -03:04:05.6'"],
    "uuid": ["gen_random_uuid()"],
    "bool": ["true", "false"],
    "money": ["'-1234.56'", "'1000000'"],
    "inet": ["'10.0.0.1/8'", "'::ffff:1.2.3.4'"],
    "cidr": ["'10.0.0.0/8'"],
    "macaddr": ["'08:00:2b:01:02:03'"],
    "macaddr8": ["'08:00:2b:01:02:03:04:05'"],
    "bit(3)": ["B'101'"],
    "varbit": ["B''", "B'0001'"],
    "point": ["'(0.1,-0)'"],
    "line": ["'{1,2,3}'"],
    "lseg": ["'[(0,0),(1,1)]'"],
    "box": ["'(2,2),(0,0)'"],
    "path": ["'[(0,0),(1,1)]'", "'((0,0),(1,1))'"],
    "polygon": ["'((0,0),(1,1),(2,0))'"],
    "circle": ["'<(0.1,0.2),0.3>'"],
    "tsvector": ["'a:1A b:2 ''c d'':3'"],
    "tsquery": ["'a & !b:*'"],
    "int4range": ["'empty'", "'[1,5)'", "'(,)'"],
    "tstzrange": ["'[2026-01-01 00:00+00,infinity)'"],
    "lengths": ["'[0.1,1e300]'"],
    "int[]": ["'[-1:1]={1,NULL,3}'", "'{}'", "'{{1,2},{3,4}}'"],
    "text[]": ["""ARRAY['NULL', NULL, '', 'a"b', 'c\\d', '{}', ',']"""],
    "interval[]": ["ARRAY[interval '1 mon', '30 days']"],
    "mood": ["'so \"so\"'", "'it''s, fine'", "'Größe'"],
    "mood[]": ["ARRAY['so \"so\"', 'Größe']::mood[]"],
    "pair": ["ROW(NULL, 'x\"(,)')", "ROW(NULL, NULL)"],
    "nest": ["ROW(ROW(1, ''), ARRAY[ROW(2, 'a,b')::pair, NULL], '2026-02-03')"],
    "positive": ["7"],
    "regclass": ["'pg_class'", "'public.rows_of_text'"],
    "regtype": ["'mood'"],
    "regproc": ["'now'"],
    "oid": ["4294967295"],
    "tid": ["'(1,2)'"],
    "xid8": ["'18446744073709551615'"],
    "pg_lsn": ["'FF/0'"],
    "jsonpath": ["'$.a[*] ? (@ > 1)'"],
    "pg_snapshot": ["'10:20:10,14,15'"],
}
HOSTILE = (
    "SET DateStyle = 'SQL, DMY'; SET IntervalStyle = 'sql_standard'; "
    "SET extra_float_digits = -3; SET bytea_output = 'escape'; SET TimeZone = 'Asia/Kolkata'; "
    "SET search_path = 'other', 'public'; SET quote_all_identifiers = on; "
    "SET xmlbinary = 'hex'; SET lc_monetary = 'C'"
)
# What apps set, or their drivers, and what shows a row in the same way.
USUAL = "SET DateStyle = 'ISO, DMY'; SET extra_float_digits = 3; SET TimeZone = 'UTC'"


def table_of(kind: str) -> str:
    """A name made of letters alone; text's is one that a value names."""
    return "rows_of_" + "".join(letter if letter.isalnum() else "_" for letter in kind)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A table for each type."""
    for kind in () if knows_xml() else ("xml", "page"):
        VALUES.pop(kind)
    tables = [f"CREATE TABLE {table_of(kind)} (n int, v {kind}, w {kind})" for kind in VALUES]
    with journaled(TYPES, "CREATE SCHEMA other", *tables) as world:
        yield world


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param("", id="default", marks=pytest.mark.slow),
        pytest.param(USUAL, id="usual", marks=pytest.mark.slow),
        pytest.param(HOSTILE, id="hostile"),
    ],
)
def test_an_image_is_the_row_pitfall_036(world: World, settings: str) -> None:
    """Written by one session, taken back by another that shows values otherwise."""
    world.empty()
    world.witness.execute("SET xmloption = content; SET search_path = ''")
    with world.another() as app, world.another(f"SELECT; {settings}") as other:
        for kind, values in VALUES.items():
            fill(other, kind, values)
        stood = {kind: texts(world, kind, f"public.{table_of(kind)}") for kind in VALUES}
        images = {kind: texts(world, kind, images_of(world, kind)) for kind in VALUES}
        for kind in VALUES:
            app.execute(f"UPDATE public.{table_of(kind)} SET w = v")
            other.execute(f"UPDATE public.{table_of(kind)} SET n = 2")
            app.execute(f"DELETE FROM public.{table_of(kind)} WHERE w IS NOT NULL")
            other.execute(f"TRUNCATE public.{table_of(kind)}")
    assert images == stood
    assert world.written() == {}


def fill(app: psycopg.Connection[Any], kind: str, values: list[str]) -> None:
    """Insert a row for each value, in one statement."""
    rows = ", ".join(f"(({value})::{kind})" for value in values)
    app.execute("SET search_path TO 'other', 'public'")
    app.execute(f"INSERT INTO {table_of(kind)} SELECT 1, v, NULL FROM (VALUES {rows}) x (v)")


def texts(world: World, kind: str, source: str) -> list[tuple[object, ...]]:
    """Each column by itself: a row's text may lose what a column's has."""
    value = "v::text" if kind in {"xml", "page"} else "format('%s', v)"
    question = f"SELECT n, {value}, v IS NULL, w IS NULL FROM {source} t"
    return world.witness.execute(question.encode()).fetchall()


def images_of(world: World, kind: str) -> str:
    """Rows that are made of what the journal has for a table."""
    table = f"public.{table_of(kind)}"
    return (
        f"(SELECT (r::{table}).* FROM {world.schema}.j WHERE op = 1 "
        f"AND rel = '{table}'::regclass ORDER BY j.ctid)"
    )


NAMES = (
    *("DateStyle", "IntervalStyle", "extra_float_digits", "bytea_output", "TimeZone"),
    *("search_path", "quote_all_identifiers"),
)
WANTED = ("SQL, DMY", "sql_standard", "-3", "escape", "Asia/Kolkata", "other, public", "on")
SETTINGS = f"SELECT {', '.join(f'current_setting({name!r})' for name in NAMES)}"
WRITES = (
    "INSERT INTO public.rows_of_regclass VALUES (1, 'pg_class')",
    ("TRUNCATE public.rows_of_regclass"),
)


def test_settings_of_a_session_are_its_own_afterwards(world: World) -> None:
    """A trigger sets others for a moment."""
    with world.another(HOSTILE, *WRITES) as app:
        assert app.execute(SETTINGS).fetchone() == WANTED


def test_settings_of_a_transaction_are_its_own_afterwards(world: World) -> None:
    """And those of the session are back after it."""
    with world.another() as app:
        usual = app.execute(SETTINGS).fetchone()
        for statement in ("BEGIN", HOSTILE.replace("SET ", "SET LOCAL "), *WRITES):
            app.execute(statement)
        assert app.execute(SETTINGS).fetchone() == WANTED
        app.execute("COMMIT")
        assert app.execute(SETTINGS).fetchone() == usual


def test_settings_stay_where_work_is_rolled_back(world: World) -> None:
    """To a savepoint, and the whole of it."""
    with world.another(HOSTILE, "BEGIN", "SAVEPOINT a", *WRITES) as app:
        for statement in ("ROLLBACK TO a", "ROLLBACK"):
            app.execute(statement)
            assert app.execute(SETTINGS).fetchone() == WANTED


def test_times_are_written_in_the_zone_of_the_database() -> None:
    """That is what most apps have; the others' are converted. It is that of the journal's day."""
    with database("CREATE TABLE times (at timestamptz)") as name:
        run(f"ALTER DATABASE {name} SET TimeZone = 'Asia/Kolkata'")
        install(address(name))
        world = World(name)
        world.run("INSERT INTO times VALUES ('2026-01-01 00:00+00')", "SET TimeZone = 'UTC'")
        world.run("UPDATE times SET at = '2026-01-02 00:00+00'")
        assert world.written() == {('"public"."times"', '("2026-01-02 05:30:00+05:30")'): 1}
        run(f"ALTER DATABASE {name} SET TimeZone = 'America/New_York'")
        world.close()
        world = World(name)
        before = world.state()
        assert world.journal.enter(1) == ()
        world.run("DELETE FROM times")
        assert world.journal.leave(1) == DONE
        assert world.state() == before
        world.close()
