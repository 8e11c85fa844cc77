"""Tests that reach a database which is not theirs, or whose own outlives them or costs too much."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from pytest_arena._cli.doctor._code import (
    WIDE,
    AnyFunction,
    AnyWith,
    Code,
    all_below,
    dotted,
    functions_in,
    given,
    last_name,
    of_kind,
    target_of,
    text_of,
)
from pytest_arena._cli.doctor._rule import Finding, Findings, rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

URL_NAME = re.compile(
    r"(?i)(?:^|_)(?:database|db|postgres\w*|sqlalchemy|mysql|sqlite)_(?:\w+_)?(?:url|uri|dsn)$"
)
_SERVER = re.compile(
    r"(?:postgres(?:ql)?|mysql|mariadb|mssql|oracle)(?:\+\w+)?://(?:[^@/\s]*@)?([\w.-]+)"
)
_OURS = re.compile(
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
_DRIVERS = {
    *("psycopg", "psycopg2", "psycopg_pool", "asyncpg", "sqlite3", "aiosqlite"),
    *("pymysql", "MySQLdb", "aiomysql", "asyncmy", "mysql"),
}
_DRIVERS_OPENINGS = ("connect", "create_pool", "ConnectionPool", "AsyncConnectionPool")
_MEMORY = re.compile(r"sqlite(?:\+\w+)?://(?:/?:memory:.*|/?)$")
_UNDONE = re.compile(
    r"drop_all|rollback|begin_nested|delete|DELETE|TRUNCATE|create_savepoint"
)
_SESSION = re.compile(r"(?:^|\.)(?:\w*[Ss]ession_?(?:[Mm]aker|[Ll]ocal|[Ff]actory)?)$")


@rule("ARD101", "app-session-in-test", *_OPENINGS, ended=True)
def app_session_in_test(code: Code) -> Findings:
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
        if code.function_of(opening) and not wiped.intersection(
            code.around_of(opening)
        ):
            yield Finding(opening, dotted(opening))


@rule("ARD102", "app-database-wiped", *_WIPING, ended=True)
def app_database_wiped(code: Code) -> Findings:
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
        if any(_is_of_the_app(code, each) for each in given(call)):
            yield Finding(code.statement_of(call), dotted(call))
    for opening in _openings(code):
        block = code.statement_of(opening)
        if isinstance(block, AnyWith) and any(map(_wipes, ast.walk(block))):
            yield Finding(block, dotted(opening))


def _openings(code: Code) -> Iterator[ast.Call]:
    """The calls that open a session or a connection of the app's."""
    for call in code.called(
        *code.imports, "begin", "connect", "Session", "AsyncSession"
    ):
        receiver = (
            call.func.value if isinstance(call.func, ast.Attribute) else call.func
        )
        makes = last_name(call) in {"Session", "AsyncSession"}
        places = given(call) if makes else [receiver]
        named = [each for each in places if isinstance(each, ast.Name | ast.Call)]
        if any(_is_of_the_app(code, each) for each in named):
            yield call


def _is_of_the_app(code: Code, node: ast.expr) -> bool:
    """Return whether this is an engine or session maker of the app, or returned by its function."""
    calls = of_kind(ast.Call, [node])
    if isinstance(node, ast.Name):
        if code.around.made_by(code.origin(node)):
            return True
        function = code.function_of(node)
        calls = (
            each.value
            for each in of_kind(ast.Assign, ast.walk(function) if function else ())
            if target_of(each) == node.id and isinstance(each.value, ast.Call)
        )
    # An argument may select another database.
    return any(
        code.around.gives_engine(code.origin(each)) for each in calls if not given(each)
    )


def _wipes(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(attr="drop_all"):
            return True
        case ast.Call(func=ast.Name(id="delete"), args=[ast.Name(id=model)]):
            return model[:1].isupper()  # delete(User), with or without `where`
    return bool(_WIPE.match(text_of(node)))


@rule("ARD103", "app-purge-called", *_PURGES, ended=True)
def app_purge_called(code: Code) -> Findings:
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
    for name in filter(_PURGE.match, code.imports):
        for call in code.called(name) if code.around.wipes(code.imports[name]) else ():
            # With an argument it may be told which database is meant.
            if (
                isinstance(call.func, ast.Name)
                and not given(call)
                and code.test_of(call)
            ):
                yield Finding(call, name)


@rule("ARD104", "url-set-after-import", "environ", "putenv", ended=True)
def url_set_after_import(code: Code) -> Findings:
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
        if code.is_at_import(statement) and code.around.defining(code.imports[name])[0]
    ]
    for node, name in _changed_variables(code):
        late = own and min(own) < node.lineno
        if late and URL_NAME.search(name) and code.is_at_import(node):
            yield Finding(node, name)


def _changed_variables(code: Code) -> Iterator[tuple[ast.expr, str]]:
    """Where the environment is changed, and the variable, where it is written down."""
    for node in code.every(ast.expr):
        match node:
            case ast.Subscript(value=value, slice=name, ctx=ast.Store()):
                pass
            case ast.Call(
                func=ast.Attribute(value=value, attr="setdefault" | "update")
            ):
                name = next(iter(node.args), ast.Constant(""))
            case _:
                continue
        if dotted(value) in {"os.environ", "environ"}:
            yield node, text_of(name)


