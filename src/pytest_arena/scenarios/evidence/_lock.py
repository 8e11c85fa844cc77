"""Which steps has somebody read and agreed to, with which tests?"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from difflib import get_close_matches, unified_diff
from typing import TYPE_CHECKING, Any

from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios.evidence._document import Status
from pytest_arena.scenarios.evidence._files import failed_to_read, refuse_conflicts, text_of
from pytest_arena.scenarios.specs import similarity, step_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_arena.scenarios.evidence._document import Document
    from pytest_arena.scenarios.evidence._facts import Mapping as TestMapping
    from pytest_arena.scenarios.specs import Scenario, Specification

__all__ = ["Lock", "Locked", "told_rows"]

# Above it two scenarios are one that was edited: an edited one has 0.99, the nearest other 0.38.
_NEARLY = 0.8
# To compare steps takes a millisecond; with more a file was left out, and nothing was renamed.
_MOST_COMPARED = 1000
_HEAD = """\
# The steps that were accepted, and the tests as they were then: `arena scenarios accept` writes it.
# One line for each scenario; .gitattributes: scenarios.lock merge=union
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """What was accepted of one scenario."""

    key: str
    rev: str
    steps: tuple[str, ...]
    """Their canonical text, to show what has changed since."""
    tests: tuple[tuple[str, str], ...] = ()
    """Node ids and the hashes of their code, sorted."""
    rows: tuple[str, ...] = ()
    """Of an Outline's Examples, sorted: ``code=409, status=ACTIVE``."""

    def line(self) -> str:
        """Return its line of the file."""
        rows = {"rows": self.rows} if self.rows else {}
        shown = {"key": self.key, "rev": self.rev, "steps": self.steps, **rows}
        return json.dumps({**shown, "tests": dict(self.tests)}, ensure_ascii=False)

    def said(self) -> tuple[str, ...]:
        """Return the lines in which a difference is shown."""
        return (*self.steps, *(f"Example {row}" for row in self.rows))


