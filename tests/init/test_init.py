"""Does `arena init` find its way in projects as people have them, and harm none?"""

from __future__ import annotations

import difflib
import shutil
import sqlite3
import sys
import tomllib
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import forks
from tests.command import arena
from tests.init.projects import FACTORY, KINDS, SQLMODEL, stripped
from tests.servers.postgresql import address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.command import Called
    from tests.example import Example

EXAMPLES = Path(__file__).parents[2] / "examples"
OPTIONS = {
    "sqlmodel": ["pythonpath = .", "arena_app = main:app", "arena_schema = main:SQLModel"],
    "full_stack": [
        'pythonpath = ["."]',
        'arena_app = "app.main:app"',
        'arena_schema = "alembic.ini"',
        'arena_env = ["SQLALCHEMY_DATABASE_URI"]',
    ],
    "factory": [
        'pythonpath = ["src"]',
        'arena_app = "shop.app:create_app"',
        'arena_schema = "shop.models:Base"',
        'arena_env = ["SHOP_DATABASE_URL"]',
    ],
    "litestar": ["pythonpath = .", "arena_app = app.asgi:app", "arena_schema = app.models:Base"],
    "starlette": [
        "pythonpath = .",
        "arena_app = notes.web:app",
        "arena_schema = notes.web:metadata",
    ],
    "several": [
        "pythonpath = .",
        "arena_app = app:app",
        *("arena_schema =", "    shop = app:Base", "    analytics = app:AnalyticsBase"),
        *("arena_env =", "    SHOP_DB_URL", "    ANALYTICS_DB_URL"),
    ],
}
BROKEN = """
from fastapi import FastAPI

app = FastAPI()
raise RuntimeError("no sand left")
"""


def init(folder: Path, *words: str) -> Called:
    """Call the command in a folder."""
    return arena("init", *words, folder=folder)


def project(folder: Path, files: Mapping[str, str]) -> Path:
    """Write a project, with the ends of lines that it has."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """What stands in the files of a folder, but for what Python and pytest keep for themselves."""
    found = (path for path in folder.rglob("*") if path.is_file() and "cache" not in str(path))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def suite(folder: Path, *words: str) -> tuple[int, str]:
    """Run the suite of a folder, as its owner does."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
    return forks.run(command, folder, {"PYTHONDONTWRITEBYTECODE": "1"}, seconds=120)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_it_writes_runs_green(tmp_path: Path, kind: str) -> None:
    """Each line that was there stays, the first test passes, and a second call writes nothing."""
    folder = project(tmp_path, KINDS[kind])
    before = contents(folder)

    called = init(folder, "--yes")

    assert called.status == 0, called.output + called.errors
    assert "1 passed" in called.output
    after = contents(folder)
    assert before.keys() <= after.keys()
    changed = {name for name in after if before.get(name) != after[name]}
    (configuration,) = changed - {"tests/test_arena.py"}
    old = before.get(configuration, b"").decode().splitlines(keepends=True)
    new = after[configuration].decode().splitlines(keepends=True)
    told = [line for line in difflib.ndiff(old, new) if line[0] != " "]
    assert {line[0] for line in told} == {"+"}
    assert ("\r\n" in told[0]) is ("\r\n" in "".join(old))
    head = {"", "[pytest]", "[tool.pytest.ini_options]"}
    added = [line[2:].rstrip("\r\n") for line in told]
    assert [line for line in added if line not in head] == OPTIONS[kind]
    if kind == "full_stack":  # its routes are in included routers
        assert "GET /api/v1/utils/health-check/ → 200" in called.output
    status, output = suite(folder)
    assert status == 0, output
    again = init(folder, "--yes")
    assert (again.status, again.output.startswith("nothing to do")) == (0, True), again.output
    assert contents(folder) == after


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,schema",
    [
        ("battle_d", "alembic.ini"),
        ("faults", "app:Base"),
        ("guestbook", "guestbook.models:Base"),
    ],
)
def test_an_example_without_its_tests_gets_a_first_one(
    tmp_path: Path, name: str, schema: str
) -> None:
    """As if it had none yet."""
    folder = tmp_path / name
    ignored = shutil.ignore_patterns("test*", "hollow", "demo.py", "late_app.py", "*.db")
    shutil.copytree(EXAMPLES / name, folder, ignore=ignored)
    file = folder / "pyproject.toml"
    file.write_text(stripped(file.read_text()).replace('testpaths = ["tests"]\n', ""))

    called = init(folder, "--yes")

    assert called.status == 0, called.output + called.errors
    options = tomllib.loads(file.read_text())["tool"]["pytest"]["ini_options"]
    assert options["arena_schema"] == schema
    assert "1 passed" in called.output
    if name == "guestbook":  # of Flask, whose routes are in a map
        assert "GET /entries → 200" in called.output


