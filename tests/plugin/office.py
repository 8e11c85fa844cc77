"""An office, whose database has triggers, roles and schemas that can get in the way of undo."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.example import Example

__all__ = ["office"]

URL = "postgresql+asyncpg://me:s3cret@db.example.org/office"

SCHEMA = """
CREATE SCHEMA audit;
CREATE TABLE audit.log (id serial PRIMARY KEY, tab text, what text, who text DEFAULT current_user);
CREATE TABLE customers (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE orders (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id int NOT NULL REFERENCES customers ON DELETE CASCADE,
    amount numeric(10, 2) NOT NULL,
    gross numeric GENERATED ALWAYS AS (amount * 1.2) STORED,
    placed_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE invoices (id serial PRIMARY KEY, text text, changed_at timestamptz DEFAULT now());
CREATE TABLE departments (id int PRIMARY KEY, head int NOT NULL);
CREATE TABLE employees (id int PRIMARY KEY, department int NOT NULL REFERENCES departments);
ALTER TABLE departments ADD CONSTRAINT headed FOREIGN KEY (head) REFERENCES employees
    DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE events (day date NOT NULL, what text) PARTITION BY RANGE (day);
CREATE TABLE events_2024 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE events_rest PARTITION OF events DEFAULT;
CREATE TABLE documents (id serial PRIMARY KEY, tenant text NOT NULL, body jsonb);
CREATE TABLE lines (line text, raw json);
CREATE TABLE staff (name text, pay int);
CREATE TABLE drivers (licence text) INHERITS (staff);
CREATE SCHEMA acme;
CREATE TABLE acme.notes (id serial PRIMARY KEY, body text);
CREATE TABLE notes (id serial PRIMARY KEY, body text);
CREATE SEQUENCE lonely;
CREATE SEQUENCE held CACHE 10;
CREATE VIEW loud AS SELECT id, upper(body) AS body FROM notes;
CREATE MATERIALIZED VIEW totals AS
    SELECT customer_id, count(*) AS number FROM orders GROUP BY customer_id;

CREATE FUNCTION log_it() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
    INSERT INTO audit.log (tab, what) VALUES (TG_TABLE_NAME, TG_OP); RETURN NULL; END $$;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    NEW.changed_at := clock_timestamp(); RETURN NEW; END $$;
CREATE FUNCTION forbid() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE 'invoices are kept for ten years'; END $$;
CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO notes (body) VALUES (lower(NEW.body)); RETURN NEW; END $$;
CREATE FUNCTION twin() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE lines SET line = line || '!' WHERE line NOT LIKE '%!'; RETURN NULL; END $$;
CREATE TRIGGER logged AFTER INSERT OR UPDATE OR DELETE ON orders
    FOR EACH ROW EXECUTE FUNCTION log_it();
CREATE TRIGGER logged AFTER INSERT OR UPDATE OR DELETE ON invoices
    FOR EACH ROW EXECUTE FUNCTION log_it();
CREATE TRIGGER touched BEFORE UPDATE ON invoices FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TRIGGER forbidden BEFORE DELETE ON invoices FOR EACH ROW EXECUTE FUNCTION forbid();
CREATE TRIGGER shouted INSTEAD OF INSERT ON loud FOR EACH ROW EXECUTE FUNCTION shout();
CREATE TRIGGER again AFTER INSERT ON lines FOR EACH ROW EXECUTE FUNCTION twin();

DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'clerk') THEN CREATE ROLE clerk; END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'me') THEN
        GRANT clerk TO me;
        IF current_setting('server_version_num')::int >= 150000 THEN
            EXECUTE format('GRANT SET ON PARAMETER %s TO me', 'session_replication_role');
        END IF;
    END IF;
END $$;
ALTER TABLE documents ENABLE ROW LEVEL SECURITY;
ALTER TABLE documents FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON documents USING (tenant = current_setting('app.tenant', true));
GRANT SELECT, INSERT, DELETE, UPDATE (body) ON documents TO clerk;
GRANT USAGE ON SEQUENCE documents_id_seq TO clerk;

INSERT INTO customers (name) VALUES ('Ada'), ('Bea');
INSERT INTO invoices (text, changed_at) VALUES ('first', '2026-01-01'), ('second', '2026-01-01');
BEGIN;
INSERT INTO departments VALUES (1, 1);
INSERT INTO employees VALUES (1, 1);
COMMIT;
INSERT INTO events VALUES ('2024-05-01', 'spring'), ('2030-01-01', 'later');
INSERT INTO documents (tenant, body) VALUES ('acme', '{"a": 1}'), ('zeta', 'null');
INSERT INTO lines VALUES ('same!', '{"a":  1, "a": 2}'), ('same!', '{"a":  1, "a": 2}'),
    (NULL, NULL);
