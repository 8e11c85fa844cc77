"""Tests that can reach a database which is not theirs."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from pytest_arena._cli.doctor._code import dotted, keyword, last_name, text_of
from pytest_arena._cli.doctor._rule import Finding, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._cli.doctor._code import Code

URL_NAME = re.compile(
    r"(?i)(?:^|_)(?:database|db|postgres\w*|sqlalchemy|mysql|sqlite)_(?:\w+_)?(?:url|uri|dsn)$"
)
_SERVER = re.compile(
    r"(?:postgres(?:ql)?|mysql|mariadb|mssql|oracle)(?:\+\w+)?://(?:[^@/\s]*@)?([\w.-]+)"
)
_OURS = re.compile(
    r"(?i)^(?:[^.]+|[\d.]+|.*\.(?:local|localhost|test|internal|invalid|example)|(?:.*\.)?example\.\w+)$"
)
_WIPE = re.compile(r"(?i)^\s*(?:TRUNCATE|DROP\s+(?:TABLE|SCHEMA|DATABASE)|DELETE\s+FROM)\b")
_CHANGE = re.compile(
    r"\benviron(?:\[[^]]*\] =|\.(?:pop|update|clear|setdefault)\()|del os\.environ|putenv\("
)
_ENGINES = ("create_engine", "create_async_engine")


@rule(
    "ARD101",
    "app-session-in-test",
    ended=True,
    words=(".begin(", ".connect(", "ession(", "_maker(", "ocal("),
)
def app_session_in_test(code: Code) -> Iterator[Finding]:
    """A test opens a session or a connection by the app's own maker or engine.

    It is bound to the database that the app's settings name: on a developer's machine the
    developer's own. What the test commits stays there, and what it deletes is gone.

    Instead: install pytest-arena and set `arena_app`: every engine of the process is led to the
    test's own database, and this line may stay. Without it: a session maker on an engine that the
    tests make.

    Fails:

        from app.db import session_maker

        async def test_dancers():
            async with session_maker() as session:
                assert await session.get(Dancer, 1)

        # file: app/db.py
        session_maker = async_sessionmaker(create_async_engine(settings.database_url))

    Passes:

        from tests.database import session_maker

        async def test_dancers():
            async with session_maker() as session:
                assert await session.get(Dancer, 1)

        # file: tests/database.py
        session_maker = async_sessionmaker(create_async_engine(settings.test_url))
    """
    wiped = {found.node for found in app_database_wiped(code)}
    for opening in _openings(code):
        if code.function_of(opening) and not wiped.intersection(code.around_of(opening)):
            yield Finding(opening, dotted(opening))


@rule(
    "ARD102",
    "app-database-wiped",
    ended=True,
    words=("drop_all", "delete(", "TRUNCATE", "DELETE", "DROP", "truncate", "delete from"),
)
def app_database_wiped(code: Code) -> Iterator[Finding]:
    """A test or a fixture empties the database of the app's own engine.

    The engine's URL comes from the app's settings. Whoever runs the tests without the right
    variable loses the rows of the development database, or of a worse one.

    Instead: delete the clean-up. With pytest-arena each test has a database of its own, which is
    back where it was when the test ends; until then, wipe by an engine that the tests make
    themselves.

    Fails:

        import pytest
        from app.db import engine
        from app.models import Base

        @pytest.fixture(autouse=True)
        def clean():
            yield
            Base.metadata.drop_all(bind=engine)

        # file: app/db.py
        engine = create_engine(settings.database_url)

    Passes:

        import pytest
        from app.models import Base

        @pytest.fixture
        def engine(tmp_path):
            engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
            yield engine
            Base.metadata.drop_all(bind=engine)
            engine.dispose()
    """
    for call in code.called("drop_all"):
        bound = [*call.args, *(each.value for each in call.keywords)]
        if any(code.around.made_by(code.origin(each)) for each in bound):
            yield Finding(code.statement_of(call), dotted(call))
    for opening in _openings(code):
        block = next((each for each in code.around_of(opening) if isinstance(each, ast.stmt)), None)
        if isinstance(block, ast.With | ast.AsyncWith) and any(map(_wipes, ast.walk(block))):
            yield Finding(block, dotted(opening))


def _openings(code: Code) -> Iterator[ast.Call]:
    """The calls that open a session or a connection of the app's."""
    for call in code.called(*code.imports, "begin", "connect", "Session", "AsyncSession"):
        receiver = call.func.value if isinstance(call.func, ast.Attribute) else call.func
        bound = [each.value for each in call.keywords if each.arg == "bind"]
        makes = last_name(call) in {"Session", "AsyncSession"}
        places = [*call.args, *bound] if makes else [receiver]
        if any(isinstance(each, ast.Name) and _is_apps(code, each) for each in places):
            yield call


