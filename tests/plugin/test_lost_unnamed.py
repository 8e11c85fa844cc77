"""Writes by statements that are no INSERT, UPDATE or DELETE, and never committed, are named too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_arena._gate._unnamed import (
    LOCKS,
    MAY_WRITE,
    NOTIFIES,
    TEMPORARY,
    WRITES,
    unnamed_write,
)
from tests.plugin.shop import env_of

if TYPE_CHECKING:
    from tests.example import Example

APP = """
import os
from fastapi import Depends, FastAPI
from fastapi.responses import JSONResponse
from sqlalchemy import DDL, create_engine, event, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.util import await_only


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


URL = os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///shop.db")
async_engine = create_async_engine(URL)
engine = create_engine(URL.replace("+aiosqlite", "").replace("+asyncpg", "+psycopg"))

if engine.dialect.name == "sqlite":
    # SQLAlchemy's own recipe.
    @event.listens_for(engine, "connect")
    def connected(connection, _):
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begun(connection):
        connection.exec_driver_sql("BEGIN")

FUNCTIONS = '''
CREATE FUNCTION write_it() RETURNS int LANGUAGE sql VOLATILE AS
    $$ INSERT INTO orders (item) VALUES ('by a function') RETURNING id $$;
CREATE FUNCTION read_it() RETURNS bigint LANGUAGE sql AS $$ SELECT count(*) FROM orders $$;
CREATE PROCEDURE do_it() LANGUAGE sql AS $$ INSERT INTO orders (item) VALUES ('called') $$;
'''
for function in FUNCTIONS.split(";"):  # asyncpg takes one statement at a time
    if function.strip():
        made = DDL(function).execute_if(dialect="postgresql")
        event.listen(Base.metadata, "after_create", made)
DO = "DO $$ BEGIN INSERT INTO orders (item) VALUES ('done'); END $$"


def run(*statements):
    def case(session):
        for each in statements:
            session.execute(text(each) if isinstance(each, str) else each)
    return case


def savepoint(session):
    nested = session.begin_nested()
    session.execute(text("SELECT write_it()"))
    nested.rollback()


def failed(session):
    session.execute(text("SELECT write_it()"))
    try:
        session.execute(text("SELECT nothing_it()"))
    except DBAPIError:
        pass


def ended(how):
    def case(session):
        session.execute(text("SELECT write_it()"))
        session.execute(text("TRUNCATE orders"))
        getattr(session, how)()
        session.execute(text("SELECT read_it()"))
    return case


def drivers_commit(session):
    session.execute(text("TRUNCATE orders"))
    session.connection().connection.commit()
    session.execute(text("SELECT read_it()"))


def copy(session):
    session.execute(text("SELECT 1"))  # begins a transaction
    driver = session.connection().connection.driver_connection
    if session.get_bind() is engine:
        with driver.cursor().copy("COPY orders (item) FROM STDIN") as rows:
            rows.write_row(["copied"])
    else:
        rows = [("copied",)]
        await_only(driver.copy_records_to_table("orders", records=rows, columns=["item"]))


def copied(session):
    copy(session)
    session.commit()
    session.execute(text("SELECT read_it()"))


def autocommit(session):
    session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
    session.execute(text("SELECT write_it()"))
    session.execute(text("NOTIFY news"))


