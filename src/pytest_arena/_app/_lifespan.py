"""How is an app's lifespan begun, and how does it always come to its end?

::

    starting ──→ up ──→ stopping ──→ over
       │          └ asked by `stop`, `close`, or by whoever cancels its task
       └──→ refused (start-up failed)
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import warnings
from concurrent.futures import Future
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from pytest_arena._app import _app_errors
from pytest_arena._app._kind import as_asgi
from pytest_arena._origin import IN_SESSION_LIFESPAN, OUR_TASK, WORK
from pytest_arena._process import running_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from anyio.from_thread import BlockingPortal

    from pytest_arena._app._kind import ASGIApp, Message
    from pytest_arena.errors import LifespanError

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line

# Seconds for a shutdown, which closes a few pools: whoever exceeds them waits for something that
# does not come, and is cancelled, with an error.
PATIENCE = 10.0

# How often an app is cancelled whose loop was closed under it. Each `await` in its clean-up costs
# one; an app that needs more is left to Python's own devices.
_GOODBYES = 100


class Lifespan:
    """One run of an app's lifespan, in one task of one event loop.

    The app enters and leaves its lifespan in that one task, so that cancel scopes and task groups
    in it work. It is shut down whatever happens: by `stop` or `close`, and if the owner of the
    loop closes it before, by the owner's cancelling of all tasks: the app then takes this as the
    server's request to shut down, which the owner waits for.

    Nothing about it is ever logged or warned of by asyncio: a failure is kept, and raised once.

    To make one is to start the app in the running loop, without waiting for it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.state: dict[str, Any] = {}
        """What the app hands on to its requests, by ``scope["state"]``."""
        self._app = app
        self.loop = asyncio.get_running_loop()
        # Waited for in other threads and loops as well; "running" means: cannot be cancelled, as
        # a cancelled waiter would otherwise cancel it for the others.
        self._started: Future[None] = Future()
        self._started.set_running_or_notify_cancel()
        # In its own loop an event does, which wakes the waiter without a byte through a socket.
        self._started_here = asyncio.Event()
        self._shutdown_asked = asyncio.Event()
        # Facts about the conversation with the app. None is ever taken back.
        self._took_startup = False
        self._is_up = False
        self._is_stopping = False
        self._is_left = False
        self._message: str | None = None
        self._start_error: LifespanError | None = None
        self._failure: LifespanError | None = None
        self._coroutine = self._live()
        # Threads and tasks that it begins belong to no request, though a request may start the app.
        context = copy_context()
        context.run(WORK.set, None)
        self._task = context.run(self.loop.create_task, self._coroutine, name=OUR_TASK)
        # A loop may be closed without a word to its tasks. There is no other name for this wish;
        # asyncio.gather and run_until_complete express it in the same way.
        self._task._log_destroy_pending = False  # type: ignore[attr-defined] # noqa: SLF001 - see above
        self._task.add_done_callback(self._over)

    @property
    def is_usable(self) -> bool:
        """Whether a request may rely on it: starting or up, in a loop that is not closed.

        An app that ended its lifespan by itself, or knows none, stays usable.
        """
        if self._is_stopping or self._is_left or self._start_error:
            return False
        return self._task.done() or not self.loop.is_closed()

    @property
    def is_up(self) -> bool:
        """Whether requests may be sent without waiting. False for an app without a lifespan."""
        return self._is_up and self.is_usable

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to do or to say."""
        return (self._is_left or self._task.done()) and self._failure is None

    async def astarted(self) -> None:
        """Wait until the app is up, in any loop.

        Raises:
            LifespanError: from the app's exception; or its loop does not run, so that waiting
                would last for ever.
        """
        if not (self._is_up or self._started.done()):
            self._check_it_moves(blocked=None)
            if self.loop is running_loop():
                await self._started_here.wait()
            else:
                await asyncio.wrap_future(self._started)
        self._raise_start_error()

    def started(self) -> None:
        """Wait until the app is up, in a thread. Raises as `astarted` does."""
        if not self._started.done():
            self._check_it_moves(blocked=running_loop())
            self._started.result()
        self._raise_start_error()

    async def stop(self) -> None:
        """Shut the app down; awaited in its own loop. A start-up under way is cancelled.

        Raises:
            LifespanError: the shutdown failed, or did not end in time. Once: not again later.
        """
        self._ask()
        if await self._outlasts(PATIENCE):
            self._task.cancel()
            await self._outlasts(PATIENCE / 10)
            self._failure = _app_errors.shutdown_hangs(PATIENCE)
        self._raise_failure()

    def close(self) -> None:
        """Shut the app down from outside of its loop, whatever that loop is doing. Idempotent.

        Raises:
            LifespanError: as `stop` does.
        """
        if not (self._is_left or self._task.done()):
            self._end_from_outside()
        self._raise_failure()

    async def _live(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._app(scope, self._receive, self._send)
        except (GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - cancellation, pytest's outcomes: all are told
            self._conclude(error)
        else:
            self._conclude(None)

    async def _receive(self) -> Message:
        if not self._took_startup:
            self._took_startup = True
            return {"type": "lifespan.startup"}
        await self._until_shutdown_is_asked()
        return {"type": "lifespan.shutdown"}

    async def _until_shutdown_is_asked(self) -> None:
        try:
            await self._shutdown_asked.wait()
        except asyncio.CancelledError:
            if self._is_left:
                raise
            # Whoever owns the loop is about to close it: cancels every task, then waits for all.
            # That is the moment to shut down, here, in the task that has started the app.
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
        self._is_stopping = True

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._is_up = True
                self._say_started()
            case "lifespan.startup.failed" | "lifespan.shutdown.failed":
                self._message = message.get("message", "")
                self._shutdown_asked.set()

    def _conclude(self, error: BaseException | None) -> None:
        if self._is_left:
            return  # what comes of that, nobody asked for
        error = _innermost(error)
        if self._is_up:
            if error is not None or self._message is not None:
                text = _app_errors.shutdown_failed(
                    error, self._message, asked=self._is_stopping
                )
                self._failure = _because(text, error)
        elif self._message is not None or (self._took_startup and error is not None):
            self._start_error = _because(
                _app_errors.startup_failed(error, self._message), error
            )
        # Else the app knows no lifespan: ASGI wants a server to go on without.

    def _over(self, task: asyncio.Task[None]) -> None:
        # What `_live` lets pass: a cancellation before its first step, Ctrl-C, SystemExit. To look
        # at the exception keeps asyncio from complaining that nobody did.
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            self._start_error = _because(_app_errors.startup_failed(error, None), error)
        self._say_started()

    def _say_started(self) -> None:
        if not self._started.done():
            self._started.set_result(None)
            self._started_here.set()

    def _check_it_moves(self, *, blocked: asyncio.AbstractEventLoop | None) -> None:
        if self.loop is blocked or not self.loop.is_running():
            raise _app_errors.startup_stuck()

    def _ask(self) -> None:
        self._is_stopping = True
        self._shutdown_asked.set()
        if not self._is_up:
            self._task.cancel()

    async def _outlasts(self, seconds: float) -> bool:
        """Whether the app is still there after so many seconds."""
        _, pending = await asyncio.wait({self._task}, timeout=seconds)
        return bool(pending)

    def _end_from_outside(self) -> None:
        here = running_loop()
        if self.loop.is_closed():
            self._leave()
        elif self.loop.is_running() and self.loop is not here:
            self._end_in_its_thread()
        elif here is not None:
            self._ask()  # nothing can be awaited here; it ends when its loop goes on
        else:
            self.loop.run_until_complete(self.stop())

    def _end_in_its_thread(self) -> None:
        stop = self.stop()
        try:
            stopped = asyncio.run_coroutine_threadsafe(stop, self.loop)
        except RuntimeError:
            stop.close()  # the loop was closed at this very moment, which has cancelled the task
            return
        try:
            stopped.result(2 * PATIENCE)
        except TimeoutError:
            raise _app_errors.shutdown_hangs(2 * PATIENCE) from None

    def _leave(self) -> None:
        """Let go of the app: its loop was closed without a word to it.

        It is cancelled, at every `await` anew, by hand, as there is no loop to do it. Python would
        end it at some later moment, and complain about each `await` that it meets. Whatever the
        app raises now is no failure of its own.
        """
        self._is_left = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(_GOODBYES):
                with contextlib.suppress(Exception, asyncio.CancelledError):
                    self._coroutine.throw(asyncio.CancelledError())
                if inspect.getcoroutinestate(self._coroutine) == inspect.CORO_CLOSED:
                    return
            with contextlib.suppress(Exception, asyncio.CancelledError):
                self._coroutine.close()

    def _raise_start_error(self) -> None:
        if self._start_error is not None:
            raise self._start_error

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


def _because(error: LifespanError, cause: BaseException | None) -> LifespanError:
    error.__cause__ = cause
    return error


def _innermost(error: BaseException | None) -> BaseException | None:
    """The app's own exception: a task group around it makes a group of one of it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


