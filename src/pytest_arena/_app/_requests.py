"""What does the arena do around a request of ours, and what does it learn of it?"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from pytest_arena._clock import seconds as now
from pytest_arena._ledger import Request
from pytest_arena.errors import redact

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Door", "Hooks", "hop", "reporting", "request_sent", "sending"]

HOPS: ContextVar[list[Request]] = ContextVar("arena: what a client of ours has sent")


def request_sent() -> Request | None:
    """Return the request, or the hop of one, that a client of ours is making here."""
    hops = HOPS.get(None)
    return hops[-1] if hops else None


class Door(Protocol):
    """Stands before apps, where somebody wants to know who comes in."""

    async def enter(self, app: object, call: Any, scope: Any, receive: Any, send: Any) -> None:
        """Call an app, which is known by its first argument."""

    def answered(self, response: Any) -> None:
        """A client of ours has its answer; ``response.extensions["arena"]`` is the request."""


class Hooks(Protocol):
    """What the arena wants around each request of our clients."""

    @property
    def door(self) -> Door | None:
        """Whoever stands before the app."""

    async def abefore(self) -> None:
        """Called before a request of an async client, in its loop: commits pending work."""

    def before(self) -> None:
        """Called before a request of a sync client, in its thread."""

    def requested(self, request: Request) -> None:
        """Called after each request, also after one that raised."""

    def ended(self) -> None:
        """Called once when the client has its answer, after ``requested`` for each hop."""

    def broke(self, request: str, error: Exception) -> None:
        """Called where an app raises instead of answering, whatever the client makes of it."""


@contextmanager
def sending(hooks: Hooks) -> Iterator[None]:
    """Around a client's ``send``: tell the hooks of each hop when all of them are over."""
    hops: list[Request] = []
    token = HOPS.set(hops)
    try:
        yield
    except BaseException as error:
        if hops and hops[-1].method != "WEBSOCKET":
            hops[-1].error = redact(f"{type(error).__name__}: {error}".removesuffix(": "))
            hops[-1].status = None  # an app may raise behind its answer
        raise
    finally:
        HOPS.reset(token)
        ends = [*(one.began for one in hops[1:]), now()]
        for one, end in zip(hops, ends, strict=True) if hops else ():
            one.seconds = end - one.began
            hooks.requested(one)
        hooks.ended()


def hop(request: Any, role: str | None) -> Request:
    """Make the record of a request that is about to be sent.

    Test clients open a websocket by a GET that raises.
    """
    method = "WEBSOCKET" if request.url.scheme in {"ws", "wss"} else request.method
    one = Request(method=method, path=request.url.path, role=role, began=now())
    HOPS.get([]).append(one)
    return one


def reporting(app: Any, hooks: Hooks, asked: object) -> Any:
    """Return an app that tells of what it raises. A server's answer to that says little: 500.

    ``asked`` is the app itself, where this one is but put around it by a client of ours.
    """

    async def reporting_app(scope: Any, receive: Any, send: Any) -> None:
        __tracebackhide__ = True
        try:
            if hooks.door is None:
                await app(scope, receive, send)
            else:
                await hooks.door.enter(asked, app, scope, receive, send)
        except Exception as error:
            hooks.broke(f"{scope.get('method', 'WEBSOCKET')} {scope.get('path', '')}", error)
            raise

    return reporting_app