INSERT INTO acme.notes (body) VALUES ('theirs');
INSERT INTO notes (body) VALUES ('ours');
INSERT INTO staff VALUES ('Cy', 1);
INSERT INTO drivers VALUES ('Di', 2, 'B'), ('Di', 2, 'B');
REFRESH MATERIALIZED VIEW totals;
"""

APP = '''
from fastapi import Depends, FastAPI, Header, HTTPException
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str]


engine = create_async_engine("URL", pool_size=10)
serializable = engine.execution_options(isolation_level="SERIALIZABLE")
maker = async_sessionmaker(engine, expire_on_commit=False)
app = FastAPI()


async def get_db():
    async with maker() as session:
        yield session


async def committed(db, sql, **values):
    try:
        answer = await db.execute(text(sql), values)
        rows = answer.all() if answer.returns_rows else []
        await db.commit()
    except DBAPIError as error:
        raise HTTPException(409, str(error.orig))
    return [list(row) for row in rows]


@app.get("/count/{table}")
async def count(table: str, db=Depends(get_db)):
    return await db.scalar(text(f"SELECT count(*) FROM {table}"))


@app.post("/orders", status_code=201)
async def order(customer: int = 1, db=Depends(get_db)):
    sql = "INSERT INTO orders (customer_id, amount) VALUES (:c, 10) RETURNING id, gross, placed_at"
    return (await committed(db, sql, c=customer))[0]


@app.post("/orders/strict", status_code=201)
async def order_strictly(customer: int = 1):
    async with async_sessionmaker(serializable)() as db:
        return await order(customer, db)


@app.delete("/customers/{number}")
async def leave(number: int, db=Depends(get_db)):
    return await committed(db, "DELETE FROM customers WHERE id = :n", n=number)


@app.post("/customers/import")
async def import_customers(db=Depends(get_db)):
    await db.execute(text("TRUNCATE customers RESTART IDENTITY CASCADE"))
    return await committed(db, "INSERT INTO customers (name) VALUES ('New'), ('Ada') RETURNING id")


@app.post("/customers/{number}/rename/{name}")
async def rename(number: int, name: str, db=Depends(get_db)):
    sql = """INSERT INTO customers (id, name) VALUES (:n, :name)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, id = excluded.id + 100"""
    return await committed(db, sql, n=number, name=name)


@app.put("/invoices/{number}")
async def change(number: int, db=Depends(get_db)):
    sql = "UPDATE invoices SET text = 'changed' WHERE id = :n RETURNING changed_at > now()"
    return await committed(db, sql, n=number)


@app.delete("/invoices/{number}")
async def shred(number: int, db=Depends(get_db)):
    return await committed(db, "DELETE FROM invoices WHERE id = :n", n=number)


@app.post("/departments/{number}", status_code=201)
async def department(number: int, head: int | None = None, db=Depends(get_db)):
    sql = "INSERT INTO departments VALUES (:n, :h)"
    await db.execute(text(sql), {"n": number, "h": head or number})
    return await committed(db, "INSERT INTO employees VALUES (:n, :n)", n=number)


@app.delete("/departments")
async def close_all(db=Depends(get_db)):
    await db.execute(text("DELETE FROM employees"))
    return await committed(db, "DELETE FROM departments")


@app.post("/events/{day}", status_code=201)
async def event(day: str, db=Depends(get_db)):
    return await committed(db, f"INSERT INTO events VALUES ('{day}', 'new')")


@app.post("/events/{days}/later")
async def move(days: int, db=Depends(get_db)):
    return await committed(db, f"UPDATE events SET day = day + {days}")


async def as_clerk(tenant: str = Header(), db=Depends(get_db)):
    await db.execute(text("SET LOCAL ROLE clerk"))
    await db.execute(text("SELECT set_config('app.tenant', :t, true)"), {"t": tenant})
    return db


@app.get("/documents")
async def documents(db=Depends(as_clerk)):
    return await committed(db, "SELECT id FROM documents ORDER BY id")


@app.post("/documents", status_code=201)
async def document(tenant: str = Header(), db=Depends(as_clerk)):
    sql = "INSERT INTO documents (tenant, body) VALUES (:t, 'null') RETURNING id"
    return await committed(db, sql, t=tenant)


@app.delete("/documents")
async def burn(db=Depends(as_clerk)):
    await db.execute(text("UPDATE documents SET body = '{}'"))
    return await committed(db, "DELETE FROM documents RETURNING id")


@app.post("/tenants/{name}", status_code=201)
async def tenant(name: str):
    async with engine.execution_options(schema_translate_map={None: name}).begin() as connection:
        await connection.execute(text(f"CREATE SCHEMA {name}"))
        await connection.run_sync(Base.metadata.create_all)


@app.post("/notes", status_code=201)
async def note(tenant: str = Header("public")):
    own = engine.execution_options(schema_translate_map={None: tenant})
    async with async_sessionmaker(own)() as db:
        db.add(Note(body="new"))
        await db.commit()
        return await db.scalar(select(func.count()).select_from(Note))


@app.post("/notes/by-path", status_code=201)
async def note_by_path(tenant: str = Header("public"), db=Depends(get_db)):
    await db.execute(text(f"SET LOCAL search_path = {tenant}"))
    db.add(Note(body="new"))
    await db.commit()


@app.post("/notes/loud", status_code=201)
async def note_loud(db=Depends(get_db)):
    return await committed(db, "INSERT INTO loud (body) VALUES ('ROAR')")


@app.post("/lines", status_code=201)
async def line(db=Depends(get_db)):
    one = "SELECT min(ctid) FROM lines WHERE line = 'same!'"
    await db.execute(text(f"DELETE FROM lines WHERE ctid = ({one})"))
    return await committed(db, "INSERT INTO lines VALUES ('same', '{}'), ('same', NULL)")


@app.post("/raise")
async def pay_more(db=Depends(get_db)):
    await db.execute(text("DELETE FROM ONLY staff"))
    return await committed(db, "UPDATE staff SET pay = pay + 1 RETURNING pay")


@app.post("/totals")
async def totals(db=Depends(get_db)):
    await db.execute(text("REFRESH MATERIALIZED VIEW totals"))
    return await committed(db, "SELECT * FROM totals")


@app.post("/orders/half")
async def half(db=Depends(get_db)):
    await order(1, db)
    async with db.begin_nested() as inner:
        await db.execute(text("DELETE FROM customers"))
        await inner.rollback()
    await db.execute(text("INSERT INTO orders (customer_id, amount) VALUES (2, 1)"))
    raise HTTPException(402)
'''

# The witness: what stands in the database, and on the app's pooled connections, before each test.
CONFTEST = '''
import os
import pytest
from sqlalchemy import text
from app import engine

NAMES = "nspname !~ '^pg_|arena|information_schema'"
HERE = f"""FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE {NAMES}
    AND relkind IN ('r', 'm', 'v', 'p', 'S', 'f', 'i')"""
LOOKS = [
    f"""SELECT format('%I.%I', nspname, relname) AS name, relkind::text, relacl::text,
    relowner::int, relrowsecurity, obj_description(c.oid), (SELECT string_agg(format('%s %s %s',
    attname, atttypid::regtype, attnotnull), ',' ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) {HERE}""",
    f"SELECT nspname::text FROM pg_namespace WHERE {NAMES}",
    f"""SELECT proname::text, md5(prosrc) FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace
    WHERE {NAMES}""",
    f"""SELECT tgrelid::regclass::text, tgname::text, tgenabled::text FROM pg_trigger
    JOIN pg_class c ON c.oid = tgrelid JOIN pg_namespace n ON n.oid = relnamespace
    WHERE NOT tgisinternal AND tgname !~ '^!arena' AND {NAMES}""",
    "SELECT polname::text, pg_get_expr(polqual, polrelid) FROM pg_policy",
    "SELECT conname::text, convalidated FROM pg_constraint",
    f"SELECT typname::text FROM pg_type JOIN pg_namespace n ON n.oid = typnamespace WHERE {NAMES}",
    "SELECT extname::text FROM pg_extension",
    "SELECT count(*) FROM pg_largeobject_metadata",
    "SELECT count(*) FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase "
    "WHERE datname = current_database()",
    "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()",
]
OF_A_SESSION = """
SELECT current_user = session_user, current_setting('search_path'),
    current_setting('statement_timeout'), current_setting('app.tenant', true) > '',
    current_setting('session_replication_role'),
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database =
        (SELECT oid FROM pg_database WHERE datname = current_database())),
    (SELECT count(*) FROM pg_listening_channels()),
    (SELECT count(*) FROM pg_cursors WHERE is_holdable),
    (SELECT count(*) FROM pg_prepared_statements WHERE name = 'mine'),
    to_regclass('customers')::oid = 'public.customers'::regclass
