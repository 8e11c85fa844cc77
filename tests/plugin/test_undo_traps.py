"""An app whose database is full of traps: what each of its tests does, no other one meets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.office import office
from tests.plugin.private_server import PrivateServer, private_server
from tests.servers.postgresql import URL, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.example import Example, Run


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    """One for all tests here."""
    with private_server() as found:
        yield found


# How many orders stand at first is written above it: in the file of a wide fixture there is one.
ROWS = """
import asyncio
import pytest
from sqlalchemy import text
from app import engine


async def count(client, table):
    return (await client.get(f"/count/{table}")).json()


@pytest.mark.parametrize("turn", range(2))
async def test_the_first_order_has_the_first_number_pitfall_057(client, turn):
    numbers = [(await client.post("/orders")).json()[0] for _ in range(2)]
    assert numbers == [ORDERS + 1, ORDERS + 2]


async def test_a_number_that_was_rolled_back_pitfall_057(client):
    assert (await client.post("/orders", params={"customer": 77})).status_code == 409
    assert (await client.post("/orders")).json()[0] == ORDERS + 2


async def test_each_request_has_its_own_time_pitfall_062(client):
    times = [(await client.post("/orders")).json()[2] for _ in range(3)]
    assert sorted(set(times)) == times


async def test_a_request_that_rolls_back_pitfall_042(client):
    assert (await client.post("/orders/half")).status_code == 402
    assert await count(client, "orders") == ORDERS + 1


async def test_the_cascade_of_a_foreign_key_pitfall_039_045(client):
    await client.post("/orders")
    await client.post("/orders", params={"customer": 2})
    assert (await client.delete("/customers/1")).status_code == 200
    assert await count(client, "orders") == 1


async def test_a_cycle_of_foreign_keys_pitfall_045_046(client):
    assert (await client.post("/departments/2")).status_code == 201
    assert (await client.post("/departments/3", params={"head": 9})).status_code == 409
    assert (await client.delete("/departments")).status_code == 200
    assert await count(client, "departments") == 0


async def test_audit_and_times_of_the_apps_triggers_pitfall_047(client):
    before = await count(client, "audit.log")
    assert (await client.put("/invoices/1")).json() == [[True]]
    await client.post("/orders")
    assert await count(client, "audit.log") == before + 2


async def test_what_may_not_be_deleted_pitfall_047(client):
    answer = await client.delete("/invoices/1")
    assert "ten years" in answer.text
    assert (await client.put("/invoices/2")).status_code == 200


async def test_a_view_that_writes_elsewhere_pitfall_048(client):
    assert (await client.post("/notes/loud")).status_code == 201
    assert await count(client, "notes") == 2


async def test_equal_rows_and_triggers_that_change_them_pitfall_037_038_048(client):
    assert (await client.post("/lines")).status_code == 201
    assert await count(client, "lines WHERE line = 'same!'") == 3


async def test_an_import_that_empties_the_tables_pitfall_049(client):
    await client.post("/orders")
    assert (await client.post("/customers/import")).json() == [[1], [2]]
    assert await count(client, "orders") == 0
    assert (await client.post("/orders")).json()[0] == 1


async def test_a_table_that_was_emptied_and_is_not_pitfall_042_049(client):
    async with engine.begin() as connection:
        inner = await connection.begin_nested()
        await connection.execute(text("TRUNCATE customers CASCADE"))
        await inner.rollback()
        await connection.execute(text("DELETE FROM lines"))
    assert await count(client, "customers") == 2


async def test_a_key_that_moves_pitfall_040_052(client):
    assert (await client.post("/customers/2/rename/Cleo")).status_code == 200
    assert await count(client, "customers WHERE id = 102") == 1


async def test_one_row_many_times_pitfall_041(client):
    for _ in range(2):
        assert (await client.delete("/customers/2")).status_code == 200
        for name in "Cleo", "Cleo", "Dee":
            assert (await client.post(f"/customers/2/rename/{name}")).status_code == 200
        assert (await client.delete("/customers/102")).status_code == 200
    assert await count(client, "customers WHERE name = 'Dee'") == 1