@pytest.mark.slow
def test_an_example_with_its_tests_gets_options_alone(tmp_path: Path) -> None:
    """Its suite passes with them, and no file of tests is added."""
    folder = tmp_path / "invoices"
    shutil.copytree(EXAMPLES / "invoices", folder, ignore=shutil.ignore_patterns("*.db"))
    file = folder / "pyproject.toml"
    file.write_text(stripped(file.read_text()))
    before = contents(folder)

    called = init(folder, "--yes")

    assert called.status == 0, called.output + called.errors
    assert {name for name, text in contents(folder).items() if before.get(name) != text} == {
        "pyproject.toml"
    }
    status, output = suite(folder)
    assert status == 0, output


@pytest.mark.slow
def test_an_app_on_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked on a server for tests, and its own is not reached."""
    on_a_server(monkeypatch)
    folder = tmp_path / "api_keys"
    ignored = shutil.ignore_patterns("test*", "demo.py", "without_arena.py")
    shutil.copytree(EXAMPLES / "api_keys", folder, ignore=ignored)
    file = folder / "pyproject.toml"
    file.write_text(stripped(file.read_text()))

    called = init(folder, "--yes")

    assert called.status == 0, called.output + called.errors
    assert "api_keys (postgresql+asyncpg)" in called.output
    assert 'arena_schema = "api_keys.models:Base"' in file.read_text()


@pytest.mark.slow
def test_without_a_yes_nothing_is_written(tmp_path: Path) -> None:
    """It is shown, and the next step is said."""
    folder = project(tmp_path, FACTORY)
    before = contents(folder)
    called = init(folder)
    assert called.status == 1
    assert "+async def test_get_items(client):" in called.output
    assert called.output.endswith(
        "nothing is written, because there is no terminal to ask in\nnext: arena init --yes\n"
    )
    assert contents(folder) == before


def test_no_app(tmp_path: Path) -> None:
    """What could be meant is named, and how to say it."""
    folder = project(tmp_path, {"lib.py": "x = 1"})
    called = init(folder, "--yes")
    assert called.status == 2
    assert "no app was found" in called.errors
    assert "arena init --app module:attribute" in called.errors
    assert contents(folder) == {"lib.py": b"x = 1"}


def test_a_factory_that_needs_arguments_is_told(tmp_path: Path) -> None:
    """It cannot be named, and a function without arguments can."""
    text = "from fastapi import FastAPI\n\n\ndef make(name):\n    app = FastAPI()\n    return app\n"
    called = init(project(tmp_path, {"app.py": text}), "--yes")
    assert called.status == 2
    assert "app.py:4  app:make: needs arguments" in called.errors


SMALL_AND_LARGE = {
    "small.py": """
from fastapi import FastAPI

app = FastAPI()


@app.get("/health")
def health(): return {}
""",
    "large.py": "from fastapi import FastAPI\n\n\ndef make(name) -> FastAPI: ...\n",
}


@pytest.mark.slow
def test_an_app_without_a_database_may_be_the_wrong_one(tmp_path: Path) -> None:
    """The factory that needs arguments is named, and how to test its app."""
    called = init(project(tmp_path, SMALL_AND_LARGE))
    assert "small:app has no database. Perhaps another app has it:" in called.output
    assert "large.py:4  large:make: needs arguments" in called.output
    assert "arena init --app module:that_function" in called.output


@pytest.mark.slow
def test_a_missing_package_is_told_with_its_command(tmp_path: Path) -> None:
    """pytest-arena needs PyMySQL also for an app that uses another driver."""
    app = """
import sys
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

sys.modules["pymysql"] = None  # as if it were not installed
engine = create_async_engine("mysql+asyncmy://shop@localhost/shop")
app = FastAPI()


