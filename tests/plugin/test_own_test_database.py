"""PostgreSQL: a suite that makes its test database by itself runs as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_postgresql_story import on_postgresql

if TYPE_CHECKING:
    from tests.example import Example

# What a fixture of such a suite does, by the statements that SQLAlchemy-Utils sends.
MAKES_ITS_OWN = """
import pytest
from sqlalchemy import create_engine, make_url, text

TEST_URL = make_url("postgresql+psycopg2://me@db.example.org/shop-test")


def sent(*statements):
    engine = create_engine(TEST_URL.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def create():
    sent("CREATE DATABASE \\"shop-test\\" ENCODING 'utf8' TEMPLATE template1")


def drop():
    sent(
        "SELECT pg_terminate_backend(pg_stat_activity.pid) FROM pg_stat_activity"
        " WHERE pg_stat_activity.datname = 'shop-test' AND pid <> pg_backend_pid()",
        'DROP DATABASE "shop-test"',
    )


@pytest.fixture(scope="SCOPE", autouse=True)
def database():
    create()
    yield
    drop()


@pytest.fixture
def session(database):
    engine = create_engine(TEST_URL)
    with engine.begin() as connection:
        yield connection
    engine.dispose()
"""

USES_IT = """
import pytest
from sqlalchemy import text

@pytest.mark.parametrize("turn", range(2))
def test_it(session, turn):
    session.execute(text("CREATE TABLE IF NOT EXISTS things (name text)"))
    session.execute(text("INSERT INTO things VALUES ('Sand')"))
    assert session.scalar(text("SELECT count(*) FROM things")) == 1
"""


def suite(example: Example, scope: str = "session", **files: str) -> Example:
    """A suite with a fixture of this scope, which makes its database before an engine names it."""
    conftest = MAKES_ITS_OWN.replace("SCOPE", scope)
    return on_postgresql(example, conftest=conftest, **files)


@pytest.mark.parametrize("scope", ["session", pytest.param("function", marks=pytest.mark.slow)])
def test_a_fixture_that_makes_the_test_database_is_answered(example: Example, scope: str) -> None:
    """Nothing is made on the server: the engine on it is led to the test's database anyway."""
    run = suite(example, scope, test_it=USES_IT).run("-v").expect(passed=2)
    run.says(
        "a fixture creates or drops a test database:",
        "conftest.py:12  connection.execute(text(statement)).",
        "pytest-arena did not send the statement",
        "a line `shop-test = <module>:<Base>` in arena_schema",
    )
    assert run.output.count("a fixture creates or drops") == 1


# A public suite's: its block is around the tests, and its statements are sent past its connection.
BLOCK_AROUND_ALL = (
    MAKES_ITS_OWN.split("@pytest.fixture\n", maxsplit=1)[0].replace("SCOPE", "session")
    + """
@pytest.fixture(scope="session", autouse=True)
def tables(database):
    engine = create_engine(TEST_URL)
    with engine.begin() as held:
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE things (name text)"))
        FIRST
        yield engine
    engine.dispose()
"""
)

TESTS_IN_THE_BLOCK = """
import pytest
from sqlalchemy import text

@pytest.mark.parametrize("turn", range(3))
def test_it(tables, turn):
    with tables.begin() as connection:
        connection.execute(text("INSERT INTO things VALUES ('Sand')"))
        assert connection.scalar(text("SELECT count(*) FROM things")) == 1
        connection.execute(text("ALTER TABLE things ADD more text"))
"""


@pytest.mark.parametrize(
    "first, outcomes",
    [
        ("pass", {"passed": 3}),
        ("held.execute(text('CREATE TABLE others ()'))", {"passed": 3, "errors": 1}),
    ],
    ids=["in which nothing was sent", "in which something was written"],
)
@pytest.mark.slow
def test_a_block_of_a_fixture_ends_well_where_nothing_is_lost(
    example: Example, first: str, outcomes: dict[str, int]
) -> None:
    """The transaction of a block that has sent nothing is SQLAlchemy's own: no server knows it."""
    conftest = BLOCK_AROUND_ALL.replace("FIRST", first)
    project = on_postgresql(example, conftest=conftest, test_it=TESTS_IN_THE_BLOCK)
    run = project.run("-p", "no:randomly")
    run.expect(int("errors" in outcomes), **outcomes)
    run.says("a fixture keeps a transaction open during its tests")


BY_DRIVERS = """
import asyncpg, psycopg, psycopg2
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

URL = "postgresql://me@db.example.org/postgres"


@pytest.fixture
async def by_async_engine():
    engine = create_async_engine(
        URL.replace("://", "+asyncpg://"), isolation_level="AUTOCOMMIT"
    )
    async with engine.connect() as connection:
        await connection.execute(text("DROP DATABASE IF EXISTS shop_test WITH (FORCE)"))
        await connection.execute(text("CREATE DATABASE shop_test"))
    yield
    async with engine.connect() as connection:
        await connection.execute(text("DROP DATABASE shop_test"))
    await engine.dispose()


@pytest.fixture
async def by_asyncpg():
    connection = await asyncpg.connect(URL)
    await connection.execute("CREATE DATABASE shop_test")
    await connection.close()


@pytest.fixture
async def by_psycopg():
    async with await psycopg.AsyncConnection.connect(URL, autocommit=True) as connection:
        await connection.execute("CREATE DATABASE shop_test")


@pytest.fixture
def by_psycopg2():
    connection = psycopg2.connect(URL)
    connection.autocommit = True
    connection.cursor().execute("CREATE DATABASE shop_test")
    connection.close()


async def test_it(by_async_engine, by_asyncpg, by_psycopg, by_psycopg2, client):
    assert (await client.get("/dancers")).json() == ["Sand"]
"""


@pytest.mark.slow
def test_such_a_fixture_by_any_driver(example: Example) -> None:
    """Where `arena_drivers = redirect` has led it into the arena."""
    project = on_postgresql(example, test_it=BY_DRIVERS)
    run = project.run("-oarena_drivers=redirect").expect(passed=1)
    assert run.output.count("a fixture creates or drops") == 1


IN_A_TRANSACTION = """
from contextlib import closing
import asyncpg, psycopg, psycopg2
import pytest
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

URL = "postgresql://me@db.example.org/postgres"
WAYS = ["asyncpg engine", "psycopg engine", "psycopg2 engine", "asyncpg", "psycopg", "psycopg2"]


@pytest.fixture(params=["CREATE DATABASE shop_test", "DROP DATABASE IF EXISTS shop_test"])
def statement(request):
    return request.param


@pytest.fixture(params=WAYS)
async def database(request, statement):
    driver, _, engine = request.param.partition(" ")
    url = URL.replace("://", f"+{driver}://")
    if driver == "asyncpg" and engine:
        engine = create_async_engine(url, poolclass=NullPool)
        async with engine.begin() as connection:
            await connection.execute(text(statement))
    elif driver == "asyncpg":
        connection = await asyncpg.connect(URL)
        try:
            async with connection.transaction():
                await connection.execute(statement)
        finally:
            await connection.close()
    elif engine:
        with create_engine(url, poolclass=NullPool).begin() as connection:
            connection.execute(text(statement))
    elif driver == "psycopg":
        async with await psycopg.AsyncConnection.connect(URL) as connection:
            await connection.execute(statement)
    else:
        with closing(psycopg2.connect(URL)) as connection:
            connection.cursor().execute(statement)


async def test_it(database, client):
    await client.get("/dancers")
"""


@pytest.mark.slow
def test_a_statement_inside_a_transaction_fails_as_postgresql_has_it(example: Example) -> None:
    """Each of these fixtures fails without pytest-arena, and must not pass with it."""
    project = on_postgresql(example, test_it=IN_A_TRANSACTION)
    run = project.run("-oarena_drivers=redirect").expect(1, errors=12)
    run.says("cannot run inside a transaction block", "[SQL: CREATE DATABASE shop_test]")


@pytest.mark.slow
def test_the_app_and_its_models_are_on_the_test_database(example: Example) -> None:
    """The database that a fixture has made is the app's first, and `postgres` is not."""
    app = example.change("app.py", "engine = create_async_engine(", "engine = make_engine(")
    late = """
from contextlib import asynccontextmanager
engine = None

@asynccontextmanager
async def lifespan(app):
    global engine
    engine = create_async_engine("postgresql+asyncpg://me@db.example.org/shop-test")
    maker.configure(bind=engine)
    yield
    await engine.dispose()

maker = async_sessionmaker()
"""
    source = app.files["app.py"]
    start = source.index("engine = make_engine")
    end = source.index("async def get_db")
    source = source[:start] + late + source[end:]
    source = source.replace("app = FastAPI()", "app = FastAPI(lifespan=lifespan)")
    test = """
def test_it(test_client, db_session):
    assert test_client.get("/dancers").json() == ["Sand"]
"""
    config = example.files["pytest.ini"] + "arena_database = own\n"
    conftest = MAKES_ITS_OWN.replace("SCOPE", "session")
    project = example.with_files(conftest=conftest, test_it=test)
    run = project.with_paths({"app.py": source, "pytest.ini": config}).run("-v")
    run.expect(passed=1).says("database postgres, shop-test on")


REFUSED = """
import pytest
from sqlalchemy import text
from conftest import create, drop, sent

def test_in_a_test():
    create()

@pytest.fixture
def copied():
    sent("CREATE DATABASE shop_copy TEMPLATE shop_real")

def test_from_another_database(copied):
    pass

@pytest.fixture
def several():
    sent("CREATE DATABASE shop_copy; DROP DATABASE shop_real")

def test_several(several):
    pass

@pytest.mark.parametrize("statement, instead", {
    "CREATE DATABASE more": "delete the fixture that creates a test database",
    "ALTER DATABASE shop_real SET x.y = '1'": "in a migration or in arena_schema",
    "GRANT ALL ON DATABASE shop_real TO PUBLIC": "in a migration or in arena_schema",
    "REASSIGN OWNED BY me TO me": "name each object",
    "ALTER ROLE me SET work_mem = '1MB'": "set the role's default in this database alone",
    "SELECT dblink('dbname=shop_real', 'SELECT 1')": "through an engine",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity": "WHERE datname = current_database()",
    "SELECT pg_reload_conf()": "by hand before the tests",
}.items())
def test_what_to_do(arena, statement, instead):
    with arena.expect_refusal() as refused:
        sent(statement)
    assert instead in refused.error.fix
    assert "(," not in str(refused.error)

@pytest.fixture
def altered():
    sent("ALTER DATABASE shop_real RENAME TO shop_old")

def test_altered(altered):
    pass
"""


@pytest.mark.slow
def test_what_is_no_set_up_of_a_test_database_is_refused(example: Example) -> None:
    """A test may be about such a statement; what another database holds cannot be had."""
    run = suite(example, test_it=REFUSED).run().expect(1, passed=8, failed=1, errors=3)
    run.says(
        "refused: CREATE DATABASE, which reaches beyond the test's database",
        "refused: ALTER DATABASE, which reaches beyond the test's database",
    )


# The app has an engine on `shop`, which no test uses.
FILLS_ITS_OWN = MAKES_ITS_OWN.replace(
    "    create()\n    yield\n",
    "    create()\n    engine = create_engine(TEST_URL)\n"
    "    Base.metadata.create_all(engine)\n    engine.dispose()\n    yield\n",
).replace("import pytest\n", "import pytest\nfrom app import Base\n")

USES_TABLES = """
import pytest
from app import Dancer
from sqlalchemy import select

@pytest.mark.parametrize("turn", range(2))
def test_it(session, turn):
    assert session.scalars(select(Dancer.name)).all() == []
    session.execute(Dancer.__table__.insert().values(name="Sand"))
"""

NAMED = "arena_schema =\n    shop-test = app:Base\n"


@pytest.mark.slow
def test_the_advice_is_for_the_database_that_the_fixture_makes(example: Example) -> None:
    """`arena_schema = app:Base` would fill the database of the app's engine, which no test uses."""
    conftest = FILLS_ITS_OWN.replace("SCOPE", "session")
    filled = on_postgresql(example, conftest=conftest, test_it=USES_TABLES)
    schema = "arena_schema = app:Base\n"
    filled = filled.change("pytest.ini", f"{schema}arena_seed = seed:seed\n", schema)
    bare = filled.change("pytest.ini", schema, "")
    advice = "fixtures, so that each test starts with the tables: arena_schema = shop-test = app:B"
    run = bare.run("-p", "no:randomly").expect(passed=2).says(advice)
    run.says("a line `shop-test = <module>:<Base>` in arena_schema")
    both = "starts with the tables: arena_schema = shop = app:Base shop-test = app:Base"
    filled.run().expect(passed=2).says(both)
    followed = filled.change("pytest.ini", schema, NAMED)
    followed = followed.change("conftest.py", "autouse=True", "").change(
        "conftest.py", "session(database)", "session()"
    )
    followed.run().expect(passed=2).never_says(
        "starts with the tables", "a fixture creates or drops"
    )


@pytest.mark.slow
def test_a_failed_test_is_told_of_the_database_that_it_used(example: Example) -> None:
    """Its tables are missing, as the fixture does not make them."""
    conftest = MAKES_ITS_OWN.replace("SCOPE", "session")
    bare = on_postgresql(example, conftest=conftest, test_it=USES_TABLES)
    bare = bare.change("pytest.ini", "arena_schema = app:Base\narena_seed = seed:seed\n", "")
    run = bare.run("-q").expect(1, failed=2)
    run.says("begins with an empty database", "next: arena_schema = shop-test = app:Base")


MAKES_BY_A_DRIVER = """
import psycopg2, pytest

@pytest.fixture(scope="session", autouse=True)
def database():
    connection = psycopg2.connect("postgresql://me@db.example.org/postgres")
    connection.autocommit = True
    connection.cursor().execute("CREATE DATABASE shop_test")
"""


@pytest.mark.slow
def test_a_refused_fixture_that_makes_a_test_database_is_to_be_deleted(example: Example) -> None:
    """To allow the server's own database would let it create and drop real ones."""
    project = on_postgresql(example).with_files(
        conftest=MAKES_BY_A_DRIVER, test_it="def test_it(): pass"
    )
    run = project.run("-q").expect(1, errors=1)
    run.says("refused: a connection to", "creates a test database here is not needed: delete it")
    run.never_says("arena_allow")
