"""The agreements of a project: lock file, baseline, waivers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import date
from difflib import get_close_matches, unified_diff
from linecache import getlines
from typing import TYPE_CHECKING, Self

from pytest_arena.errors import ConfigError, ScenarioError
from pytest_arena.scenarios.evidence._document import (
    FINE,
    Document,
    JudgedScenario,
    Status,
    from_shape,
    to_shape,
)
from pytest_arena.scenarios.specs._specification import (
    Pairs,
    Problem,
    ScenarioSpec,
    row_text,
    similarity,
    step_lines,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

# An edited scenario has a similarity of 0.99 to its former version. Others have at most 0.38.
_MIN_SIMILARITY = 0.8
# A comparison of steps takes a millisecond. More pairs mean that a file is missing.
_MOST_COMPARED = 1000
_CONFLICT = re.compile(r"(<{7}|={7}|>{7}|\|{7})(\s.*)?")
_LOCK_HEAD = """\
# The accepted steps of each scenario, and its tests. `arena scenarios accept` writes this file.
# Each scenario has one line. Add to .gitattributes: scenarios.lock merge=union
"""


def _agreed_lines(path: Path) -> list[tuple[int, str]]:
    """Return the numbered lines of a file that people edit and merge. Empty without the file.

    Comments and blank lines are left out.

    Raises:
        ScenarioError: the file cannot be read as text, or has the marks of a merge conflict.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        what = f"{path.name} cannot be read"
        raise _unreadable(what, str(error), "a text in UTF-8") from error
    lines = []
    # splitlines() would also split at U+2028, which a doc string may contain.
    for number, line in enumerate(text.split("\n"), 1):
        if _CONFLICT.fullmatch(line):
            raise ScenarioError(
                f"{path.name} has the marks of a merge conflict",
                why="pytest-arena cannot know which of the two sides is right",
                cause=f"{path.name}:{number}  {line}",
                fix="delete the marks, and keep the lines of both sides, one for each scenario. "
                "`arena scenarios accept KEY` writes a new line for a scenario",
            )
        if line.strip() and not line.startswith("#"):
            lines.append((number, line))
    return lines


def _unreadable(
    what: str,
    cause: str,
    expected: str,
) -> ScenarioError:
    """Return the error for a file or a line that does not have the expected form."""
    return ScenarioError(
        what,
        why="the file records what the project has agreed to",
        cause=cause,
        fix=f"expected: {expected}",
    )