@rule("ARD105", "environment-not-restored", "environ")
def environment_not_restored(code: Code) -> Findings:
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
    for node, name in _changed_variables(code):
        test = code.own_test_of(node)
        if test and test.scope != "session":
            whole = ast.unparse(test.node)
            # It is changed a second time, or saved and restored as a whole.
            if len(_CHANGE.findall(whole)) <= 1 and not _RESTORED.search(whole):
                yield Finding(node, name or "os.environ")


@rule("ARD106", "production-url", "postgres", "mysql", "mariadb", "mssql", "oracle")
def production_url(code: Code) -> Findings:
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
    calls = code.called(*_ENGINES, "setenv", "setdefault")
    texts: list[tuple[ast.expr | ast.stmt, ast.expr]]
    texts = [(call, each) for call in calls for each in call.args[:2]]
    for statement in of_kind(ast.Assign, code.tree.body):
        if URL_NAME.search(target_of(statement)):
            texts.append((statement, statement.value))
    for node, text in texts:
        found = _SERVER.match(text_of(text))
        if found and not _OURS.match(
            found[1]
        ):  # neither this machine nor a name for examples
            yield Finding(node, found[1])


@rule("ARD108", "file-in-working-folder", "sqlite", ended=True)
def file_in_working_folder(code: Code) -> Findings:
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
        text = text_of(code.url_of(call))
        if (
            re.match(r"sqlite(?:\+\w+)?:///(?:\./)?[\w.-]+$", text)
            and "memory" not in text
        ):
            yield Finding(call, text)


@rule("ARD402", "memory-engine-at-import", "sqlite", ended=True)
def memory_engine_at_import(code: Code) -> Findings:
    """One database in memory, made at import, serves all tests, and nothing empties it.

    What a test has committed is there in all later ones. They pass alone and fail together, or the
    other way round.

    Instead: with pytest-arena each test has a database of its own; delete the engine. Without it:
    an engine for each test, in a fixture, on a file below `tmp_path`.

    Fails:

        engine = create_async_engine("sqlite+aiosqlite:///:memory:", poolclass=StaticPool)

        async def test_create(tables):
            async with AsyncSession(engine, expire_on_commit=False) as session:
                session.add(Dancer(name="ada"))
                await session.commit()

    Passes:

        import pytest

        @pytest.fixture
        async def engine(tmp_path):
            engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/test.db")
            yield engine
            await engine.dispose()
    """
    is_kept = re.search(
        r"commit\(|Client|create_all", code.text
    ) and not _UNDONE.search(code.text)
    for call in code.called(*_ENGINES) if is_kept else ():
        text = text_of(code.url_of(call))
        wrong_driver = last_name(call) == "create_engine" and "aiosqlite" in text
        if code.is_at_import(call) and _MEMORY.match(text) and not wrong_driver:
            yield Finding(call, ast.unparse(call))


def _for_each_test(code: Code, is_meant: Callable[[ast.AST], bool]) -> Findings:
    """The fixtures for one test each in which something of a kind stands, at its first place."""
    for fixture in code.fixtures:
        first = next(filter(is_meant, fixture.nodes), None)
        if fixture.scope == "function" and isinstance(first, ast.expr | ast.stmt):
            yield Finding(first, fixture.node.name)


@rule("ARD403", "tables-for-each-test", "create_all", ended=True)
def tables_for_each_test(code: Code) -> Findings:
    """A fixture makes all tables for each test.

    It costs as much as the schema is large, again for each test: most of a suite's time, often.

    Instead: with pytest-arena `arena_schema = "shop.models:Base"`: they are made once, and each
    test has a copy. Without it: a fixture with `scope="session"`.

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
    yield from _for_each_test(code, _creates)


def _creates(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and dotted(node).endswith(
        "metadata.create_all"
    )


@rule("ARD404", "drops-what-settings-name", *_WIPING, "drop_database", ended=True)
def drops_what_settings_name(code: Code) -> Findings:
    """The tests drop or empty the database that a setting names, or tables of it.

    The setting is the app's, or a variable of the environment with the app's name. Where it is not
    set for the tests, it names the development database.

    Instead: with pytest-arena no URL and no clean-up: delete both. Without it: a setting of the
    tests' own, with `test` in its name, and a check of the database's name before the first
    statement.

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
    drops = any(each.attr == "drop_all" for each in code.every(ast.Attribute))
    for call in code.called(*(_ENGINES if drops else ()), "drop_database"):
        url = ast.unparse(code.url_of(call) or ast.Constant(""))
        if _names_setting(url):
            yield Finding(call, url)
    for call in code.called(*_DRIVERS_OPENINGS):
        function = code.function_of(call)
        is_driver = code.origin(call.func).partition(".")[0] in _DRIVERS
        if is_driver and function and any(map(_wipes, ast.walk(function))):
            settings = [ast.unparse(each) for each in given(call)]
            yield from (
                Finding(call, each) for each in filter(_names_setting, settings)
            )


