"""What is lacking in what a test did, for it to prove its scenario?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena.scenarios.evidence._document import Status
from pytest_arena.scenarios.evidence._flags import Flag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_arena.scenarios.evidence._facts import Asserted, Facts, Requested
    from pytest_arena.scenarios.specs import Scenario

__all__ = ["NO_REQUEST", "NO_SEED", "after_the_last", "asks_for_seed", "lacking", "why_unknown"]

NO_SEED = "@no-seed"
"""On a scenario: what the database holds before any test satisfies its Given."""
NO_REQUEST = "@no-request"
"""On a scenario: it is not about a request, but a command, a batch, a file."""


def lacking(
    scenario: Scenario, facts: Facts, evidence: Sequence[str], *, tags: frozenset[str], place: str
) -> list[Flag]:
    """Return a flag for each piece of required evidence that is not there.

    HOLLOW where it was looked for; UNKNOWN where the instrument was off: then it may have been.
    """
    missing = {
        "seeded": asks_for_seed(scenario, tags) and not facts.seeded and _no_seed(facts),
        "requested": NO_REQUEST not in tags and not facts.requests and "no request reached the app",
        "asserted": _no_assertion(facts, tags),
    }
    return [_flag(facts, name, what, place) for name in evidence if (what := missing[name])]


def asks_for_seed(scenario: Scenario, tags: frozenset[str]) -> bool:
    """Whether a Given is there for which the test has to bring rows."""
    return NO_SEED not in tags and any(step.kind == "given" for step in scenario.steps)


def why_unknown(facts: Facts, name: str) -> str:
    """Return why an instrument saw nothing, empty if it worked."""
    unread = name == "seeded" and facts.seeded is None
    return dict(facts.off).get(name, "the rows could not be read" if unread else "")


def after_the_last(facts: Facts) -> list[Asserted]:
    """Return the assertions that could fail, and passed once the last request had ended."""
    return [one for one in _real(facts) if one.after >= len(facts.requests)]


def _flag(facts: Facts, name: str, what: str, place: str) -> Flag:
    if why := why_unknown(facts, name):
        return Flag(Status.UNKNOWN, f"whether it {_VERBS[name]} is not known: {why}", place)
    return Flag(Status.HOLLOW, what, place)


_VERBS = {"seeded": "seeded rows", "requested": "made a request", "asserted": "asserted anything"}


def _no_seed(facts: Facts) -> str:
    told = "no row was seeded" + " before its first request" * bool(facts.requests)
    first, more = facts.requests[facts.first : facts.first + 1], facts.requests[facts.first + 1 :]
    if more and any(one.changed for one in first):  # a test that seeds by the app's own requests
        told += f" (if {_named(first[0])} prepares: scenario.given(…), or a fixture)"
    return told


def _no_assertion(facts: Facts, tags: frozenset[str]) -> str:
    if _real(facts) if NO_REQUEST in tags else after_the_last(facts):
        return ""
    if not facts.requests:
        return "no assertion" + _constant(facts)
    early = max(_real(facts), key=lambda one: (one.after, one.place), default=None)
    told = f" (the last one, {early.place}, is before it)" if early else _constant(facts)
    return f"no assertion after {_named(facts.requests[-1])}{told}"


def _real(facts: Facts) -> list[Asserted]:
    return [one for one in facts.asserted if not one.is_constant]


def _constant(facts: Facts) -> str:
    first = min((one.place for one in facts.asserted), default="")
    return f" that could fail ({first} cannot)" if first else ""


def _named(request: Requested) -> str:
    return f"{request.method} {request.path}"