# The lock file.


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """The accepted version of one scenario."""

    key: str
    rev: str
    steps: tuple[str, ...] = ()
    """The canonical texts of the steps. They show changes."""
    rows: tuple[str, ...] = ()
    """The sorted rows of an Outline: ``code=409, status=ACTIVE``."""
    tests: Pairs = ()
    """Sorted pairs of the node id of a test and the hash of its code."""

    @classmethod
    def of(cls, judged: JudgedScenario) -> Self:
        """Return the entry of a scenario with its current steps and tests."""
        scenario = judged.scenario
        tests = {test.test: test.source for test in judged.tests}
        return cls(
            key=scenario.key,
            rev=scenario.rev,
            steps=tuple(step_lines(scenario)),
            tests=tuple(sorted(tests.items())),
            rows=_row_lines(scenario),
        )

    def difference(self, old: Locked | None, place: str) -> Iterator[str]:
        """Yield the changes since an older entry.

        These are a new name, a diff of the steps and rows, and a line for each test that was added,
        removed or changed. ``place`` labels the diff.
        """
        old_lines = []
        old_tests = {}
        old_label = "not accepted yet"
        if old:
            old_lines = old.lines()
            old_tests = dict(old.tests)
            old_label = f"{old.key}  {old.rev}"
            if old.key != self.key:
                yield f"renamed: {old.key} -> {self.key}"
            # Another version of the hash has the same steps.
            if old.steps == self.steps and old.rev != self.rev:
                yield f"rev: {old.rev} -> {self.rev}  {self.key}"
        label = f"{self.key}  {self.rev}  {place}"
        # The whole scenario is the context.
        yield from unified_diff(
            old_lines, self.lines(), old_label, label, n=99, lineterm=""
        )
        tests = dict(self.tests)
        for test in sorted(old_tests.keys() | tests.keys()):
            if test not in old_tests:
                yield f"test added: {test}"
            elif test not in tests:
                yield f"test removed: {test}"
            elif old_tests[test] != tests[test]:
                yield f"test changed: {test}"

    def lines(self) -> list[str]:
        """Return the steps and the rows, for a diff."""
        return [*self.steps, *(f"Example {row}" for row in self.rows)]

    def drift(self, scenario: ScenarioSpec) -> str:
        """Return what changed in the steps or the rows of a scenario, or "" if nothing did."""
        steps = step_lines(scenario)
        is_changed = self.rev != scenario.rev
        # Hashes of different versions cannot be compared, so the steps are compared.
        if self.rev.split(":")[0] != scenario.rev.split(":")[0]:
            is_changed = self.steps != steps
        if is_changed:
            return f"its steps differ from the accepted steps{_first_change(self.steps, steps)}"
        # A row that was only added or removed is no drift. A row that replaces another is.
        rows = _row_lines(scenario)
        removed = set(self.rows) - set(rows)
        added = set(rows) - set(self.rows)
        if removed and added:
            return f"its rows differ from the accepted rows{_first_change(self.rows, rows)}"
        return ""


