"""The phrases of every output: headings, totals, reasons."""

from collections.abc import Iterable

from pytest_arena.scenarios.evidence._document import Document, JudgedScenario, Status
from pytest_arena.scenarios.specs._specification import (
    Problem,
    ScenarioSpec,
    grouped_by,
)

# What a part of the tests says nothing about.
_NOT_JUDGED = {Status.NOT_RUN, Status.UNMAPPED}


def one_line(text: str) -> str:
    """Return it in one line, without what a terminal would obey."""
    return " ".join(
        "".join(char if char.isprintable() else " " for char in text).split()
    )


def counted(count: int, thing: str) -> str:
    """Return a number of things in words.

    >>> counted(1, "row"), counted(2, "request")
    ('1 row', '2 requests')
    """
    return f"{count:,} {thing}{'s' * (count != 1)}"


def middle_cut(text: str, width: int) -> str:
    """Return it with its middle left out, where it is longer than that."""
    if len(text) <= width:
        return text
    return f"{text[: width - width // 2 - 1]}…{text[-(width // 2) :]}"


def heading(scenario: ScenarioSpec) -> str:
    """The business rule and the feature that it stands under, and Gherkin's rule."""
    names = " :: ".join(filter(None, [scenario.feature, scenario.rule]))
    return one_line("  ".join(filter(None, [scenario.requirement, names])))


def grouped(scenarios: Iterable[JudgedScenario]) -> dict[str, list[JudgedScenario]]:
    """Return them by their headings, those with one business rule below each other."""
    # Without a business rule each heading stands for itself.
    rules = grouped_by(
        scenarios, lambda it: it.scenario.requirement or heading(it.scenario)
    )
    titled = (
        grouped_by(same, lambda it: heading(it.scenario)) for same in rules.values()
    )
    return {title: same for titles in titled for title, same in titles.items()}


def reason(judged: JudgedScenario) -> str:
    """Why it is not proven, the line in the tests, and what else is to be said."""
    place = f"({judged.place})" * bool(
        judged.place and judged.place not in judged.reason
    )
    also = ", ".join(
        status.value for status in judged.also if status is not Status.NOT_RUN
    )
    parts = (
        judged.reason,
        place,
        f"(also {also})" * bool(also),
        "(known)" * judged.is_excused,
    )
    return one_line(" ".join(filter(None, parts)))


def other_tests(judged: JudgedScenario) -> dict[Status, str]:
    """Return how many tests have each status, without PROVEN and the scenario's status."""
    statuses = [test.status for test in judged.tests]
    if len(statuses) == 1:
        return {}
    others: dict[Status, str] = {}
    for status in dict.fromkeys(sorted(statuses, key=lambda status: status.rank)):
        if status not in {judged.status, Status.PROVEN}:
            count = statuses.count(status)
            verb = "is" if count == 1 else "are"
            name = status.value.lower().replace("-", " ")
            others[status] = f"{count:,} of {len(statuses):,} tests {verb} {name}"
    return others


def problem_line(problem: Problem) -> str:
    """A problem as compilers say one: place, how bad it is, what it is, what to do."""
    level = "" if problem.is_error else "warning"
    return one_line(": ".join(filter(None, [problem.place, level, problem.advice])))


def is_open(judged: JudgedScenario, document: Document) -> bool:
    """Whether somebody has to be told of it.

    A run of some tests says nothing of scenarios whose tests are others, and a list of tests
    nothing of those whose tests have not run.
    """
    if document.is_list and judged.status is Status.NOT_RUN:
        return False
    return judged.status is not Status.PROVEN and not (
        document.partial and judged.status in _NOT_JUDGED
    )


def totals(document: Document) -> str:
    """Return how many there are, and of which statuses: ``38 of 40 proven, 2 hollow``.

    Of a run of some tests without those that it says nothing of. That an assertion ran does not
    say that it could have failed: what has not been tried under sabotage is called so.
    """
    counts = document.counts()
    for status in _NOT_JUDGED if document.partial and not document.is_list else ():
        counts.pop(status, None)
    whole = len(document.scenarios)
    if not document.is_list:
        proven = counts.pop(Status.PROVEN, 0)
        tried = (
            " under sabotage too"
            if document.is_sabotaged
            else _NOT_TRIED * bool(proven)
        )
        first = f"{proven} of {whole} proven{tried}"
    else:
        tested = whole - sum(counts.get(status, 0) for status in _UNTESTED)
        counts.pop(Status.NOT_RUN, None)
        first = f"{tested} of {whole} with a test"
    rest = [f"{count} {status.value.lower()}" for status, count in counts.items()]
    return ", ".join([first, *rest])


_NOT_TRIED = " (not tried: --scenarios-sabotage)"
_UNTESTED = (Status.MALFORMED, Status.UNMAPPED, Status.PARTIAL, Status.WAIVED)


def judged_count(document: Document) -> str:
    """How many scenarios a part of the tests says something about: ``12 of 40 judged``."""
    count = sum(
        it.is_judged and it.status not in _NOT_JUDGED for it in document.scenarios
    )
    return f"{count} of {len(document.scenarios)} judged"


def stays_green(scenarios: Iterable[JudgedScenario]) -> str:
    """What to do where tests have not noticed that something was broken; empty if all have."""
    tests = [
        test for it in scenarios if it.status is Status.HOLLOW for test in it.tests
    ]
    sabotages = [sabotage for test in tests for sabotage in test.sabotages]
    kinds = dict.fromkeys(it.kind for it in sabotages if it.result == "survived")
    tags = " ".join(f"@survives-{kind}" for kind in kinds)
    text = f"assert on what a test stays green without, or tag a scenario not about it: {tags}"
    return text * bool(kinds)


def unsaid_gaps(document: Document) -> list[str]:
    """The gaps that neither a problem tells of nor the line of a scenario that is open."""
    problems = {str(problem) for problem in document.problems}
    places = {it.scenario.place for it in document.scenarios if is_open(it, document)}
    return [
        one_line(gap)
        for gap in document.gaps
        # A scenario's gap begins with its place.
        if gap not in problems and gap.partition(": ")[0] not in places
    ]
