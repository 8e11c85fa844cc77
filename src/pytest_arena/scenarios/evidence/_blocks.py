"""What did a test do in the block of each step?"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from pytest_arena.scenarios.evidence._document import JudgedStep, Status
from pytest_arena.scenarios.evidence._flags import rank
from pytest_arena.scenarios.evidence._lacking import NO_REQUEST, asks_for_seed, why_unknown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from pytest_arena.scenarios.evidence._facts import Facts, StepFacts
    from pytest_arena.scenarios.specs import Kind, Scenario, Step

__all__ = ["best_steps", "judged_steps"]

_NO_BLOCK = JudgedStep(status=None)
_NEEDED: dict[Kind, tuple[str, str]] = {
    "given": ("seeded", "nothing was written"),
    "when": ("requested", "no request"),
    "then": ("asserted", "no assertion"),
}


def judged_steps(
    scenario: Scenario, facts: Facts, evidence: Collection[str], *, tags: frozenset[str]
) -> tuple[JudgedStep, ...]:
    """Return what the blocks of one test show of each step; of a test without blocks nothing.

    A Then needs an assertion of its own. The Whens together need one request, the Givens together
    an effect, or rows that fixtures seeded. Once there is one block, each When and Then needs one;
    a Given needs none, for a fixture may stand for it: whether rows were seeded is asked of the
    test as a whole.
    """
    blocks = defaultdict[int, list["StepFacts"]](list)
    for block in facts.steps:
        if block.scenario == scenario.key:
            blocks[block.step].append(block)
    if not blocks:
        return (_NO_BLOCK,) * len(scenario.steps)
    idle = _idle(scenario, facts, blocks, tags)
    return tuple(
        _judged(step, facts, evidence, is_idle=place in idle) if place in blocks else _without(step)
        for place, step in enumerate(scenario.steps)
    )


def best_steps(many: Iterable[tuple[JudgedStep, ...]]) -> tuple[JudgedStep, ...]:
    """Return the best that is shown of each step, whatever the order."""
    return tuple(max(shown, key=_goodness) for shown in zip(*many, strict=True))


def _goodness(step: JudgedStep) -> tuple[int, str]:
    return (-1 if step.status is None else rank(step.status), step.reason)


def _idle(
    scenario: Scenario, facts: Facts, blocks: dict[int, list[StepFacts]], tags: frozenset[str]
) -> set[int]:
    """Return the steps in whose blocks nothing happened of what they are there for."""
    given, when, then = (
        {place: found for place, found in blocks.items() if scenario.steps[place].kind == kind}
        for kind in _NEEDED
    )
    idle = {place for place, found in then.items() if not any(one.assertions for one in found)}
    if NO_REQUEST not in tags and not any(one.requests for one in _all(when)):
        idle |= when.keys()
    is_seeded = facts.seeded or not asks_for_seed(scenario, tags)
    if not is_seeded and not any(one.wrote or one.requests for one in _all(given)):
        idle |= given.keys()
    return idle


def _all(blocks: dict[int, list[StepFacts]]) -> list[StepFacts]:
    return [one for found in blocks.values() for one in found]


def _judged(step: Step, facts: Facts, evidence: Collection[str], *, is_idle: bool) -> JudgedStep:
    instrument, what = _NEEDED[step.kind]
    if not is_idle or instrument not in evidence:
        return JudgedStep(status=Status.PROVEN)
    if why := why_unknown(facts, instrument):
        return JudgedStep(status=Status.UNKNOWN, reason=f'"{step}" is not known: {why}')
    return JudgedStep(status=Status.HOLLOW, reason=f'{what} in "{step}"')


def _without(step: Step) -> JudgedStep:
    if step.kind == "given" or step.is_background:
        return _NO_BLOCK
    return JudgedStep(status=Status.HOLLOW, reason=f'no block for "{step}"')
