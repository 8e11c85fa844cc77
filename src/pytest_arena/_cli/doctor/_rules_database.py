"""Tests with the wrong database, or leftover data, or slow set-up."""

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache

from pytest_arena._cli._imports import imported_paths
from pytest_arena._cli.doctor._code import (
    AnyFunction,
    AnyWith,
    Code,
    all_below,
    arguments,
    dotted,
    last_name,
    of_kind,
    target_of,
    text_of,
)
from pytest_arena._cli.doctor._rule import Finding, Findings, rule

URL_NAME = re.compile(
    r"(?i)(?:^|_)(?:database|db|postgres\w*|sqlalchemy|mysql|sqlite)_(?:\w+_)?(?:url|uri|dsn)$"
)
_SERVER = re.compile(
    r"(?:postgres(?:ql)?|mysql|mariadb|mssql|oracle)(?:\+\w+)?://(?:[^@/\s]*@)?([\w.-]+)"
)
_LOCAL_HOST = re.compile(
    r"(?i)^(?:[^.]+|[\d.]+|.*\.(?:local|localhost|test|internal|invalid|example)|(?:.*\.)?example\.\w+)$"
)
_WIPE = re.compile(
    r"(?i)^\s*(?:TRUNCATE|DROP\s+(?:TABLE|SCHEMA|DATABASE)|DELETE\s+FROM)\b"
)
_PURGE = re.compile(r"(?:\w+_)?(?:drop|reset|purge|clear|truncate|delete|wipe)_")
_CHANGE = re.compile(
    r"\benviron(?:\[[^]]*\] =|\.(?:pop|update|clear|setdefault)\()|del os\.environ|putenv\("
)
_RESTORED = re.compile(r"patch\.dict|environ\.copy\(\)|dict\(os\.environ|delenv")
_OPENINGS = (".begin(", ".connect(", "ession(", "_maker(", "ocal(")
_WIPING = (
    "drop_all",
    "delete(",
    "TRUNCATE",
    "DELETE",
    "DROP",
    "truncate",
    "delete from",
)
_PURGES = ("drop_", "reset_", "purge_", "clear_", "truncate_", "delete_", "wipe_")
_ENGINES = ("create_engine", "create_async_engine")
_SESSIONS = ("Session", "AsyncSession")
_DRIVERS = {
    "MySQLdb",
    "aiomysql",
    "aiosqlite",
    "asyncmy",
    "asyncpg",
    "mysql",
    "psycopg",
    "psycopg2",
    "psycopg_pool",
    "pymysql",
    "sqlite3",
}
_DRIVERS_OPENINGS = ("connect", "create_pool", "ConnectionPool", "AsyncConnectionPool")
_SENDS = {"text", "execute", "exec_driver_sql", "exec"}
_FILE_HERE = re.compile(r"sqlite(?:\+\w+)?:///(?:\./)?[\w.-]+$")
_SETTING = re.compile(r"(?i)\bsettings\b|\bconfig\b|environ\b|getenv")


@rule("ARD101", "app-session-in-test", *_OPENINGS, solved_by_arena=True)
def app_session_in_test(code: Code) -> Findings:
    """A test opens a session or a connection with the app's session maker or engine.

    The engine connects to the database that the app's settings name. On a developer's machine this
    is the development database. Rows that the test commits stay there, and rows that it deletes
    are lost.

    Instead: install pytest-arena and set `arena_app`. pytest-arena connects the app's engines to
    the test's database, so the test need not change. Without pytest-arena, use a session maker
    whose engine the tests create.

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
    wiped = {finding.node for finding in app_database_wiped(code)}
    for opening in _openings(code):
        is_reported = not wiped.isdisjoint(code.ancestors_of(opening))
        if not is_reported and not code.is_at_import(opening):
            yield Finding(opening, dotted(opening))


@rule("ARD102", "app-database-wiped", *_WIPING, solved_by_arena=True)
def app_database_wiped(code: Code) -> Findings:
    """A test or a fixture empties the database of the app's engine.

    The engine's URL is in the app's settings. If the settings name the development database, a run
    of the tests deletes its rows.

    Instead: delete the clean-up. pytest-arena restores the database after each test. Without
    pytest-arena, empty a database only through an engine that the tests create.

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
        for value in arguments(call):
            if _is_of_the_app(code, value):
                yield Finding(code.statement_of(call), dotted(call))
                break
    for opening in _openings(code):
        block = code.statement_of(opening)
        if isinstance(block, AnyWith) and _wipes_below(block):
            yield Finding(block, dotted(opening))


