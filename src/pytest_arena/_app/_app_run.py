"""The run of one app in one test or wide fixture: lifespan, clients, open requests."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pytest_arena._app import _app_errors
from pytest_arena._app._lifespan import AppLoop, Lifespan
from pytest_arena._process import running_loop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Mapping

    from anyio.from_thread import BlockingPortal

    from pytest_arena._app._entry import Hooks
    from pytest_arena._app._kind import ASGIApp, Options

__tracebackhide__ = True  # tracebacks end at the user's line

_NOTHING: Options = MappingProxyType({})


class AppRun:
    """One app in one test or wide fixture: its lifespan and its clients.

    A run and its clients need no event loop before the first request. That request starts the
    lifespan in its loop and, for sync clients, a thread. Other clients share the lifespan, also
    from other loops and threads. After a shutdown, a closed loop or a failed start-up, the next
    request starts it again.

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
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        find_hooks: Callable[[], Hooks | None],
        is_wide: bool = False,
        lifespan: bool = True,
        login: Callable[[Any, str], Any] | None = None,
        login_path: str = "",
        state: Mapping[str, object] | None = None,
        loop: AppLoop | None = None,
    ) -> None:
        self.app = app
        self._find_hooks = find_hooks
        self.is_wide = is_wide
        self.has_lifespan: bool = lifespan and state is None
        """Whether the clients of this run start the app."""
        # The last one is current. Earlier ones still have a failure to raise.
        self._lifespans: list[Lifespan] = []
        self._lock = threading.Lock()
        self._session_state = state or _NOTHING
        self.login = login
        self.login_path = login_path
        self._session_loop = loop
        self._sync_loop = loop or AppLoop()
        self.test_clients: list[Any] = []
        # The HTTP library's clients of the live server.
        self.by_socket: list[Any] = []
        self._is_closed = False

    @property
    def hooks(self) -> Hooks | None:
        """The hooks around a request or a start-up that begins now, None outside of tests."""
        return self._find_hooks()

    @property
    def state(self) -> Mapping[str, object]:
        """The state that the lifespan gives to requests. Each request gets a shallow copy."""
        return self._lifespans[-1].state if self._lifespans else self._session_state

    @property
    def loop(self) -> AbstractEventLoop | None:
        """The loop in which the app answers async clients, None for the loop of the client."""
        return self._session_loop.loop if self._session_loop is not None else None

    async def ajoin(self) -> None:
        """Wait until the app is up. Async clients call this before each request."""
        self._check_open()
        # Check `is_up` first: it is fast, and most requests find the app running.
        if self.has_lifespan and not (self._lifespans and self._lifespans[-1].is_up):
            lifespan, _ = self._join(partial(Lifespan, self.app))
            await lifespan.await_until_up()

    def join(self, backend: Options) -> tuple[BlockingPortal, Lifespan | None]:
        """Wait until the app is up. Return its portal, and its lifespan if this call started it."""
        self._check_open()
        portal = self._sync_loop.open(backend)
        if not self.has_lifespan:
            return portal, None
        lifespan, is_new = self._join(partial(portal.call, Lifespan, self.app))
        lifespan.wait_until_up()
        return portal, lifespan if is_new else None

    def _check_open(self) -> None:
        if self._is_closed:
            raise _app_errors.run_is_over()

    def _join(self, begin: Callable[[object], Lifespan]) -> tuple[Lifespan, bool]:
        """Return the lifespan, and whether this call began it."""
        with self._lock:
            if self._lifespans and self._lifespans[-1].is_usable:
                return self._lifespans[-1], False
            request = self.hooks.begin_lifespan() if self.hooks is not None else None
            unsettled = [each for each in self._lifespans if not each.is_settled]
            self._lifespans = [*unsettled, begin(request)]
            return self._lifespans[-1], True

    def start(self) -> None:
        """Start the app in the loop of the sync clients, if it has a lifespan here."""
        if self.has_lifespan:
            self.join({"backend": "asyncio"})

    def close_lifespans(
        self, *, loop: AbstractEventLoop | None = None, are_all: bool = False
    ) -> None:
        """Shut down the lifespans in a loop that does not run, or else those of tests, or all.

        A later request starts the app again. A lifespan is of a test if its request started it.
        """
        with ExitStack() as stack:
            for lifespan in self._lifespans:
                is_of_test = loop is None and lifespan.request is not None
                if are_all or lifespan.loop is loop or is_of_test:
                    stack.callback(lifespan.close)

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
        for lifespan in self._lifespans:
            if lifespan.loop is running_loop():
                await lifespan.stop()

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
            stack.callback(self.close_lifespans, are_all=True)
            for client in self.test_clients:
                stack.callback(client.arena_leave)
            for client in self.by_socket:
                stack.callback(getattr(client, "close", bool))
