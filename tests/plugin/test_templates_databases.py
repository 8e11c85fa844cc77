"""Several databases, and none at all: what the summary says of them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.plugin.private_server import on_postgresql, private_server

if TYPE_CHECKING:
    from tests.example import Example

ANALYTICS = """
from sqlalchemy import create_engine, text

engine = create_engine("sqlite:///analytics.db")

def tables(connection):
    connection.execute(text("create table visits (page text)"))

def rows(session):
    session.execute(text("insert into visits values ('home')"))
"""

TWO = """
from sqlalchemy import text
import analytics

async def test_both(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
    with analytics.engine.begin() as connection:
        assert connection.scalar(text("select page from visits")) == "home"
        connection.execute(text("delete from visits"))

def test_both_again(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
    with analytics.engine.begin() as connection:
        assert connection.scalar(text("select page from visits")) == "home"
"""

LINES = """arena_schema =
    dev = app:Base
    analytics = analytics:tables
    analitics = analytics:tables
"""


@pytest.mark.slow
def test_each_database_has_a_line_of_its_own(example: Example) -> None:
    """`name = value`, by the name of the file; a name that nobody asked for is mentioned."""
    seeds = "arena_seed =\n    dev = seed:seed\n    analytics = analytics:rows\n"
    project = example.change("pytest.ini", "arena_schema = app:Base\n", LINES)
    project = project.change("pytest.ini", "arena_seed = seed:seed\n", seeds)
    run = project.with_files(analytics=ANALYTICS, test_two=TWO).run().expect(passed=2)
    run.says("the options name a database 'analitics', but no engine used it")
    assert re.search(r"database (dev, analytics|analytics, dev) on SQLite", run.output)


TESTS = """
async def test_one(client):
    assert (await client.get("/dancers")).json() == []
    assert (await client.post("/dancers/Sand")).status_code == 201

def test_two(test_client):
    assert test_client.get("/dancers").json() == []
"""

AT_IMPORT = """
import asyncio
async def create():
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()
asyncio.run(create())
app = FastAPI()
"""

IN_THE_LIFESPAN = """
from contextlib import asynccontextmanager
@asynccontextmanager
async def lifespan(app):
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
app = FastAPI(lifespan=lifespan)
"""

IN_A_REQUEST = """
app = FastAPI()
@app.middleware("http")
async def create(request, call_next):
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    return await call_next(request)
"""


@pytest.mark.parametrize(
    "where",
    [
        pytest.param(AT_IMPORT, marks=pytest.mark.slow),
        IN_THE_LIFESPAN,
        pytest.param(IN_A_REQUEST, marks=pytest.mark.slow),
    ],
    ids=["import", "lifespan", "request"],
)
def test_an_app_that_makes_its_tables_itself_pitfall_119(example: Example, where: str) -> None:
    """Works as it is; the summary has the line that saves time."""
    bare = example.change("pytest.ini", "arena_schema = app:Base\narena_seed = seed:seed\n", "")
    run = bare.change("app.py", "app = FastAPI()\n", where).with_files(test_own=TESTS).run()
    run.expect(passed=2).says("starts with the tables:", "arena_schema = app:Base")


WORDLESS = """
class Wordless(Exception):
    def __str__(self):
        raise KeyError("no words")

def test_fails():
    raise Wordless

def test_speaks_of_tables():
    raise KeyError("no such table")
"""


@pytest.mark.slow
def test_a_database_that_stays_empty_is_told_what_would_fill_it(example: Example) -> None:
    """The usual beginning: the tables are made by hand, or by a command, before the app starts."""
    bare = example.change("pytest.ini", "arena_schema = app:Base\narena_seed = seed:seed\n", "")
    tests = "async def test_one(client):\n    await client.get('/dancers')\n"
    run = bare.with_files(test_own=tests).run().expect(1, failed=1)
    run.says(
        "no template: the database starts empty", "starts with the tables: arena_schema = app:Base"
    )
    quiet = bare.with_files(test_own=tests).run("-q").expect(1, failed=1)
    quiet.says("begins with an empty database", "next: arena_schema = app:Base")
    wordless = bare.with_files(test_own=WORDLESS).run().expect(1, failed=2)
    wordless.never_says("next: arena_schema")


LED_ASTRAY = """
async def test_astray(client, db_session):
    assert (await client.get("/dancers")).json() == ["Sand"]
"""


@pytest.mark.slow
def test_a_variable_that_the_app_does_not_read_is_named(example: Example) -> None:
    """Schema, seed and `db_session` are for what it names, and the app is somewhere else."""
    deaf = example.change("app.py", 'os.environ.get("DATABASE_URL", ', "(")
    run = deaf.with_files(test_astray=LED_ASTRAY).run(env={"DATABASE_URL": "sqlite:///other.db"})
    run.expect(1, failed=1)
    run.says(
        "the database 'dev' begins empty: arena_schema is for 'other', the app's first database",
        "next, if the tests alone use 'dev': delete their engine, and use db_session",
        "or, if 'dev' is a replica of 'other': give both engines the same URL in tests",
        "or, in pytest's configuration, if the app uses both:",
        "DATABASE_URL names the database 'other', but the app's engines use dev",
        "arena_env = <the variable that the app reads>, DATABASE_URL",
    )
    proposed = "arena_schema =\n    other = app:Base\n    dev = app:Base\n"
    assert proposed in run.output
    bare = deaf.change("pytest.ini", "arena_schema = app:Base\narena_seed = seed:seed\n", "")
    asks = "def test_one(test_client): test_client.get('/nowhere')\n"
    quiet = bare.with_files(test_astray=asks).run("-q", env={"DATABASE_URL": "sqlite:///o.db"})
    quiet.expect(passed=1).never_says("DATABASE_URL")  # nothing is for what it names


TOML = """
[tool.pytest]
arena_app = "app:app"
arena_schema = "app:Base"
asyncio_mode = "auto"
pythonpath = ["."]
"""
PROPOSED = '''
arena_schema = """
    other = app:Base
    dev = app:Base
"""
'''


@pytest.mark.slow
@pytest.mark.skipif(pytest.version_tuple < (9,), reason="[tool.pytest] came with pytest 9")
def test_a_proposal_for_a_second_database_is_pasted_whole(example: Example) -> None:
    """In TOML as well: the line of the first database is in it."""
    deaf = example.change("app.py", 'os.environ.get("DATABASE_URL", ', "(")
    files = {**deaf.files, "pyproject.toml": TOML}
    del files["pytest.ini"]
    project = replace(deaf, files=files, env={"DATABASE_URL": "sqlite:///other.db"})
    asks = "async def test_one(client):\n    assert (await client.get('/dancers')).json() == []\n"
    project = project.with_files(test_one=asks)
    run = project.run("-q").expect(1, failed=1)
    assert PROPOSED in run.output
    project.change("pyproject.toml", 'arena_schema = "app:Base"', PROPOSED).run().expect(passed=1)
    sections = {"[tool.pytest]": "[tool.pytest.ini_options]", 'arena_schema = "app:Base"': PROPOSED}
    for old, new in sections.items():
        project = project.change("pyproject.toml", old, new)
    project.run().expect(passed=1)


@pytest.mark.slow
def test_a_lifespan_that_makes_tables_over_a_template_costs_no_word_pitfall_119(
    example: Example,
) -> None:
    """The tables are there already; nothing is doubled."""
    tests = TESTS.replace("[]", '["Sand"]').replace("/dancers/Sand", "/dancers/Dune")
    project = example.change("app.py", "app = FastAPI()\n", IN_THE_LIFESPAN)
    run = project.with_files(test_own=tests).run().expect(passed=2)
    run.never_says("starts with the tables")


USED = "def test_one(test_client):\n    assert test_client.get('/dancers').json() == []\n"


@pytest.mark.slow
def test_each_project_keeps_its_last_two_templates_on_a_server(example: Example) -> None:
    """Of schema, what the role is given, the journal: also where names are equal."""
    ours = on_postgresql(example, test_it=USED).change("pytest.ini", "arena_seed = seed:seed\n", "")
    theirs = replace(ours, folder=ours.folder.parent / "elsewhere" / ours.folder.name)
    column = "    name: Mapped[str] = mapped_column(unique=True)\n"
    theirs = theirs.change("app.py", column, f"{column}    of_theirs: Mapped[str | None]\n")
    with private_server() as server:
        theirs.run(env=server.env).expect(passed=1)
        for turn in range(4):
            version = ours.change(
                "app.py", column, f"{column}    more_{turn}: Mapped[str | None]\n"
            )
            version.run(env=server.env).expect(passed=1)
        server.arena("sweep")
        found = [(one["project"], one["title"].split()[0]) for one in server.listed()]
        projects = sorted({project for project, _ in found})
        assert all(re.fullmatch(r"project-[0-9a-f]{6}", project) for project in projects)
        assert sorted(Counter(found).values()) == [1] * 3 + [2] * 3
        lines = server.arena("list").splitlines()
        names = [line.split()[2] for line in lines if line.startswith("  arena_template_")]
        assert names == sorted(names, key=projects.index)