def _openings(code: Code) -> Iterator[ast.Call]:
    """Yield the calls that open a session or a connection of the app."""
    for call in code.called(*code.imports, "begin", "connect", *_SESSIONS):
        values = [call.func]
        if last_name(call) in _SESSIONS:
            values = arguments(call)
        elif isinstance(call.func, ast.Attribute):
            values = [call.func.value]
        for value in values:
            if isinstance(value, ast.Name | ast.Call) and _is_of_the_app(code, value):
                yield call
                break


def _is_of_the_app(code: Code, node: ast.expr) -> bool:
    """Return whether an expression is an engine or a session maker of the app.

    Such an expression names an imported object, calls a function of the app, or names a variable
    with the result of the call.
    """
    values = [node]
    if isinstance(node, ast.Name):
        if code.project.is_engine_or_maker(code.origin(node)):
            return True
        function = code.function_of(node)
        nodes = all_below(function) if function else []
        values = [
            statement.value
            for statement in of_kind(ast.Assign, nodes)
            if target_of(statement) == node.id
        ]
    for call in of_kind(ast.Call, values):
        # A call with an argument may mean another database.
        if arguments(call):
            continue
        if code.project.is_engine_function(code.origin(call)):
            return True
    return False


def _wipes_below(node: ast.AST) -> bool:
    """Return whether code in this block or function drops or empties tables."""
    return any(map(_wipes, all_below(node)))


