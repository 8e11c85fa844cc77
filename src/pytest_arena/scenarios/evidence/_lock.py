"""The lock file of a project: the accepted steps of each scenario, and the agreed gaps."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Self

from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios.specs._specification import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_arena.scenarios.specs._specification import ScenarioSpec

FILE = "scenarios.lock"
"""The name of the file in pytest's root folder."""
_HEAD = """\
# The accepted steps of each scenario. `arena scenarios accept` writes this file.
# Add a gap to a line by hand: gap until 2027-03-31: why nobody can test the scenario yet
"""
_EXAMPLE = "Feature :: Scenario  1:3265ea09  gap until 2027-03-31: tried by hand"
_LINE = re.compile(
    r"(?P<key>\S.*?)\s+(?P<rev>\d+:[0-9a-f]+)"
    r"(?:\s+gap until (?P<until>\d{4}-\d\d-\d\d): (?P<reason>\S.*))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """The accepted version of one scenario."""

    key: str
    rev: str
    """The hash of its steps."""
    until: date | None = None
    """The last day on which a strict run accepts the unproven scenario."""
    reason: str = ""

    @property
    def gap(self) -> str:
        """The agreed gap, "" without one."""
        return f"gap until {self.until}: {self.reason}" if self.until else ""

    def __str__(self) -> str:
        return f"{self.key}  {self.rev}  {self.gap}".rstrip()


@dataclass(frozen=True, slots=True)
class Lock:
    """The lines of the lock file."""

    entries: Mapping[str, Locked] = field(default_factory=dict)
    """The entries by their keys."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file. Without the file the lock is empty.

        Raises:
            ScenarioError: the file cannot be read, or has an invalid line, such as the mark of a
                merge conflict, or two lines for one scenario.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            return cls()
        except (OSError, UnicodeDecodeError) as error:
            raise _malformed(path.name, str(error)) from error
        entries: dict[str, Locked] = {}
        for number, line in enumerate(map(str.strip, text.split("\n")), 1):
            if not line or line.startswith("#"):
                continue
            place = f"{path.name}:{number}"
            entry = _entry(line)
            if entry is None:
                raise _malformed(place, line)
            if entries.setdefault(entry.key, entry) is not entry:
                raise _malformed(place, f"a second line for {entry.key}")
        return cls(entries)

    def text(self) -> str:
        """Return the file's text. The same entries give the same text."""
        lines = [str(entry) for _, entry in sorted(self.entries.items())]
        return "\n".join([_HEAD, *lines, ""])

    def accepted(
        self, scenarios: Sequence[ScenarioSpec], keys: Sequence[str] = ()
    ) -> tuple[Lock, tuple[str, ...]]:
        """Accept scenarios with their current steps. A gap stays.

        Args:
            scenarios: all scenarios.
            keys: the keys of the accepted scenarios. Without any, all are accepted, and entries
                without a scenario are removed.

        Returns:
            The new lock, and a line for each change.
        """
        entries = dict(self.entries)
        lines = []
        for scenario in scenarios:
            key = scenario.key
            if keys and key not in keys:
                continue
            old = entries.get(key, Locked(key=key, rev=""))
            entries[key] = replace(old, rev=scenario.rev)
            if not old.rev:
                lines.append(f"new: {key}  {scenario.place}")
            elif old.rev != scenario.rev:
                lines.append(f"changed: {key}  {scenario.place}")
        if not keys:
            for entry in self._without_scenario(scenarios):
                lines.append(f"gone: {entry}")
                del entries[entry.key]
        return Lock(entries), tuple(lines)

    def problems(self, scenarios: Sequence[ScenarioSpec]) -> Iterator[Problem]:
        """Yield a warning for each entry whose scenario was renamed or removed."""
        for entry in self._without_scenario(scenarios):
            yield Problem(
                spec=FILE,
                line=0,
                what=f"{entry.key!r} was accepted, but no specification has it now",
                hint="arena scenarios accept --all removes it",
                is_error=False,
            )

    def _without_scenario(self, scenarios: Iterable[ScenarioSpec]) -> list[Locked]:
        missing = self.entries.keys() - {scenario.key for scenario in scenarios}
        return [self.entries[key] for key in sorted(missing)]


def _entry(line: str) -> Locked | None:
    """Return the entry of a line, None for an invalid line."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    until = None
    if match["until"]:
        try:
            until = date.fromisoformat(match["until"])
        except ValueError:
            return None
    return Locked(
        key=match["key"], rev=match["rev"], until=until, reason=match["reason"] or ""
    )


def _malformed(place: str, cause: str) -> ScenarioError:
    return ScenarioError(
        f"{place} is not a valid line of the lock file",
        why="the file records what the project has agreed to",
        cause=cause,
        fix=f"restore the file from git, or write a line for each scenario:\n{_EXAMPLE}",
    )