@dataclass(frozen=True, slots=True)
class Lock:
    """The lock file: sorted lines with a JSON object for each scenario, and blank lines between.

    The blank lines let git merge two branches that changed neighbours. ``merge=union`` in
    ``.gitattributes`` lets git merge branches that added scenarios in the same place.
    """

    entries: Mapping[str, Locked] = field(default_factory=dict)
    """The entries by their keys, sorted."""
    place: str = "scenarios.lock"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file. Without the file the lock is empty.

        Raises:
            ScenarioError: the file cannot be read, or has the marks of a merge conflict, an invalid
                line, or two lines for one scenario.
        """
        entries: dict[str, Locked] = {}
        for number, line in _agreed_lines(path):
            place = f"{path.name}:{number}"
            try:
                entry = from_shape(Locked, json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise ScenarioError(
                    f"{place} is not a valid line of a lock file",
                    why="the file records what the project has agreed to",
                    cause=f"{place}  {line}",
                    fix="restore the line from git, or delete it and run: "
                    "arena scenarios accept KEY",
                ) from error
            if entries.setdefault(entry.key, entry) != entry:
                raise ScenarioError(
                    f"two lines of the lock file are about {entry.key!r}",
                    why="pytest-arena cannot know which of the two is right",
                    cause=f"{place}: two branches have accepted it, and git kept both",
                    fix=f"delete both lines and run: arena scenarios accept {entry.key!r}",
                )
        return cls(dict(sorted(entries.items())), path.name)

    def text(self) -> str:
        """Return the file's text. The same entries give the same text."""
        text = _LOCK_HEAD
        for _, entry in sorted(self.entries.items()):
            text += f"\n{json.dumps(to_shape(entry), ensure_ascii=False)}\n"
        return text

    def former_names(self, scenarios: Sequence[ScenarioSpec]) -> dict[str, str]:
        """Return the current key of each renamed scenario by its accepted key."""
        missing = self._missing(scenario.key for scenario in scenarios)
        renames = self._renames(scenarios, missing)
        return {former.key: key for key, former in renames.items()}

    def accepted(
        self, document: Document, keys: Sequence[str] = ()
    ) -> tuple[Lock, tuple[str, ...]]:
        """Accept scenarios with their current steps and tests.

        Args:
            document: the scenarios and their tests.
            keys: the keys of the scenarios. Without any, all scenarios with a test are accepted,
                and entries without a scenario are removed.

        Returns:
            The new lock, and the changes: for each scenario a diff of its steps and a line for
            each test that was added, removed or changed.

        Raises:
            ScenarioError: a scenario is malformed.
        """
        judged = {each.scenario.key: each for each in document.scenarios}
        tested = [key for key, each in sorted(judged.items()) if each.tests]
        accepted = [judged[key] for key in keys or tested]
        for each in accepted:
            _refuse_malformed(each)
        entries = dict(self.entries)
        missing = self._missing(judged)
        renames = self._renames((each.scenario for each in accepted), missing)
        lines: list[str] = []
        for each in accepted:
            place = each.scenario.place
            new = Locked.of(each)
            former = renames.get(new.key)
            old = self.entries.get(new.key, former)
            if old or keys:
                lines += new.difference(old, place)
            else:  # the steps of many new scenarios would be too long
                lines.append(f"new: {new.key}  {new.rev}  {place}")
            entries[new.key] = new
            if former:
                del entries[former.key]
                del missing[former.key]
        if not keys:
            # The entry of a renamed scenario stays while its tests have the old name. With the
            # entry a run finds the new name.
            scenarios = [each.scenario for each in document.scenarios]
            for key, former in self._renames(scenarios, missing).items():
                del missing[former.key]
                lines.append(
                    f"kept: {former.key}, because no test names its new name {key} yet"
                )
            for key in missing:
                lines.append(f"gone: {key}")
                del entries[key]
        return Lock(dict(sorted(entries.items())), self.place), tuple(lines)

    def problems(self, scenarios: Sequence[ScenarioSpec]) -> Iterator[Problem]:
        """Yield a problem for each entry whose scenario was renamed or removed.

        If the steps changed with the name, the problem is an error. No user has accepted them.
        """
        missing = self._missing(scenario.key for scenario in scenarios)
        by_key = {scenario.key: scenario for scenario in scenarios}
        for key, former in self._renames(scenarios, missing).items():
            del missing[former.key]
            scenario = by_key[key]
            steps = "nearly the same steps"
            if former.rev == scenario.rev:
                steps = "the same steps"
            yield Problem(
                spec=self.place,
                line=0,
                what=f"{former.key!r} was accepted, but now {key!r} ({scenario.place}) has {steps}",
                hint=f"arena scenarios accept {key!r}, and use that name in the markers",
                is_error=former.rev != scenario.rev,
            )
        for key in missing:
            yield Problem(
                spec=self.place,
                line=0,
                what=f"{key!r} was accepted, but no specification has it now",
                hint="arena scenarios accept --all removes it",
                is_error=False,
            )

    def _missing(self, keys: Iterable[str]) -> dict[str, Locked]:
        """Return the entries whose key no scenario has."""
        missing = sorted(self.entries.keys() - set(keys))
        return {key: self.entries[key] for key in missing}

    def _renames(
        self, scenarios: Iterable[ScenarioSpec], missing: Mapping[str, Locked]
    ) -> dict[str, Locked]:
        """Return the former entry of each renamed scenario by its new key.

        This is the only missing entry with the same steps, or else the only missing entry with
        nearly the same steps. With too many pairs to compare, only the same steps count.
        """
        candidates = dict(missing)
        renames: dict[str, Locked] = {}
        if not candidates:
            return renames
        new = [scenario for scenario in scenarios if scenario.key not in self.entries]
        for scenario in new:
            alike = [
                entry for entry in candidates.values() if entry.rev == scenario.rev
            ]
            if not alike and len(candidates) * len(new) <= _MOST_COMPARED:
                lines = step_lines(scenario)
                alike = [
                    entry
                    for entry in candidates.values()
                    if similarity(entry.steps, lines) >= _MIN_SIMILARITY
                ]
            if len(alike) == 1:
                renames[scenario.key] = candidates.pop(alike[0].key)
        return renames


