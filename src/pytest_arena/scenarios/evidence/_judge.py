"""What is proven by this run, or by several runs together?"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import date
from difflib import get_close_matches
from typing import Any

from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios.evidence._agreed import AgreedGap, Lock, gap_problems
from pytest_arena.scenarios.evidence._claim import EXCUSES, Claim
from pytest_arena.scenarios.evidence._document import (
    PASSED,
    Document,
    JudgedScenario,
    Mapping,
    Standing,
    Status,
    Try,
)
from pytest_arena.scenarios.evidence._verdicts import (
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

EVIDENCE = ("seeded", "requested", "asserted")
"""What can be asked for, in the order in which it happens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """By what a run is judged: what a project asks of its scenarios, and what it has agreed to."""

    today: date
    evidence: tuple[str, ...] = (
        EVIDENCE  # of a test that passed; nothing else is asked for
    )
    agreed_gaps: tuple[AgreedGap, ...] = ()
    lock: Lock = field(default_factory=Lock)
    lists_only: bool = (
        False  # nothing was to be run: mapped scenarios are NOT-RUN, and no gap
    )


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
    """Judge every scenario of a specification by what its tests did.

    The same whatever the order of tests, tries and problems. It takes about 0.1 ms a scenario.

    Args:
        specification: what the files say.
        mappings: which tests prove which scenarios; one may come more than once.
        tries: of whichever tests; those of tests that prove none are left out.
        rules: what is asked for.
        partial: why not all tests were run; empty where all were.
        problems: markers that name no scenario, modules that could not be collected.
        is_sabotaged: whether what passed was run again with something broken.
    """
    mappings = sorted(set(mappings))
    of_scenario = grouped_by(mappings, lambda mapping: mapping.scenario)
    of_test = grouped_by(
        () if rules.lists_only else tries, lambda attempt: attempt.test
    )
    kind = {"is_partial": bool(partial), "is_list": rules.lists_only}
    judged = []
    for scenario, malformed in _malformed(specification):
        own = of_scenario[scenario.key]
        claims = list(_claims(scenario, own, rules, is_sabotaged=is_sabotaged))
        tests = [judged_test(claim, of_test[claim.mapping.test]) for claim in claims]
        shown = [
            claim.judged_steps(test.facts)
            for claim, test in zip(claims, tests, strict=True)
            if test.facts and test.status in PASSED
        ]
        standing, steps = (
            _standing(scenario, own, rules, malformed),
            best_steps(scenario, shown),
        )
        judged.append(judged_scenario(scenario, standing, tests, steps, **kind))
    agreement_problems = _agreement_problems(specification.scenarios, mappings, rules)
    return _document(
        judged,
        (*specification.problems, *problems, *agreement_problems),
        partial=partial,
        is_sabotaged=is_sabotaged,
        is_list=rules.lists_only,
        specs=specification.files,
    )


def _claims(
    scenario: ScenarioSpec,
    mappings: Iterable[Mapping],
    rules: Rules,
    *,
    is_sabotaged: bool,
) -> Iterator[Claim]:
    """A test that several processes have collected, or several markers name, counts once."""
    distinct: dict[tuple[str, Pairs], Mapping] = {}
    for mapping in mappings:
        distinct.setdefault((mapping.test, mapping.row), mapping)
    for mapping in distinct.values():
        yield Claim(scenario, mapping, rules.evidence, is_sabotaged=is_sabotaged)


def _document(
    judged: Iterable[JudgedScenario], problems: Iterable[Problem], **values: Any
) -> Document:
    document = Document(
        scenarios=tuple(judged), problems=tuple(sorted(set(problems))), **values
    )
    return replace(document, gaps=gaps(document))


