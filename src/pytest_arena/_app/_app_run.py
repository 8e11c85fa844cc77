"""The run of one app in one test or wide fixture: its lifespan, clients and open requests.

A lifespan has these states::

    starting ──→ up ──→ stopping ──→ over
       │          └ by `stop`, `close`, or a cancellation of its task
       └──→ refused (start-up failed)
"""

from __future__ import annotations

import asyncio
import threading
from asyncio import (
    Event,
    current_task,
    get_running_loop,
    run_coroutine_threadsafe,
    wrap_future,
)
from asyncio import wait as wait_for_tasks
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, cast

from pytest_arena._app._apps import as_asgi
from pytest_arena._app._entry import explained, observed
from pytest_arena._origin import OUR_TASK, REQUEST
from pytest_arena._owner import OWNER, Owner, Phase, is_users_task, owned_by, owner_of
from pytest_arena._process import running_loop
from pytest_arena.errors import ArenaError, LifespanError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterator, Mapping

    from anyio.from_thread import BlockingPortal

    from pytest_arena._app._apps import ASGIApp, Message
    from pytest_arena._ledger import Request

# Seconds for a shutdown, which closes a few pools. pytest-arena cancels a longer one.
PATIENCE = 10.0


class AppRun:
    """One app in one test or wide fixture: its lifespan and its clients.

    The first request starts the lifespan: in its loop, or in the process's `AppLoop` for a sync
    client. Other clients share the lifespan, also from other loops and threads. After a shutdown, a
    closed loop or a failed start-up, the next request starts it again.

    With the ``state`` of a session-wide lifespan, clients call the app in ``loop``.
    """

    def __init__(
        self, app: ASGIApp, *, loop: AppLoop, lifespan: bool, state: Mapping[str, object] | None
    ) -> None:
        self.app = app
        self.observed: ASGIApp = observed(app)
        """The app, which records its requests."""
        self.has_lifespan: bool = lifespan
        """Whether the clients of this run start the app."""
        self._lifespan: Lifespan | None = None  # the last one
        self._lock = threading.Lock()
        self._session_state = state
        self._loop = loop
        self._is_closed = False

    @property
    def state(self) -> Mapping[str, object]:
        """The state that the lifespan gives to requests. Each request gets a shallow copy."""
        return self._lifespan.state if self._lifespan else self._session_state or {}

    @property
    def loop(self) -> AbstractEventLoop | None:
        """The loop in which the app answers async clients, None for the loop of the client."""
        return None if self._session_state is None else self._loop.loop

    @property
    def is_started(self) -> bool:
        """Whether a lifespan was begun, or none runs here."""
        return self._lifespan is not None or not self.has_lifespan

    async def astart(self) -> None:
        """Start the app in this loop. It may be up in a loop of a fixture, which stands still."""
        lifespan = self._lifespan
        # This loop runs, so it is another one that does not.
        if lifespan is not None and not lifespan.loop.is_running():
            lifespan.close()
        await self.ajoin()

    async def ajoin(self) -> None:
        """Wait until the app is up. Async clients call this before each request."""
        self._check_open()
        # Check `is_up` first: it is fast, and most requests find the app running.
        if self.has_lifespan and not (self._lifespan and self._lifespan.is_up):
            await wrap_future(self._join(partial(Lifespan, self.app)).started)

    def join(self) -> BlockingPortal:
        """Wait until the app is up. Return the portal to the loop of sync clients."""
        self._check_open()
        portal = self._loop.open()
        if self.has_lifespan:
            self._join(partial(portal.call, Lifespan, self.app)).started.result()
        return portal

    def _check_open(self) -> None:
        if self._is_closed:
            raise LifespanError(
                "a request by a client whose test is over",
                why="the app was shut down, and its database belongs to another test now",
                cause="a global, a class or a wide fixture has kept the client",
                fix="ask for `client` in each test. In a wide fixture use arena.client()",
            )

    def _join(self, begin: Callable[[object], Lifespan]) -> Lifespan:
        """Return the lifespan. Begin one if there is none that requests may use."""
        with self._lock:
            if self._lifespan is not None:
                if self._lifespan.is_usable:
                    return self._lifespan
                self._lifespan.close()  # its shutdown may have failed
            test = Phase.test
            self._lifespan = begin(test.begin_lifespan() if test is not None else None)
            return self._lifespan

    def close_lifespan_of_test(self) -> None:
        """Shut the app down if a test's request has started it. A later one starts it again."""
        if self._lifespan is not None and self._lifespan.request is not None:
            self._lifespan.close()

    async def aclose(self) -> None:
        """Shut the app down if its lifespan runs in this loop. A later request starts it again.

        Await this after the test's coroutine, also after a failure. `close` shuts down a lifespan
        of another loop or of a sync client.
        """
        if self._lifespan is not None and self._lifespan.loop is running_loop():
            await self._lifespan.stop()

    def close(self) -> None:
        """End the lifespan and the open requests, in any loop or thread. Idempotent.

        Clients refuse further requests.
        """
        self._is_closed = True
        try:
            if self._lifespan is not None:
                self._lifespan.close()
        finally:
            self._loop.cancel(Phase.test)


