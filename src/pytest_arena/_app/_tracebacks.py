"""How does a traceback of ours end at the user's line?"""

from __future__ import annotations

import functools
import inspect
from typing import Any, TypeVar

from pytest_arena.errors import ClientError

__all__ = ["ends_at_the_caller"]

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
