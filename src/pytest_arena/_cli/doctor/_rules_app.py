"""Tests with the wrong app or event loop."""

import ast
import re
from collections.abc import Iterator

from pytest_arena._cli.doctor._code import (
    AnyFunction,
    AnyWith,
    Code,
    SuiteFunction,
    all_below,
    argument,
    dotted,
    keyword,
    last_name,
    names_in,
    target_of,
)
from pytest_arena._cli.doctor._rule import Finding, Findings, Replacement, rule

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
    """Yield the statements that set a dependency override, with their targets."""
    for node in code.nodes_of(ast.Assign):
        target = node.targets[0]
        if isinstance(target, ast.Subscript) and last_name(target.value) == _OVERRIDES:
            yield node, target


@rule("ARD201", "override-not-cleared", _OVERRIDES, solved_by_arena=True)
def override_not_cleared(code: Code) -> Findings:
    """A test sets a dependency override on a shared app and does not remove it.

    All tests use the same app object, so all later tests use the override. Whether they pass
    depends on the order of the tests.

    Instead: with pytest-arena, delete overrides of the session dependency. pytest-arena removes
    other overrides after the test. Without pytest-arena, set the override in a fixture, and call
    `app.dependency_overrides.clear()` after its `yield`.

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
    if _CLEARS.search(code.text + code.project.conftests):
        return
    for statement, target in _overrides(code):
        test = code.test_of(statement)
        app = dotted(target).partition(".")[0]
        is_shared = app in code.imports
        if test and is_shared and test.scope in {"function", "class", "module"}:
            yield Finding(statement, ast.unparse(target))


@rule("ARD205", "session-given-to-the-app", _OVERRIDES)
def session_given_to_the_app(code: Code) -> Findings:
    """An override gives the test's session to the app.

    The test does not use the app's engine, pool and `COMMIT`. The test sees rows that the app
    forgot to commit. A rollback of the app removes the rows of the test. Two parallel requests
    share one connection.

    Instead: with pytest-arena, delete the override. `client` and `db_session` use the same
    database over separate connections.

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
        if test is None:
            continue
        name = _result(statement.value, test)
        is_session = re.search(r"(?i)(?:session|db|database)$", name)
        if is_session and name in test.parameters:
            yield Finding(statement, name)


def _result(override: ast.expr, test: SuiteFunction) -> str:
    """Return the name of the object that an override returns or yields. "" without a name."""
    result: ast.expr | None = None
    if isinstance(override, ast.Lambda):
        result = override.body
    name = dotted(override)
    nodes: list[ast.AST] = []
    for function in test.nodes:
        if isinstance(function, AnyFunction) and function.name == name:
            nodes = all_below(function)
            break
    for node in nodes:
        if isinstance(node, ast.Yield | ast.Return):
            result = node.value
            break
    return result.id if isinstance(result, ast.Name) else ""


def _with_lifespan(code: Code, *names: str) -> Iterator[ast.Call]:
    """Yield the calls of functions with these names whose app has a lifespan."""
    for call in code.called(*names):
        app = argument(call, "app")
        if code.project.has_lifespan(code.origin(app)):
            yield call


@rule("ARD206", "client-without-lifespan", "TestClient", solved_by_arena=True)
def client_without_lifespan(code: Code) -> Findings:
    """A test uses a test client without `with`, although the app has a lifespan.

    The app's start-up does not run, so it creates no pool and no tables. Each request runs in a
    new event loop.

    Instead: use the fixture `test_client` of pytest-arena, which runs the lifespan. Without
    pytest-arena, write `with TestClient(app) as client:`.

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
        if isinstance(statement, AnyWith) or "enter" in ast.unparse(statement):
            continue
        name = target_of(statement)
        entered = rf"with {name}\b|enter\w*\({name}\)"
        if name and re.search(entered, code.text):
            continue
        yield Finding(call)
        return  # one finding for a file, because one fixture repairs all places


@rule("ARD207", "client-app-argument", "AsyncClient(", "httpx.Client(")
def client_app_argument(code: Code) -> Findings:
    """`AsyncClient(app=…)` no longer exists in httpx.

    httpx 0.28 removed the argument. It raises `TypeError: … unexpected keyword argument 'app'`.
    The argument never ran the lifespan.

    Instead: use the fixture `client` of pytest-arena. Without pytest-arena, write
    `AsyncClient(transport=ASGITransport(app=app), …)`, as `--fix` does.

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
            edits = _transport_edits(code, call, app)
            yield Finding(call, edits=edits)


