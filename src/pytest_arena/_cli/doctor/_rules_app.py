"""Tests that talk to another app than they mean, or on another event loop."""

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
    argument,
    dotted,
    keyword,
    last_name,
    of_kind,
    stored_in,
    target_of,
)
from pytest_arena._cli.doctor._rule import Finding, Findings, Replacement, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

_OVERRIDES = "dependency_overrides"
_CLEARS = re.compile(
    r"dependency_overrides\s*(?:\.(?:clear|pop)\(|=)|del \w[\w.]*dependency_overrides"
)
_SHARED_LOOP = re.compile(
    r"""\bloop_scope=|def event_loop|anyio_backend|add_marker"""
    r"""|(?m:^\s*asyncio_default_test_loop_scope\s*=\s*["']?(?:session|package|module)\b)"""
)
_DATABASE = re.compile(
    r"(?i)(?:(?:\w+_)?(?:engine|database|db)|(?:(?:async|db|test)_)?session(?:_?maker|_factory|local)?"
    r"|(?:create|drop)_all|(?:create|drop|init|reset|setup)_(?:db|database|(?:async_)?tables))$"
)


def _overrides(code: Code) -> Iterator[tuple[ast.Assign, ast.Subscript]]:
    """The statements that set an override."""
    for node in code.every(ast.Assign):
        match node.targets:
            case [
                ast.Subscript(
                    value=ast.Attribute(attr="dependency_overrides")
                ) as target
            ]:
                yield node, target


@rule("ARD201", "override-not-cleared", _OVERRIDES, ended=True)
def override_not_cleared(code: Code) -> Findings:
    """A dependency override is set on a shared app, and never taken back.

    The app is one object for all tests. Every later test goes through this override, also when
    this one fails half-way, and whether it passes depends on the order.

    Instead: with pytest-arena no override of the session is needed, and others are taken back
    after the test. Without it: set it in a fixture, and after its `yield`:
    `app.dependency_overrides.clear()`.

    Fails:

        from app.main import app, get_user

        def test_profile(client):
            app.dependency_overrides[get_user] = lambda: User(name="ada")
            assert client.get("/me").json() == {"name": "ada"}

        # file: app/main.py
        app = FastAPI()

    Passes:

        import pytest
        from app.main import app, get_user

        @pytest.fixture
        def ada():
            app.dependency_overrides[get_user] = lambda: User(name="ada")
            yield app
            app.dependency_overrides.clear()

        def test_profile(client, ada):
            assert client.get("/me").json() == {"name": "ada"}

        # file: app/main.py
        app = FastAPI()
    """
    cleared = _CLEARS.search(code.text + code.around.conftests)
    for statement, target in _overrides(code) if not cleared else ():
        test = code.test_of(statement)
        is_shared = dotted(target).partition(".")[0] in code.imports
        if test and is_shared and test.scope in {"function", "class", "module"}:
            yield Finding(statement, ast.unparse(target))


@rule("ARD203", "override-of-nothing", _OVERRIDES)
def override_of_nothing(code: Code) -> Findings:
    """An override has a key that no route depends on.

    FastAPI looks the key up by the very function that stands in `Depends(…)`. A new lambda, a
    `Depends(…)` around it, a `partial` or a text is never found: the app's own function is called,
    with the app's own database.

    Instead: the function itself, by the name that the route imports:
    `app.dependency_overrides[get_db] = …`.

    Fails:

        app.dependency_overrides[Depends(get_db)] = test_db

    Passes:

        app.dependency_overrides[get_db] = test_db
    """
    for statement, target in _overrides(code):
        key = target.slice
        made = isinstance(key, ast.Call) and last_name(key) in {
            "Depends",
            "Security",
            "partial",
        }
        if made or isinstance(key, ast.Lambda | ast.Constant):
            yield Finding(statement, ast.unparse(key))


@rule("ARD205", "session-given-to-the-app", _OVERRIDES, ended=True)
def session_given_to_the_app(code: Code) -> Findings:
    """The app is given the very session that the test works with.

    The app's own engine, pool and `COMMIT` are not tested. What the app forgot to commit is seen
    all the same, what it rolls back takes the test's own rows along, and two requests at once
    share one connection.

    Instead: with pytest-arena, delete the override: `client` and `db_session` work on one
    database, each by connections of its own.

    Fails:

        import pytest

        @pytest.fixture
        def client(db_session):
            app.dependency_overrides[get_db] = lambda: db_session
            yield TestClient(app)
            app.dependency_overrides.clear()

    Passes:

        import pytest

        @pytest.fixture
        def client(session_maker):
            def get_test_db():
                with session_maker() as session:
                    yield session

            app.dependency_overrides[get_db] = get_test_db
            yield TestClient(app)
            app.dependency_overrides.clear()
    """
    for statement, _ in _overrides(code):
        test = code.test_of(statement)
        name = _given(statement.value, test.node) if test else ""
        if (
            test
            and name in test.parameters
            and re.search(r"(?i)(?:session|db|database)$", name)
        ):
            yield Finding(statement, name)


