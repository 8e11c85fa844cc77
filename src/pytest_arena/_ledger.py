"""The ledger: the recorded facts of each test, and of the time between tests."""

from __future__ import annotations

import os
import pickle
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from pytest_arena._interpreter import send_refusal
from pytest_arena._values import CodeLine
from pytest_arena.errors import PAGE, ServerError, TemplateError, redact
from pytest_arena.warnings import ArenaWarning

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import IO

    from pytest_arena.errors import ArenaError

_Error = TypeVar("_Error", bound="ArenaError")

_TEST = "{test}"
REFUSAL = 400  # the lowest status of an app that does not do what a request asks for
FAILURE = 500  # the lowest status of an app that failed
READING = frozenset({"GET", "HEAD", "OPTIONS", "QUERY", "WEBSOCKET"})
LIFESPAN = "LIFESPAN"  # the method of the request that represents the lifespan


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class Request:
    """One request, or the lifespan of the app. The parts of pytest-arena add facts.

    Each hop of a followed redirect is a separate request.
    """

    method: str
    """The method that was sent. ``WEBSOCKET`` for the opening of a websocket."""
    path: str
    """The path without the query, because a query may contain secrets."""
    # The query, and the first part of a refusal. Only reports of failed tests show it.
    query: str = ""
    refusal: bytes = b""
    role: str | None = None
    """The role with which the client is logged in."""
    route: str = ""
    """The template of the path, ``/orders/{id}``. "" if there is none."""
    status: int | None = None
    """The status of the answer, 101 for an accepted websocket, None without an answer."""
    error: str | None = None
    """The error in place of a whole, good answer, as ``Type: text`` without passwords."""
    seconds: float = 0.0
    """The time from the call to the end of the app's background tasks. A stream and a websocket
    last until they are closed."""
    statements: list[str] = field(default_factory=list)
    """The statements that the app's engines sent in this request, in order."""
    # Whether one of the statements may have written.
    has_written: bool = False
    began: float = 0.0
    # An exception that the app raised, with the app's line.
    raised: str = ""
    # True while the client reads the answer.
    is_open: bool = False
    # Whether the client has the whole answer.
    is_answered: bool = False
    # Whether the app has returned from it.
    is_over: bool = False
    # The pass of a loop that has sent it, or the block of `arena.fresh()`, once it is over.
    part: str = ""
    is_login: bool = False
    """Whether a client sent it to log in."""
    # The lines that committed after the answer what had begun before it.
    late_commits: list[CodeLine | str] = field(default_factory=list)
    # The last error of a statement or a commit, with the app's line.
    failure: str = ""

    def __repr__(self) -> str:
        return f"<Request: {self.shown} {self.status}>"

    @property
    def shown(self) -> str:
        """The request as a report names it: ``POST /orders``."""
        return f"{self.method} {self.path}"

    @property
    def is_refused(self) -> bool:
        """Whether the app has refused it or failed, so that it need not keep what it wrote.

        The lifespan has no answer.
        """
        if self.method == LIFESPAN:
            return False
        return self.error is not None or (self.status or REFUSAL) >= REFUSAL

    def end(self, now: float) -> None:
        """Note that the app has returned, and the client has read the answer or has left."""
        self.seconds = now - self.began
        self.is_open = False
        self.is_over = True


def route_of(request: Request) -> str:
    """Return the method and the template of the path, so that equal requests have one name."""
    return f"{request.method} {request.route or request.path}"


# Whether a test used a database, whether it changed one, and the seconds of its isolation.
TestFacts = tuple[bool, bool, float]


