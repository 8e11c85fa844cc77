"""Many tests, many tables, many rows: a test pays for what it has changed, and for no more."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.example import Run
from tests.plugin.private_server import PRODUCTION, PrivateServer, private_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.example import Example

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    """One for all tests here."""
    with private_server() as found:
        yield found


APP = f"""
import sqlalchemy
engine = sqlalchemy.create_engine("{PRODUCTION.replace("asyncpg", "psycopg")}")
"""

SCHEMA = """
CREATE TABLE stock (id serial PRIMARY KEY, amount int, note text);
CREATE TABLE orders (id serial PRIMARY KEY, item int REFERENCES stock, note text UNIQUE);
CREATE TABLE plain (a int, b text);
INSERT INTO stock (amount, note) SELECT 5, 'item ' || n FROM generate_series(1, 1000) n;
INSERT INTO plain SELECT n % 7, 'same' FROM generate_series(1, 100) n;
"""

# Pages with those of indexes: of the journal, of the app's tables, of the catalog.
SOAK = """
import pytest
from sqlalchemy import text
from app import engine

PAGES = text('''
    SELECT coalesce(sum(pg_total_relation_size(c.oid)) / 8192, 0)::int FROM pg_class c
    JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind = 'r' AND nspname ''' + " ~ :which")
WRITES = [
    "INSERT INTO orders (item, note) SELECT n, 'order ' || n FROM generate_series(1, 3) n",
    "UPDATE stock SET amount = amount - 1 WHERE id IN (1, 2, 3, :turn % 1000)",
    "DELETE FROM stock WHERE id = 1000 - :turn % 500",
    "DELETE FROM plain WHERE a = :turn % 7",
    "INSERT INTO plain VALUES (:turn, 'new')",
]
seen = {}


@pytest.mark.parametrize("turn", range(TURNS))
def test_one_after_the_other_pitfall_061(turn):
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM orders")) == 0
        assert connection.scalar(text("SELECT nextval('orders_id_seq')")) == 1
        assert connection.scalar(text("SELECT sum(amount) FROM stock")) == 5000
        for sql in WRITES:
            connection.execute(text(sql), {"turn": turn} if ":turn" in sql else {})
        if turn in (TURNS // 4, TURNS - 1):
            schemas = "arena", "public", "^pg_c"
            seen[turn] = [connection.scalar(PAGES, {"which": which}) for which in schemas]


def test_pages():
    (journal, of_the_app, catalog), late = seen[TURNS // 4], seen[TURNS - 1]
    assert late[0] <= max(journal, 150), seen
    assert late[1] <= 3 * of_the_app + 50, seen  # nobody vacuums: as many as four times the tests
    assert late[2] <= catalog + 20, seen
"""


def project(example: Example, schema: str, tests: str) -> Example:
    """An app that has an engine and no more; the tests write as its requests would."""
    options = "arena_schema = app:Base\narena_seed = seed:seed", "arena_schema = schema.sql"
    app = example.change("pytest.ini", *options).change("pytest.ini", "arena_app = app:app\n", "")
    files = {"app.py": APP, "schema.sql": schema, "test_it.py": tests}
    return replace(app.with_paths(files), env={})  # all rows are not read after each of the tests


def run_long(project: Example, server: PrivateServer) -> Run:
    """Run what may take minutes on a machine that has other things to do."""
    process = project.start(env=server.env)
    output, _ = process.communicate(timeout=900)
    return Run(process.returncode, output, project.folder)


def test_thousands_of_tests(example: Example, server: PrivateServer) -> None:
    """P10: the database does not grow with their number."""
    tests = SOAK.replace("TURNS", "2000")
    run = run_long(project(example, SCHEMA, tests), server).expect(passed=2001)
    server.check_clean(run.output)


MANY_SCHEMA = """
DO $$ BEGIN
    FOR n IN 1..1000 LOOP
        EXECUTE format('CREATE TABLE t%s (id serial PRIMARY KEY, a int, b text)', n);
    END LOOP;
END $$;
CREATE TABLE days (day int NOT NULL, what text, PRIMARY KEY (day)) PARTITION BY RANGE (day);
DO $$ BEGIN
    FOR n IN 1..500 LOOP
        EXECUTE format('CREATE TABLE days_%s PARTITION OF days FOR VALUES FROM (%s) TO (%s)',
                       n, n * 10, n * 10 + 10);
    END LOOP;
END $$;
INSERT INTO days SELECT n, 'seed' FROM generate_series(10, 5009, 7) n;
INSERT INTO t1 (a) SELECT n FROM generate_series(1, 1000) n;
CREATE TABLE bulk (id int PRIMARY KEY, a text);
INSERT INTO bulk SELECT n, 'seed ' || n FROM generate_series(1, 1000) n;
"""

MANY = """
import pytest
from sqlalchemy import text
from app import engine

STANDS = {
    "SELECT count(*), sum(day) FROM days WHERE what = 'seed'": (715, 1793935),
    "SELECT count(*), sum(a) FROM t1": (1000, 500500),
    "SELECT count(*), count(DISTINCT a) FROM bulk WHERE a ~ '^seed '": (1000, 1000),
    "SELECT count(*), 0 FROM bulk": (1000, 0),
    "SELECT last_value, is_called::int FROM t1_id_seq": (1000, 1),
    "SELECT last_value, is_called::int FROM t77_id_seq": (1, 0),
    "SELECT count(*), 0 FROM pg_class WHERE relname ~ '^t[0-9]+$'": (1000, 0),
}
WRITES = {
    "065_one_row": "INSERT INTO t77 (a) VALUES (1)",
    "065_fifty_tables": "; ".join(f"INSERT INTO t{n} (a) VALUES (1)" for n in range(50, 100)),
    "065_a_partition": "INSERT INTO days VALUES (3999, 'new'); DELETE FROM days WHERE day = 10",
    "065_each_partition": "UPDATE days SET what = 'changed'",
    "065_from_one_to_another": "UPDATE days SET day = day - 10 WHERE day > 4000 AND day % 7 = 3",
    "065_all_partitions_at_once": "TRUNCATE days",
    "064_many_rows_come": "INSERT INTO bulk SELECT n, 'new' FROM generate_series(1001, 210000) n",
    "064_many_rows_change": "INSERT INTO bulk SELECT n, 'new' FROM generate_series(1001, 60000) n; "
    "UPDATE bulk SET a = 'x'; UPDATE bulk SET a = 'y'",
    "049_all_rows_go": "TRUNCATE bulk; INSERT INTO bulk VALUES (1, 'new')",
    "030_one_table_of_many": "ALTER TABLE t9 ADD COLUMN c int; DROP TABLE t8",
    "066_nothing": "SELECT count(*) FROM t1",
}


@pytest.fixture(autouse=True)
def stands():
    with engine.connect() as connection:
        assert {sql: tuple(connection.execute(text(sql)).one()) for sql in STANDS} == STANDS


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_work_pitfall_030_049_064_065_066(write):
    with engine.begin() as connection:
        for statement in write.split("; "):
            connection.execute(text(statement))


def test_last(): ...
"""


def test_many_tables_and_rows(example: Example, server: PrivateServer) -> None:
    """P2, P10: all is taken back, in place, but where a table itself was changed."""
    run = run_long(project(example, MANY_SCHEMA, MANY), server).expect(passed=12)
    run.says("isolation undo", "ALTER TABLE public.t9, DROP TABLE public.t8")
    server.check_clean(run.output)
