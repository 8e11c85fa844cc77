"""The fixture ``scenario``."""

from __future__ import annotations

import difflib
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from pytest_arena._origin import user_line
from pytest_arena.errors import NotWritten, ScenarioError
from pytest_arena.scenarios._log import Block, Log
from pytest_arena.scenarios.evidence._document import StepFacts
from pytest_arena.scenarios.specs._index import Index
from pytest_arena.scenarios.specs._specification import (
    Kind,
    Problem,
    ScenarioSpec,
    Specification,
    canonical,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_arena.scenarios._recorder import EvidenceRecorder

_MOST_SCENARIOS = 3
_MIN_SIMILARITY = 0.4
"""The similarity that a proposed step needs."""
_WHY = "a step block must name a step of the scenario"


class Scenario:
    """The scenario that a test proves. Its blocks mark the steps of the test.

    The fixture ``scenario`` returns this object. Blocks are optional. If a test has a block, each
    When and each Then needs a block. The report shows what the test seeded, requested and asserted
    in each step. Blocks are plain ``with`` blocks, also in async tests. Without ``arena_specs``
    they have no effect.

    Example::

        @pytest.mark.scenario("Test can start a pre-existing battle")
        async def test_start(client_as, db_session, scenario):
            with scenario.given("a battle exists with status PENDING"):
                db_session.add(Battle(status="PENDING"))
            with scenario.when("I POST to /battles/{battle_id}/start"):
                response = await (await client_as("staff")).post("/battles/1/start")
            with scenario.then("the battle status should change to ACTIVE"):
                assert response.json()["status"] == "ACTIVE"
    """

    __module__ = "pytest_arena"

    # Any: the type of the recorder is not public.
    def __init__(self, recorder: Any) -> None:
        self._recorder: EvidenceRecorder | None = recorder

    def given(self, text: str) -> AbstractContextManager[None]:
        """Return the block of a Given step, or of an And after one.

        Args:
            text: the step's text, without its keyword. A step of an Outline may have its
                placeholders, or the values of a row.

        Raises:
            ScenarioError: the test names no scenario, the scenario has no such step, or the step
                precedes a step whose block has begun.
        """
        __tracebackhide__ = True
        return self._block("given", text)

    def when(self, text: str) -> AbstractContextManager[None]:
        """Return the block of a When step, or of an And after one. See ``given``."""
        __tracebackhide__ = True
        return self._block("when", text)

    def then(self, text: str) -> AbstractContextManager[None]:
        """Return the block of a Then step, or of an And after one. See ``given``."""
        __tracebackhide__ = True
        return self._block("then", text)

    def todo(self, text: str = "") -> NoReturn:
        """Fail a test that is not written yet. The status of its scenario is STUB.

        Raises:
            NotWritten: always.
        """
        __tracebackhide__ = True
        log = self._recorder.log if self._recorder else None
        what = "this test is not written yet"
        if text:
            what += f": {text}"
        steps = "the steps"
        if log and log.scenarios:
            steps += f" of {_places_of(log.scenarios)}"
        raise NotWritten(
            what,
            why="a test proves a scenario only if it seeds, requests and asserts",
            cause=str(user_line() or "scenario.todo()"),
            fix=f"write {steps}, then delete scenario.todo()",
        )

    @contextmanager
    def _block(self, kind: Kind, text: str) -> Iterator[None]:
        __tracebackhide__ = True
        recorder = self._recorder
        if recorder is None or recorder.specification is None:
            yield
            return
        specification = recorder.specification
        log = recorder.log
        if log is None or not log.scenarios:
            raise _unnamed(kind, text, specification)
        steps = _Steps(log, specification.problems)
        block = Block(kind, steps.places_of(kind, text))
        log.blocks.append(block)
        written_before = recorder.written_by_test()
        assertions_before = log.assertions
        requests_before = len(log.requests)
        try:
            yield
        finally:
            block.close()
            written = recorder.written_by_test() - written_before
            requests = range(requests_before, len(log.requests))
            for key, place in block.places:
                log.steps.append(
                    StepFacts(
                        scenario=key,
                        step=place,
                        wrote=max(written, 0),
                        requests=tuple(requests),
                        assertions=log.assertions - assertions_before,
                    )
                )


@dataclass(slots=True)
class _Steps:
    """Finds the steps of a test's scenarios by the texts of its blocks."""

    log: Log
    problems: Sequence[Problem]
    """The problems of the specification."""

    def places_of(
        self,
        kind: Kind,
        text: str,
    ) -> tuple[tuple[str, int], ...]:
        """Return the number of the step that a block names, in each scenario that has the step.

        Raises:
            ScenarioError: no scenario has the step, or it precedes the last step in each scenario.
        """
        __tracebackhide__ = True
        next_places = []
        order_error = None
        for scenario in self.log.scenarios:
            places = _places(scenario, kind, canonical(text))
            if not places:
                continue
            place = self._next(scenario.key, places)
            if place is not None:
                next_places.append((scenario.key, place))
            elif order_error is None:
                order_error = self._out_of_order(text, scenario, places)
        if next_places:
            return tuple(next_places)
        raise order_error or self._unknown(kind, text)

    def _next(self, key: str, places: list[int]) -> int | None:
        """Return the first place after the last block's step, or that step again in a loop."""
        last = max(self._done(key), default=-1)
        for place in places:
            if place > last:
                return place
        if last in places:
            return last
        return None

    def _done(self, key: str) -> list[int]:
        """Return the places of the steps that have a block."""
        return [
            place
            for block in self.log.blocks
            for scenario, place in block.places
            if scenario == key
        ]

    # Errors.

    def _unknown(self, kind: Kind, text: str) -> ScenarioError:
        known = {}
        for scenario in self.log.scenarios:
            for step in scenario.steps:
                known[canonical(step.text)] = (scenario, step)
        wanted = canonical(text)
        near = difflib.get_close_matches(wanted, known, n=1, cutoff=_MIN_SIMILARITY)
        place = ""
        if near:
            scenario, step = known[near[0]]
            place = f"{scenario.spec}:{step.line}"
        problem = self._misread(text, place)
        if problem:
            fix = f"correct {problem.place}"
            if problem.hint:
                fix = f"{problem.place}: {problem.hint}"
            why = "the specification has an error, which may hide the step"
            return _no_step(
                kind,
                text,
                why,
                fix,
                f"\n{problem.place}  {problem.what}",
            )
        if not near:
            why = f"{_WHY}. No step is like it"
            return _no_step(
                kind,
                text,
                why,
                f"see {_places_of(self.log.scenarios)}",
            )
        what = f"The nearest step is {step}"
        if near[0] == wanted:
            what = f"This is a {step.kind.title()} step"
        fix = f"with scenario.{step.kind}({step.text!r}):"
        return _no_step(
            kind,
            text,
            f"{_WHY}. {what} ({place})",
            fix,
        )

    def _misread(self, text: str, place: str) -> Problem | None:
        """Return a problem of the specification that may have hidden the step."""
        keys = {scenario.key for scenario in self.log.scenarios}
        for problem in self.problems:
            if problem.scenario not in keys:
                continue
            if problem.is_error or text in problem.what or problem.place == place:
                return problem
        return None

    def _out_of_order(
        self,
        text: str,
        scenario: ScenarioSpec,
        places: list[int],
    ) -> ScenarioError:
        step = scenario.steps[places[-1]]
        last = scenario.steps[max(self._done(scenario.key))]
        lines = [
            str(user_line() or "a step block"),
            f"{scenario.spec}:{step.line}  {step}",
            f"{scenario.spec}:{last.line}  {last}",
        ]
        return ScenarioError(
            f"the test does {text!r} after {last.text!r}, but the scenario has it before",
            why="a test must do the steps in the order of the scenario",
            cause="\n".join(lines),
            fix="do the steps in the order of the specification, or change the specification",
        )


def _places(
    scenario: ScenarioSpec,
    kind: Kind,
    text: str,
) -> list[int]:
    """Return the places of a step's text. The text may have placeholders, or a row's values."""
    variants = [scenario.steps, *(row.steps for row in scenario.rows)]
    places = {
        place
        for steps in variants
        for place, step in enumerate(steps)
        if step.kind == kind and canonical(step.text) == text
    }
    return sorted(places)


def _places_of(scenarios: Sequence[ScenarioSpec]) -> str:
    return ", ".join(scenario.place for scenario in scenarios)


def _unnamed(
    kind: Kind,
    text: str,
    specification: Specification,
) -> ScenarioError:
    """Return the error of a test that names no scenario. Propose the scenarios with this step."""
    likely = [
        scenario
        for scenario in specification.scenarios
        if _places(scenario, kind, canonical(text))
    ]
    lines = [str(user_line() or "a step block")]
    shown = likely[:_MOST_SCENARIOS]
    lines += [f"{scenario.place}  {scenario.name}" for scenario in shown]
    index = Index(specification)
    markers = [index.marker(scenario) for scenario in likely]
    return ScenarioError(
        "the test has a block for a step, but names no scenario",
        why="the block would have no effect, and the scenario would be unproven",
        cause="\n".join(lines),
        fix="\n".join(markers)
        or "mark the test with its scenario (arena scenarios list), or remove the blocks",
    )


def _no_step(
    kind: Kind,
    text: str,
    why: str,
    fix: str,
    cause: str = "",
) -> ScenarioError:
    return ScenarioError(
        f"no {kind.title()} step of the scenario reads {text!r}",
        why=why,
        cause=f"{user_line() or 'a step block'}{cause}",
        fix=fix,
    )