class SharedLifespan:
    """One lifespan for all clients of an app, async and sync, in whatever loop they are used.

    The first to come starts it, in the loop where it runs its own requests. The others use it,
    also from other loops and threads. It is started anew only when it has been shut down, when
    its loop was closed, or when its start-up failed.
    """

    def __init__(
        self, app: ASGIApp, starting: Callable[[], None], started: Callable[[], None]
    ) -> None:
        self._app = app
        self._starting = starting
        self._started = started
        self._lock = threading.Lock()
        # The last one is current; the others still have something to say.
        self._lifespans: list[Lifespan] = []

    @property
    def state(self) -> Mapping[str, Any]:
        """What the lifespan hands on to requests."""
        return self._lifespans[-1].state if self._lifespans else {}

    @property
    def is_up(self) -> bool:
        """Whether the app is up, so that a request need not join."""
        return bool(self._lifespans) and self._lifespans[-1].is_up

    async def ajoin(self) -> None:
        """Wait until the app is up; start it in the running loop if it is not."""
        lifespan, is_new = self._current(lambda: Lifespan(self._app))
        await lifespan.astarted()
        if is_new:
            self._started()

    def join(self, portal: BlockingPortal) -> Lifespan | None:
        """Wait until the app is up; start it in the portal's loop if it is not.

        Returns the lifespan if this call started it.
        """
        lifespan, is_new = self._current(lambda: portal.call(Lifespan, self._app))
        lifespan.started()
        if is_new:
            self._started()
        return lifespan if is_new else None

    def _current(self, begin: Callable[[], Lifespan]) -> tuple[Lifespan, bool]:
        with self._lock:
            if self._lifespans and self._lifespans[-1].is_usable:
                return self._lifespans[-1], False
            self._starting()
            unsettled = [each for each in self._lifespans if not each.is_settled]
            self._lifespans = [*unsettled, begin()]
            return self._lifespans[-1], True

    def known(self) -> list[Lifespan]:
        """Return the lifespans that have been begun, and have something to do or to say."""
        return list(self._lifespans)

    async def aclose(self) -> None:
        """Shut down what runs in this loop."""
        loop = asyncio.get_running_loop()
        for lifespan in self._lifespans:
            if lifespan.loop is loop:
                await lifespan.stop()

    def close_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Shut down the lifespans in this loop, which is not running."""
        for lifespan in self._lifespans:
            if lifespan.loop is loop:
                lifespan.close()

    def close(self, but: Collection[Lifespan] = ()) -> None:
        """Shut down what still runs anywhere, ``but`` these; a later request starts the app again.

        One failure does not keep the others open.
        """
        with contextlib.ExitStack() as stack:
            for lifespan in self._lifespans:
                if lifespan not in but:
                    stack.callback(lifespan.close)


@contextlib.contextmanager
def session_lifespan(
    app: ASGIApp, *, serves_tests: bool = False
) -> Iterator[Mapping[str, Any]]:
    """Run an app's lifespan on a loop in a thread of ours; give the state of its requests.

    What it opens belongs to that loop: an app that hands connections or clients of one loop on to
    its requests needs a lifespan for each test instead.

    Args:
        app: the app.
        serves_tests: whether tests make requests meanwhile, each in the test's loop.

    Raises:
        LifespanError: from the app's exception. The thread has ended then.
    """
    from anyio.from_thread import (
        start_blocking_portal,
    )  # which every client of the app needs

    def begin() -> Lifespan:
        IN_SESSION_LIFESPAN.set(
            serves_tests
        )  # only in the context of the lifespan's task
        return Lifespan(as_asgi(app))

    with start_blocking_portal() as portal:
        lifespan = portal.call(begin)
        try:
            lifespan.started()
            yield lifespan.state
        finally:
            lifespan.close()
