"""What did a run of stories show? Each broken promise, with the test that found it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.conformance.stories_failing import TOLD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conformance.setting import Setting
    from tests.example import Run

__all__ = ["Broken", "Told", "Verdict", "judged"]


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that was not kept: where it showed, and how."""

    promise: str
    where: str
    how: str

    def __str__(self) -> str:
        """Say all of it, the reason below."""
        lines = self.how.splitlines()[-_LINES:]
        return "\n    ".join([f"{self.promise} in {self.where}", *lines])


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the stories showed about one setting.

    ``broken`` is empty where all is well. ``exceptions`` are the stories that were left out
    because the setting declares not to keep them; they are told, never silent.
    """

    setting: Setting
    tests: int = 0
    broken: tuple[Broken, ...] = ()
    exceptions: tuple[str, ...] = ()

    @property
    def promises(self) -> set[str]:
        """The promises that were not kept: ``{"P2", "P6"}``."""
        return {broken.promise for broken in self.broken}

    def __add__(self, other: Verdict) -> Verdict:
        """Return what two runs showed together."""
        return Verdict(
            self.setting,
            self.tests + other.tests,
            self.broken + other.broken,
            tuple(dict.fromkeys(self.exceptions + other.exceptions)),
        )

    def __str__(self) -> str:
        """Say how many tests there were, what they found, and what was not promised."""
        head = f"{self.setting}: {self.tests} tests, {len(self.broken)} found a broken promise"
        lines = [head, *self.exceptions, *map(str, self.broken[:_SHOWN])]
        more = len(self.broken) - _SHOWN
        return "\n".join(lines + [f"… and {more} more"] * (more > 0))

    def check(self) -> Verdict:
        """Assert that every promise was kept.

        Raises:
            AssertionError: one was not; all that were found are told.
        """
        __tracebackhide__ = True
        assert not self.broken, str(self)
        return self


_SHOWN, _LINES = 5, 25


@dataclass(frozen=True, slots=True)
class Told:
    """What the stories of one run told: a fact for each phase of each test, the databases used."""

    tests: tuple[dict[str, Any], ...] = ()
    urls: tuple[str, ...] = ()

    @classmethod
    def read(cls, out: Path) -> Told:
        """Read it from the file that they wrote to; a killed run may have left half a line."""
        lines = out.read_text().splitlines() if out.exists() else []
        facts = [json.loads(line) for line in lines if line.endswith("}")]
        return cls(
            tuple(fact for fact in facts if "test" in fact),
            tuple(dict.fromkeys(fact["url"] for fact in facts if "url" in fact)),
        )


def judged(setting: Setting, run: Run, told: Told, *, name: str) -> Verdict:
    """Read what the stories told, and the end of the run itself."""
    ended = {fact["test"] for fact in told.tests if fact["when"] == "teardown"}
    broken = tuple(_broken_by_tests(told, name)) or tuple(_broken_by_run(run, told, name))
    skipped = [fact["text"] for fact in told.tests if fact["outcome"] == "skipped"]
    exceptions = [text.removeprefix("Skipped: ") for text in skipped if _NOT_PROMISED in text]
    return Verdict(setting, len(ended), broken, tuple(dict.fromkeys(exceptions)))


_NOT_PROMISED = "not promised:"


def _broken_by_tests(told: Told, name: str) -> Iterator[Broken]:
    for fact in told.tests:
        expected = TOLD.get(_function(fact))
        where = f"{fact['test']} ({fact['when']}, {name})"
        if fact["outcome"] == "failed" and not _is_as_told(fact):
            yield Broken(_promise(fact), where, fact["text"])
        elif expected and fact["when"] == expected[0] and fact["outcome"] != "failed":
            yield Broken(_promise(fact), where, f"it should have failed, with {expected[1]}")


def _broken_by_run(run: Run, told: Told, name: str) -> Iterator[Broken]:
    """A run that hangs, crashes, collects nothing or fails after its last test."""
    expected = int(any(_is_as_told(fact) for fact in told.tests))
    if run.status != expected or not told.tests:
        yield Broken("P5" if run.status < 0 else "P8", f"the run itself, {name}", run.output)


def _is_as_told(fact: dict[str, Any]) -> bool:
    phase, texts = TOLD.get(_function(fact), ("", ()))
    is_there = fact["when"] == phase and fact["outcome"] == "failed"
    return is_there and all(text in fact["text"] for text in texts)


def _function(fact: dict[str, Any]) -> str:
    return str(fact["test"]).rpartition("::")[2].partition("[")[0]


def _promise(fact: dict[str, Any]) -> str:
    said = re.search(r"broken: (P\d+)", fact["text"])
    named = re.match(r"test_(p\d+)_", _function(fact))
    return said[1] if said else named[1].upper() if named else "P8"
