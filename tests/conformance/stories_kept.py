"""Stories in which all goes well: P1, P2, P4 and P6. A test's name begins with its promise.

They may run in any order: before each of them the database is compared with what it should be.
"""

from __future__ import annotations

from tests.conformance.stories_real import LOOPS, REAL, SYNC_AND_CASES

__all__ = ["ANY_KIND", "ASYNC_ONLY", "SAME_KIND"]

VISIBLE = """
import subprocess
import sys
from app import Dancer, other_maker
from hand import SEEDED, add, change, fixture, lacks, names, standing, together
from sqlalchemy import create_engine, insert, select
from sqlalchemy.pool import NullPool
import product
import setting
# runner


def shown(response):
    assert response.status_code == 200
    return response.json()


@fixture()
async def row(backend):
    await add("a fixture's")
    return "a fixture's"


async def test_p1_a_request_sees_the_row_of_a_fixture(row, client):
    assert shown(await client.get("/dancers")) == [*standing(), row]
    await client.delete("/dancers/" + row)
    assert await names() == standing()


async def test_p1_a_request_sees_what_the_test_did(client):
    await add("the test's")
    await change("Sand", name="Desert")
    found = shown(await client.get("/dancers"))
    assert "the test's" in found and "Desert" in found and "Sand" not in found


async def test_p1_the_test_sees_what_a_request_committed(client):
    assert (await client.post("/dancers/a request's")).status_code == 201
    assert await names() == [*standing(), "a request's"]
    assert await names(other_maker) == [*standing(), "a request's"]


async def test_p1_several_clients(client, new_client):
    second, third = new_client(), new_client()
    await second.post("/dancers/the second's")
    await third.post("/dancers/the third's")
    both = [*standing(), "the second's", "the third's"]
    for one in (client, second, third):
        assert shown(await one.get("/dancers")) == both


async def test_p1_requests_at_once(client):
    posts = [lambda n=n: client.post(f"/dancers/{n}") for n in range(4)]
    answers = await together(*posts, lambda: client.get("/dancers"))
    assert [answer.status_code for answer in answers] == [201] * 4 + [200]
    assert sorted(await names()) == sorted([*standing(), "0", "1", "2", "3"])


async def test_p1_other_engines_of_the_process(client):
    await add("another engine's", other_maker)
    for url in [setting.SYNC_URL, *setting.OTHER_URLS]:
        engine = create_engine(url, poolclass=NullPool)
        with engine.begin() as connection:
            found = list(connection.scalars(select(Dancer.name).order_by(Dancer.id)))
            assert found[-1:] != ["Grain"] and "another engine's" in found, url
            connection.execute(insert(Dancer).values(name=url, style="", version=1))
    await client.post("/dancers/a request's")
    wanted = [setting.SYNC_URL, *setting.OTHER_URLS, "a request's"]
    assert (await names())[-len(wanted):] == wanted


OTHER_PROCESS = '''
import sys
from sqlalchemy import create_engine, text
with create_engine(sys.argv[1]).begin() as connection:
    print(*connection.scalars(text("SELECT name FROM dancers ORDER BY id")), sep=",")
    connection.execute(text("INSERT INTO dancers VALUES (99, 'a process', '', 1)"))
'''


async def test_p1_another_process(client, arena):
    await add("the test's")
    url = setting.SYNC_URL.partition(":")[0] + ":" + arena.url.partition(":")[2]
    command = [sys.executable, "-c", OTHER_PROCESS, url]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    assert found == ",".join([*standing(), "the test's"])
    assert "a process" in shown(await client.get("/dancers"))
"""

ISOLATED = """
import product
import pytest
from app import Score, app
from hand import SEEDED, add, change, lacks, names, run, standing
# runner

WRITES = [
    "INSERT INTO dancers (name, style, version) VALUES ('new', '', 1)",
    "UPDATE dancers SET name = 'changed' WHERE id = 1",
    "UPDATE dancers SET style = 'footwork'",
    "UPDATE dancers SET id = 77 WHERE id = 3",
    "UPDATE scores SET points = 0",
    "DELETE FROM scores",
    "DELETE FROM dancers WHERE id = 3",
    "INSERT INTO scores SELECT id, 7, 7 FROM dancers",
]
CHANGES = [
    "CREATE TABLE more (a INTEGER)",
    "CREATE TABLE steps (a INTEGER); INSERT INTO steps VALUES (1)",
    "DROP TABLE scores",
    "ALTER TABLE scores ADD COLUMN judge INTEGER",
    "ALTER TABLE scores RENAME TO points",
    "CREATE INDEX by_style ON dancers (style)",
    "CREATE VIEW seen AS SELECT name FROM dancers",
]


@pytest.mark.parametrize("write", WRITES)
async def test_p2_rows(backend, write):
    await run(write)


@lacks("ddl")
@pytest.mark.parametrize("change", CHANGES)
async def test_p2_schema(backend, change):
    await run(*change.split("; "))


# A connection of the app's pool has seen the table as the other turn left it.
@lacks("ddl")
@pytest.mark.parametrize("turn", [41, 42])
async def test_p2_as_many_values_as_the_table_has_columns(backend, turn):
    await run(f"INSERT INTO scores VALUES (1, {turn}, 5)")
    await run(f"ALTER TABLE scores ADD COLUMN late_{turn} INTEGER")


# Twice, so that one of them is the second, in any order.
@pytest.mark.parametrize("turn", [1, 2])
async def test_p2_a_sequence_goes_on_where_the_seed_ended(backend, client, turn):
    first = await add("one")
    await client.delete("/dancers/one")
    second = (await client.post("/dancers/two")).json()
    assert (first, second) == (len(standing()) + 1, len(standing()) + 2)


async def test_p2_a_number_that_nobody_uses(backend):
    await run(product.TAKES_A_NUMBER)


async def test_p2_nothing_at_all(backend):
    pass


async def test_p2_only_reads(client):
    assert (await client.get("/dancers")).json() == standing()


@pytest.mark.parametrize("turn", [1, 2])
async def test_p2_a_test_that_fails_has_written(client, turn):
    await client.post("/dancers/new")
    assert standing() == (await names())[:-1]
    pytest.skip("as good as a failure: it ends in the middle")
"""