def _is_apps(code: Code, name: ast.Name) -> bool:
    origin = code.imports.get(name.id, "")
    return bool(origin and code.around.made_by(origin)) and code.origin(name) == origin


def _wipes(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(attr="drop_all"):
            return True
        case ast.Call(func=ast.Name(id="delete"), args=[ast.Name(id=model)]):
            return model[:1].isupper()  # delete(User), with or without `where`
        case ast.Constant(value=str(text)):
            return bool(_WIPE.match(text))
    return False


@rule(
    "ARD103",
    "app-purge-called",
    words=("drop_", "reset_", "purge_", "clear_", "truncate_", "delete_", "wipe_"),
    ended=True,
)
def app_purge_called(code: Code) -> Iterator[Finding]:
    """A test or a fixture calls a function of the app's that drops or empties tables.

    Such a function works on the app's own engine. As an autouse fixture it purges the development
    database at every run of the tests.

    Instead: delete the call: with pytest-arena each test begins with the schema and the seed, and
    nothing has to be purged. Without it, give the function an engine of the tests.

    Fails:

        import pytest
        from app.db import drop_db, init_db

        @pytest.fixture(autouse=True)
        async def database():
            await drop_db()
            await init_db()

        # file: app/db.py
        async def drop_db():
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.drop_all)

        async def init_db():
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)

    Passes:

        import pytest
        from app.db import init_db

        @pytest.fixture(autouse=True)
        async def database():
            await init_db()

        # file: app/db.py
        async def init_db():
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
    """
    verb = re.compile(r"(?:\w+_)?(?:drop|reset|purge|clear|truncate|delete|wipe)_")
    for name in filter(verb.match, code.imports):
        for call in code.called(name) if code.around.wipes(code.imports[name]) else ():
            # With an argument it may be told which database is meant.
            plain = isinstance(call.func, ast.Name) and not (call.args or call.keywords)
            if plain and code.test_of(call):
                yield Finding(call, name)


@rule("ARD104", "url-set-after-import", words=("environ", "putenv"), ended=True)
def url_set_after_import(code: Code) -> Iterator[Finding]:
    """The variable with the database's URL is set after the app was imported.

    The app has read its settings by then, and its engine has the URL of before. The tests run on
    that database, and nothing says so.

    Instead: with pytest-arena, delete the line: `arena_env` (by default `DATABASE_URL`) is set
    before anything is imported. Without it, move the line above the first import of the app.

    Fails:

        # file: tests/conftest.py
        import os
        from app.main import app

        os.environ["DATABASE_URL"] = "sqlite:///test.db"

        # file: app/main.py
        app = FastAPI()

    Passes:

        # file: tests/conftest.py
        import os

        os.environ["DATABASE_URL"] = "sqlite:///test.db"

        from app.main import app

        # file: app/main.py
        app = FastAPI()
    """
    own = [
        statement.lineno
        for name, statement in code.import_lines.items()
        if code.is_at_import(statement) and code.around.is_own(code.imports[name])
    ]
    for node, name in _changed_variables(code):
        late = own and min(own) < code.statement_of(node).lineno
        if late and URL_NAME.search(name) and code.is_at_import(node):
            yield Finding(node, name)


def _changed_variables(code: Code) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Where the environment is changed, and the variable, where it is written down."""
    for node in code.parents:
        match node:
            case ast.Subscript(value=value, slice=name, ctx=ast.Store()):
                if dotted(value) in {"os.environ", "environ"}:
                    yield node, text_of(name)
            case ast.Call(func=ast.Attribute(value=value, attr=attr), args=args):
                changes = attr in {"setdefault", "update"}
                if changes and dotted(value) in {"os.environ", "environ"}:
                    yield node, text_of(args[0]) if args else ""


@rule("ARD105", "environment-not-restored", words=("environ",))
def environment_not_restored(code: Code) -> Iterator[Finding]:
    """A test or a fixture changes `os.environ`, and does not change it back.

    Every later test has the variable, also when this one fails half-way. Whether they pass then
    depends on the order.

    Instead: `monkeypatch.setenv("NAME", "value")`, or `monkeypatch.delenv`: both are taken back
    after the test.

    Fails:

        import os

        def test_debug():
            os.environ["DEBUG"] = "1"
            assert settings().debug

    Passes:

        def test_debug(monkeypatch):
            monkeypatch.setenv("DEBUG", "1")
            assert settings().debug
    """
    changes = list(_changed_variables(code))
    for node, name in changes:
        test = code.test_of(node)
        if test is None or code.function_of(node) is not test.node or test.scope == "session":
            continue
        whole = ast.unparse(test.node)
        # It is changed a second time, or saved and restored as a whole.
        again = len(_CHANGE.findall(whole)) > 1
        saved = any(
            each in whole for each in ("patch.dict", "environ.copy()", "dict(os.environ", "delenv")
        )
        if not again and not saved:
            yield Finding(node, name or "os.environ")


@rule("ARD106", "production-url", words=("postgres", "mysql", "mariadb", "mssql", "oracle"))
def production_url(code: Code) -> Iterator[Finding]:
    """The URL of a database on a real host stands in the tests.

    Whoever can reach that host and runs the tests writes to it. A password in the URL is in the
    history of the repository, too.

    Instead: with pytest-arena no URL is needed: delete it. Without it, name a server of this
    machine, or of the CI service, by a variable that has no default.

    Fails:

        engine = create_engine("postgresql://app:secret@db.shop-production.com/shop")

    Passes:

        engine = create_engine("postgresql://app:secret@localhost/shop_test")
    """
    for call in code.called(*_ENGINES, "setenv", "setdefault"):
        for each in call.args[:2]:
            if host := real_host(text_of(each)):
                yield Finding(call, host)
    for statement in code.tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if URL_NAME.search(name):
                if host := real_host(text_of(value)):
                    yield Finding(statement, host)


def real_host(url: str) -> str:
    """The host of a database's URL, where it is neither this machine nor a name for examples."""
    found = _SERVER.match(url)
    return found[1] if found and not _OURS.match(found[1]) else ""


@rule("ARD107", "developers-env-file", words=("load_dotenv", "env_file"), ended=True)
def developers_env_file(code: Code) -> Iterator[Finding]:
    """The tests read the developer's own `.env`.

    What stands there differs from machine to machine, and names the developer's database. A test
    passes for one and fails for another, and a clean-up empties what it should not.

    Instead: name a file of the tests: `load_dotenv("tests/.env")`; or let pytest-arena set the URL
    (`arena_env`).

    Fails:

        # file: tests/conftest.py
        from dotenv import load_dotenv

        load_dotenv()

    Passes:

        # file: tests/conftest.py
        from dotenv import load_dotenv

        load_dotenv("tests/.env.test")
    """
    of_pytest = code.is_collected or code.path.name == "conftest.py"
    for call in code.called("load_dotenv") if of_pytest else ():
        path = call.args[0] if call.args else keyword(call, "dotenv_path")
        if path is None or text_of(path) == ".env":
            yield Finding(call, ".env")


@rule("ARD108", "file-in-working-folder", words=("sqlite",), ended=True)
def file_in_working_folder(code: Code) -> Iterator[Finding]:
    """The tests' database is an SQLite file in the folder that they are started in.

    All tests and all workers of pytest-xdist share the file, it stays when the run is over, and
    the next run begins with what is in it.

    Instead: with pytest-arena, no engine of the tests at all: `db_session` and `client` have a
    database of their own. Without it: a file below `tmp_path`, made by a fixture.

    Fails:

        engine = create_engine("sqlite:///./test.db")

    Passes:

        import pytest

        @pytest.fixture
        def engine(tmp_path):
            engine = create_engine(f"sqlite:///{tmp_path}/test.db")
            yield engine
            engine.dispose()
    """
    for call in code.called(*_ENGINES):
        url = call.args[0] if call.args else keyword(call, "url")
        if isinstance(url, ast.Name):
            url = code.assigned(url.id)
        text = text_of(url)
        if re.match(r"sqlite(?:\+\w+)?:///(?:\./)?[\w.-]+$", text) and "memory" not in text:
            yield Finding(call, text)
