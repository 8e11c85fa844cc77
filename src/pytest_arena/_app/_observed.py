"""Has a test looked at the answer that it got?"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_arena._app._reached import Reached

__all__ = ["observe"]

_LOOKS = frozenset(
    {
        *("status_code", "reason_phrase", "is_success", "is_error", "is_client_error"),
        *("is_server_error", "is_redirect", "has_redirect_location", "raise_for_status"),
        *("headers", "cookies", "links", "content", "text", "json", "read", "aread"),
        *("iter_bytes", "iter_text", "iter_lines", "iter_raw"),
        *("aiter_bytes", "aiter_text", "aiter_lines", "aiter_raw"),
    }
)


def observe(response: Any, request: Reached) -> None:
    """Note when somebody looks at a response: until then it is of a class that sees that.

    Harmless to a response of a class that cannot be had so.
    """
    request.is_observed = False
    try:
        vars(response)[_WHOSE] = request
        kind: Any = type(response)
        response.__class__ = _observed(kind)
    except TypeError:
        request.is_observed = None


_WHOSE = "_arena_request"


@cache
def _observed(kind: Any) -> Any:
    def __getattribute__(self: Any, name: str) -> Any:  # noqa: N807 - it is that method, of a class made below
        if name in _LOOKS:
            object.__setattr__(self, "__class__", kind)
            vars(self).pop(_WHOSE).is_observed = True
        return kind.__getattribute__(self, name)

    names = {"__qualname__": kind.__qualname__, "__module__": kind.__module__}
    return type(kind.__name__, (kind,), {**names, "__getattribute__": __getattribute__})