def _given(value: ast.expr, around: ast.AST) -> str:
    """The name of the object that an override returns or yields, where it only does that."""
    results: list[ast.expr | None] = (
        [value.body] if isinstance(value, ast.Lambda) else []
    )
    for function in all_below(around):
        if isinstance(function, AnyFunction) and function.name == dotted(value):
            results = [
                e.value
                for e in ast.walk(function)
                if isinstance(e, ast.Yield | ast.Return)
            ]
            break
    return dotted(results[0]) if results and isinstance(results[0], ast.Name) else ""


def _with_lifespan(code: Code, *names: str) -> Iterator[ast.Call]:
    """The calls of these names that are given an app with a lifespan."""
    for call in code.called(*names):
        if code.around.has_lifespan(code.origin(argument(call, "app"))):
            yield call


@rule("ARD206", "client-without-lifespan", "TestClient", ended=True)
def client_without_lifespan(code: Code) -> Findings:
    """A test client is used without `with`, though the app has a lifespan.

    The start-up of the app does not run: no pool, no tables, "not initialized". And each request
    has an event loop of its own.

    Instead: with pytest-arena the fixture `test_client`, which runs it. Without it: `with
    TestClient(app) as client:`.

    Fails:

        from app.main import app

        client = TestClient(app)

        # file: app/main.py
        app = FastAPI(lifespan=lifespan)

    Passes:

        import pytest
        from app.main import app

        @pytest.fixture
        def client():
            with TestClient(app) as client:
                yield client

        # file: app/main.py
        app = FastAPI(lifespan=lifespan)
    """
    for call in _with_lifespan(code, "TestClient", "AsyncTestClient"):
        statement = code.statement_of(call)
        name = target_of(statement)
        entered = name and re.search(rf"with {name}\b|enter\w*\({name}\)", code.text)
        if not (
            isinstance(statement, AnyWith)
            or entered
            or "enter" in ast.unparse(statement)
        ):
            yield Finding(call, ast.unparse(call))
            return  # once for a file: the remedy is one fixture


@rule("ARD207", "client-app-argument", "AsyncClient(", "httpx.Client(")
def client_app_argument(code: Code) -> Findings:
    """`AsyncClient(app=…)` is gone from httpx.

    httpx 0.28 has taken the argument away: `TypeError: … unexpected keyword argument 'app'`. It
    never ran the lifespan either.

    Instead: with pytest-arena the fixture `client`. Without it:
    `AsyncClient(transport=ASGITransport(app=app), …)`, which `--fix` writes.

    Fails:

        from httpx import AsyncClient

        async def test_root():
            async with AsyncClient(app=app, base_url=URL) as client:
                assert (await client.get("/")).status_code == 200

    Passes:

        from httpx import ASGITransport, AsyncClient

        async def test_root():
            async with AsyncClient(transport=ASGITransport(app=app), base_url=URL) as client:
                assert (await client.get("/")).status_code == 200
    """
    for call in code.called("AsyncClient"):
        app = keyword(call, "app")
        if app is not None and code.origin(call.func) == "httpx.AsyncClient":
            yield Finding(call, ast.unparse(call), _transport(code, call, app))


def _transport(code: Code, call: ast.Call, app: ast.expr) -> tuple[Replacement, ...]:
    """Replace `app=x` by a transport, where the name for it is at hand or easily imported."""
    value = ast.get_source_segment(code.text, app) or ""
    before = next(each for each in call.keywords if each.value is app)
    if keyword(call, "transport") or "\n" in value or before.lineno != app.lineno:
        return ()
    prefix = "httpx." * (dotted(call.func) == "httpx.AsyncClient")
    old = f"app={value}"
    new = f"transport={prefix}ASGITransport(app={value})"
    replaced = Replacement(before.lineno, before.col_offset, old, new)
    if prefix or code.imports.get("ASGITransport") == "httpx.ASGITransport":
        return (replaced,)
    match code.import_lines.get("AsyncClient"):
        case ast.ImportFrom(module="httpx", names=names) as line if code.is_at_import(
            line
        ):
            name = next(each for each in names if each.name == "AsyncClient")
            place = (name.lineno, name.col_offset)
            return (
                Replacement(*place, "AsyncClient", "ASGITransport, AsyncClient"),
                replaced,
            )
    return ()


