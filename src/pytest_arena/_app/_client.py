"""What is recorded of clients' requests, also of the reader's; and the library's async client."""

from __future__ import annotations

import copy
import functools
import sys
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, Self

from pytest_arena._app import _app_errors
from pytest_arena._app import _exchange as exchanges
from pytest_arena._app._queues import watch_queues
from pytest_arena._app._raised import note_handled, note_raised, watch_logged_errors
from pytest_arena._ledger import Request
from pytest_arena._origin import WORK, watch_what_is_begun
from pytest_arena._process import running_loop, when_imported
from pytest_arena._process import seconds as now

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
    from traceback import TracebackException

    import httpx2 as httpx
    from anyio.from_thread import BlockingPortal
    from typing_extensions import TypeVar  # has a default; SQLAlchemy requires it

    from pytest_arena._app._kind import ASGIApp, Scope
    from pytest_arena._app._lifespan import Lifespan
    from pytest_arena._app._login import Login

    _Base = httpx.AsyncClient
    _BaseTransport = httpx.ASGITransport
    C_co = TypeVar("C_co", covariant=True, default="AsyncClient")
else:
    from typing import TypeVar

    C_co = TypeVar("C_co", covariant=True)
    # To import the library takes some 60 ms: its own class is added when a client is made.
    _Base = _BaseTransport = object

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line


class Hops(list[Request]):
    """What one call of a client has sent: one request, or redirects as well."""

    is_stream = False  # its answer is read as it comes
    outside: BaseException | None = (
        None  # what the test handles while it makes the call
    )


HOPS: ContextVar[Hops] = ContextVar("arena: what a client of ours has sent")


class AppWatcher(Protocol):
    """Is called around each request to an app. Exists only in runs with scenarios."""

    async def enter(
        self, app: object, call: Any, scope: Any, receive: Any, send: Any
    ) -> None:
        """Call an app, which is known by its first argument."""

    def answered(self, response: Any) -> None:
        """A client of ours has its answer; ``response.extensions["arena"]`` is the request."""


class AnswerNotes(Protocol):
    """Notes when the app sends an answer, to compare that with the commits of its request."""

    def note_sent(self, message: Mapping[str, Any]) -> None:
        """Note a message that the app has sent."""

    def end(self, error: Exception | None) -> None:
        """Note that the app has returned, or what it has raised."""


class Hooks:
    """What the arena wants around each request of our clients.

    As they stand here they do nothing: so for a client of a wide fixture, which no test has made.
    """

    def __init__(self, app_watcher: AppWatcher | None = None) -> None:
        self.app_watcher = app_watcher

    async def abefore(self) -> None:
        """Called before a request of an async client, in its loop: commits pending work."""

    def before(self, *, refuses: bool = True) -> None:
        """Called before a request of a sync client, in its thread.

        It refuses none of a client that the reader has made: arena is to break no suite.
        """

    async def aserves(self) -> None:
        """Called in a server's loop, before a request by a socket: commits pending work."""

    def starting(self) -> None:
        """Called before the app's start-up begins."""

    def started(self) -> None:
        """Called when the app is up."""

    def begins(self) -> None:
        """Called before each request, when what is pending is committed."""

    def serving(self) -> None:
        """Called in the app's loop before it answers."""

    def requested(self, request: Request) -> None:
        """Called after each request, also after one that raised."""

    def ended(self) -> None:
        """Called once when the client has its answer, after ``requested`` for each hop."""

    def answering(self, request: Request) -> AnswerNotes | None:  # noqa: ARG002 - a test's hooks use it
        """Called in the app's task before it answers. Return an object that notes what it sends."""
        return None

    def broke(self, request: str, error: Exception) -> None:
        """Called where an app raises instead of answering, whatever the client makes of it."""

    def handled(self, request: str, trace: TracebackException) -> None:
        """Called where an app answers an exception that it did not expect."""


