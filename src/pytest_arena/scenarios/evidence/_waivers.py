"""Which scenarios may go unproven, why, and until when?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from linecache import getlines
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_arena.scenarios.specs import Scenario

__all__ = ["Waiver", "covering", "waivers"]

_LINE = re.compile(r"(?P<what>\S.*?)\s+(?P<until>\d{4}-\d\d-\d\d)\s+(?P<reason>\S.*)")
_PLACE = re.compile(r"(?P<file>.+?):(?P<line>\d+)(?:\s|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """One line of the option: a tag or a key, the last day, a reason."""

    what: str
    until: date
    reason: str
    spec: str = ""
    """The file that the option stands in, by its name: pytest's own file, in the root folder."""
    line: int = 0

    def covers(self, scenario: Scenario) -> bool:
        """Whether it is about this scenario: one of its tags, or its key."""
        return self.what in {*scenario.tags, scenario.key}

    def is_over(self, today: date) -> bool:
        """Whether it has run out: it holds on its last day."""
        return today > self.until

    def __str__(self) -> str:
        return f"until {self.until}: {self.reason}"


def waivers(lines: Sequence[str], *, place: str) -> tuple[Waiver, ...]:
    """Read ``@manual 2027-03-31 bought in May``, one in each line; blank ones are left out.

    Args:
        lines: the option's lines.
        place: where the option stands, for messages.

    Raises:
        ConfigError: a line without a date that can be, or without a reason.
    """
    return tuple(_waiver(line.strip(), place) for line in lines if line.strip())


def _waiver(line: str, place: str) -> Waiver:
    found = _LINE.fullmatch(line)
    until = _day(found["until"]) if found else None
    if not found or not until:
        raise ConfigError(
            f"arena_scenario_waive is not a waiver: {line!r}",
            why="a scenario may go unproven for a reason, and until a day; then it counts again",
            cause=place,
            fix="arena_scenario_waive = @manual 2027-03-31 why it cannot be tested",
        )
    what = " ".join(found["what"].split())
    spec, number = _named(place, line)
    return Waiver(what=what, until=until, reason=found["reason"], spec=spec, line=number)


def _named(place: str, waiver: str) -> tuple[str, int]:
    """A file's name and the waiver's line: where the project lies is no matter to a document."""
    found = _PLACE.match(place)
    if not found:
        return "", 0
    first = int(found["line"])
    below = enumerate(getlines(found["file"])[first - 1 :], first)
    number = next((number for number, text in below if waiver in text), first)
    return Path(found["file"]).name, number


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def covering(scenario: Scenario, among: Iterable[Waiver]) -> Waiver | None:
    """Return the waiver of a scenario, over or not: of several the one that lasts longest."""
    found = [one for one in among if one.covers(scenario)]
    return max(found, key=lambda one: (one.until, one.reason), default=None)
