"""Judges all scenarios of one or several runs."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import date
from difflib import get_close_matches

from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios.evidence._claim import EXCUSES, Claim
from pytest_arena.scenarios.evidence._document import (
    PASSED,
    Document,
    JudgedScenario,
    JudgedTest,
    Mapping,
    Standing,
    Status,
    Try,
)
from pytest_arena.scenarios.evidence._lock import Lock
from pytest_arena.scenarios.evidence._verdicts import (
    NO_TEST,
    best_steps,
    gaps,
    judged_scenario,
    judged_test,
)
from pytest_arena.scenarios.specs._specification import (
    Pairs,
    Problem,
    ScenarioSpec,
    Specification,
    grouped_by,
)

_MIN_SIMILARITY = 0.85  # one or two letters of a tag differ


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a project has agreed to, and how it judges."""

    today: date
    lock: Lock = field(default_factory=Lock)
    lists_only: bool = False
    """Whether the command runs no test, so that NOT-RUN scenarios are not gaps."""


def judge(
    specification: Specification,
    mappings: Iterable[Mapping],
    tries: Iterable[Try],
    *,
    rules: Rules,
    partial: str = "",
    problems: Iterable[Problem] = (),
    is_sabotaged: bool = False,
) -> Document:
    """Judge each scenario of a specification by its tests.

    The result does not depend on the order of mappings, tries and problems. A scenario takes about
    0.1 ms.

    Args:
        specification: the content of the files.
        mappings: the claims of tests to prove scenarios. A mapping may occur several times.
        tries: the tries of all tests. Tests without a mapping are ignored.
        rules: the agreements.
        partial: why the run left out tests, or "" for a whole run.
        problems: problems of the collection, such as invalid markers.
        is_sabotaged: whether each passed test was run again under sabotage.
    """
    mappings = sorted(set(mappings))
    problems = _sorted(problems)
    mappings_of = grouped_by(mappings, lambda mapping: mapping.scenario)
    counted_tries = () if rules.lists_only else tries
    tries_of = grouped_by(counted_tries, lambda attempt: attempt.test)
    misfits = {
        problem.scenario: f"{problem.place}: {problem.what}" for problem in problems
    }
    judged = []
    for scenario, malformed in _with_errors(specification):
        own = mappings_of[scenario.key]
        # Two processes, or two markers of one test, may have the same mapping.
        mapping_by_test: dict[tuple[str, Pairs], Mapping] = {}
        for mapping in own:
            mapping_by_test.setdefault((mapping.test, mapping.row), mapping)
        tests = []
        steps_of_tests = []
        for mapping in mapping_by_test.values():
            claim = Claim(scenario, mapping, is_sabotaged=is_sabotaged)
            test = judged_test(claim, tries_of[mapping.test])
            tests.append(test)
            if test.facts and test.status in PASSED:
                steps_of_tests.append(claim.judged_steps(test.facts))
        standing = _standing(scenario, own, rules, malformed)
        verdict = judged_scenario(
            scenario,
            replace(standing, misfit=misfits.get(scenario.key, "")),
            tests,
            best_steps(scenario, steps_of_tests),
            is_partial=bool(partial),
            is_list=rules.lists_only,
        )
        judged.append(verdict)
    agreement_problems = _agreement_problems(
        specification.scenarios, mappings, rules.lock
    )
    return _with_gaps(
        Document(
            scenarios=tuple(judged),
            problems=_sorted([*specification.problems, *problems, *agreement_problems]),
            partial=partial,
            is_sabotaged=is_sabotaged,
            is_list=rules.lists_only,
            specs=specification.files,
        )
    )


def _with_gaps(document: Document) -> Document:
    return replace(document, gaps=gaps(document))


def _sorted(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(set(problems)))


def listed(specification: Specification) -> Document:
    """Return the scenarios of a specification without tests, as NOT-RUN or MALFORMED."""
    judged = [
        JudgedScenario(
            scenario=scenario,
            status=Status.MALFORMED if malformed else Status.NOT_RUN,
            reason=malformed,
            steps=best_steps(scenario, ()),
            standing=Standing(malformed=malformed),
        )
        for scenario, malformed in _with_errors(specification)
    ]
    return Document(
        scenarios=tuple(judged),
        problems=_sorted(specification.problems),
        is_list=True,
        specs=specification.files,
    )