LOST = {
    "function": run("SELECT write_it()"),
    "parentheses": run("(SELECT write_it())"),
    "func": run(select(func.write_it())),
    "with": run("WITH a AS (SELECT 1) SELECT write_it() FROM a"),
    "do": run("-- because\\n" + DO),
    "call": run("CALL do_it()"),
    "truncate": run("TRUNCATE orders RESTART IDENTITY"),
    "create": run("CREATE TABLE more (id int)"),
    "into": run("SELECT id, count(*) INTO more FROM orders GROUP BY id"),
    "index": run("CREATE INDEX IF NOT EXISTS by_item ON orders (item)"),
    "metadata": lambda session: (
        Base.metadata.drop_all(session.connection()),
    ),
    "comment": run("COMMENT ON TABLE orders IS 'all'"),
    "notify": run("NOTIFY news"),
    "pg_notify": run("SELECT pg_notify('news', 'all')"),
    "merge": run(
        "MERGE INTO orders USING (VALUES (1)) AS a (id) ON orders.id = a.id + 1000 "
        "WHEN NOT MATCHED THEN INSERT (item) VALUES ('merged')"
    ),
    "inserted": run(
        "WITH a AS (INSERT INTO orders (item) VALUES ('with') RETURNING id) SELECT id FROM a"
    ),
    "locked": run("SELECT id FROM orders FOR UPDATE", "TRUNCATE orders"),
    "copy": copy,
}
SILENT = {
    "reading": run("SELECT read_it()", "SELECT count(*), lower('A') FROM orders"),
    "locks": run("SELECT read_it()", "SELECT id FROM orders FOR UPDATE"),
    "next": run("SELECT read_it()", "SELECT nextval('orders_id_seq')"),
    "temporary": run("CREATE TEMP TABLE kept (id int)", "TRUNCATE kept", "SELECT read_it()"),
    "nothing": run("CREATE TABLE IF NOT EXISTS orders (id int)", "DROP TABLE IF EXISTS none"),
    "copied": run("SELECT 'TRUNCATE orders', 'write_it()'"),
    "savepoint": savepoint,
    "failed": failed,
    "committed": ended("commit"),
    "rolled_back": ended("rollback"),
    "drivers_commit": drivers_commit,
    "autocommit": autocommit,
    "copy_committed": copied,
}
ON_SQLITE = {
    "create": run("CREATE TABLE more (id int)"),
    "drop": run("DROP TABLE orders"),
    "replace": run("REPLACE INTO orders (id, item) VALUES (1, 'chair')"),
}
SILENT_ON_SQLITE = {
    "temporary": run("CREATE TEMP TABLE kept (id int)"),
    "in_temporary": run(
        'CREATE TEMP TABLE IF NOT EXISTS "ids" (id int)', "INSERT INTO ids VALUES (1)"
    ),
    "nothing": run("CREATE TABLE IF NOT EXISTS orders (id int)"),
    "committed": lambda session: (ON_SQLITE["create"](session), session.commit()),
    "rolled_back": lambda session: (ON_SQLITE["create"](session), session.rollback()),
}
if engine.dialect.name == "sqlite":
    LOST, SILENT = ON_SQLITE, SILENT_ON_SQLITE
ALL = {**{f"lost-{name}": case for name, case in LOST.items()}, **SILENT}
app = FastAPI()


@app.post("/sync/{case}/{status}")
def sync_case(case: str, status: int):
    with Session(engine) as session:
        ALL[case](session)
    return JSONResponse({}, status)


@app.post("/async/{case}/{status}")
async def async_case(case: str, status: int):
    async with AsyncSession(async_engine) as session:
        await session.run_sync(ALL[case])
    return JSONResponse({}, status)
"""
SEED = """
from app import Order


def seed(session):
    session.add(Order(item="chair"))
"""
TESTS = """
import pytest
from app import LOST, SILENT

WAYS = ["sync"] if len(LOST) == 3 else ["sync", "async"]  # aiosqlite begins by itself


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", LOST)
async def test_lost(client, way, case):
    assert (await client.post(f"/{way}/lost-{case}/200")).status_code == 200


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", SILENT)
async def test_silent(client, way, case):
    if (way, case) == ("async", "drivers_commit"):
        pytest.skip("asyncpg has no commit of its own")
    assert (await client.post(f"/{way}/{case}/200")).status_code == 200


async def test_silent_if_refused(client):
    assert (await client.post("/sync/lost-create/409")).status_code == 409


async def test_fails(client):
    await client.post("/sync/lost-create/200")
    assert 0, "as wanted"
