"""The async client, and hooks around all requests."""

from __future__ import annotations

import copy
import functools
import inspect
import sys
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar, copy_context
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, Self

from pytest_arena._app import _app_errors
from pytest_arena._app import _exchange as exchanges
from pytest_arena._app._app_state import WIDE_CLIENTS
from pytest_arena._app._raised import note_handled, note_raised, watch_logged_errors
from pytest_arena._interpreter import when_imported
from pytest_arena._ledger import Request
from pytest_arena._origin import (
    REQUEST,
    WORK,
    user_line,
    watch_background_work,
    watch_failures,
)
from pytest_arena._process import replace_attribute, running_loop
from pytest_arena._process import seconds as now

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        Awaitable,
        Callable,
        Coroutine,
        Generator,
        Iterator,
        Mapping,
    )
    from traceback import TracebackException
    from types import ModuleType

    import httpx2 as httpx
    from anyio.from_thread import BlockingPortal
    from typing_extensions import TypeVar  # has a default; SQLAlchemy requires it

    from pytest_arena._app._kind import ASGIApp, Message, Options, Receive, Scope, Send
    from pytest_arena._app._lifespan import Lifespan
    from pytest_arena._app._login import Login
    from pytest_arena._app._raised import AnsweredRequest

    _Base = httpx.AsyncClient
    _BaseTransport = httpx.ASGITransport
    C_co = TypeVar("C_co", covariant=True, default="AsyncClient")

    # Calls a transport between the hooks. Returns the answer, or its coroutine.
    SendRequest = Callable[["Hooks", httpx.Request, Callable[..., Any]], object]
    # Returns the hooks around requests of the running test, None outside of tests.
    FindHooks = Callable[[], "Hooks | None"]
else:
    from typing import TypeVar

    C_co = TypeVar("C_co", covariant=True)
    # The import of the library takes some 60 ms. Its class is added when a client is created.
    _Base = _BaseTransport = object

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line


class Hops(list[Request]):
    """The requests of one call of a client: one request, and the redirects that it follows."""

    def __init__(self, hooks: Hooks, *, is_stream: bool = False) -> None:
        super().__init__()
        self.hooks = hooks
        self.is_stream = (
            is_stream  # whether the client reads the answer while the app sends it
        )
        # The exception that the test is handling when it makes the call.
        self.outside = sys.exception()

    def end(self) -> None:
        """Note the end of the call. A task of the app may keep this object by its context."""
        self.outside = None
        # A request ends when the request after its redirect begins.
        end = now()
        for request in reversed(self):
            request.end(end)
            end = request.began


HOPS: ContextVar[Hops] = ContextVar("arena: the requests of a client's call")


def _hooks_of_call() -> Hooks:
    hops = HOPS.get(None)
    return Hooks() if hops is None else hops.hooks


