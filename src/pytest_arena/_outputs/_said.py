"""What is said of a document in every text: its headings, its totals, its reasons?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._evidence import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_arena._evidence import Document, JudgedScenario
    from pytest_arena._specs import Problem, Scenario

__all__ = ["grouped", "is_open", "middle_cut", "one_line", "problem_line", "reason", "totals"]

# Said of what has a test; a run that has judged none of them only says which these are.
_WITHOUT_A_RUN = {Status.MALFORMED, Status.UNMAPPED, Status.DRIFTED, Status.NOT_RUN, Status.WAIVED}
# What a part of the tests says nothing about.
_NOT_JUDGED = {Status.NOT_RUN, Status.UNMAPPED}


def one_line(text: str) -> str:
    """Return it in one line, without what a terminal would obey."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def middle_cut(text: str, width: int) -> str:
    """Return it with its middle left out, where it is longer than that."""
    if len(text) <= width:
        return text
    return f"{text[: width - width // 2 - 1]}…{text[-(width // 2) :]}"


def heading(scenario: Scenario) -> str:
    """The business rule and the feature that it stands under, and Gherkin's rule."""
    names = " :: ".join(filter(None, [scenario.feature, scenario.rule]))
    return one_line("  ".join(filter(None, [scenario.requirement, names])))


def grouped(scenarios: Iterable[JudgedScenario]) -> dict[str, list[JudgedScenario]]:
    """Return them by their headings, those with one business rule below each other."""
    found: dict[str, dict[str, list[JudgedScenario]]] = {}
    for one in scenarios:
        title = heading(one.scenario)
        # Without a business rule each heading stands for itself.
        rule = one.scenario.requirement or title
        found.setdefault(rule, {}).setdefault(title, []).append(one)
    return {title: ones for titles in found.values() for title, ones in titles.items()}


def reason(one: JudgedScenario) -> str:
    """Why it is not proven, the line in the tests, and what else is to be said."""
    place = f"({one.place})" * bool(one.place and one.place not in one.reason)
    also = ", ".join(status.value for status in one.also)
    parts = (one.reason, place, f"(also {also})" * bool(also), "(known)" * one.is_excused)
    return one_line(" ".join(filter(None, parts)))


def problem_line(problem: Problem) -> str:
    """A problem as compilers say one: place, how bad it is, what it is, what to do."""
    where = f"{problem.spec}:{problem.line}" if problem.line else problem.spec
    level = "" if problem.is_error else "warning"
    hint = f" ({problem.hint})" * bool(problem.hint)
    return one_line(": ".join(filter(None, [where, level, problem.what])) + hint)


def is_open(one: JudgedScenario, *, partial: str) -> bool:
    """Whether somebody has to be told of it."""
    return one.status is not Status.PROVEN and not (partial and one.status in _NOT_JUDGED)


def has_run(document: Document) -> bool:
    """Whether a test of any scenario has run."""
    return any(one.status not in _WITHOUT_A_RUN for one in document.scenarios)


def totals(document: Document) -> str:
    """Return how many scenarios there are, and of which statuses: ``38 of 40 proven, 2 hollow``."""
    counts = document.counts()
    whole = len(document.scenarios)
    if has_run(document) or document.partial:
        first = f"{counts.pop(Status.PROVEN, 0)} of {whole} proven"
    else:
        tested = whole - sum(counts.get(status, 0) for status in _UNTESTED)
        counts.pop(Status.NOT_RUN, None)
        first = f"{tested} of {whole} with a test"
    rest = [f"{count} {status.value.lower()}" for status, count in counts.items()]
    return ", ".join([first, *rest])


_UNTESTED = (Status.MALFORMED, Status.UNMAPPED, Status.WAIVED)


def judged(document: Document) -> int:
    """How many scenarios a part of the tests says something about."""
    return sum(one.status not in _NOT_JUDGED for one in document.scenarios)