"""
WORDS = {
    "function": "called write_it()",
    "parentheses": "called write_it()",
    "func": "called write_it()",
    "with": "called write_it()",
    "do": "ran DO",
    "call": "ran CALL do_it",
    "truncate": "ran TRUNCATE orders RESTART",
    "create": "ran CREATE TABLE more",
    "into": "ran SELECT id",
    "index": "ran CREATE INDEX IF",
    "metadata": "ran DROP TABLE orders",
    "comment": "ran COMMENT ON TABLE",
    "notify": "ran NOTIFY news",
    "pg_notify": "called pg_notify()",
    "merge": "wrote orders (1 row)",
    "inserted": "wrote orders (1 row)",
    "locked": "ran TRUNCATE orders",
    "copy": "ran COPY orders",
}


@pytest.mark.slow
def test_all_other_writes_on_postgresql(example: Example) -> None:
    """The server is asked whether the transaction has written, and only where it may have."""
    project = example.with_files(app=APP, seed=SEED, test_it=TESTS)
    run = project.run("--arena-lost-writes=fail", env=env_of("undo"))
    for case, words in WORDS.items():
        for way in ("sync", "async"):
            run.says(f"POST /{way}/lost-{case}/200 200 {words}, and the app never committed it")
    assert "ERROR test_it.py::test_silent" not in run.output, run.output
    run.says("    ran CREATE TABLE more and never committed it: lost (")
    run.expect(1, errors=2 * len(WORDS), failed=1, passed=2 * len(WORDS) + 26, skipped=1)


@pytest.mark.slow
def test_other_writes_on_postgresql(example: Example) -> None:
    """The most frequent of them."""
    project = example.with_files(app=APP, seed=SEED, test_it=TESTS)
    chosen = (
        "lost and (func- or into or truncate or notify) and not pg_notify or reading or committed"
    )
    run = project.run("--arena-lost-writes=fail", "-k", chosen, env=env_of("undo"))
    for way in ("sync", "async"):
        for case in ("func", "into", "truncate", "notify"):
            what = f"{WORDS[case]}, and the app never committed it"
            run.says(f"POST /{way}/lost-{case}/200 200 {what}")
    run.expect(1, errors=8, passed=14)


@pytest.mark.slow
def test_other_writes_on_sqlite(example: Example) -> None:
    """SQLAlchemy's recipe begins a transaction before a change of the schema."""
    project = example.with_files(app=APP, seed=SEED, test_it=TESTS)
    run = project.run("--arena-lost-writes=fail").expect(1, passed=9, failed=1, errors=3)
    for case, words in {
        "create": "ran CREATE TABLE more",
        "drop": "ran DROP TABLE orders",
        "replace": "wrote orders (1 row)",
    }.items():
        run.says(f"POST /sync/lost-{case}/200 200 {words}, and the app never committed it")


@pytest.mark.parametrize(
    "statement, expected",
    [
        ("SELECT count(*), coalesce(a, 1) FROM b WHERE c IN (1) AND d::varchar(3) = ''", ""),
        ("SELECT date_trunc('day', a), jsonb_agg(b) OVER (PARTITION BY c) FROM d", ""),
        ("WITH RECURSIVE a AS (SELECT 1) SELECT * FROM a", ""),
        ("SELECT 'write_it()'", ""),
        ("SELECT audit.write_it(1)", MAY_WRITE),
        ('/* why */ select "writeIt" (1)', MAY_WRITE),
        ("\n( (SELECT write_it()) UNION SELECT 1)", MAY_WRITE),
        ("(SELECT 1)", ""),
        ("SELECT a FROM b FOR NO KEY UPDATE", LOCKS),
        ("select nextval('a')", LOCKS),
        ("LOCK TABLE a", LOCKS),
        ("SELECT a, max(b) INTO c FROM d", WRITES),
        ("SELECT a INTO TEMP TABLE b FROM c", ""),
        ("SELECT a INTO\n    TEMPORARY b FROM c", ""),
        ("SELECT a INTO template_copy FROM c", WRITES),
        ("SELECT 'into', a FROM b", ""),
        ("SELECT pg_notify('a', 'b')", NOTIFIES),
        ("notify a", NOTIFIES),
        ("DO $$ BEGIN END $$", MAY_WRITE),
        ("CALL a()", MAY_WRITE),
        ("EXECUTE a", MAY_WRITE),
        ("TRUNCATE a", WRITES),
        ("COPY a (b) FROM STDIN", WRITES),
        ("COPY a TO STDOUT", ""),
        ("COPY (SELECT a FROM b) TO STDOUT", ""),
        ("CREATE UNIQUE INDEX a ON b (c)", WRITES),
        ("CREATE TABLE IF NOT EXISTS a (b int)", MAY_WRITE),
        ("DROP TABLE IF EXISTS a", MAY_WRITE),
        ("CREATE TEMP TABLE a (b int)", TEMPORARY),
        ("CREATE LOCAL TEMPORARY VIEW a AS SELECT 1", TEMPORARY),
        ("CREATE TABLE temperatures (b int)", WRITES),
        ("INSERT INTO a VALUES (write_it())", ""),
        ("SET a = 1", ""),
        ("BEGIN", ""),
        ("", ""),
    ],
)
def test_what_may_write(statement: str, expected: str) -> None:
    """By its first words, or by a function that is not known to read."""
    assert unnamed_write(statement)[0] == expected
