"""What can be broken under a test, by what it did when nothing was?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena.scenarios._altered import BODILESS

if TYPE_CHECKING:
    from pytest_arena.scenarios._breaking import SabotageKind
    from pytest_arena.scenarios.evidence import Facts, Requested

__all__ = ["to_break"]

_SAFE = {"GET", "HEAD", "OPTIONS", "TRACE"}
_REFUSAL, _ERROR = 400, 500


def to_break(facts: Facts) -> dict[SabotageKind, int | str]:
    """Return of each kind the number of the request around which it is done, or why it is not.

    - ``seed``: the first request that is no preparation, where rows were written before it.
    - ``commit``: the last one that changed rows, those of the preparation left out.
    - ``empty``: the last one, where its answer may have a body. That of a refusal (4xx) says no
      more than its status does.
    - ``500``: the last one, where it has an answer.
    """
    if not facts.requests:
        return dict.fromkeys(("seed", "commit", "empty", "500"), "it makes no request")
    last = facts.requests[-1]
    number = len(facts.requests) - 1
    return {
        "seed": "it writes no row before its first request" if facts.seeded == () else facts.first,
        "commit": _last_change(facts),
        "empty": _why_not_emptied(last) or number,
        "500": _why_not_failed(last) or number,
    }


def _last_change(facts: Facts) -> int | str:
    requests = enumerate(facts.requests)
    changing = [at for at, one in requests if at >= facts.first and _may_have_changed(one)]
    return changing[-1] if changing else "none of its requests changes a row"


def _may_have_changed(request: Requested) -> bool:
    return request.method not in _SAFE if request.changed is None else bool(request.changed)


def _why_not_emptied(last: Requested) -> str:
    if last.status in BODILESS or last.method == "HEAD":
        return "its last answer has no body"
    if last.status is not None and _REFUSAL <= last.status < _ERROR:
        return f"its last answer is a refusal: {last.status}"
    return _why_not_failed(last)


def _why_not_failed(last: Requested) -> str:
    if last.method == "WEBSOCKET":
        return "its last request opens a websocket"
    if last.status is None:
        return "its last request has no answer"
    return f"its last answer is an error: {last.status}" if last.status >= _ERROR else ""
