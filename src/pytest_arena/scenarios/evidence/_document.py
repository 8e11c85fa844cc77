"""What is known at the end of a run: facts of tests, verdicts on scenarios, the whole document."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pytest_arena.scenarios.specs import Problem, ScenarioSpec

Pairs = tuple[tuple[str, str], ...]
Counts = tuple[tuple[str, int], ...]
Outcome = Literal["passed", "failed", "skipped", "xfailed", "xpassed", "unfinished"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested:
    """One request that reached the app under test, by whichever client."""

    method: str
    path: str
    route: str  # the template, /battles/{battle_id}; empty where the framework does not say
    status: int | None
    role: str = ""
    changed: Counts | None = ()  # rows by table, sorted; None where it is not known
    read: tuple[str, ...] | None = ()  # tables that the test had seeded; None: not known
    observed: bool | None = None  # whether the test looked at the answer; None: not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Asserted:
    """One assertion that passed in the test's call."""

    place: str  # tests/test_x.py:31, from the root folder
    text: str  # as it stands in the code, shortened
    after: int  # how many requests had been answered by then; a websocket is once accepted
    is_constant: bool = False  # it could not have failed: assert True, assert x == x
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFacts:
    """What happened in one step block of the test."""

    scenario: str  # the scenario's key
    step: int  # its place among the scenario's steps
    wrote: int  # rows that the test wrote, or has pending, and clients that it logged in
    requests: tuple[int, ...]  # places in Facts.requests
    assertions: int  # that passed and could have failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the instruments saw of one try."""

    # Rows by table, sorted, that the test, its fixtures and the wider fixtures that it uses wrote
    # before its first request. None: they could not be read.
    seeded: Counts | None = ()
    requests: tuple[Requested, ...] = ()
    # Place in requests of the first that is no preparation; requests of fixtures and of Given
    # blocks are, where others follow. What was written before it counts as seeded.
    first: int = 0
    asserted: tuple[Asserted, ...] = ()  # those after the last request first; at most 20 places
    steps: tuple[StepFacts, ...] = ()
    # The literals of its scenarios' steps that occurred in rows seeded, requests or assertions.
    seen: tuple[str, ...] = ()
    # Instruments that did not work, and why: ("asserted", "python -O"). Their names: seeded,
    # requested, asserted, changed, read, observed.
    off: Pairs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sabotage:
    """What became of a test that was run again with something broken."""

    kind: Literal["seed", "commit", "empty", "500"]
    result: Literal["noticed", "survived", "not applicable", "unknown"]
    why: str = ""  # of one that was noticed the failure's first line


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One try of one test, in this run. Reruns are further tries, and so are other processes'."""

    test: str  # the node id
    outcome: Outcome  # of set-up, call and tear-down together; unfinished: its process died
    reason: str = ""  # of a skip, an xfail; a failure's first line, with its phase
    place: str = ""  # where it failed, else where the test begins: tests/test_x.py:31
    facts: Facts | None = None
    is_stub: bool = False  # it failed since it is not written yet
    is_rerun: bool = False  # a try before it, in the same process, had failed
    sabotages: tuple[Sabotage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """A test says that it proves a scenario."""

    test: str  # the node id
    place: str  # where the test begins: tests/test_x.py:12
    scenario: str  # the scenario's key
    row: Pairs = ()  # of an Outline, as Row.values; empty for the whole of it
    rev: str = ""  # the reviewed version that its marker names
    is_deselected: bool = False
    source: str = ""  # the hash of the test's own code, for the lock file


class Status(Enum):
    """Worst first; a scenario has the worst that applies. WAIVED is outside of the order."""

    MALFORMED = "MALFORMED"
    UNMAPPED = "UNMAPPED"
    FAILED = "FAILED"
    DRIFTED = "DRIFTED"
    STUB = "STUB"
    XFAIL = "XFAIL"
    XPASS = "XPASS"
    SKIPPED = "SKIPPED"
    NOT_RUN = "NOT-RUN"
    FLAKY = "FLAKY"
    HOLLOW = "HOLLOW"
    UNKNOWN = "UNKNOWN"
    PARTIAL = "PARTIAL"
    PROVEN = "PROVEN"
    WAIVED = "WAIVED"

    @property
    def rank(self) -> int:
        """How good it is: 0 is the worst."""
        return _RANKS[self]


_RANKS = {status: number for number, status in enumerate(Status)}
FINE = frozenset({Status.PROVEN, Status.WAIVED})  # no gap
# A test of one of these has passed, whatever that is worth.
PASSED = frozenset({Status.FLAKY, Status.HOLLOW, Status.UNKNOWN, Status.PARTIAL, Status.PROVEN})


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedTest:
    """One test of a scenario: its last try, and what that is worth."""

    test: str
    place: str
    status: Status
    reason: str = ""
    row: Pairs = ()
    facts: Facts | None = None
    sabotages: tuple[Sabotage, ...] = ()
    also: tuple[Status, ...] = ()  # further statuses that apply, the worst first
    warnings: tuple[str, ...] = ()  # those of its scenario's that hold for this test
    rev: str = ""  # the reviewed version that its marker names
    source: str = ""  # the hash of its own code


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedStep:
    """One step of a scenario, by the blocks of its tests: the best that one of them shows."""

    status: Status | None = None  # PROVEN, HOLLOW, UNKNOWN; None where no test has a block for it
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What holds for a scenario whatever its tests do: all that is needed to judge it again."""

    malformed: str = ""
    drifted: str = ""
    drifted_place: str = ""  # the line in the tests that names the older version, if one does
    waived: str = ""  # its waiver: "until 2027-03-31: bought in May"
    expired: str = ""  # the same, of a waiver that has run out
    known: Status | None = None  # its status in the baseline
    known_place: str = ""  # the line of the baseline: scenarios.baseline:3
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedScenario:
    """One scenario and its verdict."""

    scenario: ScenarioSpec
    status: Status
    reason: str = ""  # why it is not PROVEN; of a proven one empty
    place: str = ""  # the line in the tests that the reason is about
    also: tuple[Status, ...] = ()  # further statuses that apply, the worst first
    warnings: tuple[str, ...] = ()  # what the gate does not ask for
    is_excused: bool = False  # it stands in the baseline: known, and no failure of the gate
    tests: tuple[JudgedTest, ...] = ()
    steps: tuple[JudgedStep, ...] = ()  # as many as the scenario has
    standing: Standing = Standing()
    # Whether the gate asks for it: in a partial run only if all of its tests ran.
    is_judged: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The whole of it. The same run gives the same document, whatever the order of its tests."""

    scenarios: tuple[JudgedScenario, ...] = ()  # by path and line
    problems: tuple[Problem, ...] = ()  # of specifications, markers (orphans), lock and baseline
    gaps: tuple[str, ...] = ()  # why the gate would fail, a line for each reason
    partial: str = ""  # why not all tests were run, "-k start"; empty where all were
    is_sabotaged: bool = False
    # No test was to be run: --collect-only, arena scenarios check and list.
    is_list: bool = False
    specs: tuple[str, ...] = ()  # the files that were read

    def counts(self) -> dict[Status, int]:
        """How many scenarios there are of each status that occurs, worst first."""
        statuses = [judged.status for judged in self.scenarios]
        return {status: statuses.count(status) for status in Status if status in statuses}