@rule("ARD208", "transport-without-lifespan", "ASGITransport", ended=True)
def transport_without_lifespan(code: Code) -> Findings:
    """An async client talks to an app with a lifespan, and nobody runs it.

    `ASGITransport` sends requests and nothing else. What the app makes at its start is not there.

    Instead: with pytest-arena the fixture `client`, which runs the lifespan in the test's own
    loop. Without it: `async with LifespanManager(app) as manager:` of asgi-lifespan around the
    client.

    Fails:

        from httpx import ASGITransport, AsyncClient
        from app.main import app

        async def test_root():
            async with AsyncClient(transport=ASGITransport(app=app), base_url=URL) as client:
                assert (await client.get("/")).status_code == 200

        # file: app/main.py
        app = FastAPI(lifespan=lifespan)

    Passes:

        from asgi_lifespan import LifespanManager
        from httpx import ASGITransport, AsyncClient
        from app.main import app

        async def test_root():
            async with LifespanManager(app) as manager:
                async with AsyncClient(transport=ASGITransport(app=manager.app)) as client:
                    assert (await client.get("http://test/")).status_code == 200

        # file: app/main.py
        app = FastAPI(lifespan=lifespan)
    """
    if not re.search(r"(?i)lifespan|startup", code.text + code.around.conftests):
        for call in _with_lifespan(code, "ASGITransport"):
            yield Finding(call, ast.unparse(call))
            return  # once for a file: the remedy is one fixture


@rule("ARD209", "sync-client-in-async-test", "TestClient(", ended=True)
def sync_client_in_async_test(code: Code) -> Findings:
    """An async test uses the sync test client.

    The client runs the app in a thread with an event loop of its own, and blocks the test's loop
    until the answer is there. An engine that both use ends in "attached to a different loop".

    Instead: the async fixture `client` of pytest-arena, or
    `AsyncClient(transport=ASGITransport(app=app))`.

    Fails:

        from fastapi.testclient import TestClient

        async def test_root(session):
            await session.commit()
            with TestClient(app) as client:
                assert client.get("/").status_code == 200

    Passes:

        from fastapi.testclient import TestClient

        def test_root():
            with TestClient(app) as client:
                assert client.get("/").status_code == 200
    """
    for call in code.called("TestClient"):
        test = code.own_test_of(call)
        sync = code.origin(call.func).startswith(
            ("fastapi.", "starlette.", "litestar.")
        )
        if (
            sync
            and test
            and isinstance(test.node, ast.AsyncFunctionDef)
            and _awaits(test.nodes)
        ):
            yield Finding(call, ast.unparse(call))


def _awaits(nodes: list[ast.AST]) -> bool:
    """Whether something of a session or an engine is awaited."""
    blocks = of_kind(ast.AsyncWith, nodes)
    awaited = [each.value for each in of_kind(ast.Await, nodes)]
    awaited += [item.context_expr for each in blocks for item in each.items]
    return any(re.search(r"(?i)session|engine|\bdb", dotted(each)) for each in awaited)


@rule("ARD301", "event-loop-overridden", "def event_loop", ended=True)
def event_loop_overridden(code: Code) -> Findings:
    """The fixture `event_loop` is overridden.

    pytest-asyncio 1.0 has taken it away: the override does nothing any more, and tests and wide
    fixtures run on different loops again. With older versions it was deprecated, and hid the same
    fault.

    Instead: delete it; with pytest-arena no loop scope is needed. Without it:
    `asyncio_default_fixture_loop_scope` and `asyncio_default_test_loop_scope` in the
    configuration.

    Fails:

        import asyncio, pytest

        @pytest.fixture(scope="session")
        def event_loop():
            loop = asyncio.new_event_loop()
            yield loop
            loop.close()

    Passes:

        # file: pytest.ini
        [pytest]
        asyncio_default_fixture_loop_scope = session
        asyncio_default_test_loop_scope = session

        # file: tests/conftest.py
        import pytest
    """
    for fixture in code.fixtures:
        if fixture.node.name == "event_loop":
            yield Finding(fixture.node, "event_loop")


