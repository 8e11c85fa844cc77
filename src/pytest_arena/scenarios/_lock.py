"""The lock file of a project: the accepted steps of each scenario, and the agreed gaps."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena.errors import ScenarioError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pytest_arena.scenarios._specs import ScenarioSpec

FILE = "scenarios.lock"
"""The name of the file in pytest's root folder."""
_HEAD = """\
# scenarios.lock, version 1
# The accepted steps of each scenario. `pytest --scenarios-accept` writes this file.
# Add a gap to a line by hand: gap until 2027-03-31: why nobody can test the scenario yet
"""
_EXAMPLE = "Feature :: Scenario  3265ea09  gap until 2027-03-31: tried by hand"
_LINE = re.compile(
    r"(?P<key>\S.*?)\s+(?P<revision>[0-9a-f]{8})"
    r"(?:\s+gap until (?P<until>\d{4}-\d\d-\d\d): (?P<reason>\S.*))?"
)


@dataclass(frozen=True, slots=True)
class Locked:
    """The accepted version of one scenario."""

    key: str
    revision: str
    """The hash of its steps."""
    until: str = ""
    """The last day on which a strict run accepts the unproven scenario, as ``2027-03-31``."""
    reason: str = ""

    @property
    def gap(self) -> str:
        """The agreed gap, "" without one."""
        return f"gap until {self.until}: {self.reason}" if self.until else ""


Lock = dict[str, Locked]
"""The lines of the lock file, by the keys of their scenarios."""


def read_lock(path: Path) -> Lock:
    """Read the file. Without the file the lock is empty.

    Raises:
        ScenarioError: the file has an invalid line such as the mark of a merge conflict, or two
            lines for one scenario.
    """
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    lock: Lock = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise _malformed(f"{path.name}:{number}", line)
        locked = Locked(**match.groupdict(default=""))
        if lock.setdefault(locked.key, locked) is not locked:
            raise _malformed(f"{path.name}:{number}", f"a second line for {locked.key}")
    return lock


def accept(path: Path, scenarios: Iterable[ScenarioSpec]) -> None:
    """Write the present steps of all scenarios to the file. Gaps stay."""
    lock = read_lock(path)
    lines = []
    for scenario in scenarios:
        old = lock.get(scenario.key)
        gap = old.gap if old else ""
        lines.append(f"{scenario.key}  {scenario.revision}  {gap}".rstrip())
    path.write_text("\n".join([_HEAD, *sorted(lines), ""]), encoding="utf-8")


def _malformed(place: str, cause: str) -> ScenarioError:
    return ScenarioError(
        f"{place} is not a valid line of the lock file",
        why="the file records what the project has agreed to",
        cause=cause,
        fix="restore the file from git, or delete it and run pytest --scenarios-accept.\n"
        f"A line for each scenario: {_EXAMPLE}",
    )
