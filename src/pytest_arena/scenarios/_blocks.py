"""Which step of its scenario does a test do now?"""

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

    from pytest_arena.scenarios._instruments import Instruments

_SHOWN = 3
_LIKE = 0.4
"""How like two texts are if one may be meant by the other."""


class Scenario:
    """The scenario that a test proves: says which of its steps is done now.

    It is made by the plugin; ask for the fixture ``scenario``. Blocks are optional. With them the
    report tells of each step what was seeded, requested and asserted in it, and each step has to
    have one. They are plain ``with`` blocks, in async tests as well. Where no specification is
    configured they do nothing.

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

    def __init__(
        self, instruments: Any
    ) -> None:  # Any: what is inside is no type of the reader's
        self._instruments: Instruments | None = instruments

    def given(self, text: str) -> AbstractContextManager[None]:
        """Return the block of a Given step, or of an And after one.

        Args:
            text: the step's text, without its keyword; of an Outline's with the placeholders in
                it, or with a row's values.

        Raises:
            ScenarioError: there is no such step, or it comes before one whose block has begun; or
                the test names no scenario.
        """
        __tracebackhide__ = True
        return self._block("given", text)

    def when(self, text: str) -> AbstractContextManager[None]:
        """Return the block of a When step, or of an And after one. As ``given``."""
        __tracebackhide__ = True
        return self._block("when", text)

    def then(self, text: str) -> AbstractContextManager[None]:
        """Return the block of a Then step, or of an And after one. As ``given``."""
        __tracebackhide__ = True
        return self._block("then", text)

    def todo(self, text: str = "") -> NoReturn:
        """Say that the test is not written yet: it fails, and its scenario is a STUB.

        Raises:
            NotWritten: always.
        """
        __tracebackhide__ = True
        log = self._instruments.log if self._instruments else None
        places = ", ".join(one.place for one in log.scenarios) if log else ""
        raise NotWritten(
            f"this test is not written yet{f': {text}' * bool(text)}",
            why="a scenario is proven by a test that seeds, requests and asserts",
            cause=str(user_line() or "scenario.todo()"),
            fix=f"write the steps{f' of {places}' * bool(places)}, then delete scenario.todo()",
        )

    @contextmanager
    def _block(self, kind: Kind, text: str) -> Iterator[None]:
        __tracebackhide__ = True
        specification = self._instruments.specification if self._instruments else None
        if self._instruments is None or specification is None:
            yield
            return
        log, written = self._instruments.log, self._instruments.written_by_test
        if log is None or not log.scenarios:
            raise _unnamed(kind, text, specification)
        block = Block(kind, _Steps(log, specification.problems).found(kind, text))
        log.blocks.append(block)
        wrote, assertions, requests = written(), log.assertions, len(log.requests)
        try:
            yield
        finally:
            block.close()
            done = {
                "wrote": max(written() - wrote, 0),
                "assertions": log.assertions - assertions,
            }
            during = tuple(range(requests, len(log.requests)))
            log.steps += [
                StepFacts(scenario=key, step=place, requests=during, **done)
                for key, place in block.places
            ]


@dataclass(slots=True)
class _Steps:
    """The steps of a test's scenarios, and how far it is."""

    log: Log
    misread: Sequence[Problem]

    def found(self, kind: Kind, text: str) -> tuple[tuple[str, int], ...]:
        """Return the places of a step, in each scenario that has it.

        Raises:
            ScenarioError: there is none, or all that there are come before the last one.
        """
        __tracebackhide__ = True
        fitting = {
            one.key: places
            for one in self.log.scenarios
            if (places := _places(one, kind, canonical(text)))
        }
        if not fitting:
            raise self._unknown(kind, text)
        found = [(key, self._next(key, places)) for key, places in fitting.items()]
        if all(place is None for _, place in found):
            raise self._out_of_order(text, *next(iter(fitting.items())))
        return tuple((key, place) for key, place in found if place is not None)

    def _next(self, key: str, places: list[int]) -> int | None:
        """Of steps with one text that which has not been done; else the last again, in a loop."""
        done = [
            place
            for one in self.log.blocks
            for name, place in one.places
            if name == key
        ]
        last = max(done, default=-1)
        return next(
            (one for one in places if one > last), last if last in places else None
        )

    def _unknown(self, kind: Kind, text: str) -> ScenarioError:
        keys = [one.key for one in self.log.scenarios]
        problems = [one for one in self.misread if one.scenario in keys]
        known = {
            canonical(step.text): (one, step)
            for one in self.log.scenarios
            for step in one.steps
        }
        near = difflib.get_close_matches(canonical(text), known, n=1, cutoff=_LIKE)
        places = [f"{known[text][0].spec}:{known[text][1].line}" for text in near]
        for wrong in problems:
            if wrong.is_error or text in wrong.what or wrong.place in places:
                # Whatever is the nearest: the step may well be there, and the block be right.
                why = (
                    "something is wrong in the specification, where the step may stand"
                )
                fix = (
                    f"{wrong.place}: {wrong.hint}"
                    if wrong.hint
                    else f"mend {wrong.place}"
                )
                return _unknown(text, kind, why, fix, f"\n{wrong.place}  {wrong.what}")
        if not near:
            see = ", ".join(one.place for one in self.log.scenarios)
            return _unknown(
                text, kind, f"{_NAMES}; none of them is like it", f"see {see}"
            )
        step = known[near[0]][1]
        is_it = near[0] == canonical(text)
        what = (
            f"it is a {step.kind.title()} step" if is_it else f"the nearest is {step}"
        )
        fix = f"with scenario.{step.kind}({step.text!r}):"
        return _unknown(text, kind, f"{_NAMES}; {what} ({places[0]})", fix)

    def _out_of_order(self, text: str, key: str, places: list[int]) -> ScenarioError:
        scenario = next(one for one in self.log.scenarios if one.key == key)
        done = [
            place
            for one in self.log.blocks
            for name, place in one.places
            if name == key
        ]
        step, last = scenario.steps[places[-1]], scenario.steps[max(done)]
        return ScenarioError(
            f"the step {text!r} comes after {last.text!r}, and stands before it in the scenario",
            why="a scenario is proven in the order of its steps",
            cause=f"{user_line() or 'a step block'}\n"
            f"{scenario.spec}:{step.line}  {step}\n{scenario.spec}:{last.line}  {last}",
            fix="do the steps in the order of the specification, or change that",
        )