WIDE = """
import pytest
from hand import add, change, fixture, living, names, standing
# runner


@fixture("session")
async def festival(arena, backend):
    await add("wide festival")
    with living("festival", arena) as name:
        yield name


@fixture("module")
async def battle(arena, backend):
    await add("wide battle")
    await change("Sand", style="wide")
    with living("battle", arena) as name:
        yield name


@fixture("module")
async def reads_only(backend):
    assert "Grain" in await names()
    yield


@fixture("class")
async def crew(arena, backend):
    await add("wide crew")
    with living("crew", arena) as name:
        yield name
    await add("wide crew, in its tear-down")


async def test_p6_before_or_after(client):
    assert (await client.get("/dancers")).json() == standing()
    await client.post("/dancers/mine")


@pytest.mark.parametrize("turn", [1, 2])
async def test_p6_a_modules_row_is_whole_again(battle, client, turn):
    assert "wide battle" in standing()
    assert (await client.get("/dancers")).json() == standing()
    assert (await client.delete("/dancers/wide battle")).status_code == 204
    assert "wide battle" not in await names()


async def test_p6_a_fixture_that_only_reads(reads_only, client):
    await client.post("/dancers/mine")


@pytest.mark.parametrize("turn", [1, 2])
async def test_p6_a_sessions_row(festival, client, turn):
    assert "wide festival" in (await client.get("/dancers")).json()
    await change("wide festival", name="over")


async def test_p6_one_upon_the_other(festival, battle, client):
    assert {"wide battle", "wide festival"} <= {*(await names())}
    await client.post("/dancers/mine")


class TestCrew:
    @pytest.mark.parametrize("turn", [1, 2])
    async def test_p6_a_classs_row(self, crew, client, turn):
        assert "wide crew" in (await client.get("/dancers")).json()
        await client.delete("/dancers/wide crew")

    async def test_p6_with_others(self, battle, crew):
        assert {"wide battle", "wide crew"} <= {*(await names())}


# Looked at inside of a fixture that outlives the class: whatever stands below it would end later.
async def test_p6_after_the_class(battle):
    assert await names() == standing()
"""

FAILING_SETUP = """
import pytest
from hand import add, names, standing


@pytest.fixture(scope="module")
def half(arena):
    with arena.session() as session:
        from app import Dancer
        session.add(Dancer(name="wide half"))
        session.commit()
    raise RuntimeError("half-way")


@pytest.mark.parametrize("turn", [1, 2])
def test_p6_gone_at_once_where_the_set_up_failed(arena, request, turn):
    with pytest.raises(RuntimeError, match="half-way"):
        request.getfixturevalue("half")
    from app import Dancer
    with arena.session() as session:
        assert [d.name for d in session.query(Dancer).order_by(Dancer.id)] == standing()
"""

GUARDED = """
import pytest
import product
import setting
from app import Dancer
from hand import add
from sqlalchemy import create_engine, delete
from sqlalchemy.pool import NullPool


def test_p4_what_deletes_everything(arena):
    for url in [setting.SYNC_URL, *setting.OTHER_URLS]:
        with create_engine(url, poolclass=NullPool).begin() as connection:
            connection.execute(delete(Dancer).where(Dancer.id == 3))


def test_p4_around_sqlalchemy(arena):
    with arena.expect_refusal() as refused:
        product.go_around()
    assert "product.py:" in str(refused.error)
"""

# Which stories run where: those that a mixed setting has too; those of one kind; coroutines only.
ANY_KIND = {
    "test_visible.py": VISIBLE,
    "test_isolated.py": ISOLATED,
    "test_wide.py": WIDE,
    "test_failing_setup.py": FAILING_SETUP,
    "test_guarded.py": GUARDED,
}
SAME_KIND = {"test_real.py": REAL}
ASYNC_ONLY = {"test_loops.py": LOOPS, "test_cases.py": SYNC_AND_CASES}