async def test_a_table_that_inherits_pitfall_051(client):
    assert (await client.post("/raise")).json() == [[3], [3]]


async def test_partitions_pitfall_050(client):
    await client.post("/events/2024-06-01")
    await client.post("/events/2031-06-01")
    assert (await client.post("/events/400/later")).status_code == 200
    assert await count(client, "events_2024") == 0
    assert await count(client, "events_rest") == 4


async def test_rows_of_a_role_that_sees_its_own_pitfall_055(client):
    acme, zeta = {"tenant": "acme"}, {"tenant": "zeta"}
    assert (await client.get("/documents", headers=acme)).json() == [[1]]
    assert (await client.post("/documents", headers=acme)).json() == [[3]]
    assert (await client.delete("/documents", headers=zeta)).json() == [[2]]
    assert (await client.get("/documents", headers=acme)).json() == [[1], [3]]


async def test_a_table_of_each_tenants_pitfall_056(client):
    acme = {"tenant": "acme"}
    assert (await client.post("/notes", headers=acme)).json() == 2
    assert (await client.post("/notes")).json() == 2
    await client.post("/notes/by-path", headers=acme)
    assert await count(client, "acme.notes") == 3
    assert await count(client, "public.notes") == 2


async def test_serializable_requests_side_by_side_pitfall_059(client):
    for _ in range(3):
        orders = (client.post("/orders/strict", params={"customer": n % 2 + 1}) for n in range(8))
        assert {answer.status_code for answer in await asyncio.gather(*orders)} == {201}
    assert await count(client, "orders") == ORDERS + 24
"""

WIDE = """
import pytest
from sqlalchemy import text


@pytest.fixture(scope="module", autouse=True)
def opened(arena):
    with arena.session() as session:
        for sql in (
            "INSERT INTO orders (customer_id, amount) VALUES (1, 3)",
            "UPDATE invoices SET text = 'wide' WHERE id = 2",
            "INSERT INTO events VALUES ('2024-07-01', 'wide'), ('2032-01-01', 'wide')",
            "INSERT INTO lines VALUES ('same', '{}')",
            "DELETE FROM lines WHERE line IS NULL",
        ):
            session.execute(text(sql))
        session.commit()
"""
CHANGES_OF_WIDE = {
    'await count(client, "events_rest") == 4': 'await count(client, "events_rest") == 6',
    "line = 'same!'\") == 3": "line = 'same!'\") == 4",
}


def wide(tests: str) -> str:
    """The tests, beside what a fixture of the module has written."""
    for old, new in CHANGES_OF_WIDE.items():
        tests = tests.replace(old, new)
    return f"{WIDE}\nORDERS = 1\n{tests}"


BACKWARDS = {"BACKWARDS": "1"}
WAYS = [
    pytest.param("asyncpg", {}, id="asyncpg"),
    pytest.param("asyncpg", BACKWARDS, id="asyncpg-backwards", marks=pytest.mark.slow),
    pytest.param("psycopg", {}, id="psycopg", marks=pytest.mark.slow),
]


@pytest.mark.slow
@pytest.mark.parametrize("driver,order", WAYS)
def test_rows(example: Example, server: PrivateServer, driver: str, order: dict[str, str]) -> None:
    """P2, P3, P6: in place, beside a wide fixture's rows or not, in either order."""
    files = {"test_alone": f"ORDERS = 0\n{ROWS}", "test_wide": wide(ROWS)}
    run = office(example, driver=driver, **files).run(env={**server.env, **order})
    run.expect(passed=40).says("isolation undo").never_says("replaced")
    server.check_clean(run.output)


