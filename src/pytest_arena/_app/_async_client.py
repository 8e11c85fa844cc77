"""The async client: the HTTP library's own, bound to the app in-process."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from pytest_arena._app import _app_errors
from pytest_arena._app._requests import Host, ends_at_the_caller, hop, reporting, sending
from pytest_arena._process import running_loop

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Mapping
    from types import TracebackType

    import httpx2 as httpx

    from pytest_arena._app._kind import Scope
    from pytest_arena._app._login import Login
else:
    # The one that Starlette prefers, then the one that it still accepts.
    try:
        import httpx2 as httpx
    except ImportError:
        try:
            import httpx
        except ImportError:
            raise _app_errors.no_http_library() from None

__all__ = ["AsyncClient", "open_async_client"]

_OF_THE_TRANSPORT = {"raise_app_exceptions", "root_path", "client"}


@ends_at_the_caller
class AsyncClient(httpx.AsyncClient):
    """An ``httpx2.AsyncClient`` that calls the app in the running event loop.

    It is that library's client, with its defaults: the app's exceptions are raised, redirects are
    not followed, cookies are kept. Its first request starts the app's lifespan, unless somebody
    else has, and logs in, if it has a role. Making one needs no loop.

    When a request returns, the app has finished with it: background tasks and what stands after
    the ``yield`` of dependencies included. A response is therefore never partial, and an endless
    stream never returns: use a live server for one.

    It may be used directly, awaited (it is then logged in), or opened with ``async with``, which
    closes the client at its end but leaves the app up.

    Raises:
        LifespanError: at a request: the app's start-up failed, or the test is over.
        LoginError: at a request: the login failed.

    Example::

        staff = await client_as("staff")
        assert (await staff.get("/orders")).status_code == 200
    """

    def __init__(self, host: Host, login: Login | None, **options: Any) -> None:
        self._arena_host = host
        self._arena_login = login
        own = {name: options.pop(name) for name in _OF_THE_TRANSPORT & options.keys()}
        defaults: dict[str, Any] = {
            "transport": httpx.ASGITransport(_with_state(host), **own),
            "base_url": "http://testserver",
        }
        super().__init__(**defaults | options)
        transport: Any = self._transport
        transport.handle_async_request = _recording(transport.handle_async_request, login)

    async def request(self, method: str, url: httpx.URL | str, **options: Any) -> httpx.Response:
        """Make a request; logs in first, so that the request holds what the login has set."""
        __tracebackhide__ = True
        await self._arena_ready()
        return await super().request(method, url, **options)

    @asynccontextmanager
    async def stream(
        self, method: str, url: httpx.URL | str, **options: Any
    ) -> AsyncGenerator[httpx.Response]:
        """Make a request and read the response in parts; logs in first."""
        __tracebackhide__ = True
        await self._arena_ready()
        async with super().stream(method, url, **options) as response:
            yield response

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request, after the app has started, the client logged in, work committed.

        One that was built before the login does not hold what the login has set.
        """
        __tracebackhide__ = True
        await self._arena_ready()
        hooks = self._arena_host.hooks
        await hooks.abefore()
        with sending(hooks):
            response = await super().send(request, **options)
        if hooks.door is not None:
            hooks.door.answered(response)
        return response

    def __await__(self) -> Generator[Any, None, Self]:
        __tracebackhide__ = True
        return self._arena_ready().__await__()

    async def __aenter__(self) -> Self:
        # The library's own refuses a client that has made a request, and to log in is to make
        # one. What it opens are transports, and the one to an app has nothing to open.
        __tracebackhide__ = True
        return await self._arena_ready()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    async def _arena_ready(self) -> Self:
        __tracebackhide__ = True
        if running_loop() is None:
            raise _app_errors.no_asyncio()
        await self._arena_host.ajoin()
        if self._arena_login is not None:
            await self._arena_login.aonce(self)
        return self


def _recording(handle: Callable[..., Any], login: Login | None) -> Any:
    async def handle_async_request(request: httpx.Request) -> httpx.Response:
        __tracebackhide__ = True
        one = hop(request, login.role if login else None)
        response: httpx.Response = await handle(request)
        one.status, response.extensions["arena"] = response.status_code, one
        return response

    return handle_async_request


def open_async_client(
    host: Host, login: Login | None, *, options: Mapping[str, Any]
) -> AsyncClient:
    """Return a new client; its options are the library's, those of ``ASGITransport`` included.

    Raises:
        ConfigError: the library knows no such option.
    """
    __tracebackhide__ = True
    try:
        return AsyncClient(host, login, **options)
    except TypeError as error:
        raise _app_errors.wrong_options(error, "the async client") from error


def _with_state(host: Host) -> Any:
    """The app as the library calls it, which does not know of a lifespan's state itself."""

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        __tracebackhide__ = True
        scope["state"] = dict(host.state)
        await host.app(scope, receive, send)

    return reporting(app, host.hooks, host.app)
