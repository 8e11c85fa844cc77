"""Finds the exception that caused an error response."""

from __future__ import annotations

from itertools import pairwise
from traceback import TracebackException
from typing import TYPE_CHECKING

from pytest_arena._config._load import blame
from pytest_arena._ledger import FAILURE
from pytest_arena.errors import causes, redact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._app._kind import Message
    from pytest_arena._ledger import Request

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line


def note_raised(request: Request, error: BaseException) -> None:
    """Note in the record of a request the app's exception and its line."""
    request.raised = _words(error)


def note_handled(
    request: Request, message: Message, error: BaseException
) -> Iterator[TracebackException]:
    """Note in the record the exception that the app is handling when it sends a message.

    Frameworks answer an exception in their ``except`` block.

    Yields:
        The traceback without frames, if the app did not expect the exception.
    """
    if not isinstance(error, Exception) or is_disconnect(error):
        return
    is_websocket = message["type"] == "websocket.close"
    if not is_websocket and message["type"] != "http.response.start":
        return
    if is_websocket or message["status"] >= FAILURE:
        note_raised(request, error)
        if not _is_http(error):
            # Copied now: some frameworks remove the traceback after the answer.
            yield TracebackException.from_exception(error)
    elif (
        message["status"] >= _REFUSAL
        and not _is_http(error)
        and blame(error) is not None
    ):
        note_raised(request, error)


_REFUSAL = 400


def _words(error: BaseException) -> str:
    """Return an exception in one line, with the app's line and the hidden cause."""
    words = in_one_line(error)
    if _is_http(error):
        hidden = [cause for cause in causes(error) if not _is_http(cause)]
        return f"{words} from {_words(hidden[0])}" if hidden else words
    cause = _cause_in_app(error)
    return words if cause is None else f"{words} from {in_one_line(cause)}"


def _cause_in_app(error: BaseException) -> BaseException | None:
    """Return the innermost ``__cause__`` whose traceback has a line of the app, or None."""
    innermost = None
    for outer, cause in pairwise(causes(error)):
        # A ``__context__`` does not count: the test may send the request in an ``except`` block.
        if outer.__cause__ is not cause:
            break
        if blame(cause) is not None:
            innermost = cause
    return innermost


def in_one_line(error: BaseException) -> str:
    """Return an exception in one line, with the app's line."""
    text = in_words(error).partition("\n")[0]
    line = blame(error)
    return text if line is None else f"{text} ({line.short})"


def _is_http(error: BaseException) -> bool:
    """Return whether an exception sets the status of the answer, like ``HTTPException``."""
    return isinstance(getattr(error, "status_code", None), int)


def in_words(error: BaseException) -> str:
    """Return an error as the record of a request shows it."""
    name = type(error).__name__
    try:
        return redact(f"{name}: {error}".removesuffix(": "))
    except Exception:  # noqa: BLE001 - `str` of a user's class may fail, and the app must answer
        return name


def is_disconnect(error: BaseException | None) -> bool:
    """Return whether a framework raises this error to open, refuse or close a websocket."""
    return any(kind.__name__ in _OF_WEBSOCKETS for kind in type(error).__mro__)


_OF_WEBSOCKETS = {"WebSocketDisconnect", "_Upgrade", "ConnectionUpgradeExceptionError"}
