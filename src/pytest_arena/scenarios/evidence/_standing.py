"""What holds for a scenario whatever its tests do?"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena.scenarios.evidence._document import Standing, Status
from pytest_arena.scenarios.evidence._lock import told_rows
from pytest_arena.scenarios.evidence._waivers import covering
from pytest_arena.scenarios.specs import Problem, step_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_arena.scenarios.evidence._facts import Mapping as TestMapping
    from pytest_arena.scenarios.evidence._lock import Locked
    from pytest_arena.scenarios.evidence._rules import Rules
    from pytest_arena.scenarios.specs import Scenario, Specification

__all__ = ["Agreed", "agreed", "malformed", "malformed_reason"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """The rules, at hand for each scenario of a specification."""

    rules: Rules
    problems: Mapping[str, Sequence[Problem]]
    known: Mapping[str, Status]
    known_lines: Mapping[str, int]

    def standing(self, scenario: Scenario, mappings: Sequence[TestMapping]) -> Standing:
        """Say what holds for one scenario, by its marks in the tests and what was agreed."""
        waiver = covering(scenario, self.rules.waivers)
        is_over = bool(waiver and waiver.is_over(self.rules.today))
        drifted, place = _drift(scenario, mappings, self.rules)
        return Standing(
            malformed=malformed_reason(scenario, self.problems),
            drifted=drifted,
            drifted_place=place,
            waived=str(waiver) if waiver and not is_over else "",
            expired=str(waiver) if waiver and is_over else "",
            known=self.known.get(scenario.key),
            known_place=self._known_place(scenario.key),
            warnings=tuple(_changed_tests(scenario, mappings, self.rules)),
        )

    def _known_place(self, key: str) -> str:
        line = self.known_lines.get(key)
        return f"{self.rules.baseline.place}:{line}" if line else ""


def agreed(specification: Specification, rules: Rules) -> Agreed:
    """Put the rules at hand."""
    return Agreed(
        rules=rules,
        problems=malformed(specification),
        known=dict(rules.baseline.entries),
        known_lines=dict(rules.baseline.lines),
    )


def malformed(specification: Specification) -> Mapping[str, Sequence[Problem]]:
    """Return the errors in a specification, by the key of the scenario that has them."""
    found = defaultdict[str, list[Problem]](list)
    for problem in specification.problems:
        if problem.is_error and problem.scenario:
            found[problem.scenario].append(problem)
    return found


def malformed_reason(scenario: Scenario, problems: Mapping[str, Sequence[Problem]]) -> str:
    """Say what is wrong with a scenario, empty if nothing is.

    Of two scenarios with one key each is told what stands at its own line.
    """
    among = problems.get(scenario.key, ())
    own = [one for one in among if (one.spec, one.line) == (scenario.spec, scenario.line)]
    return "; ".join(dict.fromkeys(_said(one, scenario) for one in own or among))


def _said(problem: Problem, scenario: Scenario) -> str:
    line = f"line {problem.line}: " * (problem.line not in {0, scenario.line})
    return f"{line}{problem.what}" + f" ({problem.hint})" * bool(problem.hint)


def _drift(scenario: Scenario, mappings: Sequence[TestMapping], rules: Rules) -> tuple[str, str]:
    revs = {scenario.rev, *(row.rev for row in scenario.rows)}
    for one in mappings:
        if one.rev and one.rev not in revs:
            now = next((r.rev for r in scenario.rows if r.values == one.row), scenario.rev)
            told = f'its steps are not those of rev="{one.rev}": read them, then rev="{now}"'
            return told, one.place
    locked = rules.lock.entries.get(scenario.key)
    told = _changes(locked, scenario) if locked else ""
    how = f": arena scenarios accept {scenario.key!r}"
    return (told + how if told else ""), ""


def _changes(locked: Locked, scenario: Scenario) -> str:
    if _has_changed(locked, scenario):
        change = _first_change(locked.steps, step_lines(scenario))
        return f"its steps were accepted as others{change}"
    rows = told_rows(scenario)
    # A row more is one that no test proves yet; in the place of another it is an edited one.
    if set(locked.rows) - set(rows) and set(rows) - set(locked.rows):
        return f"its rows were accepted as others{_first_change(locked.rows, rows)}"
    return ""


def _has_changed(locked: Locked, scenario: Scenario) -> bool:
    """Another version of the hash says nothing; the lines of the steps do."""
    if locked.rev.split(":")[0] == scenario.rev.split(":")[0]:
        return locked.rev != scenario.rev
    return locked.steps != tuple(step_lines(scenario))


def _first_change(before: Sequence[str], now: Sequence[str]) -> str:
    was = next((line for line in before if line not in now), "")
    came = next((line for line in now if line not in before), "")
    told = [f"was {was!r}"] * bool(was) + [f"is {came!r}"] * bool(came)
    return f" ({', '.join(told)})" if told else ""


def _changed_tests(
    scenario: Scenario, mappings: Sequence[TestMapping], rules: Rules
) -> Iterator[str]:
    locked = rules.lock.entries.get(scenario.key)
    if not locked:
        if rules.lock.entries and mappings and not all(one.rev for one in mappings):
            yield f"never accepted: arena scenarios accept {scenario.key!r}"
        return
    tests = dict(locked.tests)
    for test in sorted({one.test for one in mappings if _is_other(one, tests)}):
        yield f"{test} has changed since it was accepted"


def _is_other(one: TestMapping, tests: Mapping[str, str]) -> bool:
    before = tests.get(one.test, "")
    return bool(before and one.source and before != one.source)