SCHEMAS = """
import pytest
from sqlalchemy import NullPool, text
from sqlalchemy.ext.asyncio import create_async_engine
from app import engine

DDL = {
    "029_create": "CREATE TABLE made (id int); INSERT INTO made VALUES (1)",
    "029_create_as": "CREATE TABLE orders_now AS SELECT * FROM orders",
    "029_type": "CREATE TYPE mood AS ENUM ('glad')",
    "030_add": "ALTER TABLE orders ADD COLUMN note text DEFAULT 'x'; DELETE FROM lines",
    "030_retype": "INSERT INTO lines VALUES ('z'); ALTER TABLE lines ALTER line TYPE varchar(50)",
    "030_index": "CREATE UNIQUE INDEX just_one ON notes (body)",
    "031_drop": "DELETE FROM notes; DROP TABLE notes CASCADE",
    "031_rename": "ALTER TABLE notes RENAME TO pages; INSERT INTO pages (body) VALUES ('a')",
    "031_exchange": "ALTER TABLE orders RENAME TO old_orders; CREATE TABLE orders (id serial)",
    "032_disable": "ALTER TABLE invoices DISABLE TRIGGER USER; DELETE FROM invoices",
    "032_disable_all": "ALTER TABLE lines DISABLE TRIGGER ALL; INSERT INTO lines VALUES ('new'); "
    "ALTER TABLE lines ENABLE TRIGGER USER",
    "034_function": "CREATE OR REPLACE FUNCTION forbid() RETURNS trigger LANGUAGE plpgsql AS "
    "'BEGIN RETURN OLD;END'; DELETE FROM invoices",
    "034_view": "CREATE OR REPLACE VIEW loud AS SELECT id, lower(body) AS body FROM notes",
    "034_policy": "DROP POLICY own ON documents; UPDATE documents SET tenant = 'acme'",
    "034_comment": "COMMENT ON TABLE orders IS 'of today'",
    "034_grant": "GRANT SELECT ON orders TO clerk",
    "045_constraint": "ALTER TABLE departments DROP CONSTRAINT headed; DELETE FROM employees",
    "050_attach": "CREATE TABLE events_2025 (LIKE events); INSERT INTO events_2025 VALUES "
    "('2025-02-02', 'attached'); ALTER TABLE events ATTACH PARTITION events_2025 FOR VALUES "
    "FROM ('2025-01-01') TO ('2026-01-01'); UPDATE events SET day = day + 1",
    "050_detach": "ALTER TABLE events DETACH PARTITION events_2024; DELETE FROM events_2024",
    "054_unlogged": "ALTER TABLE notes SET UNLOGGED; DELETE FROM notes",
    "057_sequence": "ALTER SEQUENCE notes_id_seq RESTART WITH 70; DROP SEQUENCE lonely",
    "058_large_object": "SELECT lo_create(4711); DELETE FROM lines",
    "058_setting": "SELECT set_config('a.b', 'c', false); "
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = 70', current_database());"
    "END $$",
    "058_extension": "CREATE EXTENSION citext",
    "all_of_it": "DROP SCHEMA public, audit, acme CASCADE",
}


@pytest.mark.parametrize("ddl", DDL.values(), ids=DDL.keys())
async def test_ddl_pitfall_029_030_031_032_034(ddl):
    # Whose the database is, the app's login is not: one that may do all of it comes beside.
    owner = create_async_engine(engine.url.set(username="postgres"), poolclass=NullPool)
    async with (owner if "ALTER DATABASE" in ddl else engine).begin() as connection:
        for statement in ddl.split("; "):
            await connection.execute(text(statement))


async def test_a_new_tenant_pitfall_056(client):
    assert (await client.post("/tenants/initech")).status_code == 201
    assert (await client.post("/notes", headers={"tenant": "initech"})).json() == 1


async def test_a_materialized_view_pitfall_053(client):
    await client.post("/orders")
    assert (await client.post("/totals")).json() == [[1, 1]]


async def test_a_truncate_that_others_may_overtake_pitfall_049(client):
    repeatable = engine.execution_options(isolation_level="REPEATABLE READ")
    async with repeatable.begin() as connection:
        await connection.execute(text("TRUNCATE lines"))


@pytest.mark.parametrize("turn", range(2))
async def test_that_only_writes(client, turn):
    assert (await client.post("/orders")).json()[0] == 1
"""


