"""The clients: the async client, the framework's sync test client, and their logins."""

from __future__ import annotations

import inspect
import sys
import warnings
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, Self, cast
from weakref import WeakKeyDictionary

from pytest_arena._app._apps import Options, is_litestar, not_installed
from pytest_arena._app._entry import CLIENT_CALL, ClientCall, explained
from pytest_arena._ledger import REFUSAL
from pytest_arena._owner import Phase
from pytest_arena._process import lock_here
from pytest_arena.errors import ArenaError, LoginError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Lock
    from collections.abc import Callable, Generator, Iterator

    import httpx2 as httpx
    from starlette.testclient import WebSocketTestSession
    from typing_extensions import TypeVar  # has a default; SQLAlchemy requires it

    from pytest_arena._app._app_run import AppRun
    from pytest_arena._run._test import RunningTest

    _AsyncBase = httpx.AsyncClient
    _SyncBase = httpx.Client
    C_co = TypeVar("C_co", covariant=True, default="AsyncClient")
else:
    from typing import TypeVar

    C_co = TypeVar("C_co", covariant=True)
    # The import of a library takes some 60 ms. Its class is added when a client is created.
    _AsyncBase = _SyncBase = object

# The login that the current task or thread performs. Its requests must not wait for it.
_LOGIN: ContextVar[Login | None] = ContextVar("arena: a login", default=None)


class Login:
    """The login of one client, before its first request.

    Concurrent requests wait for the login. After a failure the next request tries again.
    """

    def __init__(self, function: Callable[[object, str], object], *, role: str, path: str) -> None:
        self.role = role
        self.function = function
        self.path = path
        self.is_done: bool = False
        """Whether the client has logged in."""
        # By event loop, because a wide client is used in several.
        self._locks: WeakKeyDictionary[AbstractEventLoop, Lock] = WeakKeyDictionary()

    async def aonce(self, client: object) -> None:
        """Log this client in, unless it is logged in."""
        if not self._is_needed():
            return
        async with lock_here(self._locks):
            if not self._is_needed():  # another request has logged in meanwhile
                return
            with self._attempt():
                answer = self.function(client, self.role)
                if inspect.isawaitable(answer):
                    answer = await answer
                _check_login(answer)

    def once(self, client: object) -> None:
        """Log this client in, unless it is logged in."""
        if not self._is_needed():
            return
        with self._attempt():
            _check_login(self.function(client, self.role))

    def _is_needed(self) -> bool:
        return not self.is_done and self is not _LOGIN.get()

    @contextmanager
    def _attempt(self) -> Iterator[None]:
        token = _LOGIN.set(self)
        try:
            yield
        except ArenaError:
            raise
        except Exception as error:
            reason, line, fix = explained(error)
            raise LoginError(
                f"the login as {self.role!r} failed: {reason}",
                why="the client's requests would not have that role",
                cause=line,
                fix=fix or f"look at {self.path}: does this test have a user {self.role!r}?",
            ) from error
        finally:
            _LOGIN.reset(token)
        self.is_done = True


def _check_login(answer: Any) -> None:
    """Refuse the answer that the function for logins has returned, if it is one of an error."""
    if getattr(answer, "status_code", 0) >= REFUSAL:
        raise ValueError(f"its answer was {answer.status_code}")


class AsyncClient(_AsyncBase):
    """An ``AsyncClient`` of the HTTP library that calls the app in this process.

    It has the library's defaults: it raises the app's exceptions, follows no redirects and keeps
    cookies. Its first request starts the app's lifespan, if no other client did. A client with a
    role then logs in. Creating a client needs no loop.

    When a request returns, the app has finished it: also its background tasks, and the code after
    the ``yield`` of dependencies. Read an endless answer by ``stream``. The request stays open
    until the end of the block sends a disconnect.

    Use the client directly, or await it to start the app and log in before the first request.
    ``async with`` closes the client at its end, and does not stop the app.

    Raises:
        LifespanError: at a request: the app's start-up failed, or the test is over.
        LoginError: at a request: the login failed.

    Example::

        staff = await client_as("staff")
        assert (await staff.get("/orders")).status_code == 200
        async with staff.stream("GET", "/events") as events:
            assert await anext(events.aiter_lines()) == "data: hello"
    """

    arena_run: AppRun
    arena_login: Login | None

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request after the app's start, the commit of pending work, and the login."""
        await self._arena_ready()
        with _calling(self, request) as client_call:
            response = await super().send(request, **options)
        client_call.attach(response)
        return response

    def __await__(self) -> Generator[object, None, Self]:
        return self._arena_ready().__await__()

    async def __aenter__(self) -> Self:
        # Do not call the library's method. It refuses a client that has made a request, such as a
        # login. It only opens transports, and a transport to an app needs no opening.
        return await self._arena_ready()

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _arena_ready(self) -> Self:
        await self.arena_run.ajoin()
        test: RunningTest | None = Phase.test
        if test is not None:
            await test.acommit()  # its error is not one of the login
        if self.arena_login is not None:
            await self.arena_login.aonce(self)
        return self


