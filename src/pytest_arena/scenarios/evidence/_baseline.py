"""Which gaps were there before anybody looked, and are to become fewer?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena.scenarios.evidence._document import Status
from pytest_arena.scenarios.evidence._files import failed_to_read, refuse_conflicts, text_of
from pytest_arena.scenarios.evidence._flags import rank

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_arena.scenarios.evidence._document import Document

__all__ = ["Baseline"]

_HEAD = """\
# Scenarios that are known not to be proven. A new gap fails the run, and so does a line here whose
# scenario is proven: this list only shrinks.
"""
_FINE = (Status.PROVEN, Status.WAIVED)
_LINE = re.compile(r"(?P<status>\S+)\s+(?P<key>\S.*)")


@dataclass(frozen=True, slots=True)
class Baseline:
    """A status for each key; the file has a line of both for each, and ``#`` before comments."""

    entries: tuple[tuple[str, Status], ...] = ()
    """By key."""
    place: str = ""
    """The file, for messages; empty where there is none yet."""
    lines: tuple[tuple[str, int], ...] = ()
    """By key, where each stands in the file."""

    @classmethod
    def read(cls, path: Path) -> Baseline:
        """Read the file. One that is not there is an empty baseline, which may be written.

        Raises:
            ScenarioError: it cannot be read, holds conflict marks, a line that is none, or a key
                twice; with the line.
        """
        text = text_of(path)
        if text is None:
            return cls()
        refuse_conflicts(text, path.name)
        found: dict[str, Status] = {}
        lines: dict[str, int] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip() and not line.startswith("#"):
                key, status = _entry(line, f"{path.name}:{number}  {line}", found)
                found[key], lines[key] = status, number
        return cls(tuple(sorted(found.items())), path.name, tuple(sorted(lines.items())))

    def written(self, document: Document) -> str:
        """Return the text of the file after this run: only fewer lines, and better statuses.

        Where there was no file, each scenario that is neither proven nor waived gets its line.
        """
        now = {one.scenario.key: one.status for one in document.scenarios if one.is_judged}
        if self.place:
            there = {one.scenario.key for one in document.scenarios}
            now = {key: _best(now, key, old) for key, old in self.entries if key in there}
        lines = [f"{now[key].value:<9} {key}\n" for key in sorted(now) if now[key] not in _FINE]
        return _HEAD + "".join(lines)


def _best(now: dict[str, Status], key: str, known: Status) -> Status:
    return max(now.get(key, known), known, key=rank)


def _entry(line: str, cause: str, before: dict[str, Status]) -> tuple[str, Status]:
    found = _LINE.fullmatch(line.strip())
    status = next((one for one in Status if found and one.value == found["status"]), None)
    if found and status and status not in _FINE and found["key"] not in before:
        return " ".join(found["key"].split()), status
    what = "names a scenario twice" if found and status else "holds a line that is none of its own"
    raise failed_to_read(f"the baseline {what}", cause, "HOLLOW    Feature :: Scenario")
