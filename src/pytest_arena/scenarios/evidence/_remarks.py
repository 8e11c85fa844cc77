"""What is odd about what a test did, though it may well prove its scenario?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_arena.scenarios.specs import literals, paths

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena.scenarios.evidence._facts import Facts, Requested
    from pytest_arena.scenarios.specs import Scenario

__all__ = ["remarks"]

_WRITES = {"POST", "PUT", "PATCH", "DELETE"}
_PLACEHOLDER = re.compile(r"\{[^{}/]*\}|<[^<>/]*>")


def remarks(scenario: Scenario, facts: Facts) -> tuple[str, ...]:
    """Return a sentence for each: what the gate does not ask for, and what a reader wants to know.

    What could not be seen, since an instrument was off, is not remarked on.
    """
    off = dict(facts.off)
    looks = (
        ("requested", _other_routes(scenario, facts)),
        ("read", _unread_seed(facts)),
        ("observed", _unobserved(facts)),
        ("changed", _without_effect(facts)),
        ("", _unseen(scenario, facts)),
    )
    return tuple(dict.fromkeys(said for name, look in looks if name not in off for said in look))


def _other_routes(scenario: Scenario, facts: Facts) -> Iterator[str]:
    for verb, path in paths(scenario):
        if facts.requests and not any(_is_hit(verb, path, one) for one in facts.requests):
            yield f"never requested: {verb} {path}".replace("  ", " ")


def _is_hit(verb: str, path: str, request: Requested) -> bool:
    """A step names a route's template or a real path, with or without what comes before both."""
    if verb and verb.upper() != request.method.upper():
        return False
    named = path.split("?", maxsplit=1)[0].rstrip("/")
    known = (request.route.rstrip("/"), request.path.split("?")[0].rstrip("/"))
    is_route = any(_blank(one).endswith(_blank(named)) for one in known)
    return is_route or bool(_pattern(named).search(known[1]))


def _blank(path: str) -> str:
    return _PLACEHOLDER.sub("{}", path)


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile("[^/]+".join(map(re.escape, _PLACEHOLDER.split(path))) + "$")


def _asked(facts: Facts) -> tuple[Requested, ...]:
    """The requests but for those of fixtures and Given blocks, which prepare."""
    return facts.requests[facts.first :]


def _unread_seed(facts: Facts) -> Iterator[str]:
    reads = [one.read for one in _asked(facts)]
    if facts.seeded and reads and not any(read is None or read for read in reads):
        yield f"no request read what was seeded: {', '.join(table for table, _ in facts.seeded)}"


def _unobserved(facts: Facts) -> Iterator[str]:
    if facts.requests and all(one.observed is False for one in _asked(facts)):
        yield "no answer was looked at"


def _without_effect(facts: Facts) -> Iterator[str]:
    for one in _asked(facts):
        is_done = one.status is not None and 200 <= one.status < 400  # noqa: PLR2004 - 2xx and 3xx
        is_idle = one.changed is not None and not sum(count for _, count in one.changed)
        if one.method in _WRITES and is_done and is_idle:
            yield f"{one.method} {one.route or one.path} changed no row, and answered {one.status}"


def _unseen(scenario: Scenario, facts: Facts) -> Iterator[str]:
    wanted = dict.fromkeys(literals(scenario))
    unseen = [literal for literal in wanted if literal not in facts.seen]
    if unseen:
        seen = f"{len(wanted) - len(unseen)} of {len(wanted)} values of the steps were seen"
        yield f"{seen}, never: {', '.join(unseen)}"
