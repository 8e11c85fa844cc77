"""The fixture ``scenario``."""

from __future__ import annotations

import difflib
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from pytest_arena._origin import user_line
from pytest_arena.errors import NotWritten, ScenarioError
from pytest_arena.scenarios._specs import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena.scenarios._records import Record, Recorder
    from pytest_arena.scenarios._specs import Kind, ScenarioSpec


class Scenario:
    """The scenario that a test proves. Its blocks mark the steps of the test.

    The fixture ``scenario`` returns this object. Blocks are optional. If a test has a block for a
    Then, each Then needs a block with an assertion. The page shows what the test requested and
    asserted in each step. Blocks are plain ``with`` blocks, also in async tests. Without
    ``arena_specs`` they have no effect.

    Example::

        @pytest.mark.scenario("Test can start a pre-existing battle")
        async def test_start(client_as, db_session, scenario):
            with scenario.given("a battle exists with status PENDING"):
                db_session.add(Battle(status="PENDING"))
            with scenario.when("I POST to /battles/{battle_id}/start"):
                response = await client_as("staff").post("/battles/1/start")
            with scenario.then("the battle status should change to ACTIVE"):
                assert response.json()["status"] == "ACTIVE"
    """

    __module__ = "pytest_arena"

    # Any: the type of the recorder is not public.
    def __init__(self, recorder: Any) -> None:
        self._recorder: Recorder | None = recorder

    def given(self, text: str) -> AbstractContextManager[None]:
        """Return the block of a Given step, or of an And after one.

        Args:
            text: the step's text, without its keyword. A step of an outline may have its
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
        """Fail a test that is not written yet.

        Raises:
            NotWritten: always.
        """
        __tracebackhide__ = True
        record = self._recorder.record if self._recorder else None
        places = [each.place for each in record.scenarios] if record else []
        raise NotWritten(
            "this test is not written yet" + (f": {text}" if text else ""),
            why="a test proves a scenario only if it requests and asserts",
            cause=str(user_line() or "scenario.todo()"),
            fix=f"write the steps {' '.join(places)}, then delete scenario.todo()",
        )

    @contextmanager
    def _block(self, kind: Kind, text: str) -> Iterator[None]:
        __tracebackhide__ = True
        recorder = self._recorder
        if recorder is None or recorder.is_repeating:
            yield
            return
        record = recorder.record
        if record is None:
            raise ScenarioError(
                "the test has a block for a step, but names no scenario",
                why="the block would have no effect, and the scenario would be unproven",
                cause=str(user_line() or "a step block"),
                fix='@pytest.mark.scenario("the name of the scenario")',
            )
        steps = _steps_of(record, kind, text)
        requests = len(recorder.requests())
        assertions = set(record.assertions)
        try:
            yield
        finally:
            done = {
                "requests": [*range(requests, len(recorder.requests()))],
                "assertions": [
                    record.assertions[each]["place"]
                    for each in record.assertions
                    if each not in assertions
                ],
            }
            for key, number in steps.items():
                step = record.steps.setdefault(key, {}).setdefault(number, {})
                for name, values in done.items():
                    step[name] = step.get(name, []) + values


def _steps_of(record: Record, kind: Kind, text: str) -> dict[str, int]:
    """Return the number of the step of this text, in each scenario of the test that has it.

    Raises:
        ScenarioError: no scenario has the step, or a later step has had its block.
    """
    __tracebackhide__ = True
    found: dict[str, int] = {}
    for scenario in record.scenarios:
        last = record.last_step.get(scenario.key, -1)
        places = _places(scenario, kind, text)
        number = next((place for place in places if place > last), None)
        if number is None and last in places:
            number = last  # a block in a loop is the same step again
        if number is not None:
            found[scenario.key] = number
    if not found:
        raise _unknown(record, kind, text)
    record.last_step |= found
    return found


def _places(scenario: ScenarioSpec, kind: Kind, text: str) -> list[int]:
    wanted = canonical(text)
    places = []
    for number in scenario.kinds(kind):
        step = scenario.steps[number]
        if wanted in {canonical(step.text), canonical(step.template)}:
            places.append(number)
    return places


def _unknown(record: Record, kind: Kind, text: str) -> ScenarioError:
    steps = {
        step.template: (scenario, step)
        for scenario in record.scenarios
        for step in scenario.steps
    }
    near = difflib.get_close_matches(text, steps, n=1, cutoff=0.4)
    why = "a block must name a step of the scenario, and the blocks have the order of the steps"
    fix = "\n".join(scenario.place for scenario in record.scenarios)
    if near:
        scenario, step = steps[near[0]]
        why += f". The nearest step is {step} ({scenario.spec}:{step.line})"
        fix = f"with scenario.{step.kind}({near[0]!r}):"
    return ScenarioError(
        f"no {kind.title()} step of the scenario, after its earlier blocks, reads {text!r}",
        why=why,
        cause=str(user_line() or "a step block"),
        fix=fix,
    )
