"""Append-only facts: what happened in one test, and what happened outside of any."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena.errors import ArenaError

_Error = TypeVar("_Error", bound="ArenaError")

_TEST = "{test}"
FAILURE = 500  # statuses from here on say that the app could not answer
_ONE_BREATH = (
    0.02  # between two tables of one create_all lie a compilation and a look-up
)


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    """One request: made where it is sent, filled by those who learn more of it.

    Each hop of a followed redirect is a request of its own.
    """

    method: str
    """As sent; ``WEBSOCKET`` for the opening of one."""
    path: str
    """The path alone: a query may hold secrets."""
    role: str | None = None
    """As whom the client is logged in."""
    status: int | None = None
    """The answer's status, 101 of a websocket that was accepted; None where there was an error."""
    error: str | None = None
    """What came instead of an answer, as ``Type: text`` without passwords."""
    seconds: float = 0.0
    """From the call to the answer, the app's background tasks included; of a stream and a websocket
    until it is closed."""
    statements: list[str] = field(default_factory=list, repr=False)
    """The statements that the app's engines have sent in this request, in order."""
    began: float = field(default=0.0, repr=False)
    turn: Any = field(default=None, repr=False)  # of the test's story
    answer: Any = field(
        default=None, repr=False
    )  # when it was sent, and its late commits
    raised: str = field(
        default="", repr=False
    )  # what the app raised, and the app's line
    logged: str = field(
        default="", repr=False
    )  # the exception that the app logged last
    unsent: str = field(
        default="", repr=False
    )  # cookies that the client has, and did not send
    is_open: bool = field(default=False, repr=False)  # its answer is still read
    is_login: bool = field(default=False, repr=False)
    """Whether a client sent it while it logged in."""


class TestFacts(NamedTuple):
    """What one test did, when all is settled. Times are seconds."""

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
    requests: list[Request] = field(
        default_factory=list
    )  # of the test, to the app under test
    # Errors that the gate or a template raised into somebody's code, each with its test.
    refusals: list[tuple[ArenaError, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    filled: dict[tuple[str, str], None] = field(
        default_factory=dict
    )  # products, with isolations
    table_seconds: dict[str, float] = field(
        default_factory=dict
    )  # by test, "" outside of any
    isolation_seconds: float = 0.0  # of the test
    verified: int = 0
    verified_seconds: float = 0.0
    _table_at: float = 0.0
    _noted_in: dict[str, list[str]] = field(default_factory=dict)  # tests, by line
    _reported: set[int] = field(
        default_factory=set
    )  # ids of errors that `refusals` keeps alive

    def begin(self, test: str) -> None:
        """From here on facts belong to this test."""
        self.test, self.requests, self.isolation_seconds = test, [], 0.0

    def end(self, facts: TestFacts | None = None) -> None:
        """The test is settled; what follows belongs to no test."""
        self.test, self.requests = "", []
        if facts is not None:
            self.tests.append(facts)

    def refused(self, error: _Error) -> _Error:
        """Keep an error that an ``except Exception`` of the app may swallow, and return it."""
        self.refusals.append((error, self.test))
        return error

    def refused_outside(self, error: _Error) -> _Error:
        """As ``refused``, for work that does not belong to the running test. Only the run fails."""
        self.refusals.append((error, ""))
        return error

    def mark(self) -> int:
        """Return where the refusals stand now, for ``since``."""
        return len(self.refusals)

    def since(self, mark: int) -> list[ArenaError]:
        """Return what was refused after a mark."""
        return [error for error, _ in self.refusals[mark:]]

    def mark_reported(self, *errors: BaseException) -> None:
        """Somebody was told of these: they failed a test, or were expected."""
        # Only of those that are kept: what dies leaves its number to the next one.
        kept = {id(error) for error, _ in self.refusals}
        self._reported |= kept.intersection(map(id, errors))

    def unreported(self, test: str) -> list[ArenaError]:
        """Return what was refused in this test ("" for outside of any) and nobody was told of."""
        return [
            error
            for error, where in self.refusals
            if where == test and id(error) not in self._reported
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
        self.table_seconds[self.test] = (
            self.table_seconds.get(self.test, 0.0) + ended - begun
        )
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
        return [_told_of(line, self._noted_in.get(line, [])) for line in self.notes]


def _told_of(line: str, tests: list[str]) -> str:
    first, *others = tests or [""]
    more = f"; so in {len(others):,} more" if others else ""
    return line.replace(_TEST, first or "outside of any test") + more
