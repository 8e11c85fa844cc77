"""What is a scenario's status, by its tests and what holds without them?"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from pytest_arena.scenarios.evidence._document import JudgedScenario, JudgedStep, Status
from pytest_arena.scenarios.evidence._flags import Flag, others, rank, worst

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_arena.scenarios.evidence._document import JudgedTest, Standing
    from pytest_arena.scenarios.specs import Row, Scenario

__all__ = ["PASSED", "judged_scenario", "no_steps", "row_verdict"]

PASSED = {Status.FLAKY, Status.HOLLOW, Status.UNKNOWN, Status.PARTIAL, Status.PROVEN}
"""A test of one of these has passed, whatever that is worth."""
_FINE = (Status.PROVEN, Status.WAIVED)


def judged_scenario(
    scenario: Scenario,
    standing: Standing,
    tests: Sequence[JudgedTest],
    steps: tuple[JudgedStep, ...],
    *,
    is_partial: bool,
    is_list: bool = False,
) -> JudgedScenario:
    """Judge a scenario by its tests: FAILED if one has, PROVEN if one proves it, else the worst.

    Each row of a Scenario Outline with more than one asks for a test of its own: a parameter set,
    or ``row=`` in the marker. One test of the Outline as a whole, which may run through its rows
    or not, makes it PARTIAL. So does, in a list of tests that were not to run, a row that no test
    names.
    """
    flags = [*_of_standing(standing), *_of_tests(scenario, tests, standing)]
    if is_list and (told := _rows_without_test(scenario.rows, tests)):
        flags = [*_of_standing(standing), Flag(Status.PARTIAL, told)]
    found = _waived(worst(flags), standing)
    statuses = {*(flag.status for flag in flags), *_all_statuses(tests)}
    return JudgedScenario(
        scenario=scenario,
        status=found.status,
        reason=found.reason,
        place=found.place,
        also=others(statuses, found.status),
        warnings=(*standing.warnings, *_remarks(found.status, standing), *_common_warnings(tests)),
        is_excused=_is_excused(found.status, standing),
        tests=tuple(tests),
        steps=steps,
        standing=standing,
        is_judged=not is_partial or bool(standing.malformed) or _all_ran(tests),
    )


def no_steps(scenario: Scenario) -> tuple[JudgedStep, ...]:
    """Return what is known of the steps of a scenario without a block."""
    return (JudgedStep(status=None),) * len(scenario.steps)


def row_verdict(judged: JudgedScenario, row: Row) -> tuple[Status, str]:
    """Return what one row of an Outline is worth by its tests, and why it is not proven.

    As the whole: FAILED if one has, PROVEN if one for this row proves it, else the worst. A test
    of the Outline as a whole proves a row where there is but one.
    """
    tests = [one for one in judged.tests if one.row in {(), row.values}]
    own = [one for one in tests if one.row or len(judged.scenario.rows) == 1]
    if not tests:
        return Status.UNMAPPED, "no test for this row"
    failed = [one for one in tests if one.status is Status.FAILED]
    if own and not failed and not _together(own):
        return Status.PROVEN, ""
    found = _first(failed or tests)
    if found.status is Status.PROVEN:
        return Status.PARTIAL, "its test is one for the whole outline, and for no row of it"
    return found.status, found.reason


def _of_standing(standing: Standing) -> Iterator[Flag]:
    if standing.malformed:
        yield Flag(Status.MALFORMED, standing.malformed)
    if standing.drifted:
        yield Flag(Status.DRIFTED, standing.drifted, standing.drifted_place)


def _of_tests(scenario: Scenario, tests: Sequence[JudgedTest], standing: Standing) -> list[Flag]:
    if not tests:
        over = f"no test names it, and its waiver has run out ({standing.expired})"
        return [Flag(Status.UNMAPPED, over if standing.expired else "no test names it")]
    return _of_rows(scenario.rows, tests) if len(scenario.rows) > 1 else _together(tests)


def _together(tests: Sequence[JudgedTest]) -> list[Flag]:
    """Those that count of tests which all prove the same: none if it is proven."""
    failed = [one for one in tests if one.status is Status.FAILED]
    if not failed and any(one.status is Status.PROVEN for one in tests):
        return []
    return [_first(failed or tests)]


def _first(tests: Sequence[JudgedTest]) -> Flag:
    """The worst, and of several alike always the same one."""
    one = min(tests, key=lambda one: (rank(one.status), one.place, one.test, one.row))
    return Flag(one.status, one.reason, one.place)


def _of_rows(rows: Sequence[Row], tests: Sequence[JudgedTest]) -> list[Flag]:
    by_row = defaultdict[tuple[tuple[str, str], ...], list["JudgedTest"]](list)
    for one in tests:
        by_row[one.row].append(one)
    mine = {row.values: by_row.pop(row.values, []) for row in rows}
    lacking = [values for values, found in mine.items() if not found or _together(found)]
    whole = [one for found in by_row.values() for one in found]
    failed = [one for one in tests if one.status is Status.FAILED]
    if failed or not lacking:
        return [_first(failed)] if failed else []
    flags = [flag for found in (whole, *mine.values()) if found for flag in _together(found)]
    if all(mine.values()):
        return flags
    return [*flags, Flag(Status.PARTIAL, _told(lacking, len(mine), whole))]


def _rows_without_test(rows: Sequence[Row], tests: Sequence[JudgedTest]) -> str:
    named = {one.row for one in tests}
    lacking = [row.values for row in rows if row.values not in named]
    if len(rows) <= 1 or not named or not lacking:
        return ""
    return f"{len(rows) - len(lacking)} of {len(rows)} rows have a test, not: {_few(lacking)}"


def _few(rows: Sequence[tuple[tuple[str, str], ...]]) -> str:
    shown = [", ".join(f"{name}={value}" for name, value in row) for row in sorted(rows)]
    more = f" and {len(shown) - 3} more" * (len(shown) > 3)  # noqa: PLR2004 - as many as fit a line
    return f"{' | '.join(shown[:3])}{more}"


def _told(lacking: Sequence[tuple[tuple[str, str], ...]], count: int, whole: object) -> str:
    told = f"{count - len(lacking)} of {count} rows proven, not: {_few(lacking)}"
    return (
        f"{told} (a test of the whole Outline proves no row: row=, or parametrize)"
        if whole
        else told
    )


def _waived(found: Flag, standing: Standing) -> Flag:
    if standing.waived and found.status is not Status.PROVEN:
        return Flag(Status.WAIVED, standing.waived)
    return found


def _remarks(status: Status, standing: Standing) -> Iterator[str]:
    if standing.waived and status is Status.PROVEN:
        yield f"proven: its waiver is not needed any more ({standing.waived})"
    if standing.known and status not in _FINE and rank(status) > rank(standing.known):
        yield f"better than the baseline says: {standing.known.value}"


def _is_excused(status: Status, standing: Standing) -> bool:
    known = standing.known
    return known is not None and status not in _FINE and rank(status) >= rank(known)


def _common_warnings(tests: Sequence[JudgedTest]) -> list[str]:
    """What no test of it did: another test may have done what one did not."""
    passed = [one.warnings for one in tests if one.status in PASSED]
    return [said for said in dict.fromkeys(sum(passed, ())) if all(said in one for one in passed)]


def _all_statuses(tests: Iterable[JudgedTest]) -> Iterator[Status]:
    for one in tests:
        yield one.status
        yield from one.also


def _all_ran(tests: Sequence[JudgedTest]) -> bool:
    return bool(tests) and not any(one.status is Status.NOT_RUN for one in tests)