class TestClient(_SyncBase):
    """A framework's test client with the framework's defaults.

    Its first request starts the app's lifespan in a thread's loop, unless the app is up. A client
    with a role then logs in. All sync clients run the app in one loop. ``with`` starts the app and
    logs in at once. Its end does not stop the app.

    Raises:
        LifespanError: at a request: the app's start-up failed, or the test is over.
        LoginError: at a request: the login failed.
        PendingWorkError: at a request in an async test: ``db_session`` has uncommitted work.

    Example::

        def test_orders(test_client):
            assert test_client.get("/orders").status_code == 200
    """

    __test__ = False  # pytest would collect a class of the name TestClient
    arena_run: AppRun
    arena_login: Login | None

    if TYPE_CHECKING:  # each framework's client has it

        def websocket_connect(
            self, url: str, *args: object, **options: object
        ) -> WebSocketTestSession:
            """Return a websocket, which ``with`` opens."""

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request after the app's start, the commit of pending work, and the login."""
        self._arena_ready()
        with _calling(self, request) as client_call:
            response = super().send(request, **options)
        client_call.attach(response)
        return response

    def arena_start(self) -> None:
        """Start the app before the first request."""
        client: Any = self
        run = self.arena_run
        portal = run.join()
        if is_litestar(run.app):  # it keeps the state of its lifespan itself
            client.blocking_portal = portal
        else:
            client.portal = portal
            client.app_state.clear()
            client.app_state.update(run.state)

    def __enter__(self) -> Self:
        self._arena_ready()
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: the app runs until the end of the test or the fixture."""

    def _arena_ready(self) -> None:
        self.arena_start()
        test: RunningTest | None = Phase.test
        if test is not None:
            test.commit()
        if self.arena_login is not None:
            self.arena_login.once(self)


class ClientAs(Protocol[C_co]):
    """The type of the fixture ``client_as``. ``test_client_as`` is a ``ClientAs[TestClient]``.

    Example::

        async def test_roles(client_as: ClientAs) -> None:
            staff, guest = client_as("staff"), client_as("guest")
    """

    def __call__(self, role: str, **options: object) -> C_co:
        """Return a client, which logs in as ``role`` before its first request."""


@contextmanager
def _calling(client: AsyncClient | TestClient, request: httpx.Request) -> Iterator[ClientCall]:
    """Yield the record of a call of a client, which gets the requests of the block."""
    role = None
    if client.arena_login is not None:
        role = client.arena_login.role
        # The request may have been built before the login.
        client.cookies.set_cookie_header(request)
        for name, value in client.headers.items():
            request.headers.setdefault(name, value)
    client_call = ClientCall(role, is_login=_LOGIN.get() is not None)
    token = CLIENT_CALL.set(client_call)
    try:
        yield client_call
    finally:
        CLIENT_CALL.reset(token)


# An option with different names in sync and async clients. Both kinds of clients accept both names.
_RAISES = ("raise_app_exceptions", "raise_server_exceptions")


def open_async_client(run: AppRun, login: Login | None, options: Options) -> AsyncClient:
    """Create a client, with options of the library's client and ``raise_app_exceptions``."""
    transport_class, client_class = _import_library()
    transport = transport_class(run, raises=all(options.get(name, True) for name in _RAISES))
    others = {name: value for name, value in options.items() if name not in _RAISES}
    client: AsyncClient = client_class(
        **{"transport": transport, "base_url": "http://testserver", **others}
    )
    client.arena_run = run
    client.arena_login = login
    return client


@cache
def _import_library() -> tuple[type[Any], type[Any]]:
    """Return the classes of the transport and of the client. Raises as ``http_library`` does."""
    library = http_library()
    from pytest_arena._app._transport import AppCall, Transport

    call = type("AppCall", (AppCall, library.AsyncByteStream), {})
    names = {"library": library, "call_class": call}
    transport = type("ASGITransport", (Transport, library.AsyncBaseTransport), names)
    return transport, type("AsyncClient", (AsyncClient, library.AsyncClient), {})


def http_library() -> Any:
    """Return httpx2, which Starlette prefers, or httpx.

    If only one of them is imported, return that one: the suite uses its exceptions and types.
    """
    by_import = sorted(("httpx2", "httpx"), key=lambda name: name not in sys.modules)
    for name in by_import:
        with suppress(ImportError):
            return import_module(name)
    raise not_installed("the async client", "httpx2 (or httpx)", "http")


def open_test_client(run: AppRun, login: Login | None, options: Options) -> TestClient:
    """Create a test client: Litestar's for a Litestar app, otherwise Starlette's."""
    if login is not None and inspect.iscoroutinefunction(login.function):
        raise LoginError(
            f"the sync test client cannot log in as {login.role!r}: {login.path} is async",
            why="a sync client cannot await the function",
            cause="client_as and test_client_as both use arena_login",
            fix="use client_as. Or a sync function for both clients, which returns the request, or "
            "sets a token that it creates without a request:\ndef login(client, role):\n"
            '    return client.post("/login", json={"user": role})  # client_as awaits it',
        )
    options = {_RAISES[1] if name == _RAISES[0] else name: options[name] for name in options}
    is_of_litestar = is_litestar(run.app)
    client_class = _client_class(is_of_litestar=is_of_litestar)
    # Litestar's client needs the app itself. The hook in its class sees the requests.
    client = client_class(run.app if is_of_litestar else run.observed, **options)
    client.app = run.app  # a test may use it. Starlette's transport keeps the function
    client.arena_run = run
    client.arena_login = login
    return cast("TestClient", client)


@cache
def _client_class(*, is_of_litestar: bool) -> type[Any]:
    module = "litestar.testing" if is_of_litestar else "starlette.testclient"
    try:
        with warnings.catch_warnings():
            # Starlette warns if only httpx is installed. No test can avoid that.
            warnings.simplefilter("ignore")
            framework = import_module(module).TestClient
    # Starlette raises a RuntimeError if no HTTP library is installed.
    except (ImportError, RuntimeError) as error:
        what = f"the sync test client ({error})"
        raise not_installed(what, f"{module} and httpx2", "http") from None
    return type("TestClient", (TestClient, framework), {"__test__": False})