def _places(scenario: ScenarioSpec, kind: Kind, text: str) -> list[int]:
    """Of an Outline the texts of the rows are as good as the template's."""
    outlines = [scenario.steps, *(row.steps for row in scenario.rows)]
    return sorted(
        {
            place
            for steps in outlines
            for place, step in enumerate(steps)
            if step.kind == kind and canonical(step.text) == text
        }
    )


def _unnamed(kind: Kind, text: str, specification: Specification) -> ScenarioError:
    """The scenario that the test must mean has this step."""
    likely = [
        one for one in specification.scenarios if _places(one, kind, canonical(text))
    ]
    lines = [str(user_line() or "a step block")]
    return ScenarioError(
        "no scenario is named by this test, which has a block for a step",
        why="nobody would look at what is done in it, and the scenario would be unproven",
        cause="\n".join(
            [*lines, *(f"{one.place}  {one.name}" for one in likely[:_SHOWN])]
        ),
        fix="\n".join(map(Index(specification).marker, likely))
        or "a marker for its scenario (arena scenarios list), or no blocks",
    )


_NAMES = "a step block names the step that it does"


def _unknown(
    text: str, kind: str, why: str, fix: str, cause: str = ""
) -> ScenarioError:
    what = f"no {kind.title()} step of the scenario reads {text!r}"
    return ScenarioError(
        what, why=why, cause=f"{user_line() or 'a step block'}{cause}", fix=fix
    )
