"""What one try of one test did: facts, before anybody judges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Asserted", "Facts", "Mapping", "Outcome", "Requested", "Sabotage", "StepFacts", "Try"]

Outcome = Literal["passed", "failed", "skipped", "xfailed", "xpassed", "unfinished"]
"""Of a whole try: it has passed if set-up, call and tear-down have. A process that died left it
unfinished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested:
    """One request that reached the app under test, by whichever client."""

    method: str
    path: str
    route: str
    """The template, ``/battles/{battle_id}/start``; empty where the framework does not say."""
    status: int | None
    role: str = ""
    changed: tuple[tuple[str, int], ...] | None = ()
    """Rows that it changed, by table, sorted; None where it is not known."""
    read: tuple[str, ...] | None = ()
    """Tables that the test had seeded and the app read meanwhile; None where it is not known."""
    observed: bool | None = None
    """Whether the test looked at the answer; None where it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asserted:
    """One assertion that passed in the test's call."""

    place: str
    """``tests/test_x.py:31``, from the root folder."""
    text: str
    """As it stands in the code, shortened."""
    after: int
    """How many requests had been answered by then; a websocket is once it was accepted."""
    is_constant: bool = False
    """Whether it could not have failed: ``assert True``, ``assert x == x``."""
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFacts:
    """What happened in one step block of the test."""

    scenario: str
    """The scenario's key."""
    step: int
    """Its place among the scenario's steps."""
    wrote: int
    """Rows that the test side wrote, or has pending, and clients that it logged in."""
    requests: tuple[int, ...]
    """Places in ``Facts.requests``."""
    assertions: int
    """That passed, constant ones left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the instruments saw of one try."""

    seeded: tuple[tuple[str, int], ...] | None = ()
    """Rows by table, sorted, that the test, its fixtures and the wider fixtures it uses wrote
    before its first request. None: could not be read."""
    requests: tuple[Requested, ...] = ()
    first: int = 0
    """Place in ``requests`` of the first that is no preparation; those of fixtures and of Given
    blocks are, where others follow. What was written before it counts as seeded."""
    asserted: tuple[Asserted, ...] = ()
    """Those after the last request first; at most 20 places."""
    steps: tuple[StepFacts, ...] = ()
    seen: tuple[str, ...] = ()
    """Of the literals of its scenarios' steps those that occurred: in rows seeded, requests,
    assertions."""
    off: tuple[tuple[str, str], ...] = ()
    """Instruments that did not work, and why: ``("asserted", "python -O")``. Names: seeded,
    requested, asserted, changed, read, observed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sabotage:
    """What became of a test that was run again with something broken."""

    kind: Literal["seed", "commit", "empty", "500"]
    result: Literal["noticed", "survived", "not applicable", "unknown"]
    why: str = ""
    """Of an unknown or inapplicable one; of one that was noticed the failure's first line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One try of one test, in this run. Reruns are further tries, and so are other processes'."""

    test: str
    """The node id."""
    outcome: Outcome
    reason: str = ""
    """Of a skip, an xfail; the first line of a failure, with its phase: ``set-up: …``."""
    place: str = ""
    """Where it failed, else where the test begins: ``tests/test_x.py:31``."""
    facts: Facts | None = None
    is_stub: bool = False
    """Whether it failed since it is not written yet."""
    is_rerun: bool = False
    """Whether a try before it, in the same process, had failed."""
    sabotages: tuple[Sabotage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """A test says that it proves a scenario."""

    test: str
    """The node id."""
    place: str
    """Where the test begins: ``tests/test_x.py:12``."""
    scenario: str
    """The scenario's key."""
    row: tuple[tuple[str, str], ...] = ()
    """Of an Outline: the row that it proves, as ``Row.values``; empty for the whole of it."""
    rev: str = ""
    """The reviewed version that its marker names."""
    is_deselected: bool = False
    source: str = ""
    """The hash of the test's own code, for the lock file."""
