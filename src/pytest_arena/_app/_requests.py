"""What does the arena do around a request of ours, and what does it learn of it?"""

from __future__ import annotations

import functools
import inspect
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pytest_arena._ledger import Request
from pytest_arena._process import seconds as now
from pytest_arena.errors import ClientError, redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from anyio.from_thread import BlockingPortal

    from pytest_arena._app._kind import ASGIApp
    from pytest_arena._app._lifespan import Lifespan

__all__ = [
    "Door",
    "Hooks",
    "Host",
    "ends_at_the_caller",
    "hop",
    "reporting",
    "request_sent",
    "sending",
]

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


class Host(Protocol):
    """What a client needs of the run that it belongs to."""

    @property
    def app(self) -> ASGIApp:
        """The app that answers."""

    @property
    def hooks(self) -> Hooks:
        """What happens around each request."""

    @property
    def state(self) -> Mapping[str, Any]:
        """What the lifespan hands on to requests."""

    async def ajoin(self) -> None:
        """Wait until the app is up."""

    def join(self, backend: Mapping[str, Any]) -> tuple[BlockingPortal, Lifespan | None]:
        """Wait until the app is up; return where it runs, and the lifespan if this began it."""


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


_Class = TypeVar("_Class", bound=type[Any])

# Where a client's own library stands between the test's line and ours.
_METHODS = (
    "__aenter__",
    "__enter__",
    "_arena_ready",
    "delete",
    "get",
    "head",
    "options",
    "patch",
    "post",
    "put",
    "query",
    "request",
    "websocket_connect",
)


def ends_at_the_caller(client: _Class) -> _Class:
    """Let the traceback of our own errors end at the line that called a method of this client.

    `__tracebackhide__` hides our frames, but not those of the HTTP library between them and the
    test. An app's exception keeps all its frames.
    """
    for name in _METHODS:
        if method := getattr(client, name, None):
            setattr(client, name, _shortened(method))
    return client


def _shortened(method: Any) -> Any:
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def acall(*args: Any, **options: Any) -> Any:
            __tracebackhide__ = True
            try:
                return await method(*args, **options)
            except ClientError as error:
                raise error.with_traceback(None)  # noqa: B904 - the same error, with its cause

        return acall

    @functools.wraps(method)
    def call(*args: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        try:
            return method(*args, **options)
        except ClientError as error:
            raise error.with_traceback(None)  # noqa: B904 - the same error, with its cause

    return call
