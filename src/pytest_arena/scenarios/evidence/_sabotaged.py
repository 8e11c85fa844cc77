"""Did a test notice what was broken under it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena.scenarios.evidence._document import Status
from pytest_arena.scenarios.evidence._flags import Flag
from pytest_arena.scenarios.evidence._lacking import NO_REQUEST, NO_SEED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_arena.scenarios.evidence._facts import Sabotage

__all__ = ["EXCUSES", "sabotaged"]

_BROKEN = {
    "seed": "its seed removed",
    "commit": "the app's commit rolled back",
    "empty": "the answer emptied",
    "500": "the answer turned into a 500",
}

EXCUSES = (NO_SEED, NO_REQUEST, *(f"@survives-{kind}" for kind in _BROKEN))
"""The tags by which a scenario is not asked for something."""


def sabotaged(sabotages: Iterable[Sabotage], *, tags: frozenset[str], place: str) -> Iterator[Flag]:
    """Yield HOLLOW for each kind that the test survived, UNKNOWN for each that says nothing.

    A tag on the scenario excuses one kind: ``@survives-seed`` (and ``@no-seed``),
    ``@survives-commit``, ``@survives-empty``, ``@survives-500``.
    """
    for one in sabotages:
        if _is_excused(one, tags):
            continue
        if one.result == "survived":
            yield Flag(Status.HOLLOW, f"stays green with {_BROKEN[one.kind]}", place)
        if one.result == "unknown":
            what = f"whether it notices {_BROKEN[one.kind]} is not known"
            yield Flag(Status.UNKNOWN, ": ".join(filter(None, [what, one.why])), place)


def _is_excused(one: Sabotage, tags: frozenset[str]) -> bool:
    return f"@survives-{one.kind}" in tags or (one.kind == "seed" and NO_SEED in tags)
