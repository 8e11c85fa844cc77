"""Whatever is different in a database on a server has another digest, under its name."""

from __future__ import annotations

import secrets
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql._content import content
from pytest_arena._postgresql._control import ControlFailure, open_control
from tests.journal.world import with_known_types
from tests.servers.postgresql import address, connect, create_database, run

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = """
CREATE TABLE orders (id serial PRIMARY KEY, total numeric, paid timestamptz, extra json, doc xml,
                     twice int GENERATED ALWAYS AS (2) STORED);
INSERT INTO orders (total, paid, extra, doc) VALUES (1.0, '2020-01-01', '{"a": 1}', '<a/>'),
                                                     (2.5, NULL, 'null', NULL);
CREATE TABLE plain (a int, b text);
INSERT INTO plain VALUES (1, 'x'), (1, 'x'), (NULL, '');
CREATE TABLE events (a int, b text) PARTITION BY RANGE (a);
CREATE TABLE events_low PARTITION OF events FOR VALUES FROM (0) TO (10);
CREATE TABLE events_high PARTITION OF events FOR VALUES FROM (10) TO (20);
INSERT INTO events VALUES (1, 'x'), (11, 'y');
CREATE TABLE parents (a int);
CREATE TABLE children () INHERITS (parents);
CREATE SCHEMA "S two";
CREATE TABLE "S two"."T ""x" (a int);
CREATE UNLOGGED TABLE unlogged (a int);
CREATE TABLE empty_columns ();
INSERT INTO empty_columns DEFAULT VALUES;
CREATE VIEW totals AS SELECT sum(total) FROM orders;
CREATE MATERIALIZED VIEW kept AS SELECT a FROM plain;
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1';
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER noting AFTER INSERT ON plain FOR EACH ROW EXECUTE FUNCTION noted();
CREATE SEQUENCE tickets
"""