@app.get("/items")
async def items():
    async with engine.connect() as connection:
        return list(await connection.scalars(text("SELECT name FROM items")))
"""
    called = init(project(tmp_path, {"shop.py": app}))
    step = "PyMySQL cannot be imported. Next: pip install 'pytest-arena[mysql]'"
    assert step in called.output, called.output + called.errors


@pytest.mark.slow
def test_no_test_expects_an_error_of_the_server(tmp_path: Path) -> None:
    """The app's tables are missing: the answer 500 is a doubt, and no first test."""
    app = """
from flask import Flask
from sqlalchemy import create_engine, text

engine = create_engine("sqlite:///dev.db")
app = Flask(__name__)


@app.get("/items")
def items():
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT name FROM items")))
"""
    called = init(project(tmp_path, {"shop.py": app}))
    assert "GET /items answers 500, so no test is written for it:" in called.output
    assert "set arena_schema" in called.output
    assert "test_arena.py" not in called.output


@pytest.mark.slow
def test_two_apps_are_listed_and_one_is_named(tmp_path: Path) -> None:
    """Nobody but the reader knows which."""
    admin = "from starlette.applications import Starlette\n\nadmin = Starlette()\n"
    folder = project(tmp_path, {**SQLMODEL, "back.py": admin})
    called = init(folder, "--yes")
    assert called.status == 2
    assert "2 apps: back:admin, main:app" in called.errors
    assert "arena init --app main:app" in called.errors
    assert contents(folder).keys() == {"main.py", "back.py"}
    assert "arena_app = main:app" in init(folder, "--app", "main:app").output


def test_two_apps_of_the_same_module_name_are_two(tmp_path: Path) -> None:
    """The lines of one app are not written with the folder of the other."""
    app = "from starlette.applications import Starlette\n\napp = Starlette()\n"
    names = [f"services/{name}/app/{file}" for name in "ab" for file in ("__init__.py", "main.py")]
    folder = project(tmp_path, dict.fromkeys(names, app))
    for name in names[::2]:
        (folder / name).write_text("")
    for words in ([], ["--app", "app.main:app"]):
        called = init(folder, "--yes", *words)
        assert called.status == 2, called.output
        assert "2 apps" in called.errors
        assert "services/a/app/main.py:3" in called.errors
        assert "services/b/app/main.py:3" in called.errors
    assert contents(folder).keys() == set(names)


@pytest.mark.slow
def test_a_folder_whose_name_cannot_be_imported(tmp_path: Path) -> None:
    """It is a folder to import from, and no package."""
    folder = project(tmp_path, {"my-app/main.py": SQLMODEL["main.py"]})
    called = init(folder, "--yes")
    assert called.status == 0, called.output + called.errors
    lines = "[pytest]\npythonpath = my-app\narena_app = main:app\narena_schema = main:SQLModel\n"
    assert contents(folder)["pytest.ini"].decode() == lines


def test_a_file_whose_name_cannot_be_imported(tmp_path: Path) -> None:
    """Its name is refused before anything is written."""
    app = "from starlette.applications import Starlette\n\napp = Starlette()\n"
    called = init(project(tmp_path, {"my-app.py": app}), "--yes")
    assert called.status == 2, called.output
    assert "my-app:app cannot be imported by this name" in called.errors
    assert contents(tmp_path).keys() == {"my-app.py"}


@pytest.mark.parametrize("text", ["x = " + "a" + ".b()" * 3000, "x = " + "-" * 9000 + "1"])
def test_a_deep_expression_is_not_parsed(tmp_path: Path, text: str) -> None:
    """The file is listed, as one with a syntax error is."""
    called = init(project(tmp_path, {"deep.py": text}))
    assert called.status == 2
    assert "not parsed    deep.py:1" in called.output
    assert "Traceback" not in called.errors


@pytest.mark.slow
def test_an_app_that_cannot_be_imported(tmp_path: Path) -> None:
    """Its line is told; what is known without it is written, and no test."""
    folder = project(tmp_path, {"app.py": BROKEN, "models.py": "metadata = 1"})
    called = init(folder, "--yes")
    assert called.status == 1, called.output + called.errors
    assert "next: repair the import of the app, then: arena init" in called.output
    assert "the app could not be imported, so no test is written" in called.output
    assert 'app.py:5  raise RuntimeError("no sand left")' in called.output
    assert contents(folder)["pytest.ini"] == b"[pytest]\npythonpath = .\narena_app = app:app\n"
    assert not (folder / "tests").exists()


