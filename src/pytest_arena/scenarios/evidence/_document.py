"""The document of a run, also as JSON.

The types of the fields decide how JSON is read. They must exist at run time, so this module
imports no name for the type checker only.
"""

import json
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum, EnumMeta
from functools import cache
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pytest_arena.errors import ConfigError
from pytest_arena.scenarios.specs._specification import Pairs, Problem, ScenarioSpec

Counts = tuple[tuple[str, int], ...]
SabotageKind = Literal["seed", "commit", "policy", "empty", "500"]
SabotageResult = Literal["noticed", "survived", "not applicable", "unknown"]
Outcome = Literal["passed", "failed", "skipped", "xfailed", "xpassed", "unfinished"]


NO_ROUTE = "(no route)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested:
    """One request that reached the app under test, by any client."""

    method: str
    path: str
    route: str
    """The template, ``/battles/{battle_id}``. Empty if the framework has no template.

    ``(no route)`` if the app has no route for the path.
    """
    status: int | None
    role: str = ""
    changed: Counts | None = ()
    """The numbers of changed rows by table, sorted. None if unknown."""
    read: tuple[str, ...] | None = ()
    """The tables with rows of the test that the request read. None if unknown."""
    observed: bool | None = None
    """Whether the test looked at the answer. None if unknown."""