REPLACED = {
    "[029_create]": "CREATE TABLE public.made",
    "[030_add]": "ALTER TABLE public.orders",
    "[031_drop]": "DROP TABLE public.notes",
    "[031_rename]": "ALTER TABLE public.pages",
    "[032_disable]": "ALTER TABLE public.invoices",
    "[034_function]": "CREATE FUNCTION public.forbid()",
    "[034_policy]": "DROP POLICY own on public.documents",
    "[034_comment]": "COMMENT public.orders",
    "[034_grant]": "GRANT on a table",
    "[050_attach]": "CREATE TABLE public.events_2025",
    "[058_large_object]": "large objects",
    "[058_setting]": "settings of the database",
    "[all_of_it]": "DROP SCHEMA public",
    "test_a_new_tenant_pitfall_056": "CREATE TABLE initech.notes",
    "test_a_materialized_view_pitfall_053": "REFRESH MATERIALIZED VIEW public.totals",
    "test_a_truncate_that_others_may_overtake_pitfall_049": "TRUNCATE public.lines",
}


def says_of(run: Run, texts: dict[str, str]) -> None:
    """Assert that each test is named in one line with what it did."""
    lines = run.output.splitlines()
    for test, did in texts.items():
        assert any(test in line and did in line for line in lines), (test, did, run.output)


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_schemas(example: Example, server: PrivateServer, driver: str) -> None:
    """P2, P8: another database takes its place, and the summary says of each test why."""
    run = office(example, driver=driver, test_it=SCHEMAS).run(env=server.env).expect(passed=30)
    run.says("isolation undo")
    says_of(run, REPLACED)
    server.check_clean(run.output)


@pytest.mark.slow
@pytest.mark.parametrize("order", [{}, BACKWARDS], ids=["forwards", "backwards"])
def test_schemas_beside_a_wide_fixtures_rows(
    example: Example, server: PrivateServer, order: dict[str, str]
) -> None:
    """P6: each new database has them; in either order."""
    tests = wide(SCHEMAS).replace("()[0] == 1", "()[0] == 2").replace("[[1, 1]]", "[[1, 2]]")
    project = office(example, test_alone=SCHEMAS, test_it=tests)
    run = project.run(env={**server.env, **order}).expect(passed=60)
    server.check_clean(run.output)


SESSIONS = """
import asyncio
import pytest
from sqlalchemy import text
from app import engine, maker

STATES = {
    "131_a_lock": "SELECT pg_advisory_lock(7)",
    "131_a_lock_and_rows": "SELECT pg_advisory_lock_shared(7); DELETE FROM lines",
    "054_a_temporary_table": "CREATE TEMP TABLE customers AS SELECT 99 AS id",
    "054_into_one": "SELECT 99 AS id INTO TEMP customers",
    "054_a_view": "CREATE OR REPLACE TEMP VIEW customers AS SELECT 99 AS id",
    "054_by_its_schema": "CREATE TABLE pg_temp.customers AS SELECT 99 AS id",
    "132_in_a_block": "DO $$ BEGIN SET statement_timeout = '7s';END $$",
    "054_one_that_goes": "CREATE TEMP TABLE gone (id int) ON COMMIT DROP; DELETE FROM lines",
    "132_a_setting": "SET statement_timeout = '7s'",
    "132_by_function": "SELECT set_config('app.tenant', 'acme', false)",
    "056_a_path": "SET search_path = acme; INSERT INTO notes (body) VALUES ('acme'); "
    "DELETE FROM public.notes",
    "055_a_role": "SET ROLE clerk",
    "033_a_replica": "SET session_replication_role = replica; DELETE FROM invoices; "
    "DELETE FROM customers",
    "130_a_listener": "LISTEN orders",
    "130_a_notice": "LISTEN orders; NOTIFY orders; DELETE FROM lines",
    "058_a_cursor": "DECLARE held CURSOR WITH HOLD FOR SELECT * FROM customers",
    "132_a_statement": "PREPARE mine AS SELECT 1",
    "036_a_style": "SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Tokyo'; "
    "SET IntervalStyle = sql_standard; SET bytea_output = escape; SET extra_float_digits = -3; "
    "UPDATE events SET day = day + 1; UPDATE invoices SET text = 'x'; UPDATE orders SET amount = 1",
    "066_nothing": "SELECT count(*) FROM customers",
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
async def test_state_pitfall_033_036_054_055_056_058_130_131_132(state, client):
    await client.post("/orders")
    async with engine.connect() as connection:
        for statement in state.split("; "):
            await connection.execute(text(statement))
        await connection.commit()


@pytest.mark.parametrize("state", ["LISTEN orders", "SELECT pg_advisory_lock(7)", "SET ROLE clerk"])
async def test_state_and_nothing_written_pitfall_131_132(state):
    async with engine.connect() as connection:
        await connection.execute(text(state))
        await connection.commit()


async def test_commits_in_another_order_pitfall_043(client):
    async with maker() as one, maker() as other:
        await one.execute(text("UPDATE customers SET name = 'One' WHERE id = 1"))
        await other.execute(text("UPDATE customers SET name = 'Other' WHERE id = 2"))
        await other.commit()
        await one.execute(text("UPDATE customers SET name = 'Late' WHERE id = 2"))
        await one.commit()


async def test_leaves_a_transaction_open_pitfall_044(client):
    await client.post("/orders")
    session = maker()
    await session.execute(text("DELETE FROM lines"))
    left.append(session)


async def test_numbers_held_by_each_connection_pitfall_057(client):
    async with engine.connect() as one, engine.connect() as other:
        for connection in one, other:
            assert await connection.scalar(text("SELECT nextval('held')")) in (1, 11)
            await connection.commit()


left = []
"""