@pytest.mark.slow
def test_a_factory_that_raises(tmp_path: Path) -> None:
    """Its module imports; its line is told all the same, and the tables are those of the files."""
    old = "    settings = settings or Settings()\n"
    text = FACTORY["src/shop/app.py"].replace(old, '    raise RuntimeError("no settings")\n')
    called = init(project(tmp_path, {**FACTORY, "src/shop/app.py": text}))
    assert "RuntimeError: no settings" in called.output
    assert 'app.py:21  raise RuntimeError("no settings")' in called.output
    assert '+arena_schema = "shop.models:Base"' in called.output
    assert "test_arena.py" not in called.output


@pytest.mark.slow
def test_an_app_that_never_ends(tmp_path: Path) -> None:
    """It is given up in time."""
    endless = BROKEN.replace('raise RuntimeError("no sand left")', "from threading import Event")
    folder = project(tmp_path, {"app.py": f"{endless}Event().wait()\n"})
    called = init(folder, "--timeout", "3")
    assert called.status == 2
    assert "the import of your code did not end within 3 s" in called.errors
    assert "conftest.py:" not in called.output
    assert "next: pytest" not in called.output


def test_a_time_limit_must_be_positive(tmp_path: Path) -> None:
    """The message names the option and the value."""
    called = arena("init", "--timeout", "-3", folder=tmp_path)

    assert called.status == 2
    assert "argument --timeout: -3 must be more than 0 seconds" in called.errors


@pytest.mark.slow
def test_a_conftest_that_fails_is_told_and_the_app_is_asked_all_the_same(tmp_path: Path) -> None:
    """It is another's fault."""
    folder = project(tmp_path, {**FACTORY, "tests/conftest.py": "1 / 0\n"})
    called = init(folder)
    assert "pytest could not start with your conftest.py" in called.output
    assert "ZeroDivisionError" in called.output
    assert "GET /items → 200, from the database" in called.output


@pytest.mark.slow
def test_an_app_that_needs_the_conftest_that_fails(tmp_path: Path) -> None:
    """The output says that the app was imported without the conftest, which sets the variable."""
    conftest = "import os\n\nos.environ['SHOP_KEY'] = 'sand'\n1 / 0\n"
    models = "import os\n\nKEY = os.environ['SHOP_KEY']\n" + FACTORY["src/shop/models.py"]
    files = {**FACTORY, "tests/conftest.py": conftest, "src/shop/models.py": models}
    called = init(project(tmp_path, files))
    title = "without your conftest.py, the app could not be imported either, so no test is written:"
    assert title in called.output


@pytest.mark.slow
def test_a_suite_with_a_time_limit_and_strict_about_its_options(tmp_path: Path) -> None:
    """The limit is for its tests: the app is imported without one, and the option is known."""
    strict = 'timeout = 90\nfilterwarnings = ["error::pytest.PytestConfigWarning"]\n\n'
    text = FACTORY["pyproject.toml"].replace("[tool.coverage", f"{strict}[tool.coverage")
    bench = 'import os\n\nURL = os.environ["BENCH_DATABASE_URL"]\n'
    files = {**FACTORY, "pyproject.toml": text, "benches/bench_items.py": bench}
    called = init(project(tmp_path, files))
    assert "Not sure:" not in called.output
    assert "GET /items → 200, from the database" in called.output
    assert '+arena_env = ["SHOP_DATABASE_URL"]' in called.output


@pytest.mark.slow
def test_migrations_that_fail_are_told_and_the_models_are_taken(tmp_path: Path) -> None:
    """The second likeliest is tried."""
    ini = "[alembic]\nscript_location = nowhere\n"
    called = init(project(tmp_path, {**FACTORY, "alembic.ini": ini}))
    assert "arena_schema = alembic.ini:" in called.output
    assert '+arena_schema = "shop.models:Base"' in called.output


WAITS = """
from contextlib import suppress

with suppress(Exception), engine.connect():
    pass
"""