def _scenario_order(scenario: ScenarioSpec) -> tuple[str, int, str]:
    return scenario.spec, scenario.line, scenario.key


def _with_errors(specification: Specification) -> Iterator[tuple[ScenarioSpec, str]]:
    """Yield the scenarios in their order, each with its errors as one text."""
    errors = [problem for problem in specification.problems if problem.is_error]
    errors_of = grouped_by(errors, lambda problem: problem.scenario)
    for scenario in sorted(specification.scenarios, key=_scenario_order):
        problems = errors_of[scenario.key]
        # If two scenarios have one key, each has the problem at its line.
        own = [problem for problem in problems if problem.place == scenario.place]
        reasons: dict[str, None] = {}
        for problem in own or problems:
            reason = problem.advice
            if problem.line not in {0, scenario.line}:
                reason = f"line {problem.line}: {reason}"
            reasons[reason] = None
        yield scenario, "; ".join(reasons)


def _standing(
    scenario: ScenarioSpec,
    mappings: Sequence[Mapping],
    rules: Rules,
    malformed: str,
) -> Standing:
    """Return the facts about one scenario, from its markers and the lock."""
    locked = rules.lock.entries.get(scenario.key)
    accept = f"arena scenarios accept {scenario.key!r}"
    if locked is None:
        is_new = bool(rules.lock.entries and mappings)
        warnings = (f"never accepted: {accept}",) if is_new else ()
        return Standing(malformed=malformed, warnings=warnings)
    drifted = ""
    if locked.rev != scenario.rev:
        drifted = f"its steps differ from the accepted steps: {accept}"
    is_over = locked.until is not None and rules.today > locked.until
    return Standing(
        malformed=malformed,
        drifted=drifted,
        gap=locked.gap,
        is_gap_over=is_over,
    )


def _agreement_problems(
    scenarios: Sequence[ScenarioSpec],
    mappings: Sequence[Mapping],
    lock: Lock,
) -> Iterator[Problem]:
    """Yield markers, accepted scenarios and tags that match no scenario."""
    keys = {scenario.key for scenario in scenarios}
    for mapping in mappings:
        if mapping.scenario not in keys:
            what = f"{mapping.test} proves {mapping.scenario!r}, which no specification has"
            yield Problem(
                spec=mapping.place,
                line=0,
                what=what,
            )
    yield from lock.problems(scenarios)
    yield from _misspelt_tags(scenarios)


def _misspelt_tags(scenarios: Sequence[ScenarioSpec]) -> Iterator[Problem]:
    """Yield the misspelt tags of excuses, each once for a file."""
    lines: dict[tuple[str, str], int] = {}
    for scenario in scenarios:
        for tag in scenario.tags:
            lines.setdefault((scenario.spec, tag), scenario.line)
    for (spec, tag), line in lines.items():
        near = get_close_matches(
            tag.lower(),
            EXCUSES,
            n=1,
            cutoff=_MIN_SIMILARITY,
        )
        if near and tag not in EXCUSES:
            yield Problem(
                spec=spec,
                line=line,
                what=f"{tag} has no effect in pytest-arena",
                hint=f"did you mean {near[0]}?",
                is_error=False,
            )


# Several runs.


def merged(
    documents: Iterable[Document],
    *,
    is_complete: bool = False,
    without_test: str = NO_TEST,
) -> Document:
    """Judge several documents as one run. The result does not depend on their order.

    If a test ran in several runs, the worst result counts. The documents contain verdicts, so the
    lock of their runs applies.

    Args:
        documents: the documents of runs on the same or on different specifications.
        is_complete: whether the documents are all shards of a run. Then a scenario or a test of a
            scenario that ran in no shard is a gap. Otherwise it is a gap only if each document is
            of a whole run.
        without_test: the reason of a scenario that no test names.

    Raises:
        ScenarioError: no document was named, or two have different versions of a specification.
    """
    ordered = sorted(documents, key=repr)
    if not ordered:
        raise _unmergeable(
            "no document to merge was named", "arena scenarios merge a.json b.json"
        )
    _refuse_other_versions(ordered)
    partial = ""
    if not is_complete:
        reasons = {document.partial for document in ordered}
        partial = "; ".join(sorted(reasons - {""}))
    scenarios: list[JudgedScenario] = []
    problems: list[Problem] = []
    specs = set()
    for document in ordered:
        scenarios += document.scenarios
        problems += document.problems
        specs |= set(document.specs)
    by_place = grouped_by(scenarios, lambda judged: _scenario_order(judged.scenario))
    joined = [
        _joined(
            by_place[place],
            is_partial=bool(partial),
            without_test=without_test,
        )
        for place in sorted(by_place)
    ]
    if is_complete:
        problems += _never_run(joined)
    return _with_gaps(
        Document(
            scenarios=tuple(joined),
            problems=_sorted(problems),
            partial=partial,
            is_sabotaged=all(document.is_sabotaged for document in ordered),
            is_list=all(document.is_list for document in ordered),
            specs=tuple(sorted(specs)),
        )
    )