def _refuse_malformed(judged: JudgedScenario) -> None:
    if judged.standing.malformed:
        raise ScenarioError(
            f"{judged.scenario.key!r} is MALFORMED: {judged.standing.malformed}",
            why="pytest-arena may have misread its steps",
            cause=judged.scenario.place,
            fix="correct the specification, then accept the scenario",
        )


def _row_lines(scenario: ScenarioSpec) -> tuple[str, ...]:
    """Return a line for each row of an Outline, sorted."""
    return tuple(sorted({row_text(row.values) for row in scenario.rows}))


def _first_change(before: Sequence[str], now: Sequence[str]) -> str:
    removed = [line for line in before if line not in now]
    added = [line for line in now if line not in before]
    changes = []
    if removed:
        changes.append(f"was {removed[0]!r}")
    if added:
        changes.append(f"is {added[0]!r}")
    if changes:
        return f" ({', '.join(changes)})"
    return ""


# Baseline and waivers.

_BASELINE_HEAD = """\
# Scenarios that are known not to be proven. A new gap fails the run, and so does a line here whose
# scenario is proven: this list only shrinks.
"""
_KNOWN = re.compile(r"(?P<status>\S+)\s+(?P<key>\S.*)")
_WAIVER = re.compile(r"(?P<name>\S.*?)\s+(?P<until>\d+[-./]\d+[-./]\d+)(?P<reason>.*)")
_STATUSES = {status.value: status for status in Status}


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreedGap:
    """A scenario that may stay unproven: a line of the baseline (with a status), or a waiver."""

    name: str
    """The key of a scenario. A waiver may also name a tag."""
    status: Status | None = None
    until: date = date.max
    """The last day of a waiver."""
    reason: str = ""
    spec: str = ""
    """The name of the file that has the line."""
    line: int = 0

    def covers(self, scenario: ScenarioSpec) -> bool:
        """Return whether the gap is about this scenario."""
        if self.name == scenario.key:
            return True
        return not self.status and self.name in scenario.tags

    def __str__(self) -> str:
        return f"until {self.until}: {self.reason}"


def read_baseline(path: Path) -> tuple[AgreedGap, ...]:
    """Read the lines ``HOLLOW  Feature :: Scenario``. Empty without the file.

    Raises:
        ScenarioError: the file cannot be read, or has the marks of a merge conflict, an invalid
            line, or a key twice.
    """
    gaps = {}
    for number, line in _agreed_lines(path):
        match = _KNOWN.fullmatch(line.strip())
        status = None
        if match:
            status = _STATUSES.get(match["status"])
        cause = f"{path.name}:{number}  {line}"
        expected = "HOLLOW    Feature :: Scenario"
        if match is None or status is None or status in FINE:
            raise _unreadable("the baseline has an invalid line", cause, expected)
        key = " ".join(match["key"].split())
        if key in gaps:
            raise _unreadable("the baseline names a scenario twice", cause, expected)
        gaps[key] = AgreedGap(
            name=key,
            status=status,
            spec=path.name,
            line=number,
        )
    return tuple(gaps[key] for key in sorted(gaps))


def baseline_text(path: Path, document: Document) -> str:
    """Return the text of the baseline after this run. It has fewer lines and better statuses.

    Without an existing file, each scenario that is neither proven nor waived gets a line.

    Raises:
        ScenarioError: the existing file is not a baseline.
    """
    statuses = {
        judged.scenario.key: judged.status
        for judged in document.scenarios
        if judged.is_judged
    }
    if path.exists():
        statuses = _improved(path, document, statuses)
    text = _BASELINE_HEAD
    for key in sorted(statuses):
        if statuses[key] not in FINE:
            text += f"{statuses[key].value:<9} {key}\n"
    return text