@pytest.mark.slow
def test_migrations_that_fail_while_the_app_is_imported_are_explained(tmp_path: Path) -> None:
    """The app swallows the first error. No test has failed before, so the output names none."""
    files = {
        "main.py": SQLMODEL["main.py"] + WAITS,
        "alembic.ini": "[alembic]\nscript_location = migrations\n",
        "migrations/env.py": "raise RuntimeError('no dunes')\n",
        "migrations/versions/first.py": "",
    }
    called = init(project(tmp_path, files))
    doubts = called.output.partition("Not sure:")[2]
    assert "arena_schema = alembic.ini failed: RuntimeError: no dunes" in doubts
    assert "migrations/env.py:1" in doubts
    assert "first test that connected" not in doubts


CREATES = """
import psycopg
import pytest


@pytest.fixture(scope="session", autouse=True)
def database():
    with psycopg.connect("postgresql://postgres@127.0.0.1:1/postgres") as connection:
        connection.execute("CREATE DATABASE shop_test")
"""


@pytest.mark.slow
def test_a_fixture_that_makes_a_database_is_not_the_migrations_fault(tmp_path: Path) -> None:
    """The migrations are tried apart from the suite's fixtures, and are taken."""
    folder = project(tmp_path, {**KINDS["full_stack"], "conftest.py": CREATES})
    called = init(folder)
    assert '+arena_schema = "alembic.ini"' in called.output, called.output + called.errors
    assert "arena_schema = alembic.ini:" not in called.output
    doubts = called.output.partition("Not sure:")[2]
    assert "a fixture of your suite fails in each test:" in doubts
    assert "conftest.py:8  with psycopg.connect(" in doubts
    assert "arena_drivers" not in called.output.partition("+++ b/")[2]
    assert "from the database" in called.output


BY_A_DRIVER = """
import os
from contextlib import asynccontextmanager

import asyncpg
from fastapi import FastAPI, Request

URL = os.environ.get("DATABASE_URL", "postgresql://postgres@127.0.0.1:1/cellar")


@asynccontextmanager
async def lifespan(app):
    async with asyncpg.create_pool(URL) as app.state.pool:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/items")
async def items(request: Request):
    return [row["name"] for row in await request.app.state.pool.fetch("SELECT name FROM items")]
"""


def on_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the command find a server for tests."""
    server = address()
    login = f"{server.user}:{server.password}"
    monkeypatch.setenv(
        "ARENA_DATABASE", f"postgresql://{login}@{server.host}:{server.port}/postgres"
    )


@pytest.mark.slow
def test_an_app_by_a_driver_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connections are redirected, and its tables are those of a script."""
    on_a_server(monkeypatch)
    script = "CREATE TABLE items (id serial PRIMARY KEY, name text NOT NULL);\n"
    folder = project(tmp_path, {"main.py": BY_A_DRIVER, "sql/schema.sql": script})
    called = init(folder, "--yes")
    assert called.status == 0, called.output + called.errors
    written = (folder / "pytest.ini").read_text().splitlines()
    assert written[2:] == [
        "arena_app = main:app",
        "arena_schema = sql/schema.sql",
        "arena_drivers = redirect",
    ]
    assert "1 passed" in called.output