def _wipes(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(attr="drop_all"):
            return True
        case ast.Call(func=ast.Name(id="delete"), args=[ast.Name(id=model)]):
            return model[:1].isupper()  # delete(User), with or without `where`
    return bool(_WIPE.match(text_of(node)))


@rule("ARD103", "app-purge-called", *_PURGES, solved_by_arena=True)
def app_purge_called(code: Code) -> Findings:
    """A test or a fixture calls a function of the app that drops or empties tables.

    The function uses the app's engine. In an autouse fixture, it empties the development database
    in every run.

    Instead: delete the call. With pytest-arena each test starts with the same tables and rows.
    Without pytest-arena, pass an engine of the tests to the function.

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
    for name, origin in code.imports.items():
        if not _PURGE.match(name) or not code.project.wipes(origin):
            continue
        for call in code.called(name):
            # A call with an argument may mean another database.
            if arguments(call):
                continue
            if isinstance(call.func, ast.Name) and code.test_of(call):
                yield Finding(call, name)


@rule("ARD104", "url-set-after-import", "environ", "putenv", solved_by_arena=True)
def url_set_after_import(code: Code) -> Findings:
    """The tests set the variable with the database's URL after they import the app.

    The app has read its settings at the import. Its engine keeps the old URL, so the tests use
    the old database without any error.

    Instead: delete the line. pytest-arena sets the variables of `arena_env` (by default
    `DATABASE_URL`) before any import. Without pytest-arena, move the line above the first import
    of the app.

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
    lines_of_imports = []
    for name, statement in code.import_lines.items():
        text, _ = code.project.defining(code.imports[name])
        if text and code.is_at_import(
            statement
        ):  # the statement imports a module of the app
            lines_of_imports.append(statement.lineno)
    if not lines_of_imports:
        return
    first_line = min(lines_of_imports)
    for node, name in _changed_variables(code):
        is_after_import = first_line < node.lineno and code.is_at_import(node)
        if is_after_import and URL_NAME.search(name):
            yield Finding(node, name)


def _changed_variables(code: Code) -> Iterator[tuple[ast.expr, str]]:
    """Yield each change of the environment with the variable's name. "" if it is no literal."""
    for node in code.nodes_of(ast.expr):
        match node:
            case ast.Subscript(value=value, slice=name, ctx=ast.Store()):
                variable = text_of(name)
            case ast.Call(
                func=ast.Attribute(value=value, attr="setdefault" | "update")
            ):
                variable = "".join(map(text_of, node.args[:1]))
            case _:
                continue
        if dotted(value) in {"os.environ", "environ"}:
            yield node, variable


@rule("ARD105", "environment-not-restored", "environ")
def environment_not_restored(code: Code) -> Findings:
    """A test or a fixture changes `os.environ` and does not restore it.

    All later tests have the changed variable. Whether they pass depends on the order of the tests.

    Instead: use `monkeypatch.setenv("NAME", "value")` or `monkeypatch.delenv("NAME")`. pytest
    restores the variable after the test.

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
    for node, name in _changed_variables(code):
        test = code.own_test_of(node)
        if test is None or test.scope == "session":
            continue
        text = ast.unparse(test.node)
        changes = _CHANGE.findall(text)
        # A second change, or a copy of all variables, restores them.
        if len(changes) <= 1 and not _RESTORED.search(text):
            yield Finding(node, name or "os.environ")


@rule("ARD106", "production-url", "postgres", "mysql", "mariadb", "mssql", "oracle")
def production_url(code: Code) -> Findings:
    """The tests contain the URL of a database on another machine.

    A run of the tests on a machine that can reach the host writes to that database. A password in
    the URL is also in the history of the repository.

    Instead: delete the URL, because pytest-arena needs none. Without pytest-arena, use a local
    server or a service of the CI job. Read the URL from an environment variable without a default.

    Fails:

        engine = create_engine("postgresql://app:secret@db.shop-production.com/shop")

    Passes:

        engine = create_engine("postgresql://app:secret@localhost/shop_test")
    """
    for call in code.called(*_ENGINES, "setenv", "setdefault"):
        for value in call.args[:2]:
            yield from _production_url(call, value)
    for statement in of_kind(ast.Assign, code.tree.body):
        if URL_NAME.search(target_of(statement)):
            yield from _production_url(statement, statement.value)


def _production_url(node: ast.expr | ast.stmt, value: ast.expr) -> Findings:
    server = _SERVER.match(text_of(value))
    if server is None:
        return
    host = server[1]
    if not _LOCAL_HOST.match(host):
        yield Finding(node, host)


@rule("ARD108", "file-in-working-folder", "sqlite", solved_by_arena=True)
def file_in_working_folder(code: Code) -> Findings:
    """The tests' database is an SQLite file in the working folder.

    All tests and all pytest-xdist workers share the file. It remains after the run, and the next
    run starts with its rows.

    Instead: with pytest-arena, delete the engine. `db_session` and `client` use the test's
    database. Without pytest-arena, create the file below `tmp_path` in a fixture.

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
        url = text_of(code.url_of(call))
        if _FILE_HERE.match(url) and "memory" not in url:
            yield Finding(call, url)


def _in_test_fixtures(code: Code, matches: Callable[[ast.AST], bool]) -> Findings:
    """Yield the first matching node of each function-scoped fixture."""
    for fixture in code.fixtures:
        if fixture.scope != "function":
            continue
        first = next(filter(matches, fixture.nodes), None)
        if isinstance(first, ast.expr | ast.stmt):
            yield Finding(first, fixture.node.name)


@rule("ARD403", "tables-for-each-test", "create_all", solved_by_arena=True)
def tables_for_each_test(code: Code) -> Findings:
    """A fixture creates all tables for each test.

    The time grows with the size of the schema. It is often most of the time of the suite.

    Instead: with pytest-arena, set the option `arena_schema` to `shop.models:Base`.
    pytest-arena creates the tables once, and restores the database after each test. Without
    pytest-arena, use a fixture with `scope="session"`.

    Fails:

        import pytest

        @pytest.fixture(autouse=True)
        def tables(engine):
            Base.metadata.create_all(engine)
            yield engine
            Base.metadata.drop_all(engine)

    Passes:

        import pytest

        @pytest.fixture(scope="session", autouse=True)
        def tables(engine):
            Base.metadata.create_all(engine)
    """

    def creates(node: ast.AST) -> bool:
        is_attribute = isinstance(node, ast.Attribute)
        return is_attribute and dotted(node).endswith("metadata.create_all")

    yield from _in_test_fixtures(code, creates)


@rule(
    "ARD404",
    "drops-what-settings-name",
    *_WIPING,
    "drop_database",
    solved_by_arena=True,
)
def drops_what_settings_name(code: Code) -> Findings:
    """The tests drop or empty the database whose URL is a setting of the app.

    The setting comes from the app or from an environment variable. If it is not set for the tests,
    it names the development database.

    Instead: delete the URL and the clean-up, because pytest-arena needs neither. Without
    pytest-arena, use a setting with `test` in its name, and check the database's name before the
    first statement.

    Fails:

        import os, pytest

        @pytest.fixture(scope="session")
        def engine():
            engine = create_engine(os.environ["DATABASE_URL"])
            Base.metadata.drop_all(engine)
            yield engine
            engine.dispose()

        # file: tests/test_driver.py
        import psycopg
        from app.config import settings

        def test_no_dancers():
            with psycopg.connect(settings.database_url) as connection:
                connection.execute("TRUNCATE dancers")

    Passes:

        import os, pytest

        @pytest.fixture(scope="session")
        def engine():
            engine = create_engine(os.environ["TEST_DATABASE_URL"])
            Base.metadata.drop_all(engine)
            yield engine
            engine.dispose()
    """
    names = ["drop_database"]
    if ".drop_all" in code.text:
        names.extend(_ENGINES)
    for call in code.called(*names):
        url = code.url_of(call)
        if url:
            yield from _named_by_setting(call, url)
    for call in code.called(*_DRIVERS_OPENINGS):
        driver = code.origin(call).partition(".")[0]
        function = code.function_of(call)
        if driver not in _DRIVERS or function is None:
            continue
        if _wipes_below(function):
            for value in arguments(call):
                yield from _named_by_setting(call, value)


def _named_by_setting(call: ast.Call, value: ast.expr) -> Findings:
    text = ast.unparse(value)
    if _SETTING.search(text) and "test" not in text.lower():
        yield Finding(call, text)


@rule(
    "ARD405",
    "emptied-by-hand",
    "sorted_tables",
    "TRUNCATE",
    "truncate",
    solved_by_arena=True,
)
def emptied_by_hand(code: Code) -> Findings:
    """A fixture empties all tables for each test.

    The fixture sends a statement for each table, even if the test wrote nothing to it. It also
    deletes the rows of the seed, and does not reset sequences.

    Instead: delete the fixture. pytest-arena restores rows and sequences after each test.

    Fails:

        import pytest

        @pytest.fixture(autouse=True)
        def clean(session):
            yield session
            for table in reversed(Base.metadata.sorted_tables):
                session.execute(table.delete())
            session.commit()

    Passes:

        import pytest

        @pytest.fixture
        def dancer(session):
            session.add(Dancer(name="ada"))
            session.commit()
    """
    yield from _in_test_fixtures(code, _empties)


def _empties(node: ast.AST) -> bool:
    """Return whether a node is a loop that empties all tables, or sends a `TRUNCATE`."""
    match node:
        case ast.For(iter=tables):
            is_delete = re.search(r"(?i)delete|truncate", ast.unparse(node))
            return bool(is_delete) and "sorted_tables" in ast.unparse(tables)
        case ast.Call(args=[statement, *_]):
            is_truncate = re.match(r"(?i)\s*TRUNCATE\s", text_of(statement))
            return bool(is_truncate) and last_name(node) in _SENDS
    return False


@rule("ARD409", "commit-behind-yield", "import", "yield", "def ")
def commit_behind_yield(code: Code) -> Findings:
    """A dependency commits after its `yield`.

    FastAPI runs that code after it has sent the answer, except in versions 0.106 to 0.117. The
    client receives its 201 before the row is committed, so its next request may not find the row.
    If the commit fails, the client does not learn of it. In-process clients wait for the commit,
    so tests do not see this.

    Instead: commit in the endpoint. With FastAPI 0.121 or newer you can also use
    `Depends(get_db, scope="function")`.

    Fails:

        from app.db import get_db

        # file: app/db.py
        async def get_db():
            async with session_maker() as session:
                yield session
                await session.commit()

    Passes:

        from app.db import get_db

        # file: app/db.py
        async def get_db():
            async with session_maker() as session:
                yield session
    """
    for function in code.by_name.values():
        name = function.name
        if _commits_behind_yield(function) and not _ends_early(name, code.text):
            yield Finding(function, name)
    imported = set(map(code.project.defining, code.imports.values()))
    modules = code.project.modules_behind(imported_paths(code.parents))
    for module in modules:
        for function in _late_functions(module.text):
            name = function.name
            texts = "\n".join(other.text for other in modules)
            depends = rf"\b(?:Depends|Security)\(\s*(?:\w+\.)*{name}\b"
            is_imported = (module.text, name) in imported
            is_dependency = is_imported or re.search(depends, texts)
            if is_dependency and not _ends_early(name, code.text + texts):
                yield Finding(function, name, file=module.path)


@cache
def _late_functions(text: str) -> list[AnyFunction]:
    """Return the functions of an app's module that commit after they yield a session."""
    if "yield" not in text:
        return []
    try:
        body = ast.parse(text).body
    except SyntaxError:
        return []
    functions = [node for node in body if isinstance(node, AnyFunction)]
    return list(filter(_commits_behind_yield, functions))


def _ends_early(name: str, text: str) -> bool:
    """Return whether a dependency with ``scope="function"`` ends before the answer is sent."""
    return bool(re.search(rf"""\b{name},\s*scope=["']function""", text))


def _commits_behind_yield(function: AnyFunction) -> bool:
    """Return whether a function yields a session and then commits.

    A decorator may change the effect of `yield`, so a decorated function does not count.
    """
    if function.decorator_list:
        return False
    nodes = all_below(*function.body)
    yielded_at = {}
    for part in of_kind(ast.Yield, nodes):
        yielded_at[dotted(part.value)] = part.lineno
    for call in of_kind(ast.Call, nodes):
        owner, _, method = dotted(call).rpartition(".")
        line = yielded_at.get(owner, call.lineno)
        if method == "commit" and call.lineno > line:
            return True
    yielded_at.pop("", None)  # a `yield` without a name
    for item in of_kind(ast.withitem, nodes):
        # A block of `session.begin()` commits at its end.
        is_block = last_name(item.context_expr) == "begin"
        if is_block and dotted(item.optional_vars) in yielded_at:
            return True
    return False
