"""What has somebody agreed to: steps and their tests, gaps of the baseline, waivers?"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from difflib import unified_diff
from linecache import getlines
from pathlib import Path
from typing import Self

from pytest_arena.errors import ConfigError, ScenarioError
from pytest_arena.scenarios.evidence._document import (
    FINE,
    Document,
    Status,
    from_shape,
    to_shape,
)
from pytest_arena.scenarios.specs._specification import (
    Pairs,
    Problem,
    ScenarioSpec,
    similarity,
    step_lines,
)

# Above it two scenarios are one that was edited: an edited one has 0.99, the nearest other 0.38.
_NEARLY = 0.8
# To compare steps takes a millisecond; with more a file was left out, and nothing was renamed.
_MOST_COMPARED = 1000
_CONFLICT = re.compile(r"(<{7}|={7}|>{7}|\|{7})(\s.*)?")
_LOCK_HEAD = """\
# The steps that were accepted, and the tests as they were then: `arena scenarios accept` writes it.
# One line for each scenario; .gitattributes: scenarios.lock merge=union
"""


def _agreed_lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines, with their numbers, of a file that people edit and merge.

    Comments and blank lines are left out. Without the file there are none.

    Raises:
        ScenarioError: it cannot be read as text, or has the marks of a merge conflict.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(
            f"{path.name} cannot be read", str(error), "a text in UTF-8"
        ) from error
    # Not splitlines(): a doc string may hold marks that end a line elsewhere, such as U+2028.
    lines = list(enumerate(text.split("\n"), 1))
    for number, line in lines:
        if _CONFLICT.fullmatch(line):
            raise ScenarioError(
                f"{path.name} has the marks of a merge conflict",
                why="which of the two sides holds is not for arena to say",
                cause=f"{path.name}:{number}  {line}",
                fix="keep the lines of both sides, one for each scenario, and delete the marks; "
                "`arena scenarios accept KEY` writes the line of a scenario anew",
            )
    return [
        (number, line)
        for number, line in lines
        if line.strip() and not line.startswith("#")
    ]


def _unreadable(what: str, cause: str, expected: str) -> ScenarioError:
    """Return the error for a file, or a line, that is not what it should be."""
    why = "without it nobody can say what was agreed on before"
    return ScenarioError(what, why=why, cause=cause, fix=f"expected: {expected}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """What was accepted of one scenario."""

    key: str
    rev: str
    steps: tuple[str, ...] = ()  # their canonical text, to show what has changed since
    rows: tuple[
        str, ...
    ] = ()  # of an Outline's Examples, sorted: "code=409, status=ACTIVE"
    tests: Pairs = ()  # node ids and the hashes of their code, sorted

    @classmethod
    def of(cls, scenario: ScenarioSpec, tests: Mapping[str, str]) -> Self:
        """Return a scenario as it stands, with its tests."""
        return cls(
            key=scenario.key,
            rev=scenario.rev,
            steps=tuple(step_lines(scenario)),
            tests=tuple(sorted(tests.items())),
            rows=_row_lines(scenario),
        )

    def difference(self, old: "Locked | None", place: str) -> Iterator[str]:
        """Yield what has changed since: a diff of the steps, and a line for each test."""
        if old and old.key != self.key:
            yield f"renamed: {old.key} -> {self.key}"
        if old and old.steps == self.steps and old.rev != self.rev:
            yield f"rev: {old.rev} -> {self.rev}  {self.key}"
        title = f"{old.key}  {old.rev}" if old else "not accepted yet"
        before, after = (
            (*it.steps, *(f"Example {row}" for row in it.rows)) if it else ()
            for it in (old, self)
        )
        now = f"{self.key}  {self.rev}  {place}"
        yield from unified_diff(before, after, title, now, n=99, lineterm="")
        were, are = dict(old.tests) if old else {}, dict(self.tests)
        for test in sorted(were.keys() | are.keys()):
            if test not in were:
                yield f"test added: {test}"
            elif test not in are:
                yield f"test gone: {test}"
            elif were[test] != are[test]:
                yield f"test changed: {test}"

    def drift(self, scenario: ScenarioSpec) -> str:
        """Say what has changed in the steps or the rows of a scenario; empty if nothing has."""
        steps, rows = tuple(step_lines(scenario)), _row_lines(scenario)
        # Another version of the hash says nothing; the lines of the steps do.
        is_same_hash = self.rev.split(":")[0] == scenario.rev.split(":")[0]
        if self.rev != scenario.rev if is_same_hash else self.steps != steps:
            return (
                f"its steps were accepted as others{_first_change(self.steps, steps)}"
            )
        # A row more is one that no test proves yet; in the place of another it is an edited one.
        if set(self.rows) - set(rows) and set(rows) - set(self.rows):
            return f"its rows were accepted as others{_first_change(self.rows, rows)}"
        return ""


@dataclass(frozen=True, slots=True)
class Lock:
    """The lock file: one JSON object in a line for each scenario, sorted, with blank lines between.

    The blank lines let git merge two branches that changed neighbours; ``merge=union`` in
    ``.gitattributes`` also those that added two scenarios in the same place.
    """

    entries: Mapping[str, Locked] = field(default_factory=dict)  # by key, sorted
    place: str = "scenarios.lock"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file; one that is not there is an empty lock.

        Raises:
            ScenarioError: it cannot be read, has the marks of a merge conflict, a line that is
                none of its own, or two for one scenario; with the line.
        """
        entries: dict[str, Locked] = {}
        for number, line in _agreed_lines(path):
            where = f"{path.name}:{number}"
            try:
                entry: Locked = from_shape(Locked, json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                what, cause = f"{where} is no line of a lock file", f"{where}  {line}"
                raise _unreadable(what, cause, "arena scenarios accept KEY") from error
            if entries.setdefault(entry.key, entry) != entry:
                raise ScenarioError(
                    f"two lines of the lock file are about {entry.key!r}",
                    why="which of the two was agreed on is not for arena to say",
                    cause=f"{where}: two branches have accepted it, and git kept both",
                    fix=f"delete both lines, then: arena scenarios accept {entry.key!r}",
                )
        return cls(dict(sorted(entries.items())), path.name)

    def text(self) -> str:
        """Return the file's text: the same for the same entries."""
        lines = (to_shape(entry) for _, entry in sorted(self.entries.items()))
        return _LOCK_HEAD + "".join(
            f"\n{json.dumps(line, ensure_ascii=False)}\n" for line in lines
        )

    def former_names(self, scenarios: Sequence[ScenarioSpec]) -> dict[str, str]:
        """Return, by the key under which it was accepted, the key that a scenario has now."""
        gone = self._gone(scenario.key for scenario in scenarios)
        return {
            former.key: key for key, former in self._renames(scenarios, gone).items()
        }

    def accepted(
        self, document: Document, keys: Sequence[str] = ()
    ) -> "tuple[Lock, tuple[str, ...]]":
        """Accept the steps of scenarios as they stand, and their tests as they are.

        Args:
            document: the scenarios and their tests.
            keys: of the scenarios; none for all that have a test, and entries that no scenario
                has any more are then left out.

        Returns:
            The new lock, and for each scenario that is not what was accepted before a diff of its
            steps and a line for each test that has come, gone or changed.

        Raises:
            ScenarioError: one is malformed.
        """
        judged = {it.scenario.key: it for it in document.scenarios}
        tested = [key for key, it in sorted(judged.items()) if it.tests]
        for it in (wanted := [judged[key] for key in keys or tested]):
            if it.standing.malformed:
                raise ScenarioError(
                    f"{it.scenario.key!r} is MALFORMED: {it.standing.malformed}",
                    why="nobody can agree to steps that are not read as they are meant",
                    cause=it.scenario.place,
                    fix="mend the specification, then accept it",
                )
        entries, gone, lines = dict(self.entries), self._gone(judged), list[str]()
        renames = self._renames((it.scenario for it in wanted), gone)
        for it in wanted:
            scenario, former = it.scenario, renames.get(it.scenario.key)
            new = Locked.of(scenario, {test.test: test.source for test in it.tests})
            if old := self.entries.get(scenario.key, former):
                lines += new.difference(old, scenario.place)
            elif keys:
                lines += new.difference(None, scenario.place)
            else:  # of many that were never accepted nobody reads the steps here
                lines.append(f"new: {new.key}  {new.rev}  {scenario.place}")
            entries[new.key] = new
            if former:
                del entries[former.key], gone[former.key]
        if not keys:
            # What was renamed is kept as long as no test knows the new name: by the entry a marker
            # that has the old name is told the new one.
            kept = self._renames((it.scenario for it in document.scenarios), gone)
            for key, former in kept.items():
                del gone[former.key]
                lines.append(
                    f"kept: {former.key}; it is {key} now, which no test names yet"
                )
            lines += [f"gone: {key}" for key in gone]
            entries = {key: entry for key, entry in entries.items() if key not in gone}
        return Lock(dict(sorted(entries.items())), self.place), tuple(lines)

    def problems(self, scenarios: Sequence[ScenarioSpec]) -> Iterator[Problem]:
        """Yield a warning for each entry whose scenario has another name now, or is gone."""
        gone = self._gone(scenario.key for scenario in scenarios)
        places = {scenario.key: scenario for scenario in scenarios}
        for key, former in self._renames(scenarios, gone).items():
            del gone[former.key]
            scenario = places[key]
            has = (
                "has its steps"
                if former.rev == scenario.rev
                else "has nearly its steps"
            )
            what = f"{former.key!r} was accepted; {key!r} ({scenario.place}) {has}"
            hint = f"arena scenarios accept {key!r}, and that name in its markers"
            yield Problem(spec=self.place, line=0, what=what, hint=hint, is_error=False)
        for key in gone:
            what = f"{key!r} was accepted, and no specification has it any more"
            hint = "arena scenarios accept --all leaves it out"
            yield Problem(spec=self.place, line=0, what=what, hint=hint, is_error=False)

    def _gone(self, keys: Iterable[str]) -> dict[str, Locked]:
        """Return the entries of which no scenario has the key any more."""
        return {
            key: self.entries[key] for key in sorted(self.entries.keys() - set(keys))
        }

    def _renames(
        self, scenarios: Iterable[ScenarioSpec], gone: Mapping[str, Locked]
    ) -> dict[str, Locked]:
        """Return, by the new key, the entry of a former name: gone, and the only one of its steps.

        Where none has them, the only one with nearly its steps: renamed and changed at once. That
        is not looked for where there are too many.
        """
        new = [scenario for scenario in scenarios if scenario.key not in self.entries]
        left, renames = dict(gone), dict[str, Locked]()
        for scenario in new if left else ():
            alike = [entry for entry in left.values() if entry.rev == scenario.rev]
            if not alike and len(left) * len(new) <= _MOST_COMPARED:
                lines = step_lines(scenario)
                alike = [
                    it for it in left.values() if similarity(it.steps, lines) >= _NEARLY
                ]
            if len(alike) == 1:
                renames[scenario.key] = left.pop(alike[0].key)
        return renames


def _row_lines(scenario: ScenarioSpec) -> tuple[str, ...]:
    """Return the rows of an Outline's Examples, each in a line, in the same order always."""
    rows = {
        ", ".join(f"{name}={value}" for name, value in row.values)
        for row in scenario.rows
    }
    return tuple(sorted(rows))


def _first_change(before: Sequence[str], now: Sequence[str]) -> str:
    was = next((line for line in before if line not in now), "")
    came = next((line for line in now if line not in before), "")
    changes = [f"was {was!r}"] * bool(was) + [f"is {came!r}"] * bool(came)
    return f" ({', '.join(changes)})" if changes else ""


# Which scenarios may go unproven.

_BASELINE_HEAD = """\
# Scenarios that are known not to be proven. A new gap fails the run, and so does a line here whose
# scenario is proven: this list only shrinks.
"""
_KNOWN = re.compile(r"(?P<status>\S+)\s+(?P<key>\S.*)")
_WAIVER = re.compile(r"(?P<name>\S.*?)\s+(?P<until>\d{4}-\d\d-\d\d)\s+(?P<reason>\S.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreedGap:
    """A line of the baseline, with a status and for good; or a waiver, with a day and a reason."""

    name: str  # the key of a scenario; of a waiver perhaps a tag
    status: Status | None = None
    until: date = date.max  # the last day on which a waiver holds
    reason: str = ""
    spec: str = ""  # the file that it stands in, by its name
    line: int = 0

    def covers(self, scenario: ScenarioSpec) -> bool:
        """Whether it is about this scenario."""
        return self.name == scenario.key or (
            not self.status and self.name in scenario.tags
        )

    def __str__(self) -> str:
        return f"until {self.until}: {self.reason}"


def read_baseline(path: Path) -> tuple[AgreedGap, ...]:
    """Read ``HOLLOW  Feature :: Scenario``, one in each line; without the file there is none.

    Raises:
        ScenarioError: it cannot be read, holds conflict marks, a line that is none, or a key
            twice; with the line.
    """
    gaps: dict[str, AgreedGap] = {}
    for number, line in _agreed_lines(path):
        match = _KNOWN.fullmatch(line.strip())
        status = next(
            (it for it in Status if match and it.value == match["status"]), None
        )
        if not match or not status or status in FINE or match["key"] in gaps:
            is_double = match and status
            what = (
                "names a scenario twice"
                if is_double
                else "holds a line that is none of its own"
            )
            cause, expected = (
                f"{path.name}:{number}  {line}",
                "HOLLOW    Feature :: Scenario",
            )
            raise _unreadable(f"the baseline {what}", cause, expected)
        key = " ".join(match["key"].split())
        gaps[key] = AgreedGap(name=key, status=status, spec=path.name, line=number)
    return tuple(gaps[key] for key in sorted(gaps))


def baseline_text(path: Path, document: Document) -> str:
    """Return the text of the baseline after this run: only fewer lines, and better statuses.

    Where there was no file, each scenario that is neither proven nor waived gets its line.

    Raises:
        ScenarioError: the file that is there is no baseline.
    """
    now = {it.scenario.key: it.status for it in document.scenarios if it.is_judged}
    if path.exists():
        keys = {judged.scenario.key for judged in document.scenarios}
        known = {
            it.name: it.status
            for it in read_baseline(path)
            if it.status and it.name in keys
        }
        now = {
            key: max(now.get(key, status), status, key=lambda status: status.rank)
            for key, status in known.items()
        }
    lines = [
        f"{now[key].value:<9} {key}\n" for key in sorted(now) if now[key] not in FINE
    ]
    return _BASELINE_HEAD + "".join(lines)


def read_waivers(lines: Sequence[str], *, place: str) -> tuple[AgreedGap, ...]:
    """Read ``@manual 2027-03-31 bought in May``, one in each line; blank ones are left out.

    Args:
        lines: the option's lines.
        place: where the option stands, for messages.

    Raises:
        ConfigError: a line without a date that can be, or without a reason.
    """
    return tuple(_waiver(line.strip(), place) for line in lines if line.strip())


def _waiver(line: str, place: str) -> AgreedGap:
    match = _WAIVER.fullmatch(line)
    try:
        until = date.fromisoformat(match["until"] if match else "")
    except ValueError:
        match = None
    if match is None:
        raise ConfigError(
            f"arena_scenario_waive is not a waiver: {line!r}",
            why="a scenario may go unproven for a reason, and until a day; then it counts again",
            cause=place,
            fix="arena_scenario_waive = @manual 2027-03-31 why it cannot be tested",
        )
    name = " ".join(match["name"].split())
    spec, number = _place_of_waiver(place, line)
    return AgreedGap(
        name=name, until=until, reason=match["reason"], spec=spec, line=number
    )


def _place_of_waiver(place: str, waiver: str) -> tuple[str, int]:
    """A file's name and the waiver's line: where the project lies is no matter to a document."""
    file, _, line = place.partition("  ")[0].rpartition(":")
    if not line.isdecimal():
        return "", 0
    below = enumerate(getlines(file)[int(line) - 1 :], int(line))
    number = next((number for number, text in below if waiver in text), int(line))
    return Path(file).name, number


def gap_problems(
    scenarios: Sequence[ScenarioSpec], gaps: Iterable[AgreedGap], today: date
) -> Iterator[Problem]:
    """Yield what is agreed on and is about no scenario, or has run out."""
    keys = {scenario.key for scenario in scenarios}
    for gap in gaps:
        hint = "remove its line"
        if gap.status:
            is_wrong = gap.name not in keys
            what = f"{gap.name!r} is a known gap, and no specification has it any more"
        elif not any(map(gap.covers, scenarios)):
            is_wrong, what = (
                True,
                f"the waiver of {gap.name!r} ({gap}) is about no scenario",
            )
        else:
            is_wrong, what = (
                today > gap.until,
                f"the waiver of {gap.name!r} ({gap}) has run out",
            )
            hint = "prove what it is about, or say how long it holds"
        if is_wrong:
            yield Problem(spec=gap.spec, line=gap.line, what=what, hint=hint)