@dataclass(frozen=True, slots=True)
class Lock:
    """The lock file: one JSON object in a line for each scenario, sorted, with blank lines between.

    The blank lines let git merge two branches that changed neighbours; ``merge=union`` in
    ``.gitattributes`` also those that added two scenarios in the same place.
    """

    entries: Mapping[str, Locked] = field(default_factory=dict)
    """By key, sorted."""
    place: str = "scenarios.lock"

    @classmethod
    def read(cls, path: Path) -> Lock:
        """Read the file; one that is not there is an empty lock.

        Raises:
            ScenarioError: it cannot be read, has the marks of a merge conflict, a line that is
                none of its own, or two for one scenario; with the line.
        """
        text = text_of(path)
        if text is None:
            return cls(place=path.name)
        refuse_conflicts(text, path.name)
        found: dict[str, Locked] = {}
        # Not splitlines(): a doc string may hold marks that end a line elsewhere, such as U+2028.
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip() and not line.startswith("#"):
                _add(found, line, f"{path.name}:{number}")
        return cls(dict(sorted(found.items())), path.name)

    def text(self) -> str:
        """Return the file's text: the same for the same entries."""
        return _HEAD + "".join(f"\n{one.line()}\n" for _, one in sorted(self.entries.items()))

    def known(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Return for each key the accepted rev and the lines of its steps."""
        return {key: (one.rev, one.steps) for key, one in self.entries.items()}

    def gone(self, keys: Iterable[str]) -> dict[str, Locked]:
        """Return the entries of which no scenario has the key any more."""
        return {key: self.entries[key] for key in sorted(self.entries.keys() - set(keys))}

    def new(self, scenarios: Iterable[Scenario]) -> list[Scenario]:
        """Return those that were never accepted, at least not by their present names."""
        return [one for one in scenarios if one.key not in self.entries]

    def former(
        self, scenario: Scenario, gone: Mapping[str, Locked], *, among: int = 1
    ) -> Locked | None:
        """Return the entry of a scenario's former name: gone, and the only one with its steps.

        Where none has them, the only one with nearly its steps: renamed and changed at once. That
        is not looked for where the question is asked of too many, which ``among`` says.
        """
        if scenario.key in self.entries:
            return None
        alike = [one for one in gone.values() if one.rev == scenario.rev]
        if not alike and len(gone) * among <= _MOST_COMPARED:
            lines = step_lines(scenario)
            alike = [one for one in gone.values() if similarity(one.steps, lines) >= _NEARLY]
        return alike[0] if len(alike) == 1 else None

    def accepted(
        self,
        document: Document,
        keys: Sequence[str],
        specification: Specification,
        mappings: Sequence[TestMapping],
    ) -> tuple[Lock, tuple[str, ...]]:
        """Accept the steps of scenarios as they stand, and their tests as they are.

        Args:
            document: the verdicts; what is MALFORMED cannot be accepted.
            keys: of the scenarios; none for all that have a test, and entries that no scenario
                has any more are then left out.
            specification: what the files say now.
            mappings: the tests that there are.

        Returns:
            The new lock, and for each scenario that is not what was accepted before a diff of its
            steps and a line for each test that has come, gone or changed.

        Raises:
            ScenarioError: there is no scenario of such a key, or it is malformed.
        """
        there = {one.key: one for one in specification.scenarios}
        wanted = [_wanted(key, there) for key in keys] or _mapped(there, mappings)
        _refuse_malformed(wanted, document)
        entries, gone, lines = dict(self.entries), self.gone(there), list[str]()
        sources = defaultdict[str, dict[str, str]](dict)
        for one in mappings:
            sources[one.scenario][one.test] = one.source
        among = len(self.new(wanted))
        for scenario in wanted:
            new = _locked(scenario, sources[scenario.key])
            former = self.former(scenario, gone, among=among)
            old = self.entries.get(scenario.key, former)
            lines += _difference(old, new, scenario.place) if old or keys else [_new(new, scenario)]
            entries[new.key] = new
            if former:
                del entries[former.key], gone[former.key]
        if not keys:
            lines += self._kept(self.new(there.values()), gone)
            lines += [f"gone: {key}" for key in gone]
            entries = {key: one for key, one in entries.items() if key not in gone}
        return Lock(dict(sorted(entries.items())), self.place), tuple(lines)

    def _kept(self, scenarios: Sequence[Scenario], gone: dict[str, Locked]) -> Iterator[str]:
        """Take out of ``gone`` what was renamed, as long as no test knows the new name.

        By the entry a marker that has the old name is told the new one.
        """
        for scenario in scenarios if gone else ():
            if former := self.former(scenario, gone, among=len(scenarios)):
                del gone[former.key]
                yield f"kept: {former.key}; it is {scenario.key} now, which no test names yet"


def told_rows(scenario: Scenario) -> tuple[str, ...]:
    """Return the rows of an Outline's Examples, each in a line, in the same order always."""
    rows = {", ".join(f"{name}={value}" for name, value in row.values) for row in scenario.rows}
    return tuple(sorted(rows))


def _add(found: dict[str, Locked], line: str, where: str) -> None:
    try:
        one = _parsed(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{where} is no line of a lock file"
        raise failed_to_read(what, f"{where}  {line}", "arena scenarios accept KEY") from error
    if one.key in found and found[one.key] != one:
        raise ScenarioError(
            f"two lines of the lock file are about {one.key!r}",
            why="which of the two was agreed on is not for arena to say",
            cause=f"{where}: two branches have accepted it, and git kept both",
            fix=f"delete both lines, then: arena scenarios accept {one.key!r}",
        )
    found[one.key] = one


def _parsed(raw: Any) -> Locked:
    tests = {str(test): str(source) for test, source in raw.get("tests", {}).items()}
    if not isinstance(raw["key"], str) or not isinstance(raw["rev"], str):
        raise TypeError(raw)
    return Locked(
        key=raw["key"],
        rev=raw["rev"],
        steps=tuple(str(line) for line in raw.get("steps", ())),
        tests=tuple(sorted(tests.items())),
        rows=tuple(str(row) for row in raw.get("rows", ())),
    )


def _wanted(key: str, there: Mapping[str, Scenario]) -> Scenario:
    if found := there.get(" ".join(key.split())):
        return found
    near = get_close_matches(key, there, n=3, cutoff=0.4)
    raise ScenarioError(
        f"no scenario has the key {key!r}",
        why="only what stands in a specification can be accepted",
        cause="nearest: " + "; ".join(near) if near else f"there are {len(there)} scenarios",
        fix=f"arena scenarios accept {near[0]!r}" if near else "arena scenarios list",
    )


def _mapped(there: Mapping[str, Scenario], mappings: Sequence[TestMapping]) -> list[Scenario]:
    return [there[key] for key in sorted({one.scenario for one in mappings}) if key in there]


def _refuse_malformed(wanted: Sequence[Scenario], document: Document) -> None:
    bad = {one.scenario.key: one for one in document.scenarios if one.standing.malformed}
    for scenario in wanted:
        if one := bad.get(scenario.key):
            raise ScenarioError(
                f"{scenario.key!r} is {Status.MALFORMED.value}: {one.standing.malformed}",
                why="nobody can agree to steps that are not read as they are meant",
                cause=scenario.place,
                fix="mend the specification, then accept it",
            )


def _locked(scenario: Scenario, tests: Mapping[str, str]) -> Locked:
    return Locked(
        key=scenario.key,
        rev=scenario.rev,
        steps=tuple(step_lines(scenario)),
        tests=tuple(sorted(tests.items())),
        rows=told_rows(scenario),
    )


def _new(one: Locked, scenario: Scenario) -> str:
    """Of many that were never accepted nobody reads the steps here: they stand in the file."""
    return f"new: {one.key}  {one.rev}  {scenario.place}"


def _difference(old: Locked | None, new: Locked, place: str) -> Iterator[str]:
    if old and old.key != new.key:
        yield f"renamed: {old.key} -> {new.key}"
    if old and old.steps == new.steps and old.rev != new.rev:
        yield f"rev: {old.rev} -> {new.rev}  {new.key}"
    before = f"{old.key}  {old.rev}" if old else "not accepted yet"
    said = old.said() if old else ()
    yield from unified_diff(
        said, new.said(), before, f"{new.key}  {new.rev}  {place}", n=99, lineterm=""
    )
    yield from _tests(dict(old.tests) if old else {}, dict(new.tests))


def _tests(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for test in sorted(before.keys() | now.keys()):
        if test not in before:
            yield f"test added: {test}"
        elif test not in now:
            yield f"test gone: {test}"
        elif before[test] != now[test]:
            yield f"test changed: {test}"