@pytest.mark.slow
@pytest.mark.parametrize("driver,order", WAYS)
def test_sessions(
    example: Example, server: PrivateServer, driver: str, order: dict[str, str]
) -> None:
    """P2, P7: what a connection was told ends with its test; in place, in either order."""
    project = office(example, driver=driver, test_it=SESSIONS)
    run = project.run("-W", "ignore", env={**server.env, **order})
    run.expect(1, passed=25, errors=1).never_says("replaced")
    run.says("test_leaves_a_transaction_open_pitfall_044", "ended with an open transaction")
    server.check_clean(run.output)


PREPARED = """
from sqlalchemy import text
from app import engine

by_hand = engine.execution_options(isolation_level="AUTOCOMMIT")


async def test_leaves_a_prepared_transaction_pitfall_058(client):
    await client.post("/orders")
    async with by_hand.connect() as connection:
        for statement in "BEGIN", "DELETE FROM lines", "PREPARE TRANSACTION 'left behind'":
            await connection.execute(text(statement))


async def test_ends_its_own_pitfall_058(client):
    async with by_hand.connect() as connection:
        for statement in "BEGIN", "DELETE FROM lines", "PREPARE TRANSACTION 'mine'":
            await connection.execute(text(statement))
        await connection.execute(text("COMMIT PREPARED 'mine'"))


async def test_may_use_its_name(client):
    async with by_hand.connect() as connection:
        for statement in "BEGIN", "DELETE FROM lines", "PREPARE TRANSACTION 'left behind'":
            await connection.execute(text(statement))
        await connection.execute(text("COMMIT PREPARED 'left behind'"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["undo", "clone"])
def test_prepared_transactions(example: Example, isolation: str) -> None:
    """P7: nobody's session holds one, and it would hold the rows and its name for good."""
    env = {
        "ARENA_DATABASE": URL.render_as_string(),
        "PYTEST_ADDOPTS": f"--arena-isolation={isolation}",
    }
    run = office(example, test_it=PREPARED).run("-p", "no:randomly", env=env)
    run.expect(passed=3).says(f"isolation {isolation}").never_says("replaced")
    says_of(run, {"test_leaves_a_prepared_transaction_pitfall_058": "left behind"})
    assert rows("SELECT gid FROM pg_prepared_xacts WHERE gid = 'left behind'") == []
