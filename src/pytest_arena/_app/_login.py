"""Logs a client in, once."""

import inspect
from asyncio import Lock
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pytest_arena._app import _app_errors
from pytest_arena._app._entry import Hooks
from pytest_arena._origin import LOGINS
from pytest_arena.errors import ArenaError

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line


class Login:
    """The login of one client, before its first request.

    Concurrent requests wait for the login. After a failure the next request tries again.
    """

    def __init__(
        self, function: Callable[[object, str], object], *, role: str, path: str
    ) -> None:
        self.role = role
        self._function = function
        self._path = path
        self.is_done: bool = False
        """Whether the client has logged in."""
        self._lock = Lock()

    def forget(self) -> None:
        """Let the next request log in again."""
        self.is_done = False

    async def aonce(self, client: object, hooks: Hooks | None) -> None:
        """Commit pending work and log this client in, unless it is logged in.

        Raises:
            LoginError: from the exception of the login function.
        """
        if not self._is_needed():
            return
        async with self._lock:
            if not self._is_needed():  # another request has logged in meanwhile
                return
            if hooks is not None:
                await hooks.aprepare_request()  # its error is not one of the login
            with self._attempt():
                answer = self._function(client, self.role)
                if inspect.isawaitable(answer):
                    await answer

    def once(self, client: object, hooks: Hooks | None) -> None:
        """Log this client in, unless it is logged in. Refuse an async login function."""
        if not self._is_needed():
            return
        if hooks is not None:
            hooks.prepare_request()
        with self._attempt():
            answer = self._function(client, self.role)
            if inspect.iscoroutine(answer):
                answer.close()  # otherwise Python warns that it was never awaited
            if inspect.isawaitable(answer):
                raise _app_errors.async_login(role=self.role, path=self._path)

    def _is_needed(self) -> bool:
        return not self.is_done and self not in LOGINS.get()

    @contextmanager
    def _attempt(self) -> Iterator[None]:
        token = LOGINS.set((*LOGINS.get(), self))
        try:
            yield
        except ArenaError:  # its message is complete
            raise
        except Exception as error:
            raise _app_errors.login_failed(
                error, role=self.role, path=self._path
            ) from error
        finally:
            LOGINS.reset(token)
        self.is_done = True