"""
CLEAN = (True, '"$user", public', "0", None, "origin", 0, 0, 0, 0, True)
standing = {}


async def told_by(connection):
    async def rows(sql):
        return sorted(map(repr, (await connection.execute(text(sql))).all()))

    found = {sql: await rows(sql) for sql in LOOKS}
    for name, kind, *_ in (await connection.execute(text(LOOKS[0]))).all():
        if kind in "rmS":
            what = "last_value, is_called" if kind == "S" else "t::text"
            found[name] = await rows(f"SELECT {what} FROM {name} t")
    return found


@pytest.fixture(autouse=True)
async def witness(request):
    """Nothing of any test before is there: not in the database, not on the app's connections."""
    async with engine.connect() as one, engine.connect() as other:
        for connection in one, other:
            row = tuple((await connection.execute(text(OF_A_SESSION))).one())
            assert row[:3] + (row[3] or None,) + row[4:] == CLEAN
        told = await told_by(one)
    first = standing.setdefault(request.module.__name__, told)
    assert [(told.get(name), first.get(name)) for name in {**told, **first}
            if told.get(name) != first.get(name)] == []


def pytest_collection_modifyitems(items):
    if os.environ.get("BACKWARDS"):
        items.reverse()
'''


def office(example: Example, *, driver: str = "asyncpg", **files: str) -> Example:
    """Return the project; each of its tests first looks whether another has left something."""
    url = URL.replace("asyncpg", driver)
    whole = {"app.py": APP.replace("URL", url, 1), "schema.sql": SCHEMA, "conftest.py": CONFTEST}
    options = "arena_schema = app:Base\narena_seed = seed:seed", "arena_schema = schema.sql"
    return example.change("pytest.ini", *options).with_paths(whole).with_files(**files)