class Lifespan:
    """One run of an app's lifespan, in one task of one event loop.

    The app enters and leaves its lifespan in that task, so that its cancel scopes and task groups
    work. If the loop's owner closes the loop earlier, the owner cancels all tasks and waits for
    them. The app then shuts down. A failure of the task is raised once.

    The constructor starts the app in the running loop, and does not wait for it. Lost writes of the
    lifespan are attributed to ``request``.
    """

    def __init__(self, app: ASGIApp, request: Request | None = None) -> None:
        self.state: dict[str, object] = {}
        """The state that the app gives to its requests, as ``scope["state"]``."""
        self._app = app
        self.request = request
        self._owner = Owner("the lifespan of an earlier test", "the lifespan's shutdown")
        self.loop = get_running_loop()
        # Done when the app is up, or has no lifespan. Has the error of the start-up. A "running"
        # future cannot be cancelled, so a cancelled waiter does not cancel it for the others.
        self.started: Future[None] = Future()
        self.started.set_running_or_notify_cancel()
        self._shutdown_asked = Event()
        # The state of the protocol. These flags are never reset.
        self._took_startup = False
        self._is_up = False
        self._is_stopping = False
        self._reported: RuntimeError | None = None  # by the app, which need not raise it
        self._failure: ArenaError | None = None
        # The lifespan's threads and tasks are no work of a test, even if a request starts the app.
        context = copy_context()
        context.run(REQUEST.set, request)
        context.run(OWNER.set, self._owner)
        self._task = context.run(self.loop.create_task, self._run(), name=OUR_TASK)
        self._task.add_done_callback(self._on_done)

    @property
    def is_usable(self) -> bool:
        """Whether requests may use it: it is starting or up, and its loop is not closed.

        An app that has ended its lifespan by itself, or has none, stays usable.
        """
        if self._is_stopping or (self.started.done() and self.started.exception() is not None):
            return False
        return self._task.done() or not self.loop.is_closed()

    @property
    def is_up(self) -> bool:
        """Whether requests may be sent without waiting. False for an app without a lifespan."""
        return self._is_up and self.is_usable

    async def stop(self) -> None:
        """Shut the app down, in its loop. A start-up that is still running is cancelled."""
        self._request_shutdown()
        if await self._outlasts(PATIENCE):
            self._task.cancel()
            await self._outlasts(PATIENCE / 10)
            self._failure = LifespanError(
                f"the app's shutdown did not end within {PATIENCE:g} s, and was cancelled",
                why="the test run would have waited for ever",
                cause="the lifespan, after its yield, waits for something that never happens",
                fix="first end the tasks that it waits for: task.cancel()",
            )
        self._raise_failure()

    def close(self) -> None:
        """Shut the app down from outside of its loop, in any state of the loop. Idempotent."""
        if not self._task.done():
            self._end_from_outside()
        self._raise_failure()

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        await self._app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if not self._took_startup:
            self._took_startup = True
            return {"type": "lifespan.startup"}
        try:
            await self._shutdown_asked.wait()
        except asyncio.CancelledError:
            # The owner of the loop is about to close it, and waits for its cancelled tasks. So the
            # app can shut down in the task that started it.
            self._task.uncancel()
        self._is_stopping = True
        self._owner.is_idle = False
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._is_up = True
                self._owner.is_idle = True
                self.started.set_result(None)
            case "lifespan.startup.failed" | "lifespan.shutdown.failed":
                # Frameworks send a whole traceback. Its last line is the exception.
                self._reported = RuntimeError(*message.get("message", "").strip().splitlines()[-1:])

    def _on_done(self, task: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]  # a task group wraps the app's exception
        error = error or self._reported
        if self._is_up:
            self._owner.end()
            if error is not None:
                self._failure = _lifespan_error(
                    "the app's lifespan failed after its start-up",
                    "the rest of the shutdown did not run, so open resources may disturb later "
                    "tests",
                    "repair the lifespan after its yield. try/finally runs the rest of the "
                    "shutdown",
                    error,
                )
        elif error is not None and self._took_startup:
            failure = _lifespan_error(
                "the app's start-up failed",
                "pytest-arena sends no request to an app that has not started",
                "repair the start-up, or run these tests without it: arena_lifespan = off\n"
                "or, if the app can start only once in a process: arena_lifespan = session",
                error,
            )
            self.started.set_exception(failure)
        else:  # the app has no lifespan. ASGI requires that a server continues
            self.started.set_result(None)

    def _request_shutdown(self) -> None:
        self._is_stopping = True
        self._shutdown_asked.set()
        if not self._is_up:
            self._task.cancel()

    async def _outlasts(self, seconds: float) -> bool:
        _, pending = await wait_for_tasks({self._task}, timeout=seconds)
        return bool(pending)

    def _end_from_outside(self) -> None:
        here = running_loop()
        if self.loop.is_closed():
            self._owner.end()  # its owner has not cancelled the task: no shutdown is possible
        elif self.loop.is_running() and self.loop is not here:
            run_coroutine_threadsafe(self.stop(), self.loop).result()
        elif here is not None:
            self._request_shutdown()  # it ends when its loop continues
        else:
            self.loop.run_until_complete(self.stop())

    def _raise_failure(self) -> None:
        failure = self._failure
        self._failure = None
        if failure is not None:
            raise failure