class Host(Protocol):
    """What a client needs of the run that it belongs to."""

    app: ASGIApp
    """The app that answers."""
    hooks: Hooks
    """What happens around each request."""
    exchanges: list[exchanges.Exchange]
    """The requests that are open."""

    @property
    def has_lifespan(self) -> bool:
        """Whether clients start the app."""

    @property
    def state(self) -> Mapping[str, Any]:
        """What the lifespan hands on to requests."""

    async def ajoin(self) -> None:
        """Wait until the app is up."""

    def join(
        self, backend: Mapping[str, Any]
    ) -> tuple[BlockingPortal, Lifespan | None]:
        """Wait until the app is up; return where it runs, and the lifespan if this began it."""


@contextmanager
def sending(hooks: Hooks, *, is_stream: bool = False) -> Iterator[Hops]:
    """Around a client's ``send``: tell the hooks of each hop when all of them are over.

    Where that raises, the request has ended as well.
    """
    hops, has_ended = Hops(), True
    hops.is_stream = is_stream
    hops.outside = sys.exception()
    token, work = (
        HOPS.set(hops),
        WORK.set(getattr(hooks, "late_work", None)),
    )  # a test's
    try:
        yield hops
        has_ended = False
    except BaseException as error:
        if hops and not exchanges.is_disconnect(error):
            hops[-1].error = exchanges.told(error)
            hops[-1].status = None  # an app may raise behind its answer
        raise
    finally:
        hops.outside = None  # a task of the app may keep its context, and so the hops
        HOPS.reset(token)
        WORK.reset(work)
        ends = [*(request.began for request in hops[1:]), now()]
        for request, end in zip(hops, ends, strict=True) if hops else ():
            request.seconds, request.is_open = end - request.began, False
            hooks.requested(request)
        if has_ended:
            hooks.ended()


def note_unsent(
    client: httpx.Client | httpx.AsyncClient, response: httpx.Response
) -> None:
    """Note the cookies that a login has set for https alone, where a request was not let in."""
    request: Request | None = response.extensions.get("arena")
    is_let_in = response.is_success or response.request.url.scheme == "https"
    if request is not None and not is_let_in:
        request.unsent = ", ".join(
            cookie.name for cookie in client.cookies.jar if cookie.secure
        )


def hop(method: str, path: str, login: Login | None) -> Request:
    """Make the record of a request that is about to be sent."""
    role = login.role if login is not None else None
    request = Request(method=method, path=path, role=role, began=now())
    HOPS.get(Hops()).append(request)
    return request


def hop_of(request: httpx.Request, login: Login | None) -> Request:
    """As ``hop``, of a request as the library has it. Test clients open websockets by a GET."""
    is_websocket = request.url.scheme in {"ws", "wss"}
    return hop("WEBSOCKET" if is_websocket else request.method, request.url.path, login)


def answered(sent: Request, response: httpx.Response) -> httpx.Response:
    """Note an answer in its request, which is then known by the answer."""
    sent.status, response.extensions["arena"] = response.status_code, sent
    return response


def reporting(
    app: Any,
    hooks: Hooks,
    *,
    asked: object,
    begin: Callable[[Scope, Any], Any] | None = None,
) -> Any:
    """Return an app that tells of what it raises. A server's answer to that says little: 500.

    Args:
        app: what is called.
        hooks: who is told.
        asked: the app itself, where this one is but put around it by a client of ours.
        begin: is given the scope of a request and its ``send`` first, and returns another ``send``.
    """

    async def reporting_app(scope: Any, receive: Any, send: Any) -> None:
        hooks.serving()
        shown = f"{scope.get('method', 'WEBSOCKET')} {scope.get('path', '')}"
        if begin is not None:
            send = begin(scope, send)
        traces: list[TracebackException] = []  # of exceptions that the app answers
        try:
            with _noting_answer(hooks, send, traces) as send_and_note:
                if hooks.app_watcher is None:
                    await app(scope, receive, send_and_note)
                else:
                    await hooks.app_watcher.enter(
                        asked, app, scope, receive, send_and_note
                    )
        except Exception as error:
            if not exchanges.is_disconnect(error):
                _broke(hooks, shown, error)
            raise
        for trace in traces:
            hooks.handled(shown, trace)

    return reporting_app


