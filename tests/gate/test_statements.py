"""The one classifier of statements, with the patterns of each product."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_arena._gate._statements import classify
from pytest_arena._mysql._statements import ALTERING as MYSQL
from pytest_arena._postgresql._driver_guard import ALTERING as POSTGRESQL
from pytest_arena._sqlite._connections import ALTERING as SQLITE

if TYPE_CHECKING:
    import re

TABLES = {
    "insert into scores (points) values (1)": "scores",
    "/* a -- b */ UPDATE ONLY dancers SET name = 'x'": "dancers",
    "-- a\nDELETE FROM public.dancers": "dancers",
    'INSERT OR IGNORE INTO "my ""table""" VALUES (1)': 'my "table"',
    "REPLACE INTO `shop`.`items` VALUES (1)": "shop.items",
    "WITH a AS (SELECT 1) INSERT INTO scores SELECT * FROM a": "scores",
    "WITH a AS (SELECT 'delete from scores') SELECT * FROM a": "",
    "WITH a AS (SELECT 1) SELECT * FROM t FOR UPDATE": "",
    "INSERT INTO temp.scores VALUES (1)": "",
    "SELECT write_it()": "",
}


@pytest.mark.parametrize("text", TABLES)
def test_the_written_table(text: str) -> None:
    """As the app names it."""
    assert classify(text, SQLITE).table == TABLES[text]


@pytest.mark.parametrize(
    "text, ends",
    [
        ("COMMIT", True),
        ("-- enough\nrollback", True),
        ("ROLLBACK TO SAVEPOINT a", False),
        ("SELECT 'commit'", False),
    ],
)
def test_the_end_of_a_transaction(text: str, *, ends: bool) -> None:
    """But not of a savepoint."""
    assert classify(text, SQLITE).ends_transaction is ends


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
        "UPDATE t SET a = 1",
        "SELECT * FROM settings",
    ),
    MYSQL: ("SET TRANSACTION READ ONLY", "UPDATE t SET a = 1", "SELECT 1"),
}


@pytest.mark.parametrize("pattern", ALTERING, ids=["sqlite", "postgresql", "mysql"])
def test_the_session(pattern: re.Pattern[str]) -> None:
    """A setting of the transaction alone does not alter it."""
    for text in ALTERING[pattern]:
        assert classify(text, pattern).alters_session, text
    for text in KEEPING[pattern]:
        assert not classify(text, pattern).alters_session, text