@pytest.mark.slow
def test_an_extension_that_is_missing_is_proposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name of what does not exist."""
    on_a_server(monkeypatch)
    script = "CREATE TABLE items (id serial PRIMARY KEY, name citext NOT NULL);\n"
    called = init(project(tmp_path, {"main.py": BY_A_DRIVER, "schema.sql": script}))
    assert 'type "citext" does not exist' in called.output, called.output + called.errors
    assert 'CREATE EXTENSION IF NOT EXISTS "citext"' in called.output


BASE = """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase): ...


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
"""
LIBRARY = {
    "pyproject.toml": '[project]\nname = "shelf"\n',
    "src/shelf/__init__.py": "",
    "src/shelf/tables.py": BASE,
    "tests/conftest.py": "import pytest\n\n\n@pytest.fixture\ndef session(): ...\n",
    "tests/test_it.py": "def test_item(session): ...\n",
}


@pytest.mark.slow
def test_a_library_without_an_app_gets_its_schema(tmp_path: Path) -> None:
    """There is nothing to ask, so that no test is written; a second call writes nothing."""
    folder = project(tmp_path, LIBRARY)
    called = init(folder, "--yes")
    assert called.status == 0, called.output + called.errors
    text = (folder / "pyproject.toml").read_text()
    assert 'arena_schema = "shelf.tables:Base"' in text
    assert 'pythonpath = ["src"]' in text
    assert "arena_app" not in text
    status, output = suite(folder)
    assert status == 0, output
    assert init(folder).output.startswith("nothing to do: arena_schema = shelf.tables:Base")


@pytest.mark.slow
def test_a_library_whose_tests_have_the_tables(tmp_path: Path) -> None:
    """They are imported as tests import them."""
    files = {**LIBRARY, "src/shelf/tables.py": "", "tests/models.py": BASE}
    called = init(project(tmp_path, files))
    assert "models:Base" in called.output, called.output + called.errors
    assert "Not sure" not in called.output


@pytest.mark.slow
def test_a_public_module_is_preferred_to_a_private_one(tmp_path: Path) -> None:
    """Where both have the same base."""
    public = "from shop._models import Base, Item\n"
    files = {**FACTORY, "src/shop/_models.py": FACTORY["src/shop/models.py"]}
    called = init(project(tmp_path, {**files, "src/shop/models.py": public}))
    assert '+arena_schema = "shop.models:Base"' in called.output


@pytest.mark.slow
def test_a_private_module_is_preferred_to_a_conftest(tmp_path: Path) -> None:
    """A conftest imports the base for fixtures that are deleted later, and its import with them."""
    files = dict(FACTORY)
    files["src/shop/_models.py"] = files.pop("src/shop/models.py")
    files["src/shop/app.py"] = files["src/shop/app.py"].replace("shop.models", "shop._models")
    files["tests/conftest.py"] = "from shop._models import Base\n"
    called = init(project(tmp_path, files))
    assert '+arena_schema = "shop._models:Base"' in called.output


@pytest.mark.slow
def test_where_the_second_file_cannot_be_written_the_first_is_not(tmp_path: Path) -> None:
    """A folder `tests` that is a file, as any other reason."""
    folder = project(tmp_path, {**SQLMODEL, "tests": "a file"})
    called = init(folder, "--yes")
    assert called.status == 2
    assert "cannot be written" in called.errors
    assert contents(folder) == {name: text.encode() for name, text in SQLMODEL.items()} | {
        "tests": b"a file"
    }


PLAIN_ASYNC = (
    "async def test_list(client):\n    assert (await client.get('/heroes/')).json() == []\n"
)
MARKED = f"import pytest\n@pytest.mark.asyncio\n{PLAIN_ASYNC}"
ANYIO = "import pytest\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "files,mode",
    [
        ({"test_it.py": PLAIN_ASYNC}, "asyncio_mode = auto"),
        ({"test_it.py": PLAIN_ASYNC, "conftest.py": ANYIO}, "anyio_mode = auto"),
        ({"test_it.py": MARKED}, ""),
        ({"test_it.py": PLAIN_ASYNC, "pytest.ini": "[pytest]\nasyncio_mode = auto\n"}, ""),
    ],
    ids=["no marker", "anyio", "a marker", "it has a mode"],
)
def test_async_tests_run_with_the_options_alone(
    tmp_path: Path, files: Mapping[str, str], mode: str
) -> None:
    """A suite without markers for its async tests gets the mode that needs none."""
    folder = project(tmp_path, {**SQLMODEL, **files})
    called = init(folder, "--yes")
    assert called.status == 0, called.output + called.errors
    added = [line[1:] for line in called.output.splitlines() if line.startswith("+")]
    assert [line for line in added if "_mode" in line] == [mode] * bool(mode)
    status, output = suite(folder)
    assert status == 0, output


@pytest.mark.slow
def test_the_developers_database_is_not_reached(tmp_path: Path) -> None:
    """Not by the import, not by the requests, not by the first test."""
    folder = project(tmp_path, SQLMODEL)
    (folder / "database.db").write_bytes(b"")
    assert init(folder, "--yes").status == 0
    assert (folder / "database.db").read_bytes() == b""


PROVIDED_APP = """
from fastapi import FastAPI
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase

engine = create_engine("sqlite:///app.db")
app = FastAPI()


class Base(DeclarativeBase): ...
"""
RUNS_RESET = """
import subprocess, sys
def pytest_sessionstart(session):
    subprocess.run([sys.executable, "reset.py"])
