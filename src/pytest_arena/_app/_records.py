"""What does the arena do before a request of ours, and what does it learn of it?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from pytest_arena._app._observed import observe
from pytest_arena._app._reached import ASKING, Asking, listened
from pytest_arena._clock import seconds as now
from pytest_arena.errors import redact

__all__ = ["Hooks", "Request", "Stopwatch", "watched"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request that a client of ours made.

    Each hop of a followed redirect is a request of its own. A request that raised is told once,
    as the caller wrote it: the library does not say which of its hops failed.
    """

    method: str
    """As sent; ``WEBSOCKET`` for the opening of one."""
    path: str
    """The path alone: a query may hold secrets."""
    status: int | None
    """The answer's status; None where there was an error, and for a websocket."""
    error: str | None
    """What came instead of an answer, as ``Type: text`` without passwords."""
    seconds: float
    """From the call to the answer, the app's background tasks included."""
    role: str | None
    """As whom the client is logged in."""


class Hooks(Protocol):
    """What the arena wants around each request of our clients."""

    async def abefore(self) -> None:
        """Called before a request of an async client, in its loop: commits pending work."""

    def before(self) -> None:
        """Called before a request of a sync client, in its thread."""

    def requested(self, record: Request) -> None:
        """Called after each request, also after one that raised."""

    def ended(self) -> None:
        """Called once when the client has its answer, after ``requested`` for each hop."""

    def broke(self, request: str, error: Exception) -> None:
        """Called where an app raises instead of answering, whatever the client makes of it."""


def watched(app: Any, hooks: Hooks, asked: Any = None) -> Any:
    """Return an app that tells of what it raises. A server's answer to that says little: 500.

    ``asked`` is the app itself, where this one is but put around it by a client of ours.
    """
    asked = app if asked is None else asked

    async def watched_app(scope: Any, receive: Any, send: Any) -> None:
        __tracebackhide__ = True
        try:
            await listened(asked, app, scope, receive, send)
        except Exception as error:
            hooks.broke(f"{scope.get('method', 'WEBSOCKET')} {scope.get('path', '')}", error)
            raise

    return watched_app


class Stopwatch:
    """Times one call of a client's ``send`` and tells the hooks what came of it."""

    def __init__(self, hooks: Hooks, request: Any, *, role: str | None) -> None:
        self._hooks = hooks
        self._request = request
        self._role = role
        self._asking = Asking(role)
        self._token = ASKING.set(self._asking)
        self._began = now()

    def answered(self, response: Any) -> None:
        """Tell of an answer, and of the redirects on the way to it."""
        seconds = now() - self._began
        for hop in response.history:
            took = hop.elapsed.total_seconds()
            self._tell(hop.request, took, status=hop.status_code)
            seconds -= took
        self._tell(response.request, max(seconds, 0.0), status=response.status_code)
        self._end()
        if self._asking.reached:
            observe(response, self._asking.reached[-1])

    def raised(self, error: BaseException) -> None:
        """Tell of an error. Test clients open a websocket by raising: that is none."""
        seconds = now() - self._began
        if self._request.url.scheme in {"ws", "wss"}:
            self._tell(self._request, seconds, method="WEBSOCKET")
        else:
            text = redact(f"{type(error).__name__}: {error}".removesuffix(": "))
            self._tell(self._request, seconds, error=text)
        self._end()

    def _end(self) -> None:
        ASKING.reset(self._token)
        self._hooks.ended()

    def _tell(
        self,
        request: Any,
        seconds: float,
        *,
        method: str = "",
        status: int | None = None,
        error: str | None = None,
    ) -> None:
        self._hooks.requested(
            Request(
                method=method or request.method,
                path=request.url.path,
                status=status,
                error=error,
                seconds=seconds,
                role=self._role,
            )
        )
