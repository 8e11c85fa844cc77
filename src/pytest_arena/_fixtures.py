"""pytest-arena's fixtures, for sync tests and each async plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from pytest_arena._app._app_run import AppRun
    from pytest_arena._app._clients import AsyncClient, ClientAs, TestClient
    from pytest_arena._app._live_server import LiveServer
    from pytest_arena._run._arena import Arena
    from pytest_arena._run._run import ArenaRun

__all__ = [
    "RUNS",
    "arena",
    "arena_app",
    "arena_lifespan",
    "client",
    "client_as",
    "client_options",
    "db_session",
    "live_server",
    "test_client",
    "test_client_as",
]

# Each of these fixtures that may connect requests one of the two. One of the suite does not.
DATABASE_FIXTURES = {"arena", "arena_app"}


def uses_client(names: set[str], *, is_async: bool) -> bool:
    """Return whether a test with fixtures of these names has a client that starts the app.

    Each client of pytest-arena requests `client_options`. A client of the suite does not.
    """
    clients = {"client", "client_as"} if is_async else {"test_client", "test_client_as"}
    has_client = "client_options" in names and not names.isdisjoint(clients)
    return has_client or "arena_lifespan" in names


# This dictionary is faster than a stash of pytest, which each test would read six times. Functions
# of `atexit` need it after the session.
RUNS: dict[pytest.Config, ArenaRun] = {}


def _run() -> ArenaRun:
    """Return the run that sets a fixture up: the last one, as pytest-arena refuses one in another.

    A parameter `request` would cost each of these fixtures 40 µs.
    """
    return next(reversed(RUNS.values()))


def _app_scope(fixture_name: str, config: pytest.Config) -> Any:  # noqa: ARG001 - pytest's names
    """Return `session` if one lifespan serves all tests, or else `function`."""
    run = RUNS.get(config)  # without a run no option is set
    return "session" if run and run.config.lifespan == "session" else "function"


@pytest.fixture(scope="session")
def arena(pytestconfig: pytest.Config) -> Arena:
    """The test's database and app, for fixtures of any scope: see `pytest_arena.Arena`."""
    from pytest_arena._run._arena import Arena  # noqa: PLC0415 - only runs that use a database

    return Arena(RUNS[pytestconfig])


@pytest.fixture(scope=_app_scope)
def arena_app() -> Any:
    """The app of `arena_app`, or the app of its factory. Override it to configure the app."""
    return _run().apps.build()


@pytest.fixture(scope=_app_scope)
def arena_lifespan(arena_app: object) -> Iterator[None]:
    """Runs the app's lifespan for tests without a client. Runs it once under `session`."""
    run = _run()
    if run.config.lifespan == "session":
        with run.apps.hold_session_lifespan(arena_app):
            yield
        return
    _start_app(arena_app)
    yield


def _use_app(arena_app: Any) -> AppRun:
    """Return the app's run in this test. A fixture would take 330 calls in pytest."""
    run = _run()
    return run.apps.use(arena_app, run.current.required_test())


def _start_app(arena_app: Any) -> None:
    """Start the app of a sync test. An async test starts it in its loop."""
    app_run = _use_app(arena_app)
    if not _is_async():
        app_run.join()


@pytest.fixture
def client_options() -> dict[str, Any]:
    """Options of the clients, for example `{"follow_redirects": True}`. Override it."""
    return {}


@pytest.fixture
def db_session(
    arena: Arena,  # noqa: ARG001 - one of DATABASE_FIXTURES
    request: pytest.FixtureRequest,
) -> AsyncSession | Session:
    """A session on the test's database: an `AsyncSession` in async tests of async apps.

    pytest-arena commits pending work before each request of `client` and `test_client`. A query
    reads what other connections have committed. The session has a separate engine.
    """
    return _run().open_session(request, wants_async=_is_async())


@pytest.fixture
def client(arena_app: object, client_options: dict[str, object]) -> AsyncClient:
    """An async HTTP client of the app in this process. It runs the lifespan and keeps cookies."""
    _check_awaited("client")
    _use_app(arena_app)
    return _run().apps.new_client(client_options)


@pytest.fixture
def client_as(
    arena: Arena,
    arena_app: object,
    client_options: object,  # noqa: ARG001 - `arena` reads it
) -> ClientAs:
    """`client_as("role")`: clients like `client`, logged in through `arena_login`."""
    _check_awaited("client_as")
    _use_app(arena_app)
    return arena.client_as


@pytest.fixture
def test_client(arena_app: object, client_options: dict[str, object]) -> TestClient:
    """The sync test client of the framework. It runs the lifespan and keeps cookies."""
    _start_app(arena_app)
    return _run().apps.new_test_client(client_options)


@pytest.fixture
def test_client_as(
    arena: Arena,
    arena_app: object,
    client_options: object,  # noqa: ARG001 - `arena` reads it
) -> ClientAs[TestClient]:
    """`test_client_as("role")`: clients like `test_client`, logged in through `arena_login`."""
    _start_app(arena_app)
    return arena.test_client_as


@pytest.fixture
def live_server(arena_app: object) -> LiveServer:
    """The app under uvicorn on a free port, in this process: `.url`."""
    return start_live_server(arena_app)


def start_live_server(arena_app: object) -> LiveServer:
    """Serve the app. `arena serve` calls this, because a plugin may override the fixture."""
    app_run = _use_app(arena_app)
    server = _run().apps.live_server()
    app_run.join()
    return server


def _is_async() -> bool:
    """Return whether the test is a coroutine function, which runs in a loop."""
    return _run().current.required_test().plan.is_async


def _check_awaited(name: str) -> None:
    """Refuse an async client as a parameter of a plain test.

    Async fixtures of the test may use the client.
    """
    if _is_async():
        return
    from pytest_arena._config._load import signature  # noqa: PLC0415 - 8 ms of an empty run

    request = _run().current.required_test().request
    test = getattr(request, "function", None)
    if test is not None and name in signature(test).parameters:
        raise ConfigError(
            f"the fixture `{name}` in a plain `def` test, which cannot await its requests",
            why="a request without `await` is never sent",
            cause=f"{request.node.nodeid} is no `async def`",
            fix=f"test_{name} in place of {name}   (or make the test `async def`)\n"
            f"or, for all tests of a sync suite, a fixture `{name}` that returns test_{name}",
        )