def _transport_edits(
    code: Code, call: ast.Call, app: ast.expr
) -> tuple[Replacement, ...]:
    """Return the edits that replace `app=x` by a transport. Empty if they are not safe."""
    value = ast.get_source_segment(code.text, app) or ""
    if "\n" in value or keyword(call, "transport") is not None:
        return ()
    for word in call.keywords:
        if word.value is app and word.lineno != app.lineno:
            return ()
    module = "httpx." if dotted(call) == "httpx.AsyncClient" else ""
    replacement = Replacement(
        app.lineno,
        app.col_offset - len("app="),
        f"app={value}",
        f"transport={module}ASGITransport(app={value})",
    )
    if module:
        return (replacement,)
    if code.imports.get("ASGITransport") == "httpx.ASGITransport":
        return (replacement,)
    statement = code.import_lines.get("AsyncClient")
    if isinstance(statement, ast.ImportFrom) and code.is_at_import(statement):
        for alias in statement.names:
            if alias.name == "AsyncClient":
                name = alias.name
                import_transport = Replacement(
                    alias.lineno, alias.col_offset, name, f"ASGITransport, {name}"
                )
                return (import_transport, replacement)
    return ()


@rule("ARD208", "transport-without-lifespan", "ASGITransport", solved_by_arena=True)
def transport_without_lifespan(code: Code) -> Findings:
    """An async client sends requests, but the lifespan of the app does not run.

    `ASGITransport` does not run the lifespan. The app lacks everything that its start-up creates.

    Instead: use the fixture `client` of pytest-arena, which runs the lifespan in the test's event
    loop. Without pytest-arena, put the client inside
    `async with LifespanManager(app) as manager:` (package asgi-lifespan).

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
    text = code.text + code.project.conftests
    if re.search(r"(?i)lifespan|startup", text):
        return
    for call in _with_lifespan(code, "ASGITransport"):
        yield Finding(call)
        return  # one finding for a file, because one fixture repairs all places


@rule("ARD301", "event-loop-overridden", "def event_loop", solved_by_arena=True)
def event_loop_overridden(code: Code) -> Findings:
    """A fixture overrides `event_loop`.

    pytest-asyncio 1.0 removed this fixture, so the override has no effect. Tests and wide fixtures
    run on different event loops again.

    Instead: delete the fixture. pytest-arena works in any event loop. Without pytest-arena, set
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


@rule(
    "ARD302",
    "loop-inside-test",
    "asyncio.run(",
    "run_until_complete(",
    solved_by_arena=True,
)
def loop_inside_test(code: Code) -> Findings:
    """A test or a fixture runs database work in a new event loop.

    The engine's pool keeps the connections after the loop is closed. The next use of the engine
    raises "attached to a different loop" or "Event loop is closed".

    Instead: write an async test or fixture with `async def` and `await`. With pytest-arena, a sync
    test may also use the sync `db_session` and `test_client`.

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
        is_other_run = code.origin(call) != "asyncio.run"
        if last_name(call) == "run" and is_other_run:
            continue
        if call.args and code.test_of(call):
            work = call.args[0]
            function = code.by_name.get(dotted(work), work)
            if _uses_database(function):
                yield Finding(call)


def _uses_database(node: ast.AST) -> bool:
    """Return whether a node names a session, an engine or a database, and no mock."""
    names = names_in(node).union(map(last_name, all_below(node)))
    for name in names:
        if "ClientSession" in name or "mock" in name.lower():
            return False
    return any(map(_DATABASE.match, names))


@rule("ARD303", "wide-async-engine", "create_async_engine", solved_by_arena=True)
def wide_async_engine(code: Code) -> Findings:
    """Several tests use one async engine, and each test runs in a new event loop.

    A pooled connection belongs to the loop that created it. pytest-asyncio gives each test a new
    loop, so the second test raises "attached to a different loop".

    Instead: with pytest-arena, delete the fixture. The app's engine and `db_session` work in any
    loop. Without pytest-arena, use `poolclass=NullPool` or
    `asyncio_default_test_loop_scope = session`.

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
    project = code.project
    if _SHARED_LOOP.search(code.text + project.conftests + project.configuration):
        return
    for call in code.called("create_async_engine"):
        test = code.test_of(call)
        is_wide = test and test.scope in {"session", "package", "module"}
        if not is_wide and not code.is_at_import(call):
            continue
        # `**options` may set the pool. The name of its keyword is None.
        words = {word.arg for word in call.keywords}
        has_pool = words & {None, "poolclass", "pool"}
        url = code.url_of(call)
        is_sqlite = url and "sqlite" in ast.unparse(url)
        if not has_pool and not is_sqlite:
            statement = ast.unparse(code.statement_of(call))
            yield Finding(call, statement.partition(" =")[0])
