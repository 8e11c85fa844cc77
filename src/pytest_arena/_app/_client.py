"""The async client."""

from __future__ import annotations

import functools
import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, Self

from pytest_arena._app import _app_errors
from pytest_arena._app._entry import OpenRequest
from pytest_arena._app._transport import CALL, AppCall, Host, Transport
from pytest_arena._process import running_loop

if TYPE_CHECKING:
    from collections.abc import Generator

    import httpx2 as httpx
    from typing_extensions import TypeVar  # has a default; SQLAlchemy requires it

    from pytest_arena._app._kind import Options
    from pytest_arena._app._login import Login
    from pytest_arena._ledger import Request

    _Base = httpx.AsyncClient
    C_co = TypeVar("C_co", covariant=True, default="AsyncClient")
else:
    from typing import TypeVar

    C_co = TypeVar("C_co", covariant=True)
    # The import of the library takes some 60 ms. Its class is added when a client is created.
    _Base = object

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line


class AsyncClient(_Base):
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

    _arena_host: Host
    _arena_login: Login | None

    def arena_use(self, host: Host, login: Login | None) -> None:
        """Set the run whose app the client calls, and the login if it has a role."""
        self._arena_host = host
        self._arena_login = login

    async def send(
        self, request: httpx.Request, *, stream: bool = False, **options: Any
    ) -> httpx.Response:
        """Send a request after the app's start, the login, and the commit of pending work."""
        login = self._arena_login
        is_first = login is not None and not login.is_done
        await self._arena_ready()
        if is_first:
            add_login(self, request)
        response = await super().send(request, stream=stream, **options)
        hooks = self._arena_host.hooks
        if hooks is None:
            return response
        call = response.extensions.get(CALL)
        if stream and call is not None and not call.task.done():
            record = response.extensions["arena"]
            loop = call.task.get_loop()
            hooks.open_requests.append(OpenRequest(record, response.aclose, loop))
        note_unsent(self, response)
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
            await self._arena_login.aonce(self, self._arena_host.hooks)
        return self


class ClientAs(Protocol[C_co]):
    """The type of the fixture ``client_as``. ``test_client_as`` is a ``ClientAs[TestClient]``.

    Example::

        async def test_roles(client_as: ClientAs) -> None:
            staff, guest = client_as("staff"), client_as("guest")
    """

    def __call__(self, role: str, **options: object) -> C_co:
        """Return a client, which logs in as ``role`` before its first request."""


def add_login(client: httpx.Client | httpx.AsyncClient, request: httpx.Request) -> None:
    """Add the cookies and headers of a login to a request that was built before the login."""
    client.cookies.set_cookie_header(request)
    for name, value in client.headers.items():
        request.headers.setdefault(name, value)


def note_unsent(
    client: httpx.Client | httpx.AsyncClient, response: httpx.Response
) -> None:
    """Note the client's cookies for https, if a request by http was refused."""
    request: Request | None = response.extensions.get("arena")
    if request is None or response.is_success:
        return
    if response.request.url.scheme != "https":
        names = [cookie.name for cookie in client.cookies.jar if cookie.secure]
        request.unsent = ", ".join(names)


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
        transport = transport_class(host, login, **of_transport)
        client: AsyncClient = client_class(
            **{"transport": transport, "base_url": _BASE_URL, **of_client}
        )
    except TypeError as error:
        raise _app_errors.wrong_options(error, "the async client") from error
    client.arena_use(host, login)
    return client


@functools.cache
def _import_library() -> tuple[type[Any], type[Any]]:
    """Return the classes of the transport and of the client. Raises as ``http_library`` does."""
    library = http_library()
    call = type("AppCall", (AppCall, library.AsyncByteStream), {})
    names = {"library": library, "call_class": call}
    transport = type("ASGITransport", (Transport, library.AsyncBaseTransport), names)
    return transport, type("AsyncClient", (AsyncClient, library.AsyncClient), {})


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
    raise _app_errors.not_installed("the async client", "httpx2 (or httpx)", "http")
