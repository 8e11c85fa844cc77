"""The framework's sync test client, in a thread's loop."""

from __future__ import annotations

import functools
import warnings
from abc import ABCMeta, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, cast

from pytest_arena._app import _app_errors
from pytest_arena._app import _client as clients
from pytest_arena._app import _exchange as exchanges
from pytest_arena._app._kind import (
    ASGIApp,
    Options,
    Receive,
    Scope,
    Send,
    is_async,
    is_litestar,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    import httpx2 as httpx
    from anyio.from_thread import BlockingPortal
    from starlette.testclient import WebSocketTestSession

    from pytest_arena._app._lifespan import Lifespan
    from pytest_arena._app._login import Login

    _Base = httpx.Client
    _SessionBase = WebSocketTestSession
else:
    # Starlette's client is an httpx2 client or an httpx one, Litestar's an httpx one.
    _Base = _SessionBase = object

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line


class TestClient(_Base, metaclass=ABCMeta):
    """A framework's test client with the framework's defaults.

    Its first request starts the app's lifespan in a thread's loop, unless the app is up. A client
    with a role then logs in. All sync clients of a test run the app in one loop. ``with`` starts
    the app and logs in at once. Its end shuts down an app that it has started.

    Raises:
        LifespanError: at a request: the app's start-up failed, or the test is over.
        LoginError: at a request: the login failed, or is an async function.
        PendingWorkError: at a request in an async test: ``db_session`` has uncommitted work.

    Example::

        def test_orders(test_client):
            assert test_client.get("/orders").status_code == 200
    """

    __test__ = False  # pytest would collect a class of the name TestClient
    _arena_host: clients.Host
    _arena_login: Login | None
    _arena_begun: list[Lifespan | None]
    _arena_early: Lifespan | None

    def arena_use(self, host: clients.Host, login: Login | None) -> None:
        """Set the host whose app the client calls, and the login if it has a role."""
        self._arena_host = host
        self._arena_login = login
        self._arena_begun = []
        self._arena_early = None

    def request(
        self, method: str, url: httpx.URL | str, **options: Any
    ) -> httpx.Response:
        """Make a request after the login, so that it has the cookies and headers of the login."""
        self._arena_ready()
        return super().request(method, url, **options)

    @contextmanager
    def stream(
        self, method: str, url: httpx.URL | str, **options: Any
    ) -> Generator[httpx.Response]:
        """Make a request after the login, and read the response in parts."""
        self._arena_ready()
        with super().stream(method, url, **options) as response:
            yield response

    def websocket_connect(
        self, url: str, *args: object, **options: object
    ) -> WebSocketTestSession:
        """Return a websocket after the login. ``with`` opens it."""
        self._arena_ready()
        session: Any = super().websocket_connect(url, *args, **options)  # type: ignore[misc] # a mixin's
        session.__class__ = type(
            "WebSocketTestSession", (_Session, session.__class__), {}
        )
        session.arena_client = self
        return cast("WebSocketTestSession", session)

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request after the app's start, the login, and the commit of pending work.

        A request that was built before the login lacks the cookies and headers of the login.
        """
        self._arena_ready()
        if request.url.scheme in {"ws", "wss"}:
            # The client raises here, to leave the opening to the session.
            with clients.sending(clients.Hooks()):
                return super().send(request, **options)
        hooks = self._arena_host.hooks
        hooks.prepare_request()
        with clients.sending(hooks, is_stream=bool(options.get("stream"))):
            response = super().send(request, **options)
        record = response.extensions.get("arena")
        if options.get("stream") and record is not None:
            exchange = exchanges.Exchange()
            exchange.open(record, hooks)
            clients.when_closed(response, exchange.end)
        else:
            hooks.end_request()
        clients.note_unsent(self, response)
        if hooks.app_watcher is not None:
            hooks.app_watcher.note_answer(response)
        return response

    def arena_start(self) -> None:
        """Start the app before the first request. A later ``with`` shuts it down at its end."""
        if self._arena_host.has_lifespan:
            self._arena_early = self._arena_join()

    def __enter__(self) -> Self:
        lifespan = self._arena_join() or self._arena_early
        self._arena_early = None
        self._arena_begun.append(lifespan)
        self._arena_ready()
        return self

    def __exit__(self, *_: object) -> None:
        lifespan = self._arena_begun.pop()
        if lifespan is not None:
            lifespan.close()

    def _arena_ready(self) -> None:
        self._arena_join()
        if self._arena_login is not None:
            self._arena_login.once(self)

    def _arena_join(self) -> Lifespan | None:
        portal, begun = self._arena_host.join(self._arena_portal_options())
        self._arena_use_portal(portal, self._arena_host.state)
        return begun

    @abstractmethod
    def _arena_portal_options(self) -> Options:
        """Return the arguments with which anyio starts the client's loop."""

    @abstractmethod
    def _arena_use_portal(
        self, portal: BlockingPortal, state: Mapping[str, object]
    ) -> None:
        """Set the portal of a framework's client, and the state of the app's lifespan."""

    def _arena_leave(self) -> None:
        """Close the client's open streams in the portal."""


def open_test_client(
    host: clients.Host, login: Login | None, *, options: Options
) -> TestClient:
    """Create a test client of the app's framework, with the framework's options.

    Raises:
        ConfigError: the framework's client does not import, or has no such option.
    """
    is_of_litestar = is_litestar(host.app)
    client_class = (
        _litestar_client_class() if is_of_litestar else _starlette_client_class()
    )
    try:
        client = client_class(_as_coroutine_function(host.app), **options)
    except TypeError as error:
        raise _app_errors.wrong_options(error, "the test client") from error
    client.arena_use(host, login)
    # Only the transport gets the wrapped app, because a test may use the client's attribute `app`.
    transport: Any = client._transport  # noqa: SLF001 - neither library has another way
    app = _read_in_parts(_as_coroutine_function(host.app))
    clients.set_transport_app(transport, clients.reporting(app, known_app=host.app))
    transport.handle_request = _recording(transport.handle_request, login)
    return cast("TestClient", client)


class _Session(_SessionBase):
    """A websocket of a framework's test client. Its request is open until the websocket closes."""

    arena_client: TestClient

    def __enter__(self) -> Any:
        hooks = self.arena_client._arena_host.hooks  # noqa: SLF001 - a class of this file
        login = self.arena_client._arena_login  # noqa: SLF001 - a class of this file
        hooks.prepare_request()
        with clients.sending(hooks):
            path = self.scope["path"]
            query = self.scope.get("query_string", b"")
            request = clients.new_request("WEBSOCKET", path, query, login)
            request.note_status(exchanges.REFUSED)
            entered = super().__enter__()
        request.note_status(exchanges.ACCEPTED)
        self._arena_exchange = exchanges.Exchange()
        self._arena_exchange.open(request, hooks, hang_up=self.close)
        return entered

    def __exit__(self, *error: object) -> Any:
        try:
            return super().__exit__(*error)
        finally:
            self._arena_exchange.end()


def _recording(handle: Callable[..., Any], login: Login | None) -> Any:
    def handle_request(request: httpx.Request) -> httpx.Response:
        sent = clients.new_request_of(request, login)
        return clients.note_response(sent, handle(request))

    return handle_request


def _read_in_parts(app: ASGIApp) -> ASGIApp:
    ends = clients.ending_websockets(app)

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        hops = clients.HOPS.get(None)
        is_stream = hops is not None and hops.is_stream
        if is_stream and scope["type"] != "websocket":
            await exchanges.read_in_parts(app, scope, receive, send)
        else:
            await ends(scope, receive, send)

    return answering


def _as_coroutine_function(app: ASGIApp) -> ASGIApp:
    """Return an async function, because Starlette would call a plain function by ASGI 2."""
    if is_async(app):
        return app

    async def awaited(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return awaited


@functools.cache
def _starlette_client_class() -> type[Any]:
    try:
        with warnings.catch_warnings():
            # Starlette warns if only httpx is installed. No test can avoid that.
            warnings.simplefilter("ignore")
            from starlette.testclient import TestClient as StarletteClient
    # Starlette raises a RuntimeError if no HTTP library is installed.
    except (ImportError, RuntimeError) as error:
        raise _app_errors.no_test_client(error) from None

    class ArenaStarletteClient(TestClient, StarletteClient):
        def _arena_portal_options(self) -> Options:
            return self.async_backend

        def _arena_use_portal(
            self, portal: BlockingPortal, state: Mapping[str, object]
        ) -> None:
            self.portal = portal
            self.app_state.clear()
            self.app_state.update(state)

        def _arena_leave(self) -> None:
            self.close()  # ends streams that the test has not read to their end

    return ArenaStarletteClient


@functools.cache
def _litestar_client_class() -> type[Any]:
    try:
        from litestar.testing import TestClient as LitestarClient
    except ImportError as error:
        raise _app_errors.no_test_client(error) from None

    class ArenaLitestarClient(TestClient, LitestarClient[Any]):  # type: ignore[misc] # as above
        def _arena_portal_options(self) -> Options:
            options = dict(self.backend_options or {})
            return {"backend": self.backend, "backend_options": options}

        def _arena_use_portal(
            self, portal: BlockingPortal, _: Mapping[str, object]
        ) -> None:
            # A Litestar app itself keeps the state of its lifespan.
            self.blocking_portal = portal

    return ArenaLitestarClient