def _lifespan_error(what: str, why: str, fix: str, error: BaseException) -> ArenaError:
    if isinstance(error, ArenaError):
        return error  # such as the guard's: its code says what to do
    reason, line, next_step = explained(error)
    failure = LifespanError(f"{what}: {reason}", why=why, cause=line, fix=next_step or fix)
    failure.__cause__ = error
    return failure


class AppLoop:
    """The event loop of the process, in a thread, in which the app answers.

    In it are the apps of sync clients, the live server, and the lifespan of the session.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._end = ExitStack()
        self._portal: BlockingPortal | None = None
        self._loop: AbstractEventLoop | None = None

    def open(self) -> BlockingPortal:
        """Return the portal. Start it at the first call."""
        from anyio.from_thread import start_blocking_portal

        with self._lock:
            if self._portal is None:
                # The thread belongs to no test, even if a request starts it.
                with owned_by(None):
                    portal = self._end.enter_context(start_blocking_portal())
                # Cancel tasks, because an open websocket or task would keep the thread for ever.
                self._end.callback(portal.call, portal.stop, True)  # noqa: FBT003 - anyio's
                self._loop = portal.call(get_running_loop)
                self._portal = portal
            return self._portal

    @property
    def loop(self) -> AbstractEventLoop:
        """The loop."""
        self.open()
        return cast("AbstractEventLoop", self._loop)

    def close(self) -> None:
        """Stop the loop and wait for its thread. Idempotent."""
        with self._lock:
            self._portal = None
            self._loop = None
            self._end.close()

    def cancel(self, owner: Owner | None) -> None:
        """Cancel the tasks of a test, and of lifespans that are over. Wait for them."""
        if self._portal is not None:
            self._portal.call(_cancel, owner)


async def _cancel(test: Owner | None) -> None:
    tasks = []
    for task in asyncio.all_tasks():
        owner = owner_of(task)
        is_left = owner is not None and (owner is test or owner.is_over)
        if is_left and is_users_task(task) and task is not current_task():
            tasks.append(task)
            task.cancel()
    if tasks:
        await wait_for_tasks(tasks, timeout=PATIENCE / 10)


@contextmanager
def session_lifespan(app: ASGIApp, loop: AppLoop) -> Iterator[Mapping[str, object]]:
    """Run an app's lifespan in a loop of a separate thread. Yield the state of its requests."""
    lifespan = loop.open().call(Lifespan, as_asgi(app))
    try:
        lifespan.started.result()
        yield lifespan.state
    finally:
        lifespan.close()
