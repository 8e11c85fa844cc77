"""What is known at the end of a run: facts of tests, verdicts on scenarios, the whole document.

As values, as JSON, and as values read again: by the types of the fields, which are there at run
time (so no import here is for the type checker alone).
"""

import json
from collections.abc import Container, Iterable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum, EnumMeta
from functools import cache
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pytest_arena.errors import ScenarioError
from pytest_arena.scenarios.specs._specification import Pairs, Problem, ScenarioSpec

Counts = tuple[tuple[str, int], ...]
SabotageKind = Literal["seed", "commit", "policy", "empty", "500"]
SabotageResult = Literal["noticed", "survived", "not applicable", "unknown"]
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
    read: (
        tuple[str, ...] | None
    ) = ()  # tables that the test had seeded; None: not known
    observed: bool | None = (
        None  # whether the test looked at the answer; None: not known
    )


@dataclass(slots=True, kw_only=True)
class Asserted:
    """One assertion that passed in the test's call, once or several times."""

    place: str
    """File and line, from the root folder: ``tests/test_x.py:31``."""
    text: str
    """The code of the assertion, shortened."""
    after: int
    """How many requests were answered before it; a websocket is when it is accepted."""
    is_constant: bool = False
    """Whether it could not have failed: ``assert True``, ``assert x == x``."""
    times: int = 1

    def pass_again(self, answered: int, *, is_constant: bool) -> None:
        """Count one more pass. A pass that could have failed counts more than one that could not.

        Args:
            answered: how many requests have been answered.
            is_constant: whether this pass could not have failed.
        """
        self.times += 1
        if self.is_constant or not is_constant:
            self.after = max(self.after, answered)
            self.is_constant = is_constant


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFacts:
    """What happened in one step block of the test."""

    scenario: str  # the scenario's key
    step: int  # its place among the scenario's steps
    wrote: (
        int  # rows that the test wrote, or has pending, and clients that it logged in
    )
    requests: tuple[int, ...]  # places in Facts.requests
    assertions: int  # that passed and could have failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the instruments saw of one try."""

    # Rows by table, sorted, that the test, its fixtures and the wider fixtures that it uses wrote
    # before its first request. None: they could not be read.
    seeded: Counts | None = ()
    has_base: bool = False  # `arena_seed` has written rows that it began with
    requests: tuple[Requested, ...] = ()
    # Place in requests of the first that is no preparation; requests of fixtures and of Given
    # blocks are, where others follow. What was written before it counts as seeded.
    first: int = 0
    asserted: tuple[
        Asserted, ...
    ] = ()  # those after the last request first; at most 20 places
    steps: tuple[StepFacts, ...] = ()
    # The literals of its scenarios' steps that occurred in rows seeded, requests or assertions.
    seen: tuple[str, ...] = ()
    # Instruments that did not work, and why: ("asserted", "python -O"). Their names: seeded,
    # requested, asserted, changed, read, observed.
    off: Pairs = ()

    @property
    def checks(self) -> list[Asserted]:
        """The assertions that could fail."""
        return [check for check in self.asserted if not check.is_constant]

    @property
    def checks_at_the_end(self) -> list[Asserted]:
        """Those of them that passed once the last request had ended."""
        return [check for check in self.checks if check.after >= len(self.requests)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sabotage:
    """What became of a test that was run again with something broken."""

    kind: SabotageKind
    result: SabotageResult
    # Of one that was noticed the failure's first line; of policies that were not, their tables.
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One try of one test, in this run. Reruns are further tries, and so are other processes'."""

    test: str  # the node id
    outcome: (
        Outcome  # of set-up, call and tear-down together; unfinished: its process died
    )
    reason: str = ""  # of a skip, an xfail; a failure's first line, with its phase
    place: str = ""  # where it failed, else where the test begins: tests/test_x.py:31
    facts: Facts | None = None
    is_stub: bool = False  # it failed since it is not written yet
    is_rerun: bool = False  # a try before it, in the same process, had failed
    sabotages: tuple[Sabotage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Mapping:
    """A test says that it proves a scenario. In order: by the test, then by the row."""

    test: str  # the node id
    row: Pairs = ()  # of an Outline, as Row.values; empty for the whole of it
    is_deselected: bool = False
    rev: str = ""  # the reviewed version that its marker names
    place: str  # where the test begins: tests/test_x.py:12
    source: str = ""  # the hash of the test's own code, for the lock file
    scenario: str  # the scenario's key


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
PASSED = frozenset(
    {Status.FLAKY, Status.HOLLOW, Status.UNKNOWN, Status.PARTIAL, Status.PROVEN}
)


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

    status: Status | None = (
        None  # PROVEN, HOLLOW, UNKNOWN; None where no test has a block for it
    )
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What holds for a scenario whatever its tests do: all that is needed to judge it again."""

    malformed: str = ""
    drifted: str = ""
    drifted_place: str = (
        ""  # the line in the tests that names the older version, if one does
    )
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
    is_excused: bool = (
        False  # it stands in the baseline: known, and no failure of the gate
    )
    tests: tuple[JudgedTest, ...] = ()
    steps: tuple[JudgedStep, ...] = ()  # as many as the scenario has
    standing: Standing = Standing()
    # Whether the gate asks for it: in a partial run only if all of its tests ran.
    is_judged: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The whole of it. The same run gives the same document, whatever the order of its tests."""

    scenarios: tuple[JudgedScenario, ...] = ()  # by path and line
    problems: tuple[
        Problem, ...
    ] = ()  # of specifications, markers (orphans), lock and baseline
    gaps: tuple[str, ...] = ()  # why the gate would fail, a line for each reason
    partial: str = ""  # why not all tests were run, "-k start"; empty where all were
    is_sabotaged: bool = False
    # No test was to be run: --collect-only, arena scenarios check and list.
    is_list: bool = False
    specs: tuple[str, ...] = ()  # the files that were read

    def counts(self) -> dict[Status, int]:
        """How many scenarios there are of each status that occurs, worst first."""
        statuses = [judged.status for judged in self.scenarios]
        return {
            status: statuses.count(status) for status in Status if status in statuses
        }


# The document as JSON, and read again.


# The shape's version: it is counted up when a name gets another meaning, or goes.
_SCHEMA = 1


def as_json(document: Document) -> str:
    """Return the document as JSON, the same for the same document: one line for each scenario.

    It holds no time, and no path but those in the document, which begin at the root folder. A name
    whose value is the default is left out, but for those that every reader counts on.
    """
    extras = to_shape(document, but=("scenarios", "problems"))
    counts = {status.value: count for status, count in document.counts().items()}
    parts = [
        f'"schema": {_SCHEMA}',
        _array("scenarios", map(_scenario, document.scenarios)),
        _array("problems", ({"spec": "", **to_shape(it)} for it in document.problems)),
        *(
            f'"{name}": {_line(value)}'
            for name, value in {"counts": counts, **extras}.items()
        ),
    ]
    # Half of a surrogate pair, from a failure's message, is no text: as an escape JSON can hold it.
    return ("{" + ",\n".join(parts) + "}\n").encode(errors="backslashreplace").decode()


def from_json(text: str, *, where: str) -> Document:
    """Read what `as_json` wrote.

    Args:
        text: the JSON.
        where: the file, for messages.

    Raises:
        ScenarioError: it is no such document, or one of another version.
    """
    try:
        raw = json.loads(text.removeprefix("\ufeff"))
        schema = raw["schema"]
        if schema == _SCHEMA:
            # What was said of the scenario and of the verdict in one object, as two.
            raw["scenarios"] = [
                {**it, "scenario": {**it, "rule": it["gherkin_rule"]}}
                for it in raw["scenarios"]
            ]
            document: Document = from_shape(Document, raw)
            return document
        cause = f"it is of schema {schema!r}, and this version of pytest-arena reads {_SCHEMA}"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        cause = f"{type(error).__name__}: {error}"
    raise ScenarioError(
        f"{where} does not hold scenarios as JSON that can be read",
        why="verdicts that are not read in full would be other verdicts",
        cause=cause,
        fix=f"write it anew: pytest --scenarios-out=json:{where}",
    )


_line = json.JSONEncoder(ensure_ascii=False).encode


def _array(name: str, values: Iterable[object]) -> str:
    lines = ",\n".join(map(_line, values))
    return f'"{name}": [\n{lines}\n]' if lines else f'"{name}": []'


def _scenario(judged: JudgedScenario) -> dict[str, Any]:
    """The scenario and its verdict in one object: what every reader counts on comes first."""
    scenario = judged.scenario
    steps = []
    for number, step in enumerate(scenario.steps):
        verdict = judged.steps[number] if judged.steps else None
        shown = to_shape(verdict) if verdict and verdict.status else {}
        steps.append(to_shape(step) | shown)
    first = {
        "name": scenario.name,
        "feature": scenario.feature,
        "rule": scenario.requirement or scenario.rule,
        "spec": scenario.spec,
        "line": scenario.line,
        "status": judged.status.value,
        "reason": judged.reason,
        "steps": steps,
        "tests": [
            {"test": "", "place": "", "status": "", "reason": "", **to_shape(it)}
            for it in judged.tests
        ],
        "evidence": _evidence(
            [it.facts for it in judged.tests if it.facts and it.status in PASSED]
        ),
        "gherkin_rule": scenario.rule,
    }
    rest = to_shape(scenario, but=("steps", *first))
    return first | rest | to_shape(judged, but=("scenario", *first))


def _evidence(passed: list[Facts]) -> dict[str, Any]:
    """What the tests that passed did together, for readers: it is not read again."""
    if not passed:
        return {}
    requests = [request for facts in passed for request in facts.requests]
    seeded: dict[str, int] = {}
    for table, count in (pair for facts in passed for pair in facts.seeded or ()):
        seeded[table] = max(count, seeded.get(table, 0))
    return {
        "seeded": dict(sorted(seeded.items())),
        "requested": sorted(
            {f"{it.method} {it.route or it.path} {it.status}" for it in requests}
        ),
        "asserted": sorted(
            {it.place for facts in passed for it in facts.checks_at_the_end}
        ),
    }


def to_shape(value: Any, *, but: Container[str] = ()) -> dict[str, Any]:
    """Return a dataclass as what JSON can hold; fields that have their default are left out.

    Pairs of a name and something become an object, other tuples an array.

    Args:
        value: of whichever frozen class of this room or of the specifications.
        but: names of fields that are left out.
    """
    kind: Any = type(value)
    return {
        name: _written(hint, held)
        for name, hint, default in _fields(kind)
        if (held := getattr(value, name)) is not default
        and held != default
        and name not in but
    }


def from_shape(kind: Any, raw: Any) -> Any:
    """Return the value of a dataclass again.

    Raises:
        KeyError, TypeError, ValueError: it is not of this shape.
    """
    raw = _checked(raw, dict)
    return kind(
        **{
            name: _read(hint, raw[name])
            for name, hint, default in _fields(kind)
            if default is MISSING or name in raw
        }
    )


@cache
def _fields(kind: Any) -> tuple[tuple[str, Any, object], ...]:
    hints = get_type_hints(kind)
    return tuple((it.name, hints[it.name], it.default) for it in fields(kind))


def _written(hint: Any, value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return to_shape(value)
    if isinstance(value, tuple):
        # Of what a tuple holds, or one that may be None.
        inner = (
            get_args(hint)[0]
            if get_origin(hint) is tuple
            else get_args(get_args(hint)[0])[0]
        )
        return dict(value) if _is_pair(inner) else [_written(inner, it) for it in value]
    return value.value if isinstance(value, Enum) else value


def _read(hint: Any, raw: Any) -> Any:
    arguments = get_args(hint)
    if NoneType in arguments:
        return None if raw is None else _read(arguments[0], raw)
    if get_origin(hint) is tuple and _is_pair(arguments[0]):
        kind = get_args(arguments[0])[1]
        return tuple(
            (name, _checked(it, kind)) for name, it in _checked(raw, dict).items()
        )
    if get_origin(hint) is tuple:
        return tuple(_read(arguments[0], it) for it in _checked(raw, list))
    if get_origin(hint) is Literal:
        return arguments[arguments.index(raw)]
    if isinstance(hint, EnumMeta):
        return hint(raw)
    return from_shape(hint, raw) if is_dataclass(hint) else _checked(raw, hint)


@cache
def _is_pair(hint: Any) -> bool:
    return get_origin(hint) is tuple and get_args(hint)[-1] is not ...


def _checked(raw: Any, kind: type) -> Any:
    if type(raw) is not kind:
        raise TypeError(f"{kind.__name__} expected, not {raw!r:.40}")
    return raw
