"""What does a log amount to, as facts?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_arena.errors import redact
from pytest_arena.scenarios._literals import seen
from pytest_arena.scenarios._rows import NotKnown, Rows, read_of
from pytest_arena.scenarios.evidence import Asserted, Facts, Requested, StepFacts

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Mapping

    from pytest_arena._databases._state import Level
    from pytest_arena._gate import Doings
    from pytest_arena._ledger import Request
    from pytest_arena.scenarios._log import Block, Heard, Log

__all__ = ["Telling", "better", "unknown"]

_Counts = tuple[tuple[str, int], ...]

_LONGEST_TEXT = 160
_MOST_PLACES = 20  # of assertions


@dataclass(slots=True)
class Telling:
    """One reading of a log, while the test's level stands. Never raises for a database."""

    log: Log
    rows: Rows
    doings: Mapping[Level, Doings]
    literals: tuple[str, ...]
    off: dict[str, str] = field(default_factory=dict)

    def facts(self) -> Facts:
        """Return all that is told."""
        self.rows.values.clear()
        seeded = self._seeded()
        requests = tuple(self._requested(one, seeded or ()) for one in self.log.requests)
        return Facts(
            seeded=seeded,
            requests=requests,
            first=self.log.first,
            asserted=_asserted(self.log),
            steps=tuple(fact for block in self.log.blocks for fact in _steps(block)),
            seen=self._seen(),
            off=tuple(sorted(self.off.items())),
        )

    def _seeded(self) -> _Counts | None:
        try:
            return _sorted(self.rows.seeded(self.log, self.doings))
        except Exception as error:  # noqa: BLE001 - what cannot be read is unknown, and no failure
            self.off["seeded"] = _why(error)
            return None

    def _requested(self, one: Request, seeded: _Counts) -> Requested:
        statements = one.doings.statements
        return Requested(
            method=one.method,
            path=one.path,
            route=one.route,
            status=one.status,
            role=one.role or "",
            changed=self._changed(one),
            read=read_of(statements, [table for table, _ in seeded]),
            observed=one.is_observed,
        )

    def _changed(self, one: Request) -> _Counts | None:
        try:
            return _sorted(self.rows.changed(one))
        except NotKnown:
            return None
        except Exception as error:  # noqa: BLE001 - as above
            self.off["changed"] = _why(error)
            return None

    def _seen(self) -> tuple[str, ...]:
        if not self.literals:
            return ()
        written = [value for one in self.doings.values() for value in one.values]
        return seen(self.literals, self.log, [*written, *self.rows.values])


def unknown(error: Exception) -> Facts:
    """Return the facts of a test of which nothing can be told."""
    names = ("asserted", "changed", "observed", "read", "requested", "seeded")
    return Facts(seeded=None, off=tuple((name, _why(error)) for name in names))


def better(facts: Facts, other: Facts | None) -> Facts:
    """Return those of two examples' facts that show more."""
    return facts if other is None or _worth(facts) >= _worth(other) else other


def _worth(facts: Facts) -> tuple[bool, bool, bool]:
    last = len(facts.requests)
    is_asserted = any(one.after == last and not one.is_constant for one in facts.asserted)
    return bool(facts.requests), is_asserted, bool(facts.seeded)


def _asserted(log: Log) -> tuple[Asserted, ...]:
    """What was asserted, the last first."""
    facts = sorted(map(_fact, log.heard.values()), key=lambda one: (one.is_constant, -one.after))
    return tuple(facts[:_MOST_PLACES])


def _fact(one: Heard) -> Asserted:
    text = " ".join(one.text.split())
    return Asserted(
        place=one.place,
        text=text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…",
        after=one.after,
        is_constant=one.is_constant,
        times=one.times,
    )


def _steps(block: Block) -> Iterator[StepFacts]:
    """Once for each scenario of the test that has this step."""
    for scenario, step in block.places:
        yield StepFacts(
            scenario=scenario,
            step=step,
            wrote=block.wrote,
            requests=block.requests,
            assertions=block.assertions,
        )


def _sorted(counts: Counter[str]) -> _Counts:
    return tuple(sorted((table, rows) for table, rows in counts.items() if rows))


def _why(error: Exception) -> str:
    return redact(str(error).partition("\n")[0] or type(error).__name__)