def listed(specification: Specification) -> Document:
    """Return what a specification says, without a word on tests: NOT-RUN or MALFORMED, no gaps."""
    judged = (
        JudgedScenario(
            scenario=scenario,
            status=Status.MALFORMED if reason else Status.NOT_RUN,
            reason=reason,
            steps=best_steps(scenario, ()),
            standing=Standing(malformed=reason),
        )
        for scenario, reason in _malformed(specification)
    )
    listing = _document(
        judged, specification.problems, is_list=True, specs=specification.files
    )
    return replace(listing, gaps=())


def _scenario_order(scenario: ScenarioSpec) -> tuple[str, int, str]:
    return scenario.spec, scenario.line, scenario.key


def _malformed(specification: Specification) -> Iterator[tuple[ScenarioSpec, str]]:
    """Yield the scenarios in their order, each with what is wrong with it; "" where nothing is."""
    errors = (problem for problem in specification.problems if problem.is_error)
    problems = grouped_by(errors, lambda problem: problem.scenario)
    for scenario in sorted(specification.scenarios, key=_scenario_order):
        every = problems[scenario.key]
        # Of two with one key, with the one at this line.
        own = [it for it in every if it.place == scenario.place]
        reasons = []
        for problem in own or every:
            line = f"line {problem.line}: " * (problem.line not in {0, scenario.line})
            reasons.append(f"{line}{problem.advice}")
        yield scenario, "; ".join(dict.fromkeys(reasons))


def _standing(
    scenario: ScenarioSpec, mappings: Sequence[Mapping], rules: Rules, malformed: str
) -> Standing:
    """What holds for one scenario, by its marks in the tests and what was agreed."""
    gaps = [gap for gap in rules.agreed_gaps if gap.covers(scenario)]
    known = next((gap for gap in gaps if gap.status), None)
    # Of several waivers the one that lasts longest, over or not.
    waivers = (gap for gap in gaps if not gap.status)
    waiver = max(waivers, key=lambda gap: (gap.until, gap.reason), default=None)
    is_over = waiver is not None and rules.today > waiver.until
    drifted, drifted_place = _drift(scenario, mappings, rules.lock)
    return Standing(
        malformed=malformed,
        drifted=drifted,
        drifted_place=drifted_place,
        waived=str(waiver) if waiver and not is_over else "",
        expired=str(waiver) if waiver and is_over else "",
        known=known.status if known else None,
        known_place=f"{known.spec}:{known.line}" if known and known.line else "",
        warnings=tuple(_changed_tests(scenario, mappings, rules.lock)),
    )


def _drift(
    scenario: ScenarioSpec, mappings: Sequence[Mapping], lock: Lock
) -> tuple[str, str]:
    revs = {scenario.rev, *(row.rev for row in scenario.rows)}
    for mapping in mappings:
        if mapping.rev and mapping.rev not in revs:
            rows = (row.rev for row in scenario.rows if row.values == mapping.row)
            now = next(rows, scenario.rev)
            then = f'its steps are not those of rev="{mapping.rev}": read them, then rev="{now}"'
            return then, mapping.place
    locked = lock.entries.get(scenario.key)
    change = locked.drift(scenario) if locked else ""
    return (f"{change}: arena scenarios accept {scenario.key!r}" if change else ""), ""


def _changed_tests(
    scenario: ScenarioSpec, mappings: Sequence[Mapping], lock: Lock
) -> Iterator[str]:
    if locked := lock.entries.get(scenario.key):
        before = dict(locked.tests)
        for test, source in sorted(
            {(mapping.test, mapping.source) for mapping in mappings}
        ):
            if before.get(test) and source and before[test] != source:
                yield f"{test} has changed since it was accepted"
    elif lock.entries and mappings and not all(mapping.rev for mapping in mappings):
        yield f"never accepted: arena scenarios accept {scenario.key!r}"


