"""Records what a test of a scenario seeded, requested and asserted."""

from __future__ import annotations

import inspect
import linecache
import re
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _pytest.assertion.rewrite as rewriting

from pytest_arena._values import Stage
from pytest_arena.scenarios._specs import ScenarioSpec, relative

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from pytest_arena._ledger import Request
    from pytest_arena._run._run import ArenaRun

Json = dict[str, Any]

_LONGEST = 160  # characters of an assertion
_MOST_ASSERTIONS = 40
_WRITE = re.compile(
    r"\s*(?:INSERT\s+INTO|UPDATE|DELETE\s+FROM)\s+[`\"]?([\w.]+)", re.IGNORECASE
)


def record_assertions(recorder: Recorder, early_config: Any) -> None:
    """Record each assertion that passes. Called before any test file is imported.

    Files that pytest compiles without reports of passed assertions have another name in its cache.
    They call a function that says whether a plugin has the hook ``pytest_assertion_pass``. With the
    hook, pytest would explain each assertion, which takes longer than to record it.
    """
    tail = rewriting.PYC_TAIL
    has_hook = rewriting._check_if_assertion_pass_impl  # noqa: SLF001 - no public way

    def passed() -> bool:
        record = recorder.record
        if record is not None and record.is_in_call:
            here: Any = inspect.currentframe()
            frame = here.f_back
            path = relative(Path(frame.f_code.co_filename), record.root)
            caller = frame.f_back.f_lineno if frame.f_back else 0
            record.passed(f"{path}:{frame.f_lineno}", _text(frame), caller)
        return has_hook()

    def replace(tail: str, function: Callable[[], bool]) -> None:
        rewriting.PYC_TAIL = tail
        rewriting._check_if_assertion_pass_impl = function  # noqa: SLF001 - as above

    early_config._inicache["enable_assertion_pass_hook"] = True  # noqa: SLF001 - no public way at this time
    replace(f"{tail.removesuffix('.pyc')}-asserts.pyc", passed)
    early_config.add_cleanup(lambda: replace(tail, has_hook))


