"""The one classifier of statements, with the patterns of each product."""

from __future__ import annotations

import pytest

from pytest_arena._mysql._driver_guard import WORDS as MYSQL
from pytest_arena._postgresql._driver_guard import WORDS as POSTGRESQL
from pytest_arena._product._statements import Reach, Words, classify
from pytest_arena._sqlite._connections import WORDS as SQLITE

TABLES = {
    "insert into scores (points) values (1)": "scores",
    "/* a -- b */ UPDATE ONLY dancers SET name = 'x'": "dancers",
    "-- a\nDELETE FROM public.dancers": "dancers",
    'INSERT OR IGNORE INTO "my ""table""" VALUES (1)': 'my "table"',
    "REPLACE INTO `shop`.`items` VALUES (1)": "shop.items",
    "DELETE a, `b` FROM scores a JOIN b ON a.id = b.id": "scores",
    "WITH a AS (SELECT 1) INSERT INTO scores SELECT * FROM a": "scores",
    "WITH a AS (SELECT 'delete from scores') SELECT * FROM a": "",
    "WITH a AS (SELECT 1) SELECT * FROM t FOR UPDATE": "",
    "INSERT INTO temp.scores VALUES (1)": "",
    "INSERT INTO pg_temp.scores VALUES (1)": "",
    "INSERT INTO temp VALUES (1)": "temp",
    "SELECT write_it()": "",
}


@pytest.mark.parametrize("text", TABLES)
def test_the_written_table(text: str) -> None:
    assert classify(text, SQLITE).table == TABLES[text]


REACHES = {
    Reach.NOTHING: (
        "SELECT 'delete from t'",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "CREATE TEMPORARY TABLE t (a int)",
        "/* UPDATE t SET */ COMMIT;",
        "SET @a = 1",
    ),
    Reach.TABLE: (
        'INSERT t VALUES ("a; b")',
        "REPLACE INTO `t` VALUES (1)",
        "UPDATE IGNORE t AS x SET a = 1",
        "DELETE FROM t WHERE a = 'it\\'s; c'",
        "TRUNCATE t",
    ),
    Reach.ROWS: (
        "UPDATE t JOIN u SET a = 1",
        "DELETE t FROM t JOIN u",
        "LOAD DATA INFILE 'a'",
        "WITH a AS (SELECT 1) MERGE INTO t USING a",
        "EXPLAIN ANALYZE DELETE FROM t",
    ),
    Reach.SCHEMA: ("ALTER TABLE t", "DO 1; DO 2", "CALL f", "EXECUTE s", "SET STATEMENT a FOR b"),
}


@pytest.mark.parametrize("reach", REACHES)
def test_what_a_statement_may_write_on_mysql(reach: Reach) -> None:
    """A statement that is not known may write anything."""
    for text in REACHES[reach]:
        assert classify(text, MYSQL).reach is reach, text


def test_the_end_of_a_transaction() -> None:
    """But not of a savepoint."""
    for text in ("COMMIT", "-- enough\nrollback"):
        assert classify(text, SQLITE).ends_transaction, text
    for text in ("ROLLBACK TO SAVEPOINT a", "SELECT 'commit'"):
        assert not classify(text, SQLITE).ends_transaction, text


ALTERING = {
    SQLITE: (
        "PRAGMA foreign_keys = ON",
        "PRAGMA main.cache_size(7)",
        "ATTACH ':memory:' AS x",
        "CREATE TEMP TABLE t (a)",
    ),
    POSTGRESQL: (
        "SET search_path = a",
        "SELECT 1; SET ROLE x",
        "CREATE TEMPORARY TABLE t (a int)",
        "SELECT set_config('app.tenant', 'a', false)",
        "SELECT pg_advisory_lock(1)",
        "LISTEN news",
        "PREPARE p AS SELECT 1",
    ),
    MYSQL: (
        "SET @a = 1",
        "/* a */ SET SESSION sql_mode = ''",
        "SELECT GET_LOCK('a', 1)",
        "CREATE TEMPORARY TABLE t (a int)",
        "LOCK TABLES t READ",
    ),
}
KEEPING = {
    SQLITE: ("PRAGMA table_info(t)", "PRAGMA foreign_keys", "SELECT 'ATTACH'"),
    POSTGRESQL: (
        "SET LOCAL app.tenant = 'a'",
        "SET TRANSACTION READ ONLY",
        "SELECT set_config('app.tenant', 'a', true)",
        "SELECT pg_advisory_xact_lock(1)",
        "SELECT * FROM settings",
    ),
    MYSQL: ("SET TRANSACTION READ ONLY", "UPDATE t SET a = 1", "SELECT 1"),
}


@pytest.mark.parametrize("pattern", ALTERING, ids=["sqlite", "postgresql", "mysql"])
def test_the_session(pattern: Words) -> None:
    """A setting of the transaction alone does not alter it."""
    for text in ALTERING[pattern]:
        assert classify(text, pattern).alters_session, text
    for text in KEEPING[pattern]:
        assert not classify(text, pattern).alters_session, text


# What it does, and what a build may do.
BEYOND = (
    ("drop  Database shop", "DROP DATABASE", ""),
    ("/* x */ ALTER -- y\n SYSTEM SET a = 1", "ALTER SYSTEM", ""),
    ("SELECT 1; drop role a", "DROP ROLE", ""),
    ("ALTER USER a NOLOGIN", "ALTER USER", ""),
    ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity", "PG_TERMINATE_BACKEND", ""),
    ("create role a; DROP DATABASE b", "DROP DATABASE", "CREATE ROLE"),
    ("SELECT 1; Revoke a, b FROM c", "", "REVOKE"),
    ("GRANT connect ON  DATABASE shop TO a", "", "GRANT"),
    ("comment on\ndatabase shop IS ''", "", "COMMENT ON DATABASE"),
    ('GRANT SELECT ON ALL TABLES IN SCHEMA a TO b; REVOKE ALL ON\n"role" FROM b', "", ""),
    ("CREATE USER MAPPING FOR a SERVER b", "", ""),
    ("DO $$ BEGIN EXECUTE format('ALTER ROLE a IN DATABASE %I SET b = 1'); END $$", "", ""),
    ("INSERT INTO notes VALUES ('drop database x')", "", ""),
    ("SELECT pg_terminate_backend(1) FROM pg_stat_activity WHERE current_database() = a", "", ""),
    ("ALTER TABLE users ADD role text", "", ""),
)


def test_what_reaches_beyond_a_database_is_known() -> None:
    """Anywhere in a script. A statement that only has such words in it does not."""
    for statement, *found in BEYOND:
        meaning = classify(statement, POSTGRESQL)
        assert [meaning.beyond, meaning.shared] == found, statement
    for statement in ("DROP SCHEMA", "ALTER USER", "SET PASSWORD"):
        assert classify(f"{statement.lower()} x", MYSQL).beyond == statement