def _names_setting(url: str) -> bool:
    setting = re.search(r"(?i)\bsettings\b|\bconfig\b|environ\b|getenv", url)
    return bool(setting) and "test" not in url.lower()


@rule("ARD405", "emptied-by-hand", "sorted_tables", "TRUNCATE", "truncate", ended=True)
def emptied_by_hand(code: Code) -> Findings:
    """A fixture empties all tables for each test.

    It costs a statement for each table, also for those that nobody has written to. Rows of the
    seed are gone, too, and sequences go on where they were.

    Instead: delete it: with pytest-arena the database is back where it was when the test ends,
    with seed and sequences, at the price of what the test has changed.

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
    yield from _for_each_test(code, _empties)


def _empties(node: ast.AST) -> bool:
    """Whether a statement goes through all tables and deletes, or a `TRUNCATE` is sent."""
    match node:
        case ast.For(iter=over):
            deletes = re.search(r"(?i)delete|truncate", ast.unparse(node))
            return "sorted_tables" in ast.unparse(over) and bool(deletes)
        case ast.Call(args=[sent, *_], func=function):
            sends = last_name(function) in {
                "text",
                "execute",
                "exec_driver_sql",
                "exec",
            }
            return sends and bool(re.match(r"(?i)\s*TRUNCATE\s", text_of(sent)))
    return False


@rule("ARD408", "session-for-many-tests", "scope=", ended=True)
def session_for_many_tests(code: Code) -> Findings:
    """One database session serves many tests.

    Objects that one test has loaded are what the next one is given, however the rows are by then.
    An error in one leaves a transaction that all later ones fail in.

    Instead: a session for each test: `db_session` of pytest-arena; data that is shared stays in a
    wide fixture, with a session of its own.

    Fails:

        import pytest

        @pytest.fixture(scope="session")
        def db():
            with Session(engine) as session:
                yield session

    Passes:

        import pytest

        @pytest.fixture
        def db():
            with Session(engine) as session:
                yield session
    """
    http = re.search(r"aiohttp|requests|ClientSession", code.text)
    for fixture in [each for each in code.fixtures if each.scope in WIDE and not http]:
        items = of_kind(ast.withitem, fixture.own_nodes)
        opened = [item for item in items if _SESSION.search(dotted(item.context_expr))]
        sessions = {dotted(item.optional_vars) for item in opened}
        for node in of_kind(ast.Yield, fixture.own_nodes):
            name = dotted(node.value)
            if name in sessions and re.search(r"(?i)session|db", name):
                yield Finding(node, fixture.node.name)


@rule("ARD409", "commit-behind-yield", "import", "yield")
def commit_behind_yield(code: Code) -> Findings:
    """A dependency commits behind its `yield`.

    FastAPI runs that code after the answer, except in versions 0.106 to 0.117. The client gets its
    201 before the row is committed. Its next request may not find the row. If the commit fails, the
    client does not learn of it. In-process clients wait for the commit, so tests do not see this.

    Instead: `await session.commit()` in the endpoint, or
    `Depends(get_db, scope="function")`, which FastAPI has since 0.121.

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
    for node in code.defined.values():
        if _commits_behind_yield(node) and not _ends_early(node.name, code.text):
            yield Finding(node, node.name)
    reported: set[tuple[str, str]] = set()
    for name, statement in code.import_lines.items():
        text, defined_name = code.around.defining(code.imports[name])
        if "yield" not in text:
            continue
        for function in functions_in(text):
            own_name = name if function.name == defined_name else function.name
            is_used = function.name == defined_name or _is_dependency(
                function.name, text
            )
            if not is_used or (text, function.name) in reported:
                continue
            if _commits_behind_yield(function) and not _ends_early(
                own_name, code.text + text
            ):
                reported.add((text, function.name))
                yield Finding(statement, own_name)


def _is_dependency(name: str, text: str) -> bool:
    return bool(re.search(rf"\b(?:Depends|Security)\(\s*{name}\b", text))


def _ends_early(name: str, text: str) -> bool:
    return bool(re.search(rf"""\b{name},\s*scope=["']function""", text))


def _commits_behind_yield(function: AnyFunction) -> bool:
    """Return whether it yields a session and then commits. Decorated functions do not count."""
    if function.decorator_list:
        return False
    nodes = all_below(*function.body)
    yields = [(dotted(each.value), each.lineno) for each in of_kind(ast.Yield, nodes)]
    for call in of_kind(ast.Call, nodes):
        owner, _, method = dotted(call.func).rpartition(".")
        if method == "commit" and any(
            owner == name and call.lineno > n for name, n in yields
        ):
            return True
    names = {name for name, _ in yields if name}
    return any(
        last_name(item.context_expr) == "begin" and dotted(item.optional_vars) in names
        for item in of_kind(ast.withitem, nodes)
    )
