"""Writes the results of a run to the terminal and to files, and reads files to merge runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena._values import counted
from pytest_arena.errors import ConfigError, ScenarioError
from pytest_arena.scenarios._judge import Status, document
from pytest_arena.scenarios._page import markdown, page
from pytest_arena.scenarios._records import evidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_arena.scenarios._judge import Judged, Results
    from pytest_arena.scenarios._specs import ScenarioSpec, Specification

Json = dict[str, Any]

_FORMS = ("json", "html")
_PLACE = 48  # the largest width of a column
_QUIETER = -1  # the verbosity of -q


def lines(
    results: Results, *, verbosity: int = 0, is_strict: bool = False
) -> list[str]:
    """Return a line for each scenario that is not proven, the totals and the next step.

    ``-qq`` shows the totals only. ``-v`` adds the other scenarios, with what their tests did.
    """
    best = Status.PROVEN if results.is_sabotaged else Status.ASSERTED
    is_detailed = verbosity > 0
    shown = [
        each for each in results.scenarios if is_detailed or each.status is not best
    ]
    text = []
    if verbosity >= _QUIETER:
        text = [*_scenario_lines(shown, is_detailed=is_detailed)]
        text += [f"note: {note}" for note in results.notes]
    if results.partial:
        text.append(f"partial run: {results.partial}")
    total = f"scenarios: {results.totals()}"
    if results.open and is_strict:
        total += f"; this run fails, as {counted(len(results.open), 'scenario')} must be proven"
    text.append(total)
    statuses = {judged.status for judged in results.open}
    if Status.UNMAPPED in statuses:
        text.append("next: pytest --scenarios-stubs tests   writes the missing tests")
    if Status.DRIFTED in statuses:
        text.append("next: correct the tests, then: pytest --scenarios-accept")
    return text


def _scenario_lines(shown: list[Judged], *, is_detailed: bool) -> Iterator[str]:
    longest = max((len(judged.scenario.place) for judged in shown), default=0)
    for judged in shown:
        place = judged.scenario.place.ljust(min(longest, _PLACE))
        reason = "; ".join(filter(None, (judged.reason, judged.gap)))
        text = f"{judged.status:8}  {judged.scenario.label}  {reason}"
        yield f"{place}  {text}".rstrip()
        for attempt in judged.tries if is_detailed else ():
            for word, fact in evidence(attempt):
                yield f"    {word:7} {fact}"


def listing(specification: Specification) -> list[str]:
    """Return the scenarios below their features, and the totals."""
    text = []
    heading = ""
    for scenario in specification.scenarios:
        if heading != f"Feature: {scenario.feature}":
            heading = f"Feature: {scenario.feature}"
            text.append(heading)
        text.append(_listed(scenario))
    features = {(each.spec, each.feature) for each in specification.scenarios}
    steps = sum(len(scenario.steps) for scenario in specification.scenarios)
    files = {scenario.spec for scenario in specification.scenarios}
    text.append(
        f"{counted(len(features), 'feature')}, "
        f"{counted(len(specification.scenarios), 'scenario')}, {counted(steps, 'step')} "
        f"in {counted(len(files), 'file')}"
    )
    return text


def _listed(scenario: ScenarioSpec) -> str:
    line = (
        f"  {scenario.place}  {counted(len(scenario.steps), 'step')}  {scenario.label}"
    )
    return f"{line}  [{scenario.rule}]" if scenario.rule else line


def outputs(texts: Iterable[str]) -> list[tuple[str, Path]]:
    """Parse the values of ``--scenarios-out``: ``json:PATH`` and ``html:PATH``, with commas.

    Raises:
        ConfigError: a value has another form.
    """
    found = []
    for text in texts:
        for part in filter(None, map(str.strip, text.split(","))):
            form, _, path = part.partition(":")
            if form not in _FORMS or not path:
                raise ConfigError(
                    f"--scenarios-out={part}: neither json:PATH nor html:PATH",
                    why="the results would not be written",
                    cause="--scenarios-out on the command line or in addopts",
                    fix="--scenarios-out=html:scenarios.html",
                )
            found.append((form, Path(path).absolute()))
    return found


def write(
    wanted: Iterable[tuple[str, Path]], results: Results, root: Path
) -> list[str]:
    """Write the files, and the summary of a job on GitHub. Return a line for each file.

    Raises:
        ScenarioError: a file cannot be written.
    """
    lines = []
    for form, path in wanted:
        text = page(results, root)
        if form == "json":
            text = json.dumps(document(results), indent=1, ensure_ascii=False) + "\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ScenarioError(
                f"{path} cannot be written",
                why="--scenarios-out names it",
                cause=str(error),
                fix="name another file",
            ) from error
        lines.append(f"scenarios written to {os.path.relpath(path)}")
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(markdown(results))
    return lines


def joined(
    paths: Sequence[Path], specification: Specification
) -> tuple[dict[str, list[str]], list[Json], bool]:
    """Return the collected tests and the tries of several runs, and whether all broke answers.

    Raises:
        ScenarioError: a file is not of a run, or of a run with other specifications.
    """
    tests: dict[str, list[str]] = {}
    tries: list[Json] = []
    is_sabotaged = True
    for path in paths:
        sent = _read(path)
        revs = {each["key"]: each["rev"] for each in sent["scenarios"]}
        if revs != {each.key: each.rev for each in specification.scenarios}:
            raise _not_of_run(path, "it is of a run with other specifications")
        tests |= sent["collected"]
        tries += sent["tries"]
        is_sabotaged &= sent["is_sabotaged"]
    return tests, tries, is_sabotaged


def _read(path: Path) -> Json:
    try:
        sent: Json = json.loads(path.read_text(encoding="utf-8"))
        if sent["version"] != 1:
            raise _not_of_run(path, f"its version is {sent['version']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _not_of_run(path, str(error)) from error
    return sent


def _not_of_run(path: Path, cause: str) -> ScenarioError:
    return ScenarioError(
        f"{path} cannot be merged",
        why="the results of that run would be missing",
        cause=cause,
        fix="name the files that --scenarios-out=json:PATH has written for this commit",
    )
