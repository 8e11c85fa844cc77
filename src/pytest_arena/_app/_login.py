"""Logs a client in, once."""

import asyncio
import inspect
from asyncio import Lock, get_running_loop
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pytest_arena._app import _app_errors
from pytest_arena._app._entry import Hooks
from pytest_arena._origin import LOGINS
from pytest_arena.errors import ArenaError

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line


class Login:
    """The login of one client, before its first request.

    Concurrent requests wait for the login and share its failure. After a failure the next request
    tries again.
    """

    def __init__(
        self, function: Callable[[object, str], object], *, role: str, path: str
    ) -> None:
        self.role = role
        self._function = function
        self._path = path
        self.is_done: bool = False
        """Whether the client has logged in."""
        self._failure: ArenaError | None = None
        self._loop_lock: tuple[asyncio.AbstractEventLoop, Lock] | None = None

    def forget(self) -> None:
        """Let the next request log in again."""
        self.is_done = False
        self._failure = None

    async def aonce(self, client: object, hooks: Hooks | None) -> None:
        """Commit pending work and log this client in, unless it is logged in.

        Raises:
            LoginError: from the exception of the login function.
        """
        if self.is_done or self in LOGINS.get():
            return
        known = self._failure
        async with self._lock_of_this_loop():
            if not self._is_open_since(known):
                return
            if hooks is not None:
                await hooks.aprepare_request()  # its error is not one of the login
            with self._attempt():
                answer = self._function(client, self.role)
                if inspect.isawaitable(answer):
                    await answer

    def once(self, client: object, hooks: Hooks | None) -> None:
        """Log this client in, unless it is logged in. Refuse an async login function."""
        if self.is_done or self in LOGINS.get():
            return
        if hooks is not None:
            hooks.prepare_request()
        with self._attempt():
            answer = self._function(client, self.role)
            if inspect.iscoroutine(answer):
                answer.close()  # otherwise Python warns that it was never awaited
            if inspect.isawaitable(answer):
                raise _app_errors.async_login(role=self.role, path=self._path)

    def _lock_of_this_loop(self) -> Lock:
        """Return a lock of the running loop. A client may be used in several loops."""
        loop = get_running_loop()
        if self._loop_lock is None or self._loop_lock[0] is not loop:
            self._loop_lock = loop, Lock()
        return self._loop_lock[1]

    def _is_open_since(self, known: ArenaError | None) -> bool:
        """Return whether to log in now. Raise the failure of a concurrent login."""
        if self._failure is not None and self._failure is not known:
            raise self._failure
        return not self.is_done

    @contextmanager
    def _attempt(self) -> Iterator[None]:
        token = LOGINS.set((*LOGINS.get(), self))
        try:
            yield
        except ArenaError as error:  # its message is complete
            self._failure = error
            raise
        except Exception as error:
            new_error = _app_errors.login_failed
            if _lacks_await(error):
                new_error = _app_errors.sync_login
            self._failure = new_error(error, role=self.role, path=self._path)
            raise self._failure from error
        finally:
            LOGINS.reset(token)
        self.is_done = True


def _lacks_await(error: Exception) -> bool:
    """Return whether the function used an attribute or an item of a coroutine."""
    is_of_object = isinstance(error, AttributeError | TypeError)
    return is_of_object and "'coroutine' object" in str(error)