@pytest.fixture(scope="module")
def everything() -> Iterator[str]:
    """Something of everything, which the databases of all tests are copies of."""
    name = f"content_{secrets.token_hex(6)}"
    create_database(name)
    try:
        with closing(connect(name)) as app:
            app.execute(with_known_types(SCHEMA))
        yield name
    finally:
        run(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def before(everything: str) -> dict[str, str]:
    """What is read of it."""
    return read(everything)


@pytest.fixture
def database(everything: str) -> Iterator[str]:
    """A copy of it."""
    name = f"{everything}_copy"
    create_database(name, everything)
    yield name
    run(f"DROP DATABASE {name} WITH (FORCE)")


def read(database: str) -> dict[str, str]:
    """Ask as a new connection does."""
    with closing(open_control(address(database))) as control:
        return content(control)


CHANGES = [
    ("INSERT INTO plain VALUES (2, 'y')", {"table plain"}),
    # What is there three times, and twice, is not the same; nor what a sum of values would hide.
    ("INSERT INTO plain VALUES (1, 'x')", {"table plain"}),
    ("UPDATE plain SET b = NULL WHERE b = ''", {"table plain"}),
    ("UPDATE orders SET total = 1.00 WHERE id = 1", {"table orders"}),
    ("UPDATE orders SET extra = '{\"a\":1}' WHERE id = 1", {"table orders"}),
    ("UPDATE orders SET extra = NULL WHERE id = 2", {"table orders"}),
    (
        'UPDATE orders SET doc = \'<?xml version="1.0" encoding="UTF-8"?><a/>\' WHERE id = 1',
        {"table orders"},
    ),
    ("UPDATE events SET a = 12 WHERE a = 1", {"table events_low", "table events_high"}),
    ("INSERT INTO children VALUES (1)", {"table children"}),
    ('INSERT INTO "S two"."T ""x" VALUES (1)', {'table S two.T "x'}),
    ("INSERT INTO unlogged VALUES (1)", {"table unlogged"}),
    ("INSERT INTO empty_columns DEFAULT VALUES", {"table empty_columns"}),
    ("DELETE FROM plain", {"table plain"}),
    ("SELECT nextval('tickets')", {"sequence tickets"}),
    ("SELECT setval('tickets', 1, true)", {"sequence tickets"}),
    ("SELECT setval('tickets', 1000, false)", {"sequence tickets"}),
    ("ALTER SEQUENCE tickets INCREMENT 2", {"definition of sequence tickets"}),
    ("ALTER SEQUENCE tickets OWNED BY plain.a", {"definition of sequence tickets"}),
    (
        "DELETE FROM plain; REFRESH MATERIALIZED VIEW kept",
        {"table plain", "materialized view kept"},
    ),
    ("ALTER TABLE plain ALTER b SET DEFAULT 'x'", {"definition of table plain"}),
    ("ALTER TABLE plain ALTER b TYPE varchar(9)", {"definition of table plain"}),
    ("ALTER TABLE plain ADD CHECK (a > 0)", {"definition of table plain"}),
    ("CREATE INDEX ON plain (a)", {"definition of table plain"}),
    ("ALTER TABLE plain DISABLE TRIGGER noting", {"definition of table plain"}),
    ("DROP TRIGGER noting ON plain", {"definition of table plain"}),
    ("ALTER TABLE plain ENABLE ROW LEVEL SECURITY", {"definition of table plain"}),
    ("CREATE POLICY mine ON plain USING (a = 1)", {"definition of table plain"}),
    ("CREATE RULE none AS ON DELETE TO plain DO NOTHING", {"definition of table plain"}),
    ("GRANT SELECT ON plain TO PUBLIC", {"definition of table plain"}),
    ("GRANT UPDATE (a) ON plain TO PUBLIC", {"definition of table plain"}),
    ("CREATE STATISTICS of_two ON a, b FROM plain", {"definition of table plain"}),
    ("ALTER TABLE events DETACH PARTITION events_low", {"definition of table events_low"}),
    (
        "CREATE OR REPLACE VIEW totals AS SELECT min(total) AS sum FROM orders",
        {"definition of view totals"},
    ),
    ("ALTER TYPE mood ADD VALUE 'mad'", {"definition of type public.mood"}),
    (
        "ALTER DOMAIN positive DROP CONSTRAINT positive_check",
        {"definition of type public.positive"},
    ),
    (
        "CREATE OR REPLACE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT 3'",
        {"definition of function public.twice(integer)"},
    ),
    ("DROP FUNCTION twice", {"definition of function public.twice(integer)"}),
    ("COMMENT ON COLUMN plain.a IS 'mine'", {"definition of comments"}),
    ("CREATE SCHEMA third", {"definition of schema third"}),
    ('GRANT USAGE ON SCHEMA "S two" TO PUBLIC', {"definition of schema S two"}),
    ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC", {"definition of default rights"}),
    ("CREATE PUBLICATION news", {"definition of publication news"}),
    (
        "CREATE TEXT SEARCH CONFIGURATION words (COPY = pg_catalog.simple)",
        {"definition of text search configuration words"},
    ),
    (
        "CREATE TEXT SEARCH DICTIONARY plain (TEMPLATE = pg_catalog.simple)",
        {"definition of text search dictionary plain"},
    ),
    (
        "CREATE CONVERSION latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
        {"definition of conversion latin"},
    ),
    ("CREATE TYPE pair AS (a int, b int)", {"definition of type pair"}),
    ("CREATE TABLE notes (a int)", {"table notes", "definition of table notes"}),
    (
        "ALTER TABLE unlogged RENAME TO simple",
        {
            "table unlogged",
            "definition of table unlogged",
            "table simple",
            "definition of table simple",
        },
    ),
    ("SELECT lo_create(0)", {"large objects"}),
]


@pytest.mark.parametrize("statements, names", CHANGES, ids=[one for one, _ in CHANGES])
def test_a_change_is_named(
    database: str, before: dict[str, str], statements: str, names: set[str]
) -> None:
    """It, and nothing else."""
    with closing(connect(database)) as app:
        app.execute(statements)
    after = read(database)
    assert {name for name in {*before, *after} if before.get(name) != after.get(name)} == names


JOURNALING = """
CREATE FUNCTION arena_journal.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER "!arena_i" AFTER INSERT ON plain EXECUTE FUNCTION arena_journal.f()
"""


def test_what_is_the_same_has_the_same_digests(database: str) -> None:
    """Another order, other bytes on the disk, another session, journals of arena's own."""
    before = read(database)
    with closing(connect(database)) as app:
        app.execute("UPDATE plain SET a = a; UPDATE orders SET id = id")
        app.execute("DELETE FROM plain; INSERT INTO plain VALUES (NULL, ''), (1, 'x'), (1, 'x')")
        app.execute("CREATE TEMPORARY TABLE mine (a int); CREATE TEMPORARY SEQUENCE his")
        app.execute("CREATE SCHEMA arena_journal; CREATE TABLE arena_journal.j (a int)")
        app.execute(JOURNALING)
        app.execute("VACUUM FULL plain")
        app.execute("ANALYZE")
        assert read(database) == before


def test_what_a_login_or_a_connection_is_set_to_does_not_count(database: str) -> None:
    """A value has one text, and a text one value."""
    before = read(database)
    settings = (
        ("datestyle", "'SQL, DMY'"),
        ("timezone", "'Asia/Tokyo'"),
        ("extra_float_digits", "0"),
        ("bytea_output", "'escape'"),
        ("intervalstyle", "'sql_standard'"),
        ("search_path", "'S two'"),
    )
    with closing(open_control(address(database))) as control:
        for name, value in settings:
            control.run(f"SET {name} = {value}")
        assert content(control) == before
        [(zone,)] = control.rows("SHOW timezone")
        assert zone == "Asia/Tokyo"
    run(f"ALTER DATABASE {database} SET timezone = 'Asia/Tokyo'")
    after = read(database)
    assert after.pop("settings of the database") == "{TimeZone=Asia/Tokyo}"
    before.pop("settings of the database")
    assert after == before


@pytest.mark.slow
def test_a_lock_is_not_waited_for_for_ever(database: str) -> None:
    """Whoever holds it may be idle."""
    with closing(connect(database)) as app, closing(open_control(address(database))) as control:
        app.execute("BEGIN; LOCK plain IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(ControlFailure) as raised:
            content(control)
        assert raised.value.sqlstate == "55P03"
        app.execute("ROLLBACK")
        assert content(control)