def _never_run(scenarios: Iterable[JudgedScenario]) -> Iterator[Problem]:
    """Yield an error for each test of a proven scenario that ran in no shard."""
    for judged in scenarios:
        if judged.status is not Status.PROVEN:
            continue  # the reason of an unproven scenario names the test
        for test in judged.tests:
            if test.status is Status.NOT_RUN:
                key = judged.scenario.key
                yield Problem(
                    spec=test.place,
                    line=0,
                    what=f"{test.test} names {key!r}, but ran in no shard",
                    hint="run it in a shard, or remove its marker",
                )


def _joined(
    same: Sequence[JudgedScenario],
    *,
    is_partial: bool,
    without_test: str,
) -> JudgedScenario:
    """Judge one scenario by its tests in all documents."""
    scenario = same[0].scenario
    all_tests: list[JudgedTest] = []
    for judged in same:
        all_tests += judged.tests
    by_test = grouped_by(all_tests, lambda test: (test.test, test.row))
    tests = []
    for _, results in sorted(by_test.items()):
        ran = [test for test in results if test.status is not Status.NOT_RUN]
        worst = min(ran or results, key=lambda test: (test.status.rank, repr(test)))
        tests.append(worst)
    return judged_scenario(
        scenario,
        _joined_standing([judged.standing for judged in same]),
        tests,
        best_steps(scenario, (judged.steps for judged in same)),
        is_partial=is_partial,
        without_test=without_test,
    )


def _joined_standing(standings: Sequence[Standing]) -> Standing:
    """Return the facts of all shards."""
    joined = standings[0]
    for each in fields(Standing):
        values = [getattr(standing, each.name) for standing in standings]
        known = [value for value in values if value]
        if known:
            joined = replace(joined, **{each.name: known[0]})
    warnings = [text for standing in standings for text in standing.warnings]
    return replace(joined, warnings=tuple(dict.fromkeys(warnings)))


_Version = set[tuple[int, str, str]]


def _refuse_other_versions(documents: Sequence[Document]) -> None:
    """Check that all runs have read the same version of each file.

    Raises:
        ScenarioError: two runs have read different versions.
    """
    first_versions: dict[str, _Version] = {}
    for document in documents:
        for spec, version in _versions(document).items():
            differing = sorted(first_versions.setdefault(spec, version) ^ version)
            if differing:
                line, key, _ = differing[0]
                raise _unmergeable(
                    f"{spec} differs between the documents: {key}",
                    "run all shards on the same commit, then merge their documents",
                    cause=f"{spec}:{line}",
                )


def _versions(document: Document) -> dict[str, _Version]:
    """Return the content of each file of a run: line, key, revision and rows."""
    versions: dict[str, _Version] = {spec: set() for spec in document.specs}
    for judged in document.scenarios:
        scenario = judged.scenario
        # The revision of an Outline does not include its rows.
        rows = sorted(row.values for row in scenario.rows)
        content = (scenario.line, scenario.key, repr((scenario.rev, rows)))
        versions.setdefault(scenario.spec, set()).add(content)
    return versions


def _unmergeable(
    what: str,
    fix: str,
    *,
    cause: str = "the named documents",
) -> ScenarioError:
    return ScenarioError(
        what,
        why="a verdict on one version of a specification says nothing about another",
        cause=cause,
        fix=fix,
    )
