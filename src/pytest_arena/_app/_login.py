"""How is a client logged in, exactly once?"""

from __future__ import annotations

import asyncio
import inspect
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_arena._app import _app_errors
from pytest_arena._origin import LOGINS
from pytest_arena.errors import ArenaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line


def is_logging_in() -> bool:
    """Whether the current task or thread is inside of a login."""
    return bool(LOGINS.get())


class Login:
    """The login of one client, made before its first request and never again, unless forgotten.

    Requests that come while it is under way wait for it, and share its failure. After a failure
    the next request tries again.
    """

    def __init__(
        self, function: Callable[[Any, str], Any], *, role: str, path: str
    ) -> None:
        self.role = role
        self._function = function
        self._path = path
        self.is_done = False
        """Whether the client has logged in."""
        self._failure: ArenaError | None = None
        self._thread_lock = threading.Lock()
        self._loop_lock: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    def forget(self) -> None:
        """The next request logs in again."""
        self.is_done = False
        self._failure = None

    async def aonce(self, client: object) -> None:
        """Log this client in, if it is not.

        Raises:
            LoginError: from what the login function raised.
        """
        if self.is_done or self in LOGINS.get():
            return
        known = self._failure
        async with self._lock_of_this_loop():
            if not self._is_open_since(known):
                return
            with self._attempt():
                answer = self._function(client, self.role)
                if inspect.isawaitable(answer):
                    await answer

    def once(self, client: object) -> None:
        """Log this client in, if it is not. Raises as `aonce` does, and for an async function."""
        if self.is_done or self in LOGINS.get():
            return
        known = self._failure
        with self._thread_lock:
            if not self._is_open_since(known):
                return
            with self._attempt():
                answer = self._function(client, self.role)
                if inspect.iscoroutine(answer):
                    answer.close()  # else Python warns that nobody awaited it
                if inspect.isawaitable(answer):
                    raise _app_errors.async_login(role=self.role, path=self._path)

    def _lock_of_this_loop(self) -> asyncio.Lock:
        """An asyncio.Lock belongs to a loop, a client may be used in several, one by one."""
        loop = asyncio.get_running_loop()
        if self._loop_lock is None or self._loop_lock[0] is not loop:
            self._loop_lock = loop, asyncio.Lock()
        return self._loop_lock[1]

    def _is_open_since(self, known: ArenaError | None) -> bool:
        """Whether it is our turn; if somebody failed while we waited, that is our failure, too."""
        if self._failure is not None and self._failure is not known:
            raise self._failure
        return not self.is_done

    @contextmanager
    def _attempt(self) -> Iterator[None]:
        token = LOGINS.set((*LOGINS.get(), self))
        try:
            yield
        except ArenaError as error:  # says itself what is wrong
            self._failure = error
            raise
        except Exception as error:
            # It took an attribute, or an item, of what it should have awaited.
            is_sync = isinstance(
                error, AttributeError | TypeError
            ) and _COROUTINE in str(error)
            words = _app_errors.sync_login if is_sync else _app_errors.login_failed
            self._failure = words(error, role=self.role, path=self._path)
            raise self._failure from error
        finally:
            LOGINS.reset(token)
        self.is_done = True


_COROUTINE = "'coroutine' object"