@contextmanager
def _noting_answer(
    hooks: Hooks, send: Any, traces: list[TracebackException]
) -> Iterator[Any]:
    """Note each message of the app's answer. Yield the ``send`` that the app is to call."""
    hops = HOPS.get(None)
    answer = hooks.answering(hops[-1]) if hops else None
    if hops is None or answer is None:
        yield send
        return
    request = hops[-1]

    async def send_and_note(message: Any) -> None:
        error = sys.exception()
        if error is not None and error is not hops.outside:
            traces.extend(note_handled(request, message, error))
        await send(message)
        answer.note_sent(message)

    raised: Exception | None = None
    try:
        yield send_and_note
    except Exception as error:
        if not exchanges.is_disconnect(error):
            raised = error
        raise
    finally:
        answer.end(raised)


def _broke(hooks: Hooks, request: str, error: Exception) -> None:
    """Note that the app raised instead of answering."""
    hops = HOPS.get(None)
    if hops:
        note_raised(hops[-1], error)
    hooks.broke(request, error)


def _answered_here() -> tuple[Request, BaseException | None] | None:
    """Return the request that is answered here, and what the test handled when it made it."""
    hops = HOPS.get(None)
    return (hops[-1], hops.outside) if hops else None


class AsyncClient(_Base):
    """What arena adds to the library's ``AsyncClient``, which calls the app in the running loop.

    It has that library's defaults: the app's exceptions are raised, redirects are
    not followed, cookies are kept. Its first request starts the app's lifespan, unless somebody
    else has, and logs in, if it has a role. Making one needs no loop.

    When a request returns, the app has finished with it: background tasks and what stands after
    the ``yield`` of dependencies included. A response is therefore never partial. What has no end
    is read by ``stream``, and websockets by ``websocket_connect``: the app goes on in a task of its
    own until the block ends, and is told then that nobody listens any more. The request is under
    way as long.

    It may be used directly, awaited (it is then logged in), or opened with ``async with``, which
    closes the client at its end but leaves the app up.

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

    async def request(
        self, method: str, url: httpx.URL | str, **options: Any
    ) -> httpx.Response:
        """Make a request; logs in first, so that the request holds what the login has set."""
        await self._arena_ready()
        return await super().request(method, url, **options)

    @asynccontextmanager
    async def stream(
        self, method: str, url: httpx.URL | str, **options: Any
    ) -> AsyncGenerator[httpx.Response]:
        """Make a request and read the response as the app sends it; logs in first."""
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
        """Open a websocket; logs in first. Options are those of ``stream``.

        Raises:
            WebSocketDisconnect: the app's framework's: the app refuses it, or has closed it.
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
        """Send a request, after the app has started, the client logged in, work committed.

        One that was built before the login does not hold what the login has set.
        """
        await self._arena_ready()
        hooks = self._arena_host.hooks
        await hooks.abefore()
        with sending(hooks, is_stream=stream) as hops:
            response = await super().send(request, stream=stream, **options)
            if hops:  # none, where a transport of the user's asks another app
                hops[-1].status, response.extensions["arena"] = (
                    response.status_code,
                    hops[-1],
                )
        call = response.extensions.get(exchanges.CALL)
        if call is None:
            hooks.ended()
        else:
            call.open(hops[-1], self._arena_host)
        note_unsent(self, response)
        if hooks.app_watcher is not None:
            hooks.app_watcher.answered(response)
        return response

    def __await__(self) -> Generator[Any, None, Self]:
        return self._arena_ready().__await__()

    async def __aenter__(self) -> Self:
        # The library's own refuses a client that has made a request, and to log in is to make
        # one. What it opens are transports, and the one to an app has nothing to open.
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
    """What the fixture ``client_as`` is: ``ClientAs[TestClient]`` is ``test_client_as``.

    Example::

        async def test_roles(client_as: ClientAs) -> None:
            staff, guest = client_as("staff"), client_as("guest")
    """

    def __call__(self, role: str, **options: Any) -> C_co:
        """Return a client, which logs in as ``role`` before its first request."""