def _agreement_problems(
    scenarios: Sequence[ScenarioSpec], mappings: Sequence[Mapping], rules: Rules
) -> Iterator[Problem]:
    """Yield what names a scenario that is not there, or has run out."""
    keys = {scenario.key for scenario in scenarios}
    for mapping in mappings:
        if mapping.scenario not in keys:
            what = f"{mapping.test} proves {mapping.scenario!r}, which no specification has"
            yield Problem(spec=mapping.place, line=0, what=what)
    yield from rules.lock.problems(scenarios)
    yield from gap_problems(scenarios, rules.agreed_gaps, rules.today)
    # A tag that should excuse a scenario and is nearly the word would do nothing.
    tags = {
        (scenario.spec, tag): scenario
        for scenario in reversed(scenarios)
        for tag in scenario.tags
    }
    for (spec, tag), scenario in tags.items():
        near = get_close_matches(tag.lower(), EXCUSES, n=1, cutoff=0.85)
        if near and tag not in EXCUSES:
            what, hint = (
                f"{tag} means nothing to arena",
                f"write {near[0]}, if you meant it",
            )
            yield Problem(
                spec=spec, line=scenario.line, what=what, hint=hint, is_error=False
            )


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
        raise _unmergeable(
            "there is no document to merge", "arena scenarios merge a.json b.json"
        )
    _refuse_other_versions(every)
    partial = (
        "" if is_complete else "; ".join(sorted({it.partial for it in every} - {""}))
    )
    every_scenario = (judged for document in every for judged in document.scenarios)
    by_place = grouped_by(
        every_scenario, lambda judged: _scenario_order(judged.scenario)
    )
    return _document(
        (
            _joined(by_place[place], is_partial=bool(partial))
            for place in sorted(by_place)
        ),
        (problem for it in every for problem in it.problems),
        partial=partial,
        is_sabotaged=all(it.is_sabotaged for it in every),
        is_list=all(it.is_list for it in every),
        specs=tuple(sorted({spec for it in every for spec in it.specs})),
    )


def _joined(same: Sequence[JudgedScenario], *, is_partial: bool) -> JudgedScenario:
    every = (test for judged in same for test in judged.tests)
    by_test = grouped_by(every, lambda test: (test.test, test.row))
    tests = []
    for _, of_shards in sorted(by_test.items()):
        ran = [test for test in of_shards if test.status is not Status.NOT_RUN]
        tests.append(
            min(ran or of_shards, key=lambda test: (test.status.rank, repr(test)))
        )
    scenario, standing = same[0].scenario, same[0].standing
    # What one shard knows holds for all: one may not have collected the marker with a `rev`.
    for name in (it.name for it in fields(Standing)):
        values = [value for judged in same if (value := getattr(judged.standing, name))]
        standing = replace(standing, **{name: values[0]}) if values else standing
    warnings = dict.fromkeys(
        text for judged in same for text in judged.standing.warnings
    )
    standing = replace(standing, warnings=tuple(warnings))
    steps = best_steps(scenario, (judged.steps for judged in same))
    return judged_scenario(scenario, standing, tests, steps, is_partial=is_partial)


def _refuse_other_versions(documents: Sequence[Document]) -> None:
    """Scenarios of a file that two documents have read are the same, or they are not of one run."""
    read: dict[str, set[tuple[int, str, str]]] = {}
    for document in documents:
        versions = {spec: set[tuple[int, str, str]]() for spec in document.specs}
        for scenario in (judged.scenario for judged in document.scenarios):
            # The rev of an Outline does not know its rows.
            content = repr((scenario.rev, sorted(row.values for row in scenario.rows)))
            versions.setdefault(scenario.spec, set()).add(
                (scenario.line, scenario.key, content)
            )
        for spec, version in versions.items():
            if differing := sorted(read.setdefault(spec, version) ^ version):
                raise _unmergeable(
                    f"{spec} is not the same in all documents: {differing[0][1]}",
                    "run all shards on one commit, then merge their documents",
                    cause=f"{spec}:{differing[0][0]}",
                )


def _unmergeable(
    what: str, fix: str, *, cause: str = "the documents that were named"
) -> ScenarioError:
    why = "a verdict on one version of a specification says nothing about another"
    return ScenarioError(what, why=why, cause=cause, fix=fix)