"""
RESET = "import main; main.SQLModel.metadata.drop_all(main.engine)\n"
REPLACES = "import subprocess; subprocess.run(['cp', 'other', 'database.db'])\n"


def on_sqlite(folder: Path, files: Mapping[str, str]) -> Path:
    """Write a project whose app has a table in an SQLite file, beside another such file."""
    project(folder, {**SQLMODEL, "other": "", **files})
    with closing(sqlite3.connect(folder / "database.db")) as connection:
        connection.execute("CREATE TABLE hero (name)")
    return folder


@pytest.mark.slow
def test_a_program_that_may_change_the_developers_database_is_not_started(tmp_path: Path) -> None:
    """The command ends and names the line: the program would have dropped the tables."""
    files = {"tests/conftest.py": RUNS_RESET, "reset.py": RESET}
    folder = on_sqlite(tmp_path, files)
    before = contents(folder)
    called = init(folder, "--yes")
    assert called.status == 2
    assert "arena init did not start the program of tests/conftest.py:4  " in called.errors
    assert "next:  move your SQLite files out of the project" in called.errors
    assert contents(folder) == before


@pytest.mark.slow
def test_a_program_that_may_change_a_server_is_not_started(tmp_path: Path) -> None:
    """No file of the project can show what the program would have changed."""
    app = PROVIDED_APP.replace("sqlite:///app.db", "postgresql://postgres@127.0.0.1:1/shop")
    files = {"app.py": app, "conftest.py": RUNS_RESET, "reset.py": "open('ran', 'w')\n"}
    folder = project(tmp_path, files)
    called = init(folder, "--yes")
    assert called.status == 2
    assert "arena init did not start the program of conftest.py:4  " in called.errors
    assert "next:  start it in a fixture of a test, not at import" in called.errors
    assert not (folder / "ran").exists()


@pytest.mark.slow
def test_a_program_of_another_language_may_have_changed_the_database(tmp_path: Path) -> None:
    """Such programs run, as git and a compiler have to. The changed file ends the command."""
    folder = on_sqlite(tmp_path, {"conftest.py": REPLACES})
    called = init(folder, "--yes")
    assert called.status == 2
    assert f"{folder}/database.db changed while arena init ran your code" in called.errors
    assert not (folder / "pytest.ini").exists()
    assert init(on_sqlite(tmp_path / "git", {"conftest.py": REPLACES[:18]})).status == 1


@pytest.mark.slow
def test_a_first_test_that_passes_in_a_run_that_fails(tmp_path: Path) -> None:
    """The run fails by the database that another program has changed."""
    later = f"import os\nif os.path.exists('pytest.ini'):\n    {REPLACES}"
    called = init(on_sqlite(tmp_path, {"conftest.py": later}), "--yes")
    assert called.status == 1
    assert "database.db was changed during this run" in called.output
    assert "The first test passes, but the run fails. next: pytest" in called.output


LEFTOVERS = """
from sqlmodel import Session, select

from main import Hero, create_db_and_tables, engine


def test_a_hero_is_added():
    create_db_and_tables()
    with Session(engine) as session:
        session.add(Hero(name="Deadpond", secret_name="Dive Wilson"))
        session.commit()


def test_the_hero_is_there():
    with Session(engine) as session:
        assert session.exec(select(Hero.name)).all() == ["Deadpond"]


def test_one_is_one():
    assert 1 == 1
"""
CONFIG = "[pytest]\npythonpath = .\narena_app = main:app\narena_schema = main:SQLModel\n"
STRICT = f"{CONFIG}addopts = --strict-config --arena-keep=never\nrequired_plugins = pytest-arena\n"
FIRST = """
def test_heroes(test_client):
    assert test_client.get("/heroes/").json() == []
