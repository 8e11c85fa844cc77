"""Stories that SQLite has no words for: what only a server can do."""

from __future__ import annotations

__all__ = ["LOCKS", "MORE_SEED", "STORED"]

LOCKS = """
import pytest
from app import Dancer, maker, other_maker
from hand import lacks, names, standing
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
# runner


def first(**options):
    return select(Dancer.name).order_by(Dancer.id).limit(1).with_for_update(**options)


def code(raised):
    origin = raised.value.orig
    return getattr(origin, "sqlstate", None) or origin.pgcode


@lacks("moving time")
async def test_p3_each_transaction_has_its_time(backend):
    times = []
    for number in range(2):
        async with maker() as session:
            session.add(Dancer(name=f"at a time {number}"))
            await session.flush()
            times.append(await session.scalar(select(func.now())))
            await session.commit()
    assert times[0] < times[1]


@lacks("several connections")
async def test_p3_rows_that_somebody_has_locked_pitfall_129(backend):
    async with maker() as one, other_maker() as two:
        assert await one.scalar(first()) == standing()[0]
        assert await two.scalar(first(skip_locked=True)) == standing()[1]
        with pytest.raises(DBAPIError) as raised:
            await two.scalar(first(nowait=True))
        assert code(raised) == "55P03"
        await two.rollback()
        await one.rollback()
        assert await two.scalar(first(nowait=True)) == standing()[0]
    assert await names() == standing()
"""

# What a server can store that SQLite cannot: partitions, sequences of their own; and no key at all.
MORE_SEED = """
    for statement in SERVER.split(";"):
        session.execute(text(statement))


from sqlalchemy import text

SERVER = '''
CREATE TABLE tours (year int NOT NULL, place text NOT NULL, PRIMARY KEY (year, place))
    PARTITION BY RANGE (year);
CREATE TABLE tours_early PARTITION OF tours FOR VALUES FROM (1900) TO (2000);
CREATE TABLE tours_late (place text NOT NULL, gone int, year int NOT NULL);
ALTER TABLE tours_late DROP COLUMN gone;
ALTER TABLE tours ATTACH PARTITION tours_late FOR VALUES FROM (2000) TO (2100);
INSERT INTO tours VALUES (1990, 'Hannover'), (2001, 'Paris'), (2010, 'Seoul');
CREATE TABLE moves (name text, beats int);
INSERT INTO moves VALUES ('windmill', 1), ('windmill', 1), ('flare', NULL);
CREATE SEQUENCE tickets CACHE 5
'''
"""

STORED = """
import pytest
from hand import add, fixture, lacks, living, run, standing
# runner

WRITES = [
    "TRUNCATE scores",
    "TRUNCATE dancers RESTART IDENTITY CASCADE",
    "TRUNCATE tours",
    "TRUNCATE tours_late, moves",
    "INSERT INTO tours VALUES (2020, 'Rome'), (1930, 'Rome')",
    "INSERT INTO tours_late VALUES ('Rome', 2021)",
    "UPDATE tours SET year = year + 10",
    "DELETE FROM tours WHERE year > 1950",
    "DELETE FROM tours_early",
    "INSERT INTO moves VALUES ('windmill', 1)",
    "DELETE FROM moves WHERE ctid = (SELECT min(ctid) FROM moves)",
    "UPDATE moves SET beats = coalesce(beats, 0) + 1",
    "DELETE FROM scores; UPDATE dancers SET id = id + 100 WHERE id > 1",
    "SELECT nextval('tickets')",
    "SELECT setval('tickets', 500)",
    "SELECT setval('tickets', 500, false)",
    "INSERT INTO dancers (id, name, style, version) VALUES (1, 'x', '', 1) "
    "ON CONFLICT (id) DO UPDATE SET style = 'both'",
    "WITH gone AS (DELETE FROM scores RETURNING points) "
    "INSERT INTO moves SELECT 'scored', points FROM gone",
    "SET LOCAL DateStyle = 'SQL, DMY'; UPDATE scores SET points = points + 1",
]
CHANGES = [
    "ALTER SEQUENCE tickets RESTART WITH 9",
    "CREATE TABLE tours_later PARTITION OF tours FOR VALUES FROM (2100) TO (2200)",
    "ALTER TABLE tours DETACH PARTITION tours_early; DELETE FROM tours_early",
    "INSERT INTO moves VALUES ('late', 1); ALTER TABLE moves ADD COLUMN late int DEFAULT 5",
    "CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1'",
    "CREATE SCHEMA another; CREATE TABLE another.dancers (id int)",
]


@pytest.mark.parametrize("write", WRITES)
async def test_p2_what_a_server_stores(backend, write):
    await run(*write.split("; "))


@lacks("ddl")
@pytest.mark.parametrize("change", CHANGES)
async def test_p2_what_a_server_is_told_of_its_schema(backend, change):
    await run(*change.split("; "))


@fixture("module")
async def tour(arena, backend):
    await add("wide tour")
    await run("INSERT INTO tours VALUES (2030, 'Oslo')", "DELETE FROM moves WHERE beats IS NULL",
              "SELECT nextval('tickets')")
    with living("tour", arena) as name:
        yield name


@fixture("module")
async def stage(arena, backend):
    await run("CREATE TABLE stages (place text)", "INSERT INTO stages VALUES ('here')")
    await add("wide stage")
    with living("stage", arena) as name:
        yield name


@pytest.mark.parametrize("write", ["TRUNCATE tours, moves", "UPDATE tours SET year = year + 1",
                                   "SELECT setval('tickets', 70, false)", "SELECT 1"])
async def test_p6_on_a_wide_fixtures_rows(tour, write):
    await run(write)
    await add("mine")


# What stands then has to be made anew, the fixture's rows included.
@lacks("ddl")
@pytest.mark.parametrize("turn", [1, 2])
async def test_p6_a_schema_changed_on_a_wide_fixtures_rows(tour, turn):
    await run("ALTER TABLE tours ADD COLUMN late int", "DELETE FROM moves")
    assert "wide tour" in standing()


@lacks("ddl")
@pytest.mark.parametrize("turn", [1, 2])
async def test_p6_on_a_wide_fixtures_schema(stage, turn):
    await run("INSERT INTO stages VALUES ('there')", "DELETE FROM stages WHERE place = 'here'")
    await add("mine")


@lacks("ddl")
async def test_p6_both(tour, stage):
    await run("DROP TABLE stages", "TRUNCATE tours")
    assert {"wide tour", "wide stage"} <= {*standing()}
"""
