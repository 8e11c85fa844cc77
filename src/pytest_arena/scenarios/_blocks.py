"""The fixture ``scenario``."""

from __future__ import annotations

import difflib
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from pytest_arena._origin import shown_line
from pytest_arena.errors import NotWritten, ScenarioError
from pytest_arena.scenarios._specs import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena.scenarios._records import Record, Recorder
    from pytest_arena.scenarios._specs import Kind


class Scenario:
    """The scenario that a test proves. Its blocks mark the steps of the test.

    The fixture ``scenario`` returns this object. Blocks are optional. If a test has a block for a
    Then, each Then needs a block with an assertion. Blocks are plain ``with`` blocks, also in async
    tests. Without ``arena_specs`` they have no effect.

    In a run with a wrong answer, pytest-arena notes the error of a block, and the test goes on
    after the block. The scenario is proven if an assertion has failed in a block of each Then.

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
        self._record = self._recorder.record if self._recorder else None

    def given(self, text: str) -> AbstractContextManager[None]:
        """Return the block of a Given step, or of an And after one.

        Args:
            text: the step's text, without its keyword. A step of an outline may have its
                placeholders, or the values of a row.

        Raises:
            ScenarioError: the test names no scenario, or the scenario has no such step.
        """
        return self._block("given", text)

    def when(self, text: str) -> AbstractContextManager[None]:
        """Return the block of a When step, or of an And after one. See ``given``."""
        return self._block("when", text)

    def then(self, text: str) -> AbstractContextManager[None]:
        """Return the block of a Then step, or of an And after one. See ``given``."""
        return self._block("then", text)

    def todo(self, text: str = "") -> NoReturn:
        """Fail a test that is not written yet.

        Raises:
            NotWritten: always.
        """
        record = self._record
        places = [each.place for each in record.scenarios] if record else []
        raise NotWritten(
            "this test is not written yet" + (f": {text}" if text else ""),
            why="a test proves a scenario only if it requests and asserts",
            cause=shown_line("scenario.todo()"),
            fix=f"write the steps {' '.join(places)}, then delete scenario.todo()",
        )

    @contextmanager
    def _block(self, kind: Kind, text: str) -> Iterator[None]:
        recorder = self._recorder
        if recorder is None:
            yield
            return
        record = self._record
        if record is None:
            raise ScenarioError(
                "the test has a block for a step, but names no scenario",
                why="the block would have no effect, and the scenario would be unproven",
                cause=shown_line("a step block"),
                fix='@pytest.mark.scenario("the name of the scenario")',
            )
        steps = _steps_of(record, kind, text)
        record.step = record.steps[steps[0]]["text"]
        if kind == "when" and record.first is None:
            record.first = len(record.requests())
        assertions = set(record.assertions)
        failures = len(recorder.failures)
        try:
            yield
        except BaseException as error:
            if not recorder.goes_on_after(error):
                raise
        finally:
            record.step = ""
            passed = len(record.assertions.keys() - assertions)
            for step in steps:
                record.steps[step]["assertions"] += passed
            for failure in recorder.failures[failures:]:
                failure.steps.update(steps)


def _steps_of(record: Record, kind: Kind, text: str) -> list[tuple[str, int]]:
    """Record the steps with this text. Return the scenario's key and the number of each."""
    wanted = canonical(text)
    found = []
    blocks = []
    for scenario in record.scenarios:
        for number, step in enumerate(scenario.steps):
            texts = {canonical(step.text), canonical(step.template)}
            if step.kind == kind and wanted in texts:
                found.append((scenario.key, number))
                facts = {
                    "scenario": scenario.key,
                    "step": number,
                    "kind": kind,
                    "text": str(step),
                    "assertions": 0,
                }
                record.steps.setdefault(found[-1], facts)
            blocks.append(f"with scenario.{step.kind}({step.template!r}):")
    if not found:
        raise ScenarioError(
            f"no {kind.title()} step of the scenario reads {text!r}",
            why="the block would prove no step",
            cause=shown_line("a step block"),
            fix="\n".join(difflib.get_close_matches(f"{kind}({text!r})", blocks, 3, 0)),
        )
    return found
