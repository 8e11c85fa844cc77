"""The run of one app in one test or wide fixture: lifespan, clients, open requests."""

from __future__ import annotations

from contextlib import ExitStack
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pytest_arena._app import _app_errors
from pytest_arena._app._app_state import WIDE_CLIENTS
from pytest_arena._app._client import AsyncClient, open_async_client
from pytest_arena._app._lifespan import AppLoop, Lifespan, SharedLifespan
from pytest_arena._app._login import Login

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Mapping

    from anyio.from_thread import BlockingPortal

    from pytest_arena._app._kind import ASGIApp, Options
    from pytest_arena._app._lifespan import TestHooks
    from pytest_arena._app._sync_client import TestClient

__tracebackhide__ = True  # tracebacks end at the user's line

_NOTHING: Options = MappingProxyType({})
# An option with different names in sync and async clients. Both kinds of clients accept both names.
_SYNC_NAMES = {"raise_app_exceptions": "raise_server_exceptions"}
_ASYNC_NAMES = {"raise_server_exceptions": "raise_app_exceptions"}


class AppRun:
    """One app in one test or wide fixture: its lifespan and its clients.

    A run and its clients need no event loop before the first request. That request starts the
    lifespan and, for sync clients, a thread. All clients share one lifespan.

    To end a run, await `aclose` in the test's loop, or let the loop's owner close the loop. Then
    call `close`.

    Args:
        app: the ASGI app that `build_app` returns. `as_asgi` has wrapped a WSGI app.
        find_hooks: returns the hooks around a request or a start-up that begins now, None outside
            of tests.
        lifespan: whether clients run the app's lifespan.
        is_wide: whether the run belongs to a wide fixture.
        login: the user's ``login(client, role)``, sync or async.
        login_path: the name of that function, for messages.
        state: the state of a session-wide lifespan. Clients then run no lifespan.
        loop: the loop of that lifespan, in which the app answers.

    Example::

        run = AppRun(build_app(app), find_hooks=lambda: hooks)
        try:
            client = run.new_client()
            ...  # the test
            await run.aclose()
        finally:
            run.close()
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        find_hooks: Callable[[], TestHooks | None],
        is_wide: bool = False,
        lifespan: bool = True,
        login: Callable[[Any, str], Any] | None = None,
        login_path: str = "",
        state: Mapping[str, object] | None = None,
        loop: AppLoop | None = None,
    ) -> None:
        self.app = app
        self._find_hooks = find_hooks
        self._is_wide = is_wide
        self._lifespan: SharedLifespan | None = None
        if lifespan and state is None:
            self._lifespan = SharedLifespan(app)
        self._given_state = state or _NOTHING
        self._login = login
        self._login_path = login_path
        self._session_loop = loop
        self._sync_loop = loop or AppLoop()
        self._clients: list[AsyncClient] = []
        self._test_clients: list[Any] = []
        # The HTTP library's clients of the live server.
        self.by_socket: list[Any] = []
        self._is_closed = False

    @property
    def hooks(self) -> TestHooks | None:
        """The hooks around a request or a start-up that begins now, None outside of tests."""
        return self._find_hooks()

    @property
    def has_lifespan(self) -> bool:
        """Whether the clients of this run start the app."""
        return self._lifespan is not None

    @property
    def state(self) -> Mapping[str, object]:
        """The state that the lifespan gives to requests. Each request gets a shallow copy."""
        return self._lifespan.state if self._lifespan else self._given_state

    @property
    def loop(self) -> AbstractEventLoop | None:
        """The loop in which the app answers async clients, None for the loop of the client."""
        return self._session_loop.loop if self._session_loop is not None else None

    def new_client(
        self, *, role: str | None = None, options: Options = _NOTHING
    ) -> AsyncClient:
        """Return an async client. With a role it logs in before its first request.

        Args:
            role: the role for the login function.
            options: options of ``httpx2.AsyncClient``, and of ``ASGITransport``
                (``raise_app_exceptions``, ``root_path``, ``client``).

        Raises:
            ConfigError: no HTTP library is installed, or it has no such option.
            LoginError: there is no login function.
        """
        options = {
            _ASYNC_NAMES.get(name, name): value for name, value in options.items()
        }
        client = open_async_client(self, self._new_login(role), options=options)
        self._clients.append(client)
        if self._is_wide:
            WIDE_CLIENTS.add(client)
        return client

    def new_test_client(
        self, *, role: str | None = None, options: Options = _NOTHING
    ) -> TestClient:
        """Return a sync test client: Litestar's for a Litestar app, otherwise Starlette's.

        All test clients of a run use the backend options of the first one.

        Args:
            role: the role for the login function.
            options: options of the framework's test client.

        Raises:
            ConfigError: the framework's client does not import, or has no such option.
            LoginError: there is no login function.
        """
        # This module imports the framework.
        from pytest_arena._app._sync_client import open_test_client

        options = {
            _SYNC_NAMES.get(name, name): value for name, value in options.items()
        }
        client = open_test_client(self, self._new_login(role), options=options)
        self._test_clients.append(client)
        return client

    def _new_login(self, role: str | None) -> Login | None:
        if role is None:
            return None
        if self._login is None:
            raise _app_errors.no_login(role)
        return Login(self._login, role=role, path=self._login_path)

    async def ajoin(self) -> None:
        """Wait until the app is up. Async clients call this before each request."""
        if self._is_closed:
            raise _app_errors.run_is_over()
        # Check `is_up` first: it is fast, and most requests find the app running.
        if self._lifespan is not None and not self._lifespan.is_up:
            await self._lifespan.ajoin(self.hooks)

    def join(self, backend: Options) -> tuple[BlockingPortal, Lifespan | None]:
        """Wait until the app is up. Return its portal, and its lifespan if this call started it."""
        if self._is_closed:
            raise _app_errors.run_is_over()
        portal = self._sync_loop.open(backend)
        if self._lifespan is None:
            return portal, None
        return portal, self._lifespan.join(self.hooks, portal)

    def start(self) -> None:
        """Start the app in the loop of the sync clients, if it has a lifespan here."""
        if self._lifespan is not None:
            self.join({"backend": "asyncio"})

    def close_lifespans_of_tests(self) -> None:
        """Shut the app down if a request of a test has started it."""
        if self._lifespan:
            self._lifespan.close(are_all=False)

    def close_lifespans_in(self, loop: AbstractEventLoop) -> None:
        """Shut the app down in this loop. The next request starts it in another loop."""
        if self._lifespan:
            self._lifespan.close_in(loop)

    async def aclose(self) -> None:
        """Shut the app down if its lifespan runs in this loop. A later request starts it again.

        Await this after the test's coroutine, also after a failure. `close` shuts down a lifespan
        of another loop or of a sync client.

        Raises:
            LifespanError: from the app's exception.
        """
        for client in self.by_socket:
            if hasattr(client, "aclose"):
                await client.aclose()
        if self._lifespan:
            await self._lifespan.aclose()

    def close(self) -> None:
        """End the lifespan, the clients and open requests, in any loop or thread. Idempotent.

        Clients refuse further requests. If the lifespan's loop was closed without cancelling its
        tasks, no shutdown is possible, and this raises no error.

        Raises:
            LifespanError: a shutdown failed, now or when its loop was closed. Raised once.
        """
        self._is_closed = True
        with ExitStack() as stack:
            if self._session_loop is None:
                stack.callback(self._sync_loop.close)
            elif self.hooks is not None:
                stack.callback(self._session_loop.cancel, self.hooks.owner)
            if self._lifespan:
                stack.callback(self._lifespan.close)
            for client in self._test_clients:
                stack.callback(client.arena_leave)
            for client in self.by_socket:
                stack.callback(getattr(client, "close", bool))
        self._clients.clear()  # breaks a reference cycle