def _improved(
    path: Path,
    document: Document,
    statuses: Mapping[str, Status],
) -> dict[str, Status]:
    """Return the better status, in the baseline or the run, for each scenario of the baseline."""
    keys = {judged.scenario.key for judged in document.scenarios}
    improved = {}
    for gap in read_baseline(path):
        if gap.status is not None and gap.name in keys:
            now = statuses.get(gap.name, gap.status)
            improved[gap.name] = max(now, gap.status, key=lambda status: status.rank)
    return improved


def read_waivers(
    lines: Sequence[str],
    *,
    place: str,
) -> tuple[AgreedGap, ...]:
    """Read the lines ``@manual 2027-03-31 bought in May``. Blank lines are left out.

    Args:
        lines: the lines of the option.
        place: the place of the option, for messages.

    Raises:
        ConfigError: a line has no valid date, or no reason.
    """
    return tuple(_waiver(line.strip(), place) for line in lines if line.strip())


def _waiver(line: str, place: str) -> AgreedGap:
    match = _WAIVER.fullmatch(line)
    if match is None:
        raise _no_waiver(line, place, "it has no date after the name")
    try:
        until = date.fromisoformat(match["until"])
    except ValueError:
        what = f"{match['until']} is not a date of the form YYYY-MM-DD"
        raise _no_waiver(line, place, what) from None
    reason = match["reason"].strip()
    if not reason:
        raise _no_waiver(line, place, "it has no reason after the date")
    file_name, number = _place_of_waiver(place, line)
    return AgreedGap(
        name=" ".join(match["name"].split()),
        until=until,
        reason=reason,
        spec=file_name,
        line=number,
    )


def _no_waiver(line: str, place: str, what: str) -> ConfigError:
    return ConfigError(
        f"arena_scenario_waive has an invalid waiver {line!r}: {what}",
        why="a waiver excuses an unproven scenario for a reason, and until a date",
        cause=place,
        fix="arena_scenario_waive = @manual 2027-03-31 why it cannot be tested",
    )


def _place_of_waiver(place: str, waiver: str) -> tuple[str, int]:
    """Return the name of the file, without its folders, and the number of the waiver's line."""
    file, _, line = place.partition("  ")[0].rpartition(":")
    if not line.isdecimal():
        return "", 0
    file_name = file.replace("\\", "/").rpartition("/")[2]
    first = int(line)
    for number, text in enumerate(getlines(file)[first - 1 :], first):
        if waiver in text:
            return file_name, number
    return file_name, first


def gap_problems(
    scenarios: Sequence[ScenarioSpec],
    gaps: Iterable[AgreedGap],
    today: date,
) -> Iterator[Problem]:
    """Yield the agreed gaps that match no scenario, or have expired."""
    for gap in gaps:
        is_used = any(gap.covers(scenario) for scenario in scenarios)
        if is_used and today <= gap.until:
            continue
        what = f"the waiver of {gap.name!r} ({gap}) has expired"
        hint = "prove the scenario and delete the waiver, or set a later date"
        if not is_used:
            kind = "waiver"
            if gap.status:
                kind = "known gap"
            what = f"no scenario matches the {kind} {gap.name!r}"
            hint = _advice_for_name(gap.name, scenarios)
        yield Problem(
            spec=gap.spec,
            line=gap.line,
            what=what,
            hint=hint,
        )


def _advice_for_name(name: str, scenarios: Sequence[ScenarioSpec]) -> str:
    """Return advice for a name that is not a key."""
    for scenario in scenarios:
        names = [scenario.feature, scenario.rule, scenario.name]
        full_name = " :: ".join(filter(None, names))
        if name in {full_name, scenario.name}:
            return f"write the key of the scenario at {scenario.place}: {scenario.key}"
    keys = [scenario.key for scenario in scenarios]
    near = get_close_matches(name, keys, n=1)
    if near:
        return f"did you mean {near[0]}? Otherwise remove the line"
    return "remove the line"
