"""What do several runs prove together, each of a part of the tests?"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios.evidence._blocks import best_steps
from pytest_arena.scenarios.evidence._document import Document, Standing, Status
from pytest_arena.scenarios.evidence._flags import rank
from pytest_arena.scenarios.evidence._gaps import gaps
from pytest_arena.scenarios.evidence._judge import problems_in_order, scenario_order
from pytest_arena.scenarios.evidence._verdict import judged_scenario

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_arena.scenarios.evidence._document import JudgedScenario, JudgedTest

__all__ = ["merged"]

_Place = tuple[str, int, str]
_Row = tuple[tuple[str, str], ...]
_Version = tuple[int, str, str]


def merged(documents: Iterable[Document], *, is_complete: bool = False) -> Document:
    """Judge what several documents say as one run, whatever their order.

    A test counts as it was where it ran; where it ran more than once, the worst counts. Baseline,
    waivers, lock and required evidence are those of the runs: their verdicts stand in the
    documents. Nothing else is needed from a shard than its document, even of one whose tests of a
    scenario were all deselected.

    Args:
        documents: of runs on the same specifications. Those of different files may be joined.
        is_complete: whether they are all the shards that there are; then what no shard has run
            or mapped is a gap. Without it that is so only if each of them was a complete run.

    Raises:
        ScenarioError: there is none, or two have read one specification in different versions.
    """
    every = sorted(documents, key=repr)
    if not every:
        raise _error("there is no document to merge", "arena scenarios merge a.json b.json")
    partial = "" if is_complete else "; ".join(sorted({one.partial for one in every} - {""}))
    by_place = defaultdict[_Place, list["JudgedScenario"]](list)
    for one in (judged for document in every for judged in document.scenarios):
        by_place[scenario_order(one.scenario)].append(one)
    _refuse_other_versions(every)
    document = Document(
        scenarios=tuple(
            _joined(by_place[place], is_partial=bool(partial)) for place in sorted(by_place)
        ),
        problems=problems_in_order(problem for one in every for problem in one.problems),
        partial=partial,
        is_sabotaged=all(one.is_sabotaged for one in every),
        is_list=all(one.is_list for one in every),
        specs=tuple(sorted({spec for one in every for spec in one.specs})),
    )
    return replace(document, gaps=gaps(document))


def _joined(same: Sequence[JudgedScenario], *, is_partial: bool) -> JudgedScenario:
    found = defaultdict[tuple[str, _Row], list["JudgedTest"]](list)
    for test in (test for one in same for test in one.tests):
        found[test.test, test.row].append(test)
    tests = [_counting(found[key]) for key in sorted(found)]
    standing = _standing([one.standing for one in same])
    steps = best_steps(one.steps for one in same)
    return judged_scenario(same[0].scenario, standing, tests, steps, is_partial=is_partial)


def _counting(same: Sequence[JudgedTest]) -> JudgedTest:
    ran = [one for one in same if one.status is not Status.NOT_RUN]
    return min(ran or same, key=lambda one: (rank(one.status), repr(one)))


def _standing(same: Sequence[Standing]) -> Standing:
    """What one shard knows holds for all: one may not have collected the marker with a `rev`."""
    whole = Standing(warnings=tuple(dict.fromkeys(said for one in same for said in one.warnings)))
    for name in (one.name for one in fields(Standing) if one.name != "warnings"):
        known = [held for each in same if (held := getattr(each, name))]
        whole = replace(whole, **{name: known[0]}) if known else whole
    return whole


def _refuse_other_versions(documents: Sequence[Document]) -> None:
    """Scenarios of a file that two documents have read are the same, or they are not of one run."""
    known: dict[str, set[_Version]] = {}
    for spec, version in (pair for one in documents for pair in _versions(one).items()):
        differing = sorted(known.setdefault(spec, version) ^ version)
        if differing:
            raise _error(
                f"{spec} is not the same in all documents: {differing[0][1]}",
                "run all shards on one commit, then merge their documents",
                cause=f"{spec}:{differing[0][0]}",
            )


def _versions(document: Document) -> dict[str, set[_Version]]:
    found: dict[str, set[_Version]] = {spec: set() for spec in document.specs}
    for one in (judged.scenario for judged in document.scenarios):
        # The rev of an Outline does not know its rows.
        said = repr((one.rev, sorted(row.values for row in one.rows)))
        found.setdefault(one.spec, set()).add((one.line, one.key, said))
    return found


def _error(what: str, fix: str, *, cause: str = "the documents that were named") -> ScenarioError:
    why = "a verdict on one version of a specification says nothing about another"
    return ScenarioError(what, why=why, cause=cause, fix=fix)
