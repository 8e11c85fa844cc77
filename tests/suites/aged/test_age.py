"""arena.age: later, without a moved clock."""

import datetime as dt

import pytest
from resets_app import Reset, now
from sqlalchemy import text


@pytest.mark.parametrize("turn", ["first", "second"])
async def test_each_clock_finds_the_rows_older(client, arena, turn):
    number = (await client.post("/resets")).json()
    assert number == 1
    assert (await client.post(f"/resets/{number}")).status_code == 200
    assert (await client.get("/recent")).json() == 1
    await arena.age(hours=25)
    assert (await client.post(f"/resets/{number}")).status_code == 410
    assert (await client.get("/recent")).json() == 0


def test_a_sync_test(test_client, arena):
    number = test_client.post("/resets").json()
    arena.age(days=1, minutes=1)
    assert test_client.post(f"/resets/{number}").status_code == 410


async def test_each_kind_of_column(arena, db_session):
    at = dt.datetime.fromisoformat("2026-03-31 12:00:00")
    db_session.add(Reset(id=1, at=at, changed=at))
    db_session.add(Reset(id=2, at=at - dt.timedelta(days=2)))
    await arena.age(days=2, also=["resets.seconds", "resets.exact"])
    first, second = [
        await db_session.get(Reset, number, populate_existing=True) for number in (1, 2)
    ]
    assert (first.at, second.at) == (at - dt.timedelta(days=2), at - dt.timedelta(days=4))
    assert first.changed == first.at
    assert second.changed is None
    assert first.day == first.same_day == dt.date(2026, 3, 29)
    assert first.seconds == first.exact == 1_000_000 - 2 * 24 * 3600


async def test_a_trigger_that_sets_a_time(arena, client, dialect):
    """On PostgreSQL it does not act. Elsewhere the call says why the rows stay."""
    await run(arena, *TRIGGERS[dialect])
    number = (await client.post("/resets")).json()
    if dialect != "postgresql":
        with pytest.raises(Exception, match="a trigger sets other values"):
            await arena.age(days=2)
        assert (await client.post(f"/resets/{number}")).status_code == 200
        return
    await arena.age(days=2)
    changed = (await run(arena, "SELECT changed FROM resets")).scalar_one()
    assert changed < now() - dt.timedelta(days=1)


@pytest.mark.expect("A501", at="await arena.age(days=2)")
async def test_a_value_that_the_database_refuses(arena, client):
    await run(
        arena,
        "CREATE TABLE events (id INTEGER PRIMARY KEY, at TIMESTAMP NULL CHECK (at > '2026-01-01'))",
        "INSERT INTO events VALUES (1, '2026-01-02 00:00:00')",
    )
    await arena.age(days=2)


SET_CHANGED = """CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN new.changed = now(); RETURN new; END $$"""
ON_SQLITE = """CREATE TRIGGER changes AFTER UPDATE ON resets BEGIN
UPDATE resets SET changed = CURRENT_TIMESTAMP WHERE id = new.id; END"""
BEFORE = "CREATE TRIGGER changes BEFORE {} ON resets FOR EACH ROW {}"
TRIGGERS = {
    "sqlite": [ON_SQLITE],
    "mysql": [BEFORE.format("UPDATE", "SET new.changed = now()")],
    "postgresql": [SET_CHANGED, BEFORE.format("INSERT OR UPDATE", "EXECUTE FUNCTION change()")],
}


async def run(arena, *statements):
    async with arena.session() as session:
        for statement in statements:
            result = await session.execute(text(statement))
        await session.commit()
        return result


@pytest.fixture
def dialect(arena):
    name = arena.engine.dialect.name
    return "mysql" if name == "mariadb" else name


async def test_each_row_of_a_partition_or_with_a_binary_key_is_older_once(arena, client, dialect):
    binary = ["CREATE TABLE visits (id BINARY(1) PRIMARY KEY, shop int, at timestamp)"]
    parts = [  # only PostgreSQL lists a partition as a table
        "CREATE TABLE visits (id int PRIMARY KEY, shop int, at timestamp) PARTITION BY LIST (id)",
        "CREATE TABLE visits_of_one PARTITION OF visits FOR VALUES IN (1)",
    ]
    tables, key = (parts, 1) if dialect == "postgresql" else (binary, "'a'")
    await run(arena, *tables, f"INSERT INTO visits VALUES ({key}, 1, '2026-03-31 12:00')")
    await arena.age(days=1)
    at = (await run(arena, "SELECT at FROM visits")).scalar_one()
    assert str(at).startswith("2026-03-30 12:00:00")


@pytest.mark.expect("A101", at="await arena.age(")
@pytest.mark.parametrize(
    "arguments",
    [{"days": 1, "also": ["resets.nope"]}, {"days": 1, "also": "resets.at"}],
)
async def test_arguments_that_make_no_row_older(arena, client, arguments):
    await client.post("/resets")
    await arena.age(**arguments)