class Transport(_BaseTransport):
    """What arena adds to the library's ``ASGITransport``: answers that are read as they come."""

    library: Any
    body: type[Any]

    def handle_async_request(self, request: httpx.Request) -> Any:
        """Ask the app: to its end, or until it begins to answer, if somebody reads what comes."""
        is_stream = getattr(HOPS.get(None), "is_stream", False)
        return (
            self.begin(request) if is_stream else super().handle_async_request(request)
        )

    async def begin(self, request: httpx.Request) -> Any:
        """Return the answer that has begun."""
        is_websocket = (
            request.url.scheme.startswith("ws") or "upgrade" in request.headers
        )
        library, call = (
            copy.copy(self),
            exchanges.Call(self.app, is_websocket=is_websocket),
        )
        library.app = call.answer
        if not await call.begin(
            super(Transport, library).handle_async_request(request)
        ):
            return call.task.result()
        headers, names = call.opening.get("headers", ()), {exchanges.CALL: call}
        body = self.body(call)
        return self.library.Response(
            call.status, headers=headers, stream=body, extensions=names
        )


_SERVER = {"base_url": "http://testserver"}
_OF_THE_TRANSPORT = {"raise_app_exceptions", "root_path", "client"}


def open_async_client(
    host: Host, login: Login | None, *, options: Mapping[str, Any]
) -> AsyncClient:
    """Return a new client; its options are the library's, those of ``ASGITransport`` included.

    Raises:
        ConfigError: there is no HTTP library, or it knows no such option.
    """
    transport_kind, kind = _import_library()
    own = {name: options[name] for name in _OF_THE_TRANSPORT & options.keys()}
    others = {name: options[name] for name in options.keys() - own.keys()}
    try:
        transport = transport_kind(host.app, **own)
        client: AsyncClient = kind(**{"transport": transport} | _SERVER | others)
    except TypeError as error:
        raise _app_errors.wrong_options(error, "the async client") from error
    client._arena_host, client._arena_login = host, login  # noqa: SLF001 - a class of this file
    transport = client._transport  # noqa: SLF001 - the library has no other way
    if hasattr(transport, "app"):
        begin = functools.partial(
            _begin, host, login
        )  # not the client's: a cycle would keep it
        transport.app = reporting(
            transport.app, host.hooks, asked=host.app, begin=begin
        )
    return client


def _begin(host: Host, login: Login | None, scope: Scope, send: Any) -> Any:
    """The app is called: record that, and hand on the state, of which the library has none."""
    scope["state"] = dict(host.state)
    request = hop(scope.get("method", "WEBSOCKET"), scope["path"], login)

    async def noting(message: Any) -> None:
        if message["type"] == "http.response.start":
            request.status = message["status"]
        await send(message)

    return noting


@functools.cache
def _import_library() -> tuple[type[Any], type[Any]]:
    """Return what is ours, on top of the library's. Raises as ``http_library`` does."""
    library = http_library()
    body = type("Body", (exchanges.Body, library.AsyncByteStream), {})
    names = {"library": library, "body": body}
    transport = type("ASGITransport", (Transport, library.ASGITransport), names)
    return transport, type("AsyncClient", (AsyncClient, library.AsyncClient), {})


def http_library() -> Any:
    """Return the one that Starlette prefers, else the one that it still accepts.

    Raises:
        ConfigError: neither is installed.
    """
    for name in ("httpx2", "httpx"):
        with suppress(ImportError):
            return import_module(name)
    raise _app_errors.no_http_library()


# What do clients ask that the reader has made, `httpx2.AsyncClient(ASGITransport(app))`?