class AppWatcher(Protocol):
    """Called around each request to an app. Only runs with scenarios have one."""

    async def enter(
        self, app: object, call: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Call an app. ``app`` identifies it."""

    def note_answer(self, response: Any) -> None:
        """Note an answer. ``response.extensions["arena"]`` is its request."""


class AnswerNotes(Protocol):
    """Notes when the app sends an answer. The request's commits should come before."""

    def note_sent(self, message: Mapping[str, object]) -> None:
        """Note a message that the app has sent."""

    def end(self, error: Exception | None) -> None:
        """Note that the app has returned or raised."""


class Hooks:
    """Methods that a client calls around each request.

    This class does nothing. A client uses it in the set-up of a wide fixture.
    """

    def __init__(self, app_watcher: AppWatcher | None = None) -> None:
        self.app_watcher = app_watcher
        self.exchanges: list[exchanges.Exchange] = []  # requests that are open

    async def aprepare_request(self) -> None:
        """Commit pending work before a request of an async client. Called in the client's loop."""

    def prepare_request(self, *, refuses: bool = True) -> None:
        """Commit pending work before a request of a sync client. Called in the client's thread.

        ``refuses`` is False for a client that the user has created: a failed commit does not stop
        its request.
        """

    async def acommit_in_test_loop(self) -> None:
        """Commit pending async work before a request by a socket. Called in the server's loop."""

    def begin_lifespan(self) -> object:
        """Called before the app's start-up begins.

        Return the request answer to which lost writes of the lifespan are attributed.
        """
        return None

    def note_app_started(self) -> None:
        """Called when the app is up."""

    def begin_request(self) -> None:
        """Called before each request, after pending work is committed."""

    def note_older_work(self) -> None:
        """Called in the app's loop before it answers."""

    def record_request(self, request: Request) -> None:
        """Called after each request, also after one that raised."""

    def end_request(self) -> None:
        """Called when the client has its answer, after ``record_request`` for each redirect."""

    def begin_answer(self, request: Request) -> AnswerNotes | None:  # noqa: ARG002 - a test's hooks use it
        """Called in the app's task before it answers. Return an object that notes the answer."""
        return None

    def note_cut_off(self, line: str) -> None:
        """Called when a test client has cancelled a websocket's handler at this line."""

    async def aclose_exchanges(self) -> None:
        """Close the requests that are open in this loop. Raises the app's errors."""
        for call in [*self.exchanges]:
            if not isinstance(call, exchanges.Call):
                continue
            if call.task.get_loop() is running_loop():
                await call.aclose()

    def end_exchanges(self) -> None:
        """End the requests that are still open."""
        for exchange in [*self.exchanges]:
            exchange.hang_up()
            exchange.end()

    def note_stream(self, body: StreamedBody) -> None:
        """Called with a body that the app makes while the test reads it."""

    def note_app_error(self, request: str, error: Exception) -> None:
        """Called if the app raises instead of answering, also if the client hides the error."""

    def note_handled_error(self, request: str, trace: TracebackException) -> None:
        """Called if the app answers an unexpected exception."""


class Host(Protocol):
    """The part of a run that a client needs."""

    app: ASGIApp
    """The app that answers."""

    @property
    def hooks(self) -> Hooks:
        """The hooks of the request that is sent now."""

    @property
    def has_lifespan(self) -> bool:
        """Whether clients start the app."""

    @property
    def state(self) -> Mapping[str, object]:
        """The state that the lifespan gives to requests."""

    async def ajoin(self) -> None:
        """Wait until the app is up."""

    def join(self, backend: Options) -> tuple[BlockingPortal, Lifespan | None]:
        """Wait until the app is up. Return its portal, and the lifespan if this call began it."""


@contextmanager
def sending(hooks: Hooks, *, is_stream: bool = False) -> Iterator[Hops]:
    """Record the requests of a client's ``send``, and call the hooks for each of them at the end.

    The hooks are also called if ``send`` raises.
    """
    hops = Hops(hooks, is_stream=is_stream)
    has_failed = True
    token = HOPS.set(hops)
    work = WORK.set(getattr(hooks, "late_work", None))  # None outside of tests
    try:
        yield hops
        has_failed = False
    except BaseException as error:
        if hops and not exchanges.is_disconnect(error):
            hops[-1].fail(exchanges.in_words(error))
        raise
    finally:
        HOPS.reset(token)
        WORK.reset(work)
        hops.end()
        for request in hops:
            hooks.record_request(request)
        if has_failed:
            hooks.end_request()


def note_unsent(
    client: httpx.Client | httpx.AsyncClient, response: httpx.Response
) -> None:
    """Note the client's cookies for https, if a request by http was refused."""
    request: Request | None = response.extensions.get("arena")
    if request is None or response.is_success:
        return
    if response.request.url.scheme != "https":
        names = [cookie.name for cookie in client.cookies.jar if cookie.secure]
        request.note_unsent(", ".join(names))


def new_request(method: str, path: str, query: bytes, login: Login | None) -> Request:
    """Create the record of a request that is about to be sent."""
    role = login.role if login is not None else None
    request = Request(
        method=method, path=path, role=role, began=now(), query_hash=hash(query)
    )
    hops = HOPS.get(None)
    if hops is not None:
        hops.append(request)
    return request


def new_request_of(request: httpx.Request, login: Login | None) -> Request:
    """Create the record of a request of the HTTP library, which opens websockets by a GET."""
    is_websocket = request.url.scheme in {"ws", "wss"}
    method = "WEBSOCKET" if is_websocket else request.method
    return new_request(method, request.url.path, request.url.query, login)


def note_response(sent: Request, response: httpx.Response) -> httpx.Response:
    """Note the status of an answer in its request, and the request in the answer."""
    if sent.status is None:  # otherwise `_noting` has noted it
        sent.note_status(response.status_code)
    response.extensions["arena"] = sent
    return response


def reporting(
    app: ASGIApp,
    hooks_of_client: Hooks | None = None,
    *,
    known_app: object,
    begin: Callable[[Scope, Send], Send] | None = None,
) -> ASGIApp:
    """Return an app that calls ``app`` and reports its answers and exceptions to the hooks.

    Args:
        app: the app to call.
        hooks_of_client: the hooks to call, by default the hooks of the client's call.
        known_app: the user's app. ``app`` may be a wrapper around it.
        begin: gets the scope of a request and its ``send``, and returns another ``send``.
    """

    async def reporting_app(scope: Scope, receive: Receive, send: Send) -> None:
        hooks = hooks_of_client or _hooks_of_call()
        hooks.note_older_work()
        shown = f"{scope.get('method', 'WEBSOCKET')} {scope.get('path', '')}"
        if begin is not None:
            send = begin(scope, send)
        traces: list[TracebackException] = []  # of exceptions that the app answers
        hops = HOPS.get(None)
        answer = None
        if hops:
            answer = hooks.begin_answer(hops[-1])
            send = _noting(hops, answer, send, traces)
        raised: Exception | None = None
        try:
            if hooks.app_watcher is None:
                await app(scope, receive, send)
            else:
                await hooks.app_watcher.enter(known_app, app, scope, receive, send)
        except Exception as error:
            if not exchanges.is_disconnect(error):
                raised = error
                _note_app_error(hooks, shown, error)
            raise
        finally:
            if answer is not None:
                answer.end(raised)
        for trace in traces:
            hooks.note_handled_error(shown, trace)

    return reporting_app


def with_context_copy(app: ASGIApp) -> Any:
    """Return an app that runs each call in a copy of the context, like a server.

    So the client's next request does not see context variables that the app has set.
    """
    return functools.partial(InContextCopy, app)


class InContextCopy:
    """An awaitable call of an app that runs in a copy of the context, in the current task.

    A separate task would have another ``asyncio.current_task()`` and another cancellation.
    """

    def __init__(self, app: Callable[..., object], *arguments: object) -> None:
        self._context = copy_context()
        answer: Any = self._context.run(app, *arguments)
        if not inspect.iscoroutine(answer):
            answer = _waiting(answer)
        self.cr_await = answer  # the name by which a debugger follows a coroutine

    def __await__(self) -> Self:
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> object:
        return self._context.run(self.cr_await.send, None)

    def send(self, value: object) -> object:
        """Continue the coroutine."""
        return self._context.run(self.cr_await.send, value)

    def throw(self, *error: object) -> object:
        """Raise an exception in the coroutine."""
        return self._context.run(self.cr_await.throw, *error)

    def close(self) -> None:
        """Close the unfinished coroutine."""
        self._context.run(self.cr_await.close)


async def _waiting(answer: Awaitable[None]) -> None:
    await answer


def ending_websockets(app: ASGIApp, hooks_of_client: Hooks | None = None) -> ASGIApp:
    """Return an app whose websocket handlers end by themselves if a test client cancels them.

    ``hooks_of_client`` has the meaning of the argument of ``reporting``.
    """

    async def ending(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            hooks = hooks_of_client or _hooks_of_call()
            await exchanges.end_websocket(app, scope, receive, send, hooks.note_cut_off)
        else:
            await app(scope, receive, send)

    return ending


def _noting(
    hops: Hops,
    answer: AnswerNotes | None,
    send: Send,
    traces: list[TracebackException],
) -> Send:
    """Return a ``send`` that notes each message of the app's answer."""
    request = hops[-1]

    async def send_and_note(message: Message) -> None:
        error = sys.exception()
        if error is not None and error is not hops.outside:
            traces.extend(note_handled(request, message, error))
        if message["type"] == "http.response.start":
            request.note_status(message["status"])
        await send(message)
        if answer is not None:
            answer.note_sent(message)

    return send_and_note


def _note_app_error(hooks: Hooks, request: str, error: Exception) -> None:
    hops = HOPS.get(None)
    if hops:
        note_raised(hops[-1], error)
    hooks.note_app_error(request, error)


def _answered_here() -> AnsweredRequest | None:
    """Return the present request, and the exception that the test was handling when it sent it."""
    hops = HOPS.get(None)
    return (hops[-1], hops.outside) if hops else None


class AsyncClient(_Base):
    """An ``AsyncClient`` of the HTTP library that calls the app in the running loop.

    It has the library's defaults: it raises the app's exceptions, follows no redirects and keeps
    cookies. Its first request starts the app's lifespan, if no other client did. A client with a
    role then logs in. Creating a client needs no loop.

    When a request returns, the app has finished it: also its background tasks, and the code after
    the ``yield`` of dependencies. Read an endless answer by ``stream``, and a websocket by
    ``websocket_connect``. The app then runs in a separate task, and the request stays open, until
    the end of the block sends a disconnect.

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
        async with staff.websocket_connect("/chat") as websocket:
            await websocket.send_text("hello")
            assert await websocket.receive_text() == "hello"
    """

    _arena_host: Host
    _arena_login: Login | None

    def arena_use(self, host: Host, login: Login | None) -> None:
        """Set the host whose app the client calls, and the login if it has a role."""
        self._arena_host = host
        self._arena_login = login

    def request(
        self, method: str, url: httpx.URL | str, **options: Any
    ) -> Coroutine[object, object, httpx.Response]:
        """Make a request after the login, so that it has the cookies and headers of the login."""
        if self._arena_login is None:
            return super().request(method, url, **options)
        return self._request_after_login(method, url, options)

    async def _request_after_login(
        self, method: str, url: httpx.URL | str, options: dict[str, Any]
    ) -> httpx.Response:
        await self._arena_ready()
        return await super().request(method, url, **options)

    @asynccontextmanager
    async def stream(
        self, method: str, url: httpx.URL | str, **options: Any
    ) -> AsyncGenerator[httpx.Response]:
        """Make a request after the login, and read the response as the app sends it."""
        if self._arena_login is not None:
            await self._arena_ready()
        async with super().stream(method, url, **options) as response:
            yield response

    @asynccontextmanager
    async def websocket_connect(
        self,
        url: httpx.URL | str,
        subprotocols: tuple[str, ...] | list[str] = (),
        **options: Any,
    ) -> AsyncGenerator[exchanges.WebSocket]:
        """Open a websocket after the login. The options are those of ``stream``.

        Raises:
            WebSocketDisconnect: the app refuses or has closed the websocket. The class is the
                framework's.
        """
        headers = {"connection": "upgrade", "upgrade": "websocket"}
        if subprotocols:
            headers["sec-websocket-protocol"] = ", ".join(subprotocols)
        options["headers"] = {**headers, **dict(options.get("headers") or {})}
        async with self.stream("GET", url, **options) as response:
            yield await exchanges.opened(response, self._arena_host.app)

    async def send(
        self, request: httpx.Request, *, stream: bool = False, **options: Any
    ) -> httpx.Response:
        """Send a request after the app's start, the login, and the commit of pending work.

        A request that was built before the login lacks the cookies and headers of the login.
        """
        await self._arena_ready()
        hooks = self._arena_host.hooks
        await hooks.aprepare_request()
        with sending(hooks, is_stream=stream) as hops:
            response = await super().send(request, stream=stream, **options)
            # A transport of the user may not call this app, and then has no hops.
            if hops:
                note_response(hops[-1], response)
        call = response.extensions.get(exchanges.CALL)
        if call is None:
            hooks.end_request()
        else:
            call.open(hops[-1], hooks)
        note_unsent(self, response)
        if hooks.app_watcher is not None:
            hooks.app_watcher.note_answer(response)
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
        if running_loop() is None:
            raise _app_errors.no_asyncio()
        await self._arena_host.ajoin()
        if self._arena_login is not None:
            await self._arena_login.aonce(self)
        return self


class ClientAs(Protocol[C_co]):
    """The type of the fixture ``client_as``. ``test_client_as`` is a ``ClientAs[TestClient]``.

    Example::

        async def test_roles(client_as: ClientAs) -> None:
            staff, guest = client_as("staff"), client_as("guest")
    """

    def __call__(self, role: str, **options: object) -> C_co:
        """Return a client, which logs in as ``role`` before its first request."""


class Transport(_BaseTransport):
    """The HTTP library's ``ASGITransport``, which can also stream answers."""

    library: Any
    body: type[Any]

    def handle_async_request(self, request: httpx.Request) -> Any:
        """Call the app, to its end, or until a streamed answer begins."""
        hops = HOPS.get(None)
        if hops is not None and hops.is_stream:
            return self.begin(request)
        return super().handle_async_request(request)

    async def begin(self, request: httpx.Request) -> Any:
        """Return a streamed answer when it begins."""
        is_websocket = (
            request.url.scheme.startswith("ws") or "upgrade" in request.headers
        )
        call = exchanges.Call(self.app, is_websocket=is_websocket)
        library = copy.copy(self)
        set_transport_app(library, call.answer)
        if not await call.begin(
            super(Transport, library).handle_async_request(request)
        ):
            return call.task.result()
        return self.library.Response(
            call.status,
            headers=call.opening.get("headers", ()),
            stream=self.body(call),
            extensions={exchanges.CALL: call},
        )


_BASE_URL = "http://testserver"
_OF_THE_TRANSPORT = {"raise_app_exceptions", "root_path", "client"}


def open_async_client(
    host: Host, login: Login | None, *, options: Options
) -> AsyncClient:
    """Create a client, with options of the library's client and of ``ASGITransport``.

    Raises:
        ConfigError: no HTTP library is installed, or it has no such option.
    """
    transport_class, client_class = _import_library()
    of_transport = {}
    of_client = {}
    for name, value in options.items():
        if name in _OF_THE_TRANSPORT:
            of_transport[name] = value
        else:
            of_client[name] = value
    try:
        transport = transport_class(host.app, **of_transport)
        client: AsyncClient = client_class(
            **{"transport": transport, "base_url": _BASE_URL, **of_client}
        )
    except TypeError as error:
        raise _app_errors.wrong_options(error, "the async client") from error
    client.arena_use(host, login)
    transport = client._transport  # noqa: SLF001 - the library has no other way
    if hasattr(transport, "app"):
        # No method of the client, which would be a reference cycle.
        begin = functools.partial(_begin, host, login)
        transport.app = reporting(
            with_context_copy(transport.app),
            known_app=host.app,
            begin=begin,
        )
    return client


def _begin(host: Host, login: Login | None, scope: Scope, send: Send) -> Send:
    """Record a call of the app, and add the lifespan's state, which the library does not add."""
    scope["state"] = dict(host.state)
    method = scope.get("method", "WEBSOCKET")
    new_request(method, scope["path"], scope.get("query_string", b""), login)
    return send


@functools.cache
def _import_library() -> tuple[type[Any], type[Any]]:
    """Return the classes of the transport and of the client. Raises as ``http_library`` does."""
    library = http_library()
    body = type("Body", (exchanges.Body, library.AsyncByteStream), {})
    names = {"library": library, "body": body}
    transport = type("ASGITransport", (Transport, library.ASGITransport), names)
    base = _CLIENT_CLASSES.get(library.__name__, library.AsyncClient)
    return transport, type("AsyncClient", (AsyncClient, base), {})


# The client class of each imported HTTP library. A test may mock `httpx.AsyncClient` later.
_CLIENT_CLASSES: dict[str, type[Any]] = {}


def _note_client_class(library: ModuleType) -> None:
    if hasattr(library, "AsyncClient"):
        _CLIENT_CLASSES[library.__name__] = library.AsyncClient


def http_library() -> Any:
    """Return httpx2, which Starlette prefers, or httpx.

    If only one of them is imported, return that one: the suite uses its exceptions and types.

    Raises:
        ConfigError: neither is installed.
    """
    by_import = sorted(("httpx2", "httpx"), key=lambda name: name not in sys.modules)
    for name in by_import:
        with suppress(ImportError):
            return import_module(name)
    raise _app_errors.no_http_library()


def watch_own_clients(undo: ExitStack, find_hooks: FindHooks) -> None:
    """Call hooks around requests of the user's clients, and watch the work that requests begin.

    The transports of the HTTP libraries and of the frameworks' test clients are wrapped when they
    are imported. This imports none of them. A request of pytest-arena's clients takes a microsecond
    longer.

    Args:
        undo: restores the classes when it is closed.
        find_hooks: returns the hooks of the running test, None outside of tests.
    """
    watch_background_work(undo)
    watch_failures(undo)
    watch_logged_errors(undo, _answered_here)
    for module, name in _TRANSPORTS.items():
        when_imported(module, functools.partial(_watch, name, find_hooks, undo))
    for module in ("httpx", "httpx2"):
        when_imported(module, _note_client_class)
        when_imported(module, functools.partial(_watch_http_clients, undo))
    when_imported(
        "werkzeug.test", functools.partial(_watch_werkzeug_client, find_hooks, undo)
    )
    when_imported(
        "quart.testing.client", functools.partial(_watch_quart_client, find_hooks, undo)
    )


_TRANSPORTS = {
    "httpx2": "ASGITransport",
    "httpx": "ASGITransport",
    "starlette.testclient": "_TestClientTransport",
    "litestar.testing.transport": "TestClientTransport",
}


def _watch(name: str, find_hooks: FindHooks, undo: ExitStack, module: object) -> None:
    transport_class: Any = getattr(module, name, None)
    # Litestar's async client uses the same transport, which has both methods.
    for method, send_request in (
        ("handle_async_request", _send_async),
        ("handle_request", _send_sync),
    ):
        original = getattr(transport_class, method, None)
        if original is not None:  # another version may lack it
            watched = _watched(original, send_request, find_hooks)
            replace_attribute(undo, transport_class, method, watched)


def _watch_http_clients(undo: ExitStack, module: ModuleType) -> None:
    """Watch the classes of an HTTP library. The frameworks' test clients derive from them."""
    for name in ("Client", "AsyncClient"):
        if hasattr(module, name):
            _watch_wide_clients(undo, getattr(module, name))


def _watch_wide_clients(undo: ExitStack, client_class: Any) -> None:
    """Note each client that a module, a class or a wider fixture creates."""
    original = client_class.__init__

    @functools.wraps(original)
    def watched_init(client: Any, *args: object, **options: object) -> None:
        original(client, *args, **options)
        if WORK.get() is None:
            WIDE_CLIENTS.add(client)

    replace_attribute(undo, client_class, "__init__", watched_init)


def _watch_werkzeug_client(find_hooks: FindHooks, undo: ExitStack, module: Any) -> None:
    """Call hooks around requests of Werkzeug's ``app.test_client()``, which calls a WSGI app."""
    client_class = module.Client
    _watch_wide_clients(undo, client_class)
    original = client_class.run_wsgi_app

    @functools.wraps(original)
    def watched(
        client: Any, environ: dict[str, str], *args: object, **options: object
    ) -> object:
        is_inside_request = HOPS.get(None) is not None
        hooks = None if is_inside_request else find_hooks()
        if hooks is None:
            return original(client, environ, *args, **options)
        hooks.prepare_request(refuses=False)
        with sending(hooks):
            path = environ.get("PATH_INFO", "")
            query = environ.get("QUERY_STRING", "").encode()
            request = new_request(environ["REQUEST_METHOD"], path, query, None)
            answer = hooks.begin_answer(request)
            try:
                body, status, headers = original(client, environ, *args, **options)
            except Exception as error:
                _note_app_error(hooks, f"{request.method} {request.path}", error)
                raise
            finally:
                if answer is not None:
                    answer.end(None)
            request.note_status(int(status.split(" ")[0]))
        is_read = request.method != "HEAD" and request.status not in _WITHOUT_BODY
        if is_read and _is_stream(body, headers):
            return StreamedBody(body, request, answer, hooks), status, headers
        hooks.end_request()
        return body, status, headers

    replace_attribute(undo, client_class, "run_wsgi_app", watched)


_WITHOUT_BODY = {204, 304}  # statuses


def _is_stream(body: object, headers: Mapping[str, str]) -> bool:
    """Return whether a generator produces the body: it has no known length."""
    has_length = hasattr(body, "__len__") or hasattr(body, "__length_hint__")
    return not has_length and "Content-Length" not in headers


class StreamedBody:
    """The body of an answer that a generator of a WSGI app produces while the test reads it.

    Its request ends when the test has read the body to its end or closes it.
    """

    def __init__(
        self, body: Any, request: Request, answer: AnswerNotes | None, hooks: Hooks
    ) -> None:
        self._body = body
        self._parts = iter(body)
        self._request = request
        self._answer = answer
        self._hooks = hooks
        self.is_over: bool = False
        line = user_line() or "a line that cannot be seen"
        what = f"{request.method} {request.path} was not read to its end"
        self.shown: str = f"{line}   {what}: response.data, or response.close()"
        hooks.note_stream(self)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> object:
        token = REQUEST.set(self._answer)
        try:
            return next(self._parts)
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, StopIteration):
                shown = f"{self._request.method} {self._request.path}"
                note_raised(self._request, error)
                self._hooks.note_app_error(shown, error)
            self._end()
            raise
        finally:
            REQUEST.reset(token)

    def close(self) -> None:
        """Close the app's generator. Called by the response."""
        token = REQUEST.set(self._answer)
        try:
            getattr(self._body, "close", bool)()
        finally:
            REQUEST.reset(token)
            self._end()

    def _end(self) -> None:
        if not self.is_over:
            self.is_over = True
            self._hooks.end_request()


def _watched(
    original: Callable[..., Any], send_request: SendRequest, find_hooks: FindHooks
) -> Callable[..., object]:
    @functools.wraps(original)
    def watched(transport: Any, request: httpx.Request) -> object:
        # Skip a call of pytest-arena's clients, or of the app itself: it has a record.
        if HOPS.get(None) is not None:
            return original(transport, request)
        app = transport.app if hasattr(transport, "app") else transport.client.app
        hooks = find_hooks()
        if hooks is None:
            return original(transport, request)
        # Change a copy: a client that lives longer needs other hooks in each test.
        with_hooks = copy.copy(transport)
        if send_request is _send_async:
            ends = with_context_copy(ending_websockets(app, hooks))
        else:
            ends = ending_websockets(app, hooks)
        set_transport_app(with_hooks, reporting(ends, hooks, known_app=app))
        return send_request(hooks, request, functools.partial(original, with_hooks))

    return watched


def _watch_quart_client(find_hooks: FindHooks, undo: ExitStack, module: Any) -> None:
    """Call hooks around requests of Quart's ``app.test_client()``."""
    client_class = module.QuartClient
    _watch_wide_clients(undo, client_class)
    original = getattr(client_class, "_make_request", None)
    if original is None:  # another version may lack it
        return

    @functools.wraps(original)
    async def watched(client: Any, *args: object, **options: object) -> Any:
        is_inside_request = HOPS.get(None) is not None
        hooks = None if is_inside_request else find_hooks()
        if hooks is None:
            return await original(client, *args, **options)
        await hooks.aprepare_request()
        app = reporting(
            client.app,
            hooks,
            known_app=client.app,
            begin=_begin_foreign,
        )
        # Change a copy: the client may send several requests at once.
        with_hooks = copy.copy(client)
        set_transport_app(with_hooks, _CalledApp(client.app, app))
        with sending(hooks):
            response = await original(with_hooks, *args, **options)
        hooks.end_request()
        return response

    replace_attribute(undo, client_class, "_make_request", watched)


def _begin_foreign(scope: Scope, send: Send) -> Send:
    method = scope["method"]
    path = scope["path"]
    query = scope["query_string"]
    new_request(method, path, query, None)
    return send


class _CalledApp:
    """Quart's app with another ``__call__``."""

    def __init__(self, app: object, call: ASGIApp) -> None:
        self._app = app
        self._call = call

    def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> Awaitable[None]:
        return self._call(scope, receive, send)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)