@dataclass(slots=True)
class Ledger:
    """The facts of a run. Any thread may add facts. Facts do not change."""

    test: str = ""  # the running test, "" outside of tests
    tests: list[TestFacts] = field(default_factory=list)
    # Unreported errors that the gate or a template raised in the user's code, each with its test.
    refusals: list[tuple[ArenaError, str]] = field(default_factory=list)
    # The first test that has reported an error, by its first lines.
    reported: dict[str, str] = field(default_factory=dict)
    # To this file the programs of the tests append their refusals, None without a program.
    refusals_file: IO[bytes] | None = None
    process: int = field(default_factory=os.getpid)
    # The keys are lines for the summary, each with a test. The test is "" if the line names none.
    noted: dict[tuple[str, str], None] = field(default_factory=dict)
    # The warnings of the running test, by their texts, each with the line where it is shown.
    warned: dict[str, tuple[ArenaWarning, CodeLine | None]] = field(default_factory=dict)
    kept: str = ""  # where the database of the last passed test was kept
    # For each filled database (the name with what it was given, the product, the isolation),
    # whether it was given something.
    filled: dict[tuple[str, str, str], bool] = field(default_factory=dict)
    has_redis: bool = False  # whether Redis was used
    isolation_seconds: float = 0.0  # of the running test
    left: str = ""  # what no replay may repeat: a call of another machine, a task of the lifespan
    failures: list[str] = field(default_factory=list)  # lines that fail the run, of no test
    reason_to_stop: str = ""  # why no later test can pass, so that the run ends

    def begin(self, test: str) -> None:
        """Begin a test. Later facts belong to this test."""
        self.test = test
        self.isolation_seconds = 0.0

    def end(self, *, is_used: bool, is_changed: bool) -> None:
        """End the test, which used or changed a database. Later facts belong to no test."""
        self.test = ""
        self.tests.append((is_used, is_changed, self.isolation_seconds))

    def refused(self, error: _Error) -> _Error:
        """Record an error and return it. An ``except Exception`` of the app may swallow it."""
        self.refusals.append((error, self.test))
        if self.refusals_file and self.process != os.getpid():
            send_refusal(self.refusals_file.name, error)
        return error

    def mark(self) -> int:
        """Return the number of refusals so far."""
        self._add_of_programs()
        return len(self.refusals)

    def since(self, mark: int) -> list[ArenaError]:
        """Return the refusals after the first ``mark``."""
        self._add_of_programs()
        return [error for error, _ in self.refusals[mark:]]

    def mark_reported(self, *errors: BaseException) -> None:
        """Forget errors that failed a test or were expected, so that the user sees them.

        Each test that connects has the error of a build or of the search for a server. Only the
        first report has the whole text.
        """
        for error in errors:
            if isinstance(error, ServerError | TemplateError):
                first = self.reported.setdefault(error.what, self.test)
                if first not in {"", self.test}:
                    error.why = error.cause = ""
                    error.fix = f"see {first}"
        ids = set(map(id, errors))
        self.refusals = [each for each in self.refusals if id(each[0]) not in ids]

    def unreported(self, test: str) -> list[ArenaError]:
        """Return the unreported refusals of a test. "" means outside of any test."""
        self._add_of_programs()
        return [error for error, of_test in self.refusals if of_test == test]

    def _add_of_programs(self) -> None:
        """Add the refusals of the programs that the test has started."""
        with suppress(EOFError, ValueError):  # closed after the run
            while self.refusals_file and self.process == os.getpid():  # a fork shares its position
                self.refused(pickle.load(self.refusals_file))  # noqa: S301 - only this user may write it

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        """Empty the ledger for a block. Forget the facts of the block at its end."""
        kept = {name: getattr(self, name) for name in self.__slots__}
        Ledger.__init__(self)
        try:
            yield
        finally:
            for name, value in kept.items():
                setattr(self, name, value)

    def note(self, line: str) -> None:
        """Record a line for the summary, once.

        The summary replaces ``{test}`` in the line by the first test. It counts others.
        """
        test = self.test if _TEST in line else ""
        self.noted[line, test] = None

    def warn(
        self,
        category: type[ArenaWarning],
        what: str,
        *,
        cause: CodeLine | str,
        fix: str,
        line: CodeLine | None = None,
    ) -> None:
        """Record a warning for the end of the running test, once. ``line`` is where it is shown."""
        text = f"{what}\n  cause: {cause}\n  next:  {fix}\n  {PAGE}#{category.__name__.lower()}"
        if isinstance(cause, CodeLine):
            line = cause
        self.warned[text] = (category(redact(text)), line)

    def emit_warnings(self, test: CodeLine) -> list[ArenaWarning]:
        """Emit the recorded warnings. Return those that the user's filters turn into errors.

        ``test`` is the line for warnings whose cause has no line.
        """
        recorded = self.warned.values()
        self.warned = {}
        errors = []
        for warning, line in recorded:
            place = line or test
            try:
                warnings.warn_explicit(warning, type(warning), place.shown_file, place.number)
            except ArenaWarning:
                errors.append(warning)
        return errors


def noted_lines(noted: Iterable[tuple[str, str]]) -> list[str]:
    """Return the lines for the summary, from lines and their tests."""
    tests_of: dict[str, list[str]] = {}
    for line, test in noted:
        tests_of.setdefault(line, []).append(test)
    lines = []
    for line, tests in tests_of.items():
        text = line.replace(_TEST, tests[0] or "outside of any test")
        more = len(tests) - 1
        if more:
            text += f" (also in {more:,} more)"
        lines.append(text)
    return lines