def watch_own_clients(asked: Callable[[object], Hooks | None]) -> Callable[[], None]:
    """Call hooks around requests of clients that are not ours, as around those of ours.

    And know what is begun in any of them.

    They go by a transport of the HTTP library, or by the one of a framework's test client, whose
    classes are changed when they are imported. None of them is imported here. Cost: a microsecond
    a request of ours.

    Args:
        asked: is given the app; returns the hooks, None where nobody wants to know of it.

    Returns:
        What leaves the classes as they were.
    """
    undo = ExitStack()
    undo.callback(watch_what_is_begun())
    undo.callback(watch_queues())
    undo.callback(watch_logged_errors(_answered_here))
    for module, name in _TRANSPORTS.items():
        when_imported(module, functools.partial(_watch, name, asked, undo))
    when_imported(
        "werkzeug.test", functools.partial(_watch_werkzeug_client, asked, undo)
    )
    return undo.close


_TRANSPORTS = {
    "httpx2": "ASGITransport",
    "httpx": "ASGITransport",
    "starlette.testclient": "_TestClientTransport",
    "litestar.testing.transport": "TestClientTransport",
}


def _watch(name: str, asked: Any, undo: ExitStack, module: object) -> None:
    kind: Any = getattr(module, name, None)
    # Litestar's has both: its async client asks by it as well.
    for call, ask in (("handle_async_request", _aask), ("handle_request", _ask)):
        if (
            original := getattr(kind, call, None)
        ) is not None:  # else another version's
            setattr(kind, call, _watched(original, ask, asked))
            undo.callback(setattr, kind, call, original)


def _watch_werkzeug_client(hooks_of: Any, undo: ExitStack, module: Any) -> None:
    """Call hooks around requests of ``app.test_client()``, which calls a WSGI app in the test."""
    kind = module.Client
    original = kind.run_wsgi_app

    @functools.wraps(original)
    def watched(
        client: Any, environ: dict[str, Any], *args: Any, **options: Any
    ) -> Any:
        is_inside_request = HOPS.get(None) is not None
        hooks = None if is_inside_request else hooks_of(client.application)
        if hooks is None:
            return original(client, environ, *args, **options)
        hooks.before(refuses=False)
        with sending(hooks):
            request = hop(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""), None)
            answer = hooks.answering(request)
            try:
                body, status, headers = original(client, environ, *args, **options)
            except Exception as error:
                _broke(hooks, f"{request.method} {request.path}", error)
                raise
            finally:
                if answer is not None:
                    answer.end(None)
            request.status = int(status.split(" ")[0])
        hooks.ended()
        return body, status, headers

    kind.run_wsgi_app = watched
    undo.callback(setattr, kind, "run_wsgi_app", original)


def _watched(original: Any, ask: Any, asked: Any) -> Any:
    @functools.wraps(original)
    def watched(transport: Any, request: httpx.Request) -> Any:
        if HOPS.get(None) is None:  # no client of ours asks, nor an app that answers
            app = transport.app if hasattr(transport, "app") else transport.client.app
            if (hooks := asked(app)) is not None:
                told = copy.copy(transport)  # this one may be asked in several tests
                have_called(told, reporting(app, hooks, asked=app))
                return ask(hooks, request, functools.partial(original, told))
        return original(transport, request)

    return watched


class _Calling:
    """A client of Litestar's, whose transport is to call another app than a test asks it for."""

    def __init__(self, client: Any, app: Any) -> None:
        self._client, self.app = client, app

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def have_called(transport: Any, app: Any) -> None:
    """Have a transport call this app: one that has none asks its client."""
    if hasattr(transport, "app"):
        transport.app = app
    else:
        transport.client = _Calling(transport.client, app)


async def _aask(
    hooks: Hooks, request: httpx.Request, handle: Callable[..., Any]
) -> Any:
    await hooks.abefore()
    with sending(hooks):
        response = answered(hop_of(request, None), await handle(request))
    hooks.ended()
    return response


def _ask(hooks: Hooks, request: httpx.Request, handle: Callable[..., Any]) -> Any:
    hooks.before(refuses=False)
    with sending(hooks):
        response: Any = answered(hop_of(request, None), handle(request))
    when_closed(response, hooks.ended)  # the app may go on until its answer is read
    return response


def when_closed(response: Any, end: Callable[[], None]) -> None:
    """Do this when a response is closed."""
    ending = ExitStack()
    ending.callback(end)
    ending.callback(response.stream.close)
    response.stream.close = ending.close