@rule("ARD302", "loop-inside-test", "asyncio.run(", "run_until_complete(", ended=True)
def loop_inside_test(code: Code) -> Findings:
    """A test or a fixture runs database work on an event loop of its own.

    The connections that are made there stay in the engine's pool when the loop is closed. The next
    one to use the engine gets "attached to a different loop", or "Event loop is closed".

    Instead: an async test or fixture: `async def`, and `await`. With pytest-arena a sync test may
    also use the sync `db_session` and `test_client`.

    Fails:

        import asyncio, pytest

        @pytest.fixture
        def database():
            asyncio.run(init_db())

    Passes:

        import pytest

        @pytest.fixture
        async def database():
            await init_db()
    """
    for call in code.called("run", "run_until_complete"):
        runs = (
            last_name(call) == "run_until_complete"
            or code.origin(call.func) == "asyncio.run"
        )
        if runs and call.args and code.test_of(call):
            name = dotted(call.args[0])
            if _works_on_database(code.defined.get(name, call.args[0])):
                yield Finding(call, ast.unparse(call))


def _works_on_database(*nodes: ast.AST) -> bool:
    """Whether a name of a session, an engine or a database stands there, and none of a mock."""
    every = all_below(*nodes)
    names = [
        each.id if isinstance(each, ast.Name) else last_name(each) for each in every
    ]
    http = any("ClientSession" in each or "mock" in each.lower() for each in names)
    return not http and any(map(_DATABASE.match, names))


@rule("ARD303", "wide-async-engine", "create_async_engine", ended=True)
def wide_async_engine(code: Code) -> Findings:
    """An async engine outlives a test, and each test has a loop of its own.

    A pooled connection belongs to the loop that it was made on. pytest-asyncio gives each test a
    new one: the second test gets "attached to a different loop".

    Instead: with pytest-arena, delete the fixture: the app's engine and `db_session` work on any
    loop. Without it: `poolclass=NullPool`, or `asyncio_default_test_loop_scope = session`.

    Fails:

        import pytest_asyncio

        @pytest_asyncio.fixture(scope="session")
        async def engine():
            engine = create_async_engine("postgresql+asyncpg://localhost/test")
            yield engine
            await engine.dispose()

    Passes:

        import pytest_asyncio

        @pytest_asyncio.fixture(scope="session")
        async def engine():
            engine = create_async_engine("postgresql+asyncpg://localhost/test", poolclass=NullPool)
            yield engine
            await engine.dispose()
    """
    shared = _SHARED_LOOP.search(
        code.text + code.around.conftests + code.around.configuration
    )
    for call in code.called("create_async_engine") if not shared else ():
        test = code.test_of(call)
        url = code.url_of(call)
        wide = code.is_at_import(call) or (test and test.scope in WIDE - {"class"})
        unknown = any(each.arg in {None, "poolclass", "pool"} for each in call.keywords)
        if wide and not unknown and not (url and "sqlite" in ast.unparse(url)):
            yield Finding(call, ast.unparse(code.statement_of(call)).partition(" =")[0])


@rule("ARD307", "flag-guards-set-up", "global ", ended=True)
def flag_guards_set_up(code: Code) -> Findings:
    """A flag of the module sees to it that the database is set up once.

    The engine is made on the first test's loop, and the flag keeps later tests from making it
    anew: "attached to a different loop". With pytest-xdist each worker has a flag of its own.

    Instead: delete it: with pytest-arena the schema is built once (`arena_schema`), and each test
    has its own copy. Without it: a fixture with `scope="session"`.

    Fails:

        import pytest

        _initialized = False

        @pytest.fixture(autouse=True)
        async def database():
            global _initialized
            if not _initialized:
                await init_db()
                _initialized = True

    Passes:

        import pytest

        @pytest.fixture(scope="session", autouse=True)
        async def database():
            await init_db()
    """
    for fixture in code.fixtures:
        flags = {
            name
            for each in of_kind(ast.Global, fixture.own_nodes)
            for name in each.names
        }
        for node in of_kind(ast.If, fixture.own_nodes):
            below = all_below(node)
            flag = ast.unparse(node.test).removeprefix("not ")
            guards = isinstance(node.test, ast.UnaryOp) and flag in flags & stored_in(
                below
            )
            if guards and _works_on_database(*of_kind(ast.Call, below)):
                yield Finding(node, flag)