def _text(frame: FrameType) -> str:
    """Return the code of the assertion that a frame runs."""
    positions = islice(frame.f_code.co_positions(), frame.f_lasti // 2, None)
    first, last, _, end = next(positions)
    lines = linecache.getlines(frame.f_code.co_filename)[(first or 1) - 1 : last]
    if lines:
        lines[-1] = lines[-1].encode()[:end].decode(errors="ignore")
    return "".join(lines).strip().removeprefix("assert ")


@dataclass(slots=True)
class Record:
    """The facts of a running test so far."""

    item: Any
    scenarios: Sequence[ScenarioSpec]
    root: Path
    requests: Callable[[], list[Request]]
    """Returns the requests of the test, without logins."""
    assertions: dict[tuple[str, int], Json] = field(default_factory=dict)
    steps: Counter[tuple[str, int]] = field(default_factory=Counter)
    """The passed assertions in blocks, by the scenario's key and the number of the step."""
    is_in_call: bool = False
    facts: Json | None = None

    def passed(self, place: str, text: str, caller: int = 0) -> None:
        """Note an assertion that has passed.

        Args:
            place: the file and the line of the assertion.
            text: its code.
            caller: the line that called the function with the assertion. Two calls of a helper
                are two assertions.
        """
        if not self.is_in_call:
            return
        answered = 0
        for request in self.requests():
            answered += request.status is not None or request.method == "WEBSOCKET"
        text = " ".join(text.split())[:_LONGEST]
        self.assertions[place, caller] = {
            "place": place,
            "text": text,
            "after": answered,
        }


class Recorder:
    """The ``Watcher`` of a run. Records the running test of a scenario, and never fails a test."""

    def __init__(self, run: ArenaRun) -> None:
        self.run = run
        self.record: Record | None = None
        self.is_repeating = False
        """Whether the running test is repeated and not reported."""
        self.errors: list[Exception] = []
        """The errors that repeated tests would have reported."""

    # Called by the run.

    def asserted(self, place: str, text: str) -> None:
        """Record an assertion of pytest-arena that has passed, such as ``expect_changes``."""
        if self.record is not None:
            file, _, line = place.rpartition(":")
            place = f"{relative(Path(file), self.record.root)}:{line}"
            self.record.passed(place, text)

    def settled(self, errors: list[Exception]) -> list[Exception]:
        """Return the errors to report for a settled test. A repeated test reports none."""
        if not self.is_repeating:
            return errors
        self.errors += errors
        return []

    # Called by the plugin.

    def begin(self, item: Any, scenarios: Sequence[ScenarioSpec]) -> None:
        """Begin to record a test at its set-up."""
        if not self.is_repeating:
            self.record = Record(item, scenarios, item.config.rootpath, self.requests)

    def requests(self) -> list[Request]:
        """Return the requests of the running test, without logins."""
        return [each for each in self.run.ledger.requests if not each.is_login]

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Record assertions, and read the facts while the test's level still exists."""
        record = self.record
        if record is None:
            yield
            return
        record.is_in_call = True
        try:
            yield
        finally:
            record.is_in_call = False
            self._end(record)

    def _end(self, record: Record) -> None:
        record.facts = {
            "seeded": self._seeded(record.item),
            "requests": [self._request(each) for each in self.requests()],
            "assertions": [*record.assertions.values()][:_MOST_ASSERTIONS],
            "steps": [
                {"scenario": key, "step": number, "assertions": passed}
                for (key, number), passed in record.steps.items()
            ],
        }

    def take(self) -> Json | None:
        """Return the facts of the test, and forget them. None if its call was not reached."""
        record = self.record
        self.record = None
        return record.facts if record else None

    # Rows.

    def _seeded(self, item: Any) -> list[Json]:
        """Return the sources of the rows before the first request, with the tables."""
        test = self.run.current.test
        if test is None:
            return []
        sources: list[Json] = []
        if self.run.config.seed and test.plan.stage is Stage.SEEDED:
            functions = ", ".join(filter(None, self.run.config.seed.values()))
            source = f"made for every test by {functions}"
            sources.append({"source": source, "tables": None})
        levels = tuple(self.run.databases.levels)
        for number, level in enumerate(levels, start=1):
            name = level.name.rpartition(" ")[2]
            if not level.is_test and name in item.fixturenames:
                tables = self._tables(depth=len(levels) - number)
                source = f"made for several tests by {name}"
                sources.append({"source": source, "tables": tables})
        turns = [turn for turn in test.turns if _is_counted(turn)]
        tables = self._tables(turns[0].before if turns else None)
        sources.append({"source": "made for this test", "tables": tables})
        return [each for each in sources if each["tables"] != []]

    def _request(self, request: Request) -> Json:
        return {
            "method": request.method,
            "path": request.path,
            "route": request.route,
            "status": request.status,
            "role": request.role or "",
            "changed": _changed(request),
        }

    def _tables(self, until: Any = None, *, depth: int = 0) -> list[str] | None:
        """Return the tables that had changed at a moment. None if that is unknown."""
        found: set[str] = set()
        levels = tuple(self.run.databases.levels)
        try:
            for database, isolation in self.run.databases.provisioned().items():
                time = None
                if until is not None:
                    if database not in until.times:
                        continue  # it did not exist
                    if not until.knows(database) or until.levels != levels:
                        return None
                    time = until.times[database]
                rows = isolation.rows_changed(None, time, depth=depth, limit=1)
                found.update(table.table for table in rows)
        except Exception:  # noqa: BLE001 - also of a database: the rows stay unknown
            return None
        return sorted(found)


def _changed(request: Request) -> list[str]:
    """Return the tables that the statements of a request wrote."""
    matches = map(_WRITE.match, request.statements)
    return sorted({match[1] for match in matches if match})


def _is_counted(turn: Any) -> bool:
    return any(not request.is_login for request in turn.records)


def evidence(attempt: Json) -> Iterator[tuple[str, str]]:
    """Yield what a try of a test did, each with a word for it."""
    facts = attempt["facts"]
    yield "test", f"{attempt['test']} {attempt['outcome']}"
    for source in facts["seeded"] or ():
        tables = ", ".join(source["tables"] or ())
        rows = f": rows of {tables}" if tables else ""
        yield "data", source["source"] + rows
    for request in facts["requests"]:
        yield "request", request_text(request)
    for check in facts["assertions"]:
        yield "check", check_text(check)
    sabotage = attempt.get("sabotage")
    if sabotage:
        yield "again", sabotage_text(sabotage)


def request_text(request: Json) -> str:
    """Return a request in one line."""
    text = f"{request['method']} {request['path']}"
    if request["role"]:
        text += f" as {request['role']}"
    status = request["status"]
    text += ", no answer" if status is None else f", answered {status}"
    if request["changed"]:
        text += f", changed {', '.join(request['changed'])}"
    return text


def check_text(check: Json) -> str:
    """Return an assertion and its place."""
    return f"{check['text']} ({check['place']})"


def sabotage_text(sabotage: Json) -> str:
    """Return in one line what a test did when answers were broken."""
    if sabotage["result"] != "noticed":
        return str(sabotage["why"])
    words = {
        "wrong": "a wrong answer",
        "empty": "an empty answer",
        "500": "an error",
        "more": "an answer with each item twice",
    }
    answer = f"{words[sabotage['kind']]} to {sabotage['what']}"
    return f"the app was made to give {answer}, and the test failed: {sabotage['why']}"
