"""Append-only facts: what happened in one test, and what happened outside of any."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena.errors import ArenaError

__all__ = ["Ledger", "TestFacts"]

_Error = TypeVar("_Error", bound="ArenaError")

_TEST = "{test}"
_ONE_BREATH = 0.02  # between two tables of one create_all lie a compilation and a look-up


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error that the gate or the template raised into somebody's code."""

    error: ArenaError
    test: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TestFacts:
    """What one test did, when all is settled. Times are seconds."""

    __test__ = False  # pytest would collect a class of this name

    name: str
    databases: tuple[str, ...]
    changed: tuple[str, ...]
    requests: int
    isolation_seconds: float


@dataclass(slots=True)
class Ledger:
    """Facts are added by any thread at any time and are never changed."""

    test: str = ""
    tests: list[TestFacts] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    table_seconds: dict[str, float] = field(default_factory=dict)  # by test, "" outside of any
    verified: int = 0
    verified_seconds: float = 0.0
    _table_at: float = 0.0
    _noted_in: dict[str, list[str]] = field(default_factory=dict)  # tests, by line
    _reported: set[int] = field(default_factory=set)  # ids of errors that `refusals` keeps alive

    def begin(self, test: str) -> None:
        """From here on facts belong to this test."""
        self.test = test

    def end(self, facts: TestFacts | None = None) -> None:
        """The test is settled; what follows belongs to no test."""
        self.test = ""
        if facts is not None:
            self.tests.append(facts)

    def refused(self, error: _Error) -> _Error:
        """Keep an error that an ``except Exception`` of the app may swallow, and return it."""
        self.refusals.append(Refusal(error, self.test))
        return error

    def mark(self) -> int:
        """Return where the refusals stand now, for ``since``."""
        return len(self.refusals)

    def since(self, mark: int) -> list[ArenaError]:
        """Return what was refused after a mark."""
        return [refusal.error for refusal in self.refusals[mark:]]

    def mark_reported(self, *errors: BaseException) -> None:
        """Somebody was told of these: they failed a test, or were expected."""
        self._reported.update(id(error) for error in errors)

    def unreported(self, test: str) -> list[ArenaError]:
        """Return what was refused in this test ("" for outside of any) and nobody was told of."""
        return [
            refusal.error
            for refusal in self.refusals
            if refusal.test == test and id(refusal.error) not in self._reported
        ]

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Begin as if nothing had happened; what happens in the block is forgotten at its end."""
        kept = {one.name: getattr(self, one.name) for one in fields(self)}
        empty = Ledger()
        for name in kept:
            setattr(self, name, getattr(empty, name))
        try:
            yield
        finally:
            for name, value in kept.items():
                setattr(self, name, value)

    def made_table(self, started: float, ended: float) -> None:
        """The app made a table. A short pause since the last one belongs to the work."""
        begun = self._table_at if started - self._table_at < _ONE_BREATH else started
        self.table_seconds[self.test] = self.table_seconds.get(self.test, 0.0) + ended - begun
        self._table_at = ended

    def has_verified(self, seconds: float) -> None:
        """A database was read whole, to be compared."""
        self.verified += 1
        self.verified_seconds += seconds

    def note(self, line: str) -> None:
        """Keep a line for the summary, once.

        ``{test}`` in it stands for the test that runs: one line tells of all that it is true of.
        """
        if line not in self.notes:
            self.notes.append(line)
        if _TEST in line:
            tests = self._noted_in.setdefault(line, [])
            tests += [self.test] * (self.test not in tests)

    def told(self) -> list[str]:
        """Return the lines for the summary."""
        return [line.replace(_TEST, _some(self._noted_in.get(line, []))) for line in self.notes]


def _some(tests: list[str]) -> str:
    first = tests[0] if tests and tests[0] else "outside of any test"
    return first + (f" and {len(tests) - 1} more" if len(tests) > 1 else "")