"""


def check(folder: Path, *words: str) -> Called:
    """Compare both runs of the suite in a folder."""
    return init(folder, "--check", *words)


@pytest.mark.slow
def test_what_differs_is_told_with_its_cause(tmp_path: Path) -> None:
    """A test that needs what another one leaves fails with the plugin, and alone."""
    files = {**SQLMODEL, "pytest.ini": CONFIG, "test_heroes.py": LEFTOVERS}
    called = check(project(tmp_path, files), "--yes")
    assert called.status == 1
    assert "with the plugin: 2 passed, 1 failed in" in called.output
    assert "without it:      3 passed in" in called.output
    told = called.output.partition("passes only without the plugin: ")[2].splitlines()
    assert told[0] == "test_heroes.py::test_the_hero_is_there"
    assert "assert [] == ['Deadpond']" in told[1]
    assert "it relied on rows of another test or run" in told[2]
    assert "create its rows in a fixture or in arena_seed" in told[3]


@pytest.mark.slow
def test_tests_of_the_plugin_are_no_difference(tmp_path: Path) -> None:
    """They have no run without it, whatever the configuration demands of the plugin."""
    lone = LEFTOVERS.partition("def test_the_hero")[0]
    files = {**SQLMODEL, "pytest.ini": STRICT, "test_heroes.py": lone, "test_first.py": FIRST}
    called = check(project(tmp_path, files), "--yes")
    assert called.status == 0, called.output
    assert "tests with fixtures of the plugin, which cannot run without it: 1" in called.output
    assert called.output.endswith("No test passes only without the plugin.\n")


@pytest.mark.slow
def test_a_test_of_the_plugin_fails_with_the_plugin(tmp_path: Path) -> None:
    """It cannot run without the plugin, so that nothing says that it fails there, too."""
    red = FIRST.replace("== []", "== [1]")
    called = check(project(tmp_path, {**SQLMODEL, "pytest.ini": CONFIG, "test_a.py": red}), "--yes")
    assert "fails with the plugin: test_a.py::test_heroes" in called.output
    assert "either way" not in called.output


@pytest.mark.slow
def test_nothing_is_run_without_a_yes(tmp_path: Path) -> None:
    """The run without the plugin may reach what is the developer's."""
    folder = project(tmp_path, {**SQLMODEL, "pytest.ini": CONFIG, "test_heroes.py": LEFTOVERS})
    called = check(folder)
    assert called.status == 1
    file = (folder / "database.db").resolve()
    assert f"may change its databases:\n  {file}\nthe second run is left out" in called.output
    assert called.output.endswith("next: arena init --check --yes\n")
    assert not (folder / "database.db").exists()


@pytest.mark.slow
def test_what_the_run_may_change_is_what_the_engines_mean(tmp_path: Path) -> None:
    """Their URL is from a file or a variable, and not the one that stands in the code."""
    main = SQLMODEL["main.py"].replace(
        'sqlite_file_name = "database.db"',
        'import os; sqlite_file_name = os.environ.get("SHOP_FILE", "database.db")',
    )
    tests = f"import os; os.environ['SHOP_FILE'] = 'production.db'\n{LEFTOVERS}"
    files = {**SQLMODEL, "main.py": main, "pytest.ini": CONFIG, "test_heroes.py": tests}
    folder = project(tmp_path, files)
    file = (folder / "production.db").resolve()
    assert (
        f"may change its databases:\n  {file}\nthe second run is left out" in check(folder).output
    )


@pytest.mark.slow
def test_a_suite_that_cannot_begin_is_told(tmp_path: Path) -> None:
    """Nothing is compared."""
    files = {**SQLMODEL, "pytest.ini": CONFIG, "conftest.py": "1 / 0\n"}
    called = check(project(tmp_path, files), "--yes")
    assert called.status == 1
    assert "ZeroDivisionError" in called.output
    assert "pytest ended with exit status 4, so there is nothing to compare" in called.output


@pytest.mark.slow
def test_a_suite_that_changes_the_developers_database_is_not_compared(tmp_path: Path) -> None:
    """The file is named, and the second run does not begin."""
    files = {"pytest.ini": CONFIG, "test_one.py": FIRST, "conftest.py": REPLACES}
    called = check(on_sqlite(tmp_path, files), "--yes")
    assert called.status == 1
    assert "database.db was changed during this run" in called.output
    assert "without it:" not in called.output


@pytest.mark.slow
def test_the_same_suite_as_an_example(example: Example) -> None:
    """An error of ours names its own next step."""
    raw = "import sqlite3\n\n\ndef test_raw():\n    sqlite3.connect('dev.db').close()\n"
    called = check(example.with_files(test_raw=raw).write(), "--yes")
    assert called.status == 1, called.output
    assert "passes only without the plugin: test_raw.py::test_raw" in called.output
    assert "next: " in called.output
