"""Tests that talk to another app than they mean: overrides, clients, the lifespan."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from pytest_arena._cli.doctor._code import AnyFunction, dotted, keyword, last_name
from pytest_arena._cli.doctor._rule import Finding, Replacement, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._cli.doctor._code import Code

_OVERRIDES = ("dependency_overrides",)
_CLIENTS = ("TestClient", "AsyncTestClient")


def _overrides(code: Code) -> Iterator[tuple[ast.Assign, ast.Subscript]]:
    """The statements that set an override."""
    for node in code.parents:
        match node:
            case ast.Assign(targets=[ast.Subscript(value=ast.Attribute(attr=name)) as target]):
                if name == "dependency_overrides":
                    yield node, target


@rule("ARD201", "override-not-cleared", words=_OVERRIDES, ended=True)
def override_not_cleared(code: Code) -> Iterator[Finding]:
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
    clears = re.compile(
        r"dependency_overrides\s*(?:\.(?:clear|pop)\(|=)|del \w[\w.]*dependency_overrides"
    )
    if clears.search(code.text) or clears.search(code.around.conftests()):
        return
    for statement, target in _overrides(code):
        test = code.test_of(statement)
        app = dotted(target).partition(".")[0]
        if test and app in code.imports and test.scope in {"function", "class", "module"}:
            yield Finding(statement, ast.unparse(target))


@rule("ARD202", "override-at-import", words=_OVERRIDES, ended=True)
def override_at_import(code: Code) -> Iterator[Finding]:
    """A test file sets a dependency override when it is imported.

    pytest imports all files before the first test: the override holds for all of them, and where
    two files set the same one, for all the last one's.

    Instead: with pytest-arena, delete it: the app's own `get_db` works on the test's database.
    Without it: a fixture that sets it, yields, and takes it back.

    Fails:

        from app.main import app, get_db

        app.dependency_overrides[get_db] = test_db

        # file: app/main.py
        app = FastAPI()

    Passes:

        import pytest
        from app.main import app, get_db

        @pytest.fixture(autouse=True)
        def test_database():
            app.dependency_overrides[get_db] = test_db
            yield app
            app.dependency_overrides.clear()

        # file: app/main.py
        app = FastAPI()
    """
    for statement, target in _overrides(code):
        imported = dotted(target).partition(".")[0] in code.imports
        if code.is_collected and imported and code.is_at_import(statement):
            yield Finding(statement, ast.unparse(target))


@rule("ARD203", "override-of-nothing", words=_OVERRIDES)
def override_of_nothing(code: Code) -> Iterator[Finding]:
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
        made = isinstance(key, ast.Call) and last_name(key) in {"Depends", "Security", "partial"}
        if made or isinstance(key, ast.Lambda | ast.Constant):
            yield Finding(statement, ast.unparse(key))


@rule("ARD205", "session-given-to-the-app", words=_OVERRIDES, ended=True)
def session_given_to_the_app(code: Code) -> Iterator[Finding]:
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
        if test and name in test.parameters and re.search(r"(?i)(?:session|db|database)$", name):
            yield Finding(statement, name)


def _given(value: ast.expr, around: ast.AST) -> str:
    """The name of the object that an override returns or yields, where it only does that."""
    if isinstance(value, ast.Lambda):
        return dotted(value.body) if isinstance(value.body, ast.Name) else ""
    for node in ast.walk(around):
        if isinstance(node, AnyFunction) and node.name == dotted(value):
            results = [e.value for e in ast.walk(node) if isinstance(e, ast.Yield | ast.Return)]
            return dotted(results[0]) if results and isinstance(results[0], ast.Name) else ""
    return ""


@rule("ARD206", "client-without-lifespan", words=_CLIENTS, ended=True)
def client_without_lifespan(code: Code) -> Iterator[Finding]:
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
    for call in code.called(*_CLIENTS):
        app = call.args[0] if call.args else keyword(call, "app")
        if app is None or not code.around.has_lifespan(code.origin(app)):
            continue
        statement = code.statement_of(call)
        name = dotted(statement.targets[0]) if isinstance(statement, ast.Assign) else ""
        entered = name and re.search(rf"with {name}\b|enter\w*\({name}\)", code.text)
        if (
            not isinstance(statement, ast.With | ast.AsyncWith)
            and not entered
            and "enter" not in ast.unparse(statement)
        ):
            yield Finding(call, ast.unparse(call))
            return  # once for a file: the remedy is one fixture


@rule("ARD207", "client-app-argument", words=("AsyncClient(", "httpx.Client("))
def client_app_argument(code: Code) -> Iterator[Finding]:
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
    prefix = "httpx." if isinstance(call.func, ast.Attribute) else ""
    old = f"app={value}"
    replaced = Replacement(
        before.lineno, before.col_offset, old, f"transport={prefix}ASGITransport({old})"
    )
    if (
        dotted(call.func) == "httpx.AsyncClient"
        or code.imports.get("ASGITransport") == "httpx.ASGITransport"
    ):
        return (replaced,)
    match code.import_lines.get("AsyncClient"):
        case ast.ImportFrom(module="httpx", names=names) as statement if code.is_at_import(
            statement
        ):
            place = next(each for each in names if each.name == "AsyncClient")
            name = Replacement(
                place.lineno, place.col_offset, "AsyncClient", "ASGITransport, AsyncClient"
            )
            return (name, replaced)
    return ()


@rule("ARD208", "transport-without-lifespan", words=("ASGITransport",), ended=True)
def transport_without_lifespan(code: Code) -> Iterator[Finding]:
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
    run = re.compile(r"(?i)lifespan|startup")
    if run.search(code.text) or run.search(code.around.conftests()):
        return
    for call in code.called("ASGITransport"):
        app = call.args[0] if call.args else keyword(call, "app")
        if app is not None and code.around.has_lifespan(code.origin(app)):
            yield Finding(call, ast.unparse(call))
            return  # once for a file: the remedy is one fixture


@rule("ARD209", "sync-client-in-async-test", words=("TestClient(",), ended=True)
def sync_client_in_async_test(code: Code) -> Iterator[Finding]:
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
        function = code.function_of(call)
        test = code.test_of(call)
        sync = code.origin(call.func).startswith(("fastapi.", "starlette.", "litestar."))
        own = sync and test and test.is_async and function is test.node
        if own and test and _awaits_database(test.node):
            yield Finding(call, ast.unparse(call))


def _awaits_database(node: ast.AST) -> bool:
    """Whether a test awaits something of a session or an engine itself."""
    every = list(ast.walk(node))
    awaited = [each.value for each in every if isinstance(each, ast.Await)]
    blocks = [each for each in every if isinstance(each, ast.AsyncWith)]
    entered = [item.context_expr for each in blocks for item in each.items]
    return any(re.search(r"(?i)session|engine|\bdb", dotted(each)) for each in awaited + entered)
