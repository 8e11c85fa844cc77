"""The phrases of all outputs: headings, totals, reasons."""

from collections.abc import Iterable

from pytest_arena.scenarios.evidence._document import Document, JudgedScenario, Status
from pytest_arena.scenarios.specs._specification import (
    Problem,
    ScenarioSpec,
    grouped_by,
)

# Statuses that a partial run does not decide.
_NOT_JUDGED = frozenset({Status.NOT_RUN, Status.UNMAPPED})
_UNTESTED = (Status.MALFORMED, Status.UNMAPPED, Status.PARTIAL)


WHAT_TO_ASSERT = (
    "assert a value of the answer, or of rows read after it. A call that may raise, such as "
    "raise_for_status() or Out(**answer.json()), does not count as an assertion"
)


def lacks_assertion(judged: JudgedScenario) -> bool:
    """Return whether a passed test of a scenario has no assertion after its requests."""
    for test in judged.tests:
        is_empty = test.facts is not None and not test.facts.asserted
        if test.status is Status.HOLLOW and is_empty and "no assertion" in test.reason:
            return True
    return False


def one_line(text: str) -> str:
    """Return a text in one line, without control characters of terminals."""
    letters = [letter if letter.isprintable() else " " for letter in text]
    return " ".join("".join(letters).split())


def middle_cut(text: str, width: int) -> str:
    """Return a text of at most this width. A longer text loses its middle."""
    if len(text) <= width:
        return text
    half = width // 2
    beginning = text[: width - half - 1]
    return f"{beginning}…{text[-half:]}"


def heading(scenario: ScenarioSpec) -> str:
    """Return the business rule, the feature and the Gherkin rule of a scenario."""
    names = " :: ".join(filter(None, [scenario.feature, scenario.rule]))
    return one_line("  ".join(filter(None, [scenario.requirement, names])))


def grouped(scenarios: Iterable[JudgedScenario]) -> dict[str, list[JudgedScenario]]:
    """Return the scenarios by heading. The headings of one business rule are neighbours."""
    by_rule = grouped_by(
        scenarios,
        lambda judged: judged.scenario.requirement or heading(judged.scenario),
    )
    groups: dict[str, list[JudgedScenario]] = {}
    for rule_scenarios in by_rule.values():
        groups |= grouped_by(rule_scenarios, lambda judged: heading(judged.scenario))
    return groups


def reason(judged: JudgedScenario) -> str:
    """Return why a scenario is not proven, with the line of a test and further statuses."""
    parts = [judged.reason]
    if judged.place and judged.place not in judged.reason:
        parts.append(f"({judged.place})")
    also = [status.value for status in judged.also if status is not Status.NOT_RUN]
    if also:
        parts.append(f"(also {', '.join(also)})")
    if judged.is_excused:
        parts.append(f"({judged.standing.gap})")
    return one_line(" ".join(parts))


def other_tests(judged: JudgedScenario) -> dict[Status, str]:
    """Return texts about the tests with other statuses than PROVEN and the scenario's status."""
    statuses = [test.status for test in judged.tests]
    others: dict[Status, str] = {}
    if len(statuses) == 1:
        return others
    total = len(statuses)
    unreported = set(statuses) - {judged.status, Status.PROVEN}
    for status in sorted(unreported, key=lambda status: status.rank):
        count = statuses.count(status)
        verb = "are"
        if count == 1:
            verb = "is"
        name = status.value.lower().replace("-", " ")
        others[status] = f"{count:,} of {total:,} tests {verb} {name}"
    return others


def problem_line(problem: Problem) -> str:
    """Return a problem in the form of compilers: place, level, problem, advice."""
    level = "warning"
    if problem.is_error:
        level = ""
    return one_line(": ".join(filter(None, [problem.place, level, problem.advice])))


def is_open(judged: JudgedScenario, document: Document) -> bool:
    """Return whether a scenario is reported.

    A partial run does not report scenarios whose tests it left out. A list of tests does not
    report scenarios whose tests have not run.
    """
    if judged.status is Status.PROVEN:
        return False
    if document.is_list and judged.status is Status.NOT_RUN:
        return False
    return not (document.partial and judged.status in _NOT_JUDGED)


def totals(document: Document) -> str:
    """Return how many scenarios have each status: ``38 of 40 proven, 2 hollow``.

    A partial run leaves out the scenarios that it does not judge. The text says if the proven
    scenarios were tried under sabotage.
    """
    counts = document.counts()
    if document.partial and not document.is_list:
        for status in _NOT_JUDGED:
            counts.pop(status, None)
    count = len(document.scenarios)
    if document.is_list:
        untested = sum(counts.get(status, 0) for status in _UNTESTED)
        counts.pop(Status.NOT_RUN, None)
        text = f"{count - untested} of {count} with a test"
    else:
        proven = counts.pop(Status.PROVEN, 0)
        text = f"{proven} of {count} proven"
        if document.is_sabotaged:
            text += f" under sabotage too{_count_without_fault(document)}"
        elif proven:
            text += " (not tried: --scenarios-sabotage)"
    for status, number in counts.items():
        text += f", {number} {status.value.lower()}"
    return text


def _count_without_fault(document: Document) -> str:
    """Return the number of proven scenarios whose tests noticed no fault, as a text.

    The text is empty if the number is 0.
    """
    count = 0
    for judged in document.scenarios:
        results = {
            sabotage.result for test in judged.tests for sabotage in test.sabotages
        }
        if judged.status is Status.PROVEN and "noticed" not in results:
            count += 1
    return f" (no fault applies to {count} of them)" if count else ""


def judged_count(document: Document) -> str:
    """Return how many scenarios a partial run judges: ``all tests of 12 of 40 scenarios ran``.

    A test may prove another scenario although not all its tests ran.
    """
    count = 0
    for judged in document.scenarios:
        if judged.is_judged and judged.status not in _NOT_JUDGED:
            count += 1
    return f"all tests of {count} of {len(document.scenarios)} scenarios ran"


def stays_green(scenarios: Iterable[JudgedScenario]) -> str:
    """Return the next step for tests that survived a sabotage, or "" if none did."""
    hollow = [judged for judged in scenarios if judged.status is Status.HOLLOW]
    tests = [test for judged in hollow for test in judged.tests]
    survived = dict.fromkeys(
        sabotage.kind
        for test in tests
        for sabotage in test.sabotages
        if sabotage.result == "survived"
    )
    if not survived:
        return ""
    tags = " ".join(f"@survives-{kind}" for kind in survived)
    return f"add an assertion that fails under the sabotage, or tag a scenario not about it: {tags}"


def unsaid_gaps(document: Document) -> list[str]:
    """Return the gaps that are neither a problem nor a reported scenario."""
    problems = {str(problem) for problem in document.problems}
    places = {
        judged.scenario.place
        for judged in document.scenarios
        if is_open(judged, document)
    }
    gaps = []
    for gap in document.gaps:
        place = gap.partition(": ")[0]  # a scenario's gap begins with its place
        if gap not in problems and place not in places:
            gaps.append(one_line(gap))
    return gaps