@dataclass(slots=True, kw_only=True)
class Asserted:
    """One assertion that passed in the test's call, once or several times."""

    place: str
    """The file, from the root folder, and the line: ``tests/test_x.py:31``."""
    text: str
    """The shortened code of the assertion."""
    after: int
    """How many requests were answered before. An accepted websocket counts as answered."""
    is_constant: bool = False
    """Whether the assertion could not have failed: ``assert True``, ``assert x == x``."""
    times: int = 1

    def pass_again(self, answered: int, *, is_constant: bool) -> None:
        """Count one more pass. A pass that could have failed replaces a pass that could not.

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
    """The events in one step block of the test."""

    scenario: str
    """The scenario's key."""
    step: int
    """The number of the step in the scenario, from 0."""
    wrote: int
    """The sum of the written rows, the pending rows and the logins of clients."""
    requests: tuple[int, ...]
    """The numbers of the requests in ``Facts.requests``."""
    assertions: int
    """How many assertions passed that could have failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The recorded facts of one try."""

    seeded: Counts | None = ()
    """The numbers of rows by table, sorted, that the test and its fixtures wrote first.

    Rows before the first request count. None if the rows could not be read."""
    has_base: bool = False
    """Whether ``arena_seed`` wrote rows that the test began with."""
    requests: tuple[Requested, ...] = ()
    first: int = 0
    """The number of the first request that is not preparation.

    Requests of fixtures and of Given blocks prepare. Rows written before it count as seeded."""
    late: tuple[str, ...] = ()
    """The requests of the tear-down: ``GET /battles``. They do not count as evidence."""
    asserted: tuple[Asserted, ...] = ()
    """At most 20 assertions. Those after the last request precede the others."""
    swallowed: Pairs = ()
    """The place and code of each assertion that failed last without failing the test."""
    lost: tuple[str, ...] = ()
    """The writes of the requests that the app never committed, in words."""
    steps: tuple[StepFacts, ...] = ()
    seen: tuple[str, ...] = ()
    """The literals of the steps that occurred in rows, requests or assertions."""
    off: Pairs = ()
    """The kinds of evidence that were not recorded, and why: ``("asserted", "python -O")``.

    Kinds: seeded, requested, asserted, changed, read, observed."""

    @property
    def checks(self) -> list[Asserted]:
        """The assertions that could fail."""
        return [check for check in self.asserted if not check.is_constant]

    @property
    def checks_at_the_end(self) -> list[Asserted]:
        """The assertions that could fail and passed after the last request."""
        return [check for check in self.checks if check.after >= len(self.requests)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sabotage:
    """The result of a test that was run again under one kind of sabotage."""

    kind: SabotageKind
    result: SabotageResult
    why: str = ""
    """The first line of the failure, the tables of survived policies, or another reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One try of one test. Reruns, and runs in other processes, are further tries."""

    test: str
    """The node id."""
    outcome: Outcome
    """The worst outcome of set-up, call and tear-down. Unfinished if the process died."""
    reason: str = ""
    """The reason of a skip or an xfail, or the first line of a failure with its phase."""
    place: str = ""
    """The line that failed, or the first line of the test: ``tests/test_x.py:31``."""
    facts: Facts | None = None
    is_stub: bool = False
    """Whether the test failed because it is not written yet."""
    is_rerun: bool = False
    """Whether an earlier try in the same process failed."""
    sabotages: tuple[Sabotage, ...] = ()

    @property
    def has_failed(self) -> bool:
        """Whether the test failed or its process died."""
        return self.outcome in {"failed", "unfinished"}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Mapping:
    """The claim of a test to prove a scenario. Ordered by the test, then by the row."""

    test: str
    """The node id."""
    row: Pairs = ()
    """The row of an Outline, as ``Row.values``. Empty for the whole scenario."""
    is_deselected: bool = False
    place: str
    """The first line of the test: ``tests/test_x.py:12``."""
    unused: tuple[str, ...] = ()
    """The columns of the row whose values the test ignores."""
    scenario: str
    """The scenario's key."""


class Status(Enum):
    """The status of a test or a scenario. The first is the worst."""

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

    @property
    def rank(self) -> int:
        """The number in the order. 0 is the worst status."""
        return _RANKS[self]


_RANKS = {status: number for number, status in enumerate(Status)}
PASSED = frozenset(
    {Status.FLAKY, Status.HOLLOW, Status.UNKNOWN, Status.PARTIAL, Status.PROVEN}
)
"""The statuses of a test that passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedTest:
    """One test of a scenario: its last try, and the verdict on it."""

    test: str
    place: str
    status: Status
    reason: str = ""
    row: Pairs = ()
    facts: Facts | None = None
    sabotages: tuple[Sabotage, ...] = ()
    also: tuple[Status, ...] = ()
    """Further statuses that apply, the worst first."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedStep:
    """The best verdict on one step, by the blocks of its tests."""

    status: Status | None = None
    """PROVEN, HOLLOW or UNKNOWN. None if no test has a block for the step."""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The facts about a scenario, without its tests, that decide the verdict."""

    malformed: str = ""
    drifted: str = ""
    gap: str = ""
    """The agreed gap of the lock file: ``gap until 2027-03-31: bought in May``."""
    is_gap_over: bool = False
    misfit: str = ""
    """The place of a test with values that no row has, and the error."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedScenario:
    """One scenario and the verdict on it."""

    scenario: ScenarioSpec
    status: Status
    reason: str = ""
    """Why the scenario is not PROVEN. Empty for a proven scenario."""
    place: str = ""
    """The line of a test that the reason is about."""
    also: tuple[Status, ...] = ()
    """Further statuses that apply, the worst first."""
    warnings: tuple[str, ...] = ()
    is_excused: bool = False
    """Whether an agreed gap excuses the scenario, so that it does not fail a strict run."""
    tests: tuple[JudgedTest, ...] = ()
    steps: tuple[JudgedStep, ...] = ()
    """The verdict on each step of the scenario."""
    standing: Standing = Standing()
    is_judged: bool = True
    """Whether the verdict counts in a strict run. In a partial run all tests must have run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The result of a run. It does not depend on the order of the tests."""

    scenarios: tuple[JudgedScenario, ...] = ()
    """The scenarios, sorted by path and line."""
    problems: tuple[Problem, ...] = ()
    """The problems of specifications, markers and lock."""
    gaps: tuple[str, ...] = ()
    """A line for each reason why a strict run fails."""
    partial: str = ""
    """Why the run left out tests, such as ``-k start``. Empty for a whole run."""
    is_sabotaged: bool = False
    is_list: bool = False
    """Whether the command ran no test: --collect-only, arena scenarios check and list."""
    specs: tuple[str, ...] = ()
    """The files that were read."""

    def counts(self) -> dict[Status, int]:
        """Return how many scenarios have each status that occurs, the worst first."""
        counts = Counter(judged.status for judged in self.scenarios)
        return {status: counts[status] for status in Status if counts[status]}


# JSON.


_SCHEMA = 1
"""The version of the JSON. It increases when a name is removed or gets another meaning."""

_line = json.JSONEncoder(ensure_ascii=False).encode


def as_json(document: Document) -> str:
    """Return the document as JSON with one line for each scenario. Equal documents give equal JSON.

    The JSON has no time, and only paths relative to the root folder. Values that equal the default
    are left out, except for the names that each reader needs.
    """
    counts = {status.value: count for status, count in document.counts().items()}
    problems = [{"spec": "", **to_shape(problem)} for problem in document.problems]
    parts = [
        f'"schema": {_SCHEMA}',
        _array("scenarios", map(_scenario, document.scenarios)),
        _array("problems", problems),
        f'"counts": {_line(counts)}',
    ]
    others = to_shape(document, without=("scenarios", "problems"))
    parts += [f'"{name}": {_line(value)}' for name, value in others.items()]
    text = "{" + ",\n".join(parts) + "}\n"
    # The message of a failure may have half of a surrogate pair, which UTF-8 cannot encode.
    return text.encode(errors="backslashreplace").decode()


def from_json(text: str, *, where: str) -> Document:
    """Read a document that ``as_json`` wrote.

    Args:
        text: the JSON text.
        where: the file, for messages.

    Raises:
        ConfigError: the text is not such a document, or has another version.
    """
    try:
        raw = json.loads(text.removeprefix("\ufeff"))
        schema = raw["schema"]
        cause = f"the file has schema {schema!r}, but this pytest-arena reads schema {_SCHEMA}"
        if schema == _SCHEMA:
            # In the JSON, one object has the scenario and its verdict.
            for judged in raw["scenarios"]:
                judged["scenario"] = {**judged, "rule": judged["gherkin_rule"]}
            document: Document = from_shape(Document, raw)
            return document
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        cause = f"{type(error).__name__}: {error}"
    raise ConfigError(
        f"{where} is not a readable JSON file of scenarios",
        why="a part of the verdicts would be missing or wrong",
        cause=cause,
        fix=f"write the file again: pytest --scenarios-out=json:{where}",
    )


def _array(name: str, values: Iterable[object]) -> str:
    lines = ",\n".join(map(_line, values))
    if lines:
        return f'"{name}": [\n{lines}\n]'
    return f'"{name}": []'


def _scenario(judged: JudgedScenario) -> dict[str, object]:
    """Return the scenario and its verdict as one object, with the most needed names first."""
    scenario = judged.scenario
    passed = []
    tests = []
    for test in judged.tests:
        tests.append(
            {"test": "", "place": "", "status": "", "reason": "", **to_shape(test)}
        )
        if test.facts and test.status in PASSED:
            passed.append(test.facts)
    first = {
        "name": scenario.name,
        "feature": scenario.feature,
        "rule": scenario.requirement or scenario.rule,
        "spec": scenario.spec,
        "line": scenario.line,
        "status": judged.status.value,
        "reason": judged.reason,
        "steps": _steps(judged),
        "tests": tests,
        "evidence": _evidence(passed),
        "gherkin_rule": scenario.rule,
    }
    rest = to_shape(scenario, without=("steps", *first))
    return first | rest | to_shape(judged, without=("scenario", *first))


def _steps(judged: JudgedScenario) -> list[dict[str, object]]:
    """Return the steps with their verdicts."""
    shapes = [to_shape(step) for step in judged.scenario.steps]
    for shape, verdict in zip(shapes, judged.steps, strict=False):
        if verdict.status is not None:
            shape.update(to_shape(verdict))
    return shapes


def _evidence(passed: list[Facts]) -> dict[str, object]:
    """Return the joined facts of the passed tests, for readers of the JSON."""
    if not passed:
        return {}
    seeded: dict[str, int] = {}
    requested = set()
    asserted = set()
    for facts in passed:
        for table, count in facts.seeded or ():
            seeded[table] = max(count, seeded.get(table, 0))
        for request in facts.requests:
            route = request.route or request.path
            requested.add(f"{request.method} {route} {request.status}")
        for check in facts.checks_at_the_end:
            asserted.add(check.place)
    return {
        "seeded": dict(sorted(seeded.items())),
        "requested": sorted(requested),
        "asserted": sorted(asserted),
    }


def to_shape(
    value: object,
    *,
    without: Container[str] = (),
) -> dict[str, object]:
    """Return a dataclass as a dict of JSON values, without fields that have their default.

    Pairs of a name and a value become an object, other tuples an array.

    Args:
        value: an instance of a dataclass of this module, or of the specifications.
        without: the names of fields to leave out.
    """
    shape: dict[str, object] = {}
    kind: Any = type(value)
    for name, hint, default in _fields(kind):
        field_value = getattr(value, name)
        if name not in without and field_value != default:
            shape[name] = _written(hint, field_value)
    return shape


def from_shape(kind: Any, raw: object) -> Any:
    """Return the instance of a dataclass from the result of ``to_shape``.

    Raises:
        KeyError: a field without default is missing.
        TypeError: a value has another type.
        ValueError: a value is not allowed.
    """
    shape = _checked(raw, dict)
    values = {
        name: _read(hint, shape[name])
        for name, hint, default in _fields(kind)
        if name in shape or default is MISSING
    }
    return kind(**values)


@cache
def _fields(kind: Any) -> tuple[tuple[str, object, object], ...]:
    """Return the name, the type and the default of each field."""
    hints = get_type_hints(kind)
    return tuple(
        (field.name, hints[field.name], field.default) for field in fields(kind)
    )


def _written(hint: object, value: object) -> object:
    if is_dataclass(value):
        return to_shape(value)
    if isinstance(value, tuple):
        inner = _inner_type(hint)
        if _is_pair(inner):
            return dict(value)
        return [_written(inner, part) for part in value]
    if isinstance(value, Enum):
        return value.value
    return value


def _inner_type(hint: object) -> object:
    """Return ``X`` for ``tuple[X, ...]`` and for ``tuple[X, ...] | None``."""
    if get_origin(hint) is not tuple:
        hint = get_args(hint)[0]
    return get_args(hint)[0]


def _read(hint: Any, raw: object) -> Any:
    arguments = get_args(hint)
    if NoneType in arguments:
        return None if raw is None else _read(arguments[0], raw)
    origin = get_origin(hint)
    if origin is tuple:
        return _read_tuple(arguments[0], raw)
    if origin is Literal:
        return arguments[arguments.index(raw)]
    if isinstance(hint, EnumMeta):
        return hint(raw)
    if is_dataclass(hint):
        return from_shape(hint, raw)
    return _checked(raw, hint)


def _read_tuple(inner: object, raw: object) -> tuple[object, ...]:
    """Return a tuple from an array, or a tuple of pairs from an object."""
    if _is_pair(inner):
        kind = get_args(inner)[1]
        pairs = _checked(raw, dict).items()
        return tuple((name, _checked(value, kind)) for name, value in pairs)
    return tuple(_read(inner, part) for part in _checked(raw, list))


@cache
def _is_pair(hint: object) -> bool:
    return get_origin(hint) is tuple and get_args(hint)[-1] is not ...


def _checked(raw: object, kind: type) -> Any:
    if type(raw) is not kind:
        raise TypeError(f"{kind.__name__} expected, not {raw!r:.40}")
    return raw
