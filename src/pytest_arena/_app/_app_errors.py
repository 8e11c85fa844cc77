"""Creates the errors about the app, its lifespan, its clients and its login."""

from pytest_arena._config._load import blame, home_of
from pytest_arena._origin import user_line
from pytest_arena.errors import (
    ArenaError,
    ConfigError,
    LifespanError,
    LoginError,
    causes,
)


def describe(thing: object) -> str:
    """Name an object as its author would: ``create_app()`` or ``an instance of Flask``."""
    name = getattr(thing, "__qualname__", "")
    return f"{name}()" if name else f"an instance of {type(thing).__name__}"


def not_installed(what: str, package: str, extra: str) -> ConfigError:
    """Return the error for a package that is not installed."""
    return ConfigError(
        f"{what} needs {package}, which is not installed",
        why="it is no dependency of pytest-arena: not every suite needs it",
        cause="the environment of this run",
        fix=f'pip install "pytest-arena[{extra}]"',
    )


def no_app(thing: object, what: str) -> ConfigError:
    """Return the error for an object that is no app."""
    return ConfigError(
        f"{what}: neither an app (ASGI, WSGI) nor a plain function without arguments "
        f"({describe(thing)})",
        why="pytest-arena's clients call the app in this process. It creates the app outside of an "
        "event loop",
        cause=str(home_of(thing) or describe(thing)),
        fix="name an app, or a function that creates one:\n"
        "def create_test_app():\n"
        "    return create_app(settings)",
    )


def startup_failed(error: BaseException | None, message: str | None) -> LifespanError:
    """Return the error for an app that raised, or reported a failure, before it was up."""
    return LifespanError(
        f"the app's start-up failed: {_reason(error, message)}",
        why="pytest-arena sends no request to an app that has not started",
        cause=_line(error),
        fix=_inner_fix(error)
        or "repair the start-up, or run these tests without it: arena_lifespan = off",
    )


def shutdown_failed(
    error: BaseException | None, message: str | None, *, is_requested: bool
) -> LifespanError:
    """Return the error for an app that raised in its shutdown, or ended before it."""
    when = "shutdown failed" if is_requested else "lifespan ended during the test"
    return LifespanError(
        f"the app's {when}: {_reason(error, message)}",
        why="the rest of the shutdown did not run, so open resources may disturb later tests",
        cause=_line(error),
        fix=_inner_fix(error)
        or "repair the lifespan after its yield. try/finally runs the rest of the shutdown",
    )


def shutdown_hangs(seconds: float) -> LifespanError:
    """Return the error for a shutdown that did not end in time."""
    return LifespanError(
        f"the app's shutdown did not end within {seconds:g} s, and was cancelled",
        why="the test run would have waited for ever",
        cause="the lifespan, after its yield, waits for something that never happens",
        fix="first end the tasks that it waits for: task.cancel()",
    )


def run_is_over() -> LifespanError:
    """Return the error for a client that is used after its test."""
    return LifespanError(
        "a request by a client whose test is over",
        why="the app was shut down, and its database belongs to another test now",
        cause="a global, a class or a wider fixture has kept the client",
        fix="ask for `client` in each test. In a wider fixture use arena.client()",
    )


def no_login(role: str) -> LoginError:
    """Return the error for a role without ``arena_login``."""
    return LoginError(
        f"no client can log in as {role!r}: arena_login is not set",
        why="pytest-arena does not know how clients log in to this app",
        cause="the option is missing in pytest's configuration",
        fix='arena_login = "tests.login:login", with a function like\n'
        "async def login(client, role):\n"
        '    (await client.post("/login", json={"user": role})).raise_for_status()',
    )


def login_failed(error: BaseException, *, role: str, path: str) -> LoginError:
    """Return the error for a login function that raised."""
    return LoginError(
        f"the login as {role!r} failed: {_reason(error, None)}",
        why="the client's requests would not have that role",
        cause=_line(error),
        fix=_inner_fix(error)
        or f"look at {path or 'the login function'}: does this test have a user {role!r}?",
    )


def async_login(*, role: str, path: str) -> LoginError:
    """Return the error for an async login function that a sync client would call."""
    return LoginError(
        f"the sync test client cannot log in as {role!r}: {path or 'the login function'} is async",
        why="a sync client cannot await the function",
        cause="client_as and test_client_as both use arena_login",
        fix="use client_as. Or a sync function for both clients, which returns the request:\n"
        "def login(client, role):\n"
        '    return client.post("/login", json={"user": role})  # client_as awaits it',
    )


def wrong_options(error: TypeError, client: str) -> ConfigError:
    """Return the error for an option that the client does not have."""
    return ConfigError(
        f"{client} cannot be created with these options: {error}",
        why="the client would not behave as the test expects",
        cause="the options of this client, for example from the fixture client_options",
        fix="use the option names in the library's documentation of the client",
    )


def no_asyncio() -> ConfigError:
    """Return the error for a client in a test of trio."""
    return ConfigError(
        "a test, or a fixture, that runs under trio uses a fixture of pytest-arena",
        why="the clients and sessions of pytest-arena need an asyncio loop, and none runs here",
        cause="anyio_backend is 'trio' for this test (anyio's default runs both), or pytest-trio",
        fix='@pytest.fixture\ndef anyio_backend():\n    return "asyncio"',
    )


def no_websocket() -> ConfigError:
    """Return the error for a websocket that the async client is to open."""
    return ConfigError(
        "a websocket by the async client, which has none",
        why="the HTTP library opens no websockets",
        cause=str(user_line() or "client.stream(…)"),
        fix='with test_client.websocket_connect("/chat") as websocket:\n'
        "or any library's client, with the URL `live_server.url`",
    )


def no_port(port: int, error: OSError) -> ConfigError:
    """Return the error for a port that another program has."""
    return ConfigError(
        f"cannot listen on port {port} of this machine: {error.strerror}",
        why="tests would talk to another program",
        cause="another program uses the port, perhaps an `arena serve` that still runs",
        fix="--port 0 --control-port 0   uses free ports, which the first line of output names",
    )


def server_failed(error: BaseException | None) -> ConfigError:
    """Return the error for a server that does not listen in time."""
    cause = "uvicorn gives no reason"
    if error is not None:
        cause = f"uvicorn: {error!r}"
    return ConfigError(
        "the live server did not start",
        why="requests to it would wait for ever",
        cause=cause,
        fix="python -m uvicorn YOUR_APP   to see whether it starts without pytest",
    )


def _reason(error: BaseException | None, message: str | None) -> str:
    inner = _inner(error)
    if inner is not None:
        return f"{type(inner).__name__}: {inner.what}"
    if error is not None:
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
        first, *rest = text.splitlines()
        return f"{first} …" if rest else first
    # Frameworks send a whole traceback. Its last line is the exception.
    lines = (message or "").strip().splitlines()
    return lines[-1] if lines else "the app gave no reason"


def _inner(error: BaseException | None) -> ArenaError | None:
    """Return the error of pytest-arena that an app's error is, or was raised from."""
    for cause in causes(error):
        if isinstance(cause, ArenaError):
            return cause
    return None


def _inner_fix(error: BaseException | None) -> str:
    inner = _inner(error)
    return "" if inner is None else inner.fix


def _line(error: BaseException | None) -> str:
    inner = _inner(error)
    if inner is not None:
        return inner.cause
    if error is None:
        return "the app reported a failure without an error"
    return str(blame(error) or "no line of your code: see the error above")
