"""Which scenarios may go unproven: the gaps of the baseline, and those that are waived."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from linecache import getlines
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena.errors import ConfigError
from pytest_arena.scenarios.evidence._document import FINE, Status
from pytest_arena.scenarios.evidence._lock import agreed_lines, unreadable
from pytest_arena.scenarios.specs import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_arena.scenarios.evidence._document import Document
    from pytest_arena.scenarios.specs import ScenarioSpec

__all__ = ["AgreedGap", "baseline_text", "gap_problems", "read_baseline", "read_waivers"]

_HEAD = """\
# Scenarios that are known not to be proven. A new gap fails the run, and so does a line here whose
# scenario is proven: this list only shrinks.
"""
_KNOWN = re.compile(r"(?P<status>\S+)\s+(?P<key>\S.*)")
_WAIVER = re.compile(r"(?P<name>\S.*?)\s+(?P<until>\d{4}-\d\d-\d\d)\s+(?P<reason>\S.*)")
_PLACE = re.compile(r"(?P<file>.+?):(?P<line>\d+)(?:\s|$)")


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
        return self.name == scenario.key or (not self.status and self.name in scenario.tags)

    def __str__(self) -> str:
        return f"until {self.until}: {self.reason}"


def read_baseline(path: Path) -> tuple[AgreedGap, ...]:
    """Read ``HOLLOW  Feature :: Scenario``, one in each line; without the file there is none.

    Raises:
        ScenarioError: it cannot be read, holds conflict marks, a line that is none, or a key
            twice; with the line.
    """
    gaps: dict[str, AgreedGap] = {}
    for number, line in agreed_lines(path):
        match = _KNOWN.fullmatch(line.strip())
        status = next((it for it in Status if match and it.value == match["status"]), None)
        if not match or not status or status in FINE or match["key"] in gaps:
            is_double = match and status
            what = "names a scenario twice" if is_double else "holds a line that is none of its own"
            cause, expected = f"{path.name}:{number}  {line}", "HOLLOW    Feature :: Scenario"
            raise unreadable(f"the baseline {what}", cause, expected)
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
        known = {it.name: it.status for it in read_baseline(path) if it.status and it.name in keys}
        now = {
            key: max(now.get(key, status), status, key=lambda status: status.rank)
            for key, status in known.items()
        }
    lines = [f"{now[key].value:<9} {key}\n" for key in sorted(now) if now[key] not in FINE]
    return _HEAD + "".join(lines)


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
    return AgreedGap(name=name, until=until, reason=match["reason"], spec=spec, line=number)


def _place_of_waiver(place: str, waiver: str) -> tuple[str, int]:
    """A file's name and the waiver's line: where the project lies is no matter to a document."""
    match = _PLACE.match(place)
    if not match:
        return "", 0
    first = int(match["line"])
    below = enumerate(getlines(match["file"])[first - 1 :], first)
    number = next((number for number, text in below if waiver in text), first)
    return Path(match["file"]).name, number


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
            is_wrong, what = True, f"the waiver of {gap.name!r} ({gap}) is about no scenario"
        else:
            is_wrong, what = today > gap.until, f"the waiver of {gap.name!r} ({gap}) has run out"
            hint = "prove what it is about, or say how long it holds"
        if is_wrong:
            yield Problem(spec=gap.spec, line=gap.line, what=what, hint=hint)
