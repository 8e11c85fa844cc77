"""The records of one try of one test."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from enum import Enum
from uuid import UUID

from pytest_arena.scenarios.assertions._idle import is_constant
from pytest_arena.scenarios.evidence._document import Asserted, StepFacts
from pytest_arena.scenarios.requests._record import RequestRecord
from pytest_arena.scenarios.specs._specification import Kind, ScenarioSpec

PLAIN = (str, int, float, Decimal, date, time, Enum, UUID)
"""Types whose text shows their value. ``str`` of another object may query a database."""

# The log keeps no other objects, because it must not prolong their lives.
_KEPT = (*PLAIN, dict, list, tuple, set)
_LONGEST_TEXT = 160
READING_METHODS = ("GET", "HEAD", "OPTIONS")

AssertionKey = tuple[str, str]
"""The place of an assertion, and its whole text."""


@dataclass(slots=True, eq=False)
class Block:
    """One step block of a test."""

    kind: Kind
    places: tuple[tuple[str, int], ...]
    """The keys of the scenarios that have the step, each with the step's number."""
    is_open: bool = True

    def close(self) -> None:
        """Note that the block has ended."""
        self.is_open = False


@dataclass(slots=True, eq=False)
class Log:
    """The records of one try of a test. Any thread of the test may add to it."""

    scenarios: tuple[ScenarioSpec, ...]
    fixture_names: frozenset[str]
    in_call: bool = False
    in_teardown: bool = False
    """Whether the fixtures of the test are being torn down."""
    has_late_requests: bool = False
    """Whether the tear-down has sent a request."""
    has_written_late: bool = False
    """Whether the tear-down has sent a request that may write. Then it only cleans up."""
    requests: list[RequestRecord] = field(default_factory=list)
    logins: list[RequestRecord] = field(default_factory=list)
    answered: int = 0
    """How many requests have been answered."""
    reads: int = -1
    """How often sessions of the test had read when the first request after Given began."""
    passed_assertions: dict[AssertionKey, Asserted] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """The texts of the assertions that failed at their last evaluation, by place."""
    values: dict[AssertionKey, list[object]] = field(default_factory=dict)
    """The values of the variables when each assertion last passed."""
    assertions: int = 0
    """How many assertions passed that could have failed."""
    blocks: list[Block] = field(default_factory=list)
    steps: list[StepFacts] = field(default_factory=list)
    off: dict[str, str] = field(default_factory=dict)
    """The kinds of evidence that could not be recorded, each with the reason."""
    lost: list[str] = field(default_factory=list)
    """The writes of the requests that the app never committed."""
    has_requested_other_app: bool = False
    """Whether a request reached an app that is not under test."""

    @property
    def is_preparing(self) -> bool:
        """Whether a request that begins now is part of the preparation."""
        if not self.in_call:
            return True
        return any(block.is_open and block.kind == "given" for block in self.blocks)

    @property
    def first(self) -> int:
        """The number of the first request that is not preparation, or 0."""
        for place, request in enumerate(self.requests):
            if not request.is_preparation:
                return place
        return 0

    @property
    def has_asserted(self) -> bool:
        """Whether an assertion that could fail has passed since the last request."""
        for asserted in self.passed_assertions.values():
            if asserted.after >= len(self.requests) and not asserted.is_constant:
                return True
        return False

    def begin_call(self) -> None:
        """Note that the test's function begins."""
        self.in_call = True

    def begin_teardown(self) -> None:
        """Note that the tear-down begins, and forget the assertions of the call."""
        self.passed_assertions = {}
        self.in_teardown = True

    @property
    def is_recording(self) -> bool:
        """Whether an assertion that passes now counts."""
        return self.in_call or (self.in_teardown and not self.has_written_late)

    def end_call(self, fixture_names: Iterable[str]) -> None:
        """Note that the test's function has ended. Add the fixtures that it requested."""
        self.in_call = False
        self.fixture_names |= frozenset(fixture_names)

    def add(self, request: RequestRecord, *, reads: int) -> None:
        """Add a request that begins.

        Args:
            request: a request that counts as evidence.
            reads: how often sessions of the test have read until now.
        """
        if self.in_teardown:
            self.has_late_requests = True
            self.has_written_late |= request.request.method not in READING_METHODS
        if all(earlier.is_preparation for earlier in self.requests):
            self.reads = reads
        for earlier in self.requests:
            if not earlier.is_over:
                earlier.note_concurrent()
                request.note_concurrent()
        request.count_as(len(self.requests), is_preparation=self.is_preparing)
        self.requests.append(request)

    def count_answer(self) -> None:
        """Count an answered request."""
        self.answered += 1

    def note_other_app(self) -> None:
        """Note that a request reached an app that is not under test."""
        self.has_requested_other_app = True

    def passed(
        self,
        place: str,
        text: str,
        values: Sequence[object],
        *,
        is_idle: bool = False,
    ) -> None:
        """Note that an assertion has passed.

        Args:
            place: file and line.
            text: the asserted expression.
            values: the values of the variables at that line.
            is_idle: whether no behaviour of the app could have made it fail.
        """
        self.failures.pop(place, None)
        key = (place, text)
        is_idle = is_idle or is_constant(text)
        asserted = self.passed_assertions.get(key)
        if asserted is None:
            asserted = Asserted(
                place=place,
                text=_shortened(text),
                after=self.answered,
                is_constant=is_idle,
                times=0,
            )
            self.passed_assertions[key] = asserted
        asserted.pass_again(self.answered, is_constant=is_idle)
        self.values[key] = [value for value in values if isinstance(value, _KEPT)]
        if not is_idle:
            self.assertions += 1

    def failed(self, place: str, text: str) -> None:
        """Note that an assertion has failed."""
        self.failures[place] = _shortened(text)

    def forget_values(self) -> None:
        """Drop the values at assertions, because the log must not prolong their lives."""
        self.values = {}


def holds_answer(value: object, depth: int = 2) -> bool:
    """Return whether a value is an answer of an HTTP client, or contains such an answer."""
    kind = type(value)
    if hasattr(kind, "raise_for_status") or hasattr(kind, "status_code"):
        return True
    inner: Iterable[object] = ()
    if isinstance(value, list | tuple | set):
        inner = value
    elif isinstance(value, dict):
        inner = value.values()
    elif kind.__name__.startswith("Test"):  # the instance of a test's class
        inner = getattr(value, "__dict__", {}).values()
    return depth > 0 and any(holds_answer(each, depth - 1) for each in inner)


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    if len(text) <= _LONGEST_TEXT:
        return text
    return f"{text[: _LONGEST_TEXT - 1]}…"