class _ClientOfApp:
    """A client of Litestar whose transport calls another app."""

    def __init__(self, client: object, app: ASGIApp) -> None:
        self._client = client
        self.app = app

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def set_transport_app(transport: Any, app: ASGIApp) -> None:
    """Set the app that a transport calls. Litestar's transport reads it from its client."""
    if hasattr(transport, "app"):
        transport.app = app
    else:
        transport.client = _ClientOfApp(transport.client, app)


async def _send_async(
    hooks: Hooks,
    request: httpx.Request,
    handle: Callable[..., Awaitable[httpx.Response]],
) -> httpx.Response:
    await hooks.aprepare_request()
    with sending(hooks):
        response = note_response(new_request_of(request, None), await handle(request))
    hooks.end_request()
    return response


def _send_sync(
    hooks: Hooks, request: httpx.Request, handle: Callable[..., httpx.Response]
) -> httpx.Response:
    hooks.prepare_request(refuses=False)
    with sending(hooks):
        sent = new_request_of(request, None)
        response = note_response(sent, handle(request))
    # The app may run until the test has read the answer.
    when_closed(response, functools.partial(_end_read, hooks, sent))
    return response


def _end_read(hooks: Hooks, sent: Request) -> None:
    """End a request whose answer was read. Starlette's client may raise the app's error now."""
    error = sys.exception()
    if error is not None:
        words = exchanges.in_words(error)
        if sent.raised.startswith(words.partition("\n")[0]):
            sent.fail(words)
    hooks.end_request()


def when_closed(response: Any, end: Callable[[], None]) -> None:
    """Call a function when a response is closed."""
    ending = ExitStack()
    ending.callback(end)
    ending.callback(response.stream.close)
    response.stream.close = ending.close
