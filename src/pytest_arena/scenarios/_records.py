"""Records what a test of a scenario seeded, requested and asserted."""

from __future__ import annotations

import ast
import inspect
import linecache
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

import _pytest.assertion.rewrite as rewriting
import pytest

from pytest_arena._config._load import is_library
from pytest_arena._interpreter import patch
from pytest_arena._origin import REQUEST
from pytest_arena._process import by_timeout
from pytest_arena._run._story import StoryReader
from pytest_arena._values import Stage
from pytest_arena.errors import causes
from pytest_arena.scenarios._faults import KINDS
from pytest_arena.scenarios._specs import ScenarioSpec, relative
from pytest_arena.warnings import LostWriteWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_arena._ledger import Request
    from pytest_arena._run._run import ArenaRun
    from pytest_arena._run._test import StoryMoment

Json = dict[str, Any]

_LONGEST = 160  # characters of an assertion


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
        if record is not None:
            here: Any = inspect.currentframe()
            frame = here.f_back
            file = frame.f_code.co_filename
            if not is_library(file):  # pytest also compiles the packages of its plugins, as anyio
                text = _assertions(file).get(frame.f_lineno, "")
                caller = frame.f_back.f_lineno if frame.f_back else 0
                record.passed(f"{file}:{frame.f_lineno}", text, caller)
        return has_hook()

    early_config._inicache["enable_assertion_pass_hook"] = True  # noqa: SLF001 - no public way at this time
    undo = ExitStack()
    patch(rewriting, "PYC_TAIL", f"{tail.removesuffix('.pyc')}-asserts.pyc", undo)
    patch(rewriting, "_check_if_assertion_pass_impl", passed, undo)
    early_config.add_cleanup(undo.close)


@cache
def _assertions(file: str) -> dict[int, str]:
    """Return the code of each assertion of a file, by its first line."""
    found = {}
    with suppress(SyntaxError):  # the file has changed since its import
        for node in ast.walk(ast.parse("".join(linecache.getlines(file)))):
            if isinstance(node, ast.Assert):
                found[node.lineno] = ast.unparse(node.test)
    return found


@dataclass(slots=True)
class Failure:
    """How a repeated test has failed, or one of its blocks. Such a test goes on after a block."""

    text: str
    is_check: bool = False
    """Whether an assertion of the test has failed, rather than one of the app."""
    steps: set[tuple[str, int]] = field(default_factory=set)
    """The steps in whose blocks it has failed, by the scenario's key and the number."""
    answer: Json = field(default_factory=dict)
    """The broken answer of the run."""


@dataclass(slots=True)
class Record:
    """The facts of a running test so far."""

    item: Any
    scenarios: Sequence[ScenarioSpec]
    requests: Callable[[], list[Request]]
    """Returns the requests of the test, without logins."""
    assertions: dict[tuple[str, int], Json] = field(default_factory=dict)
    steps: dict[tuple[str, int], Json] = field(default_factory=dict)
    """The steps with a block, by the scenario's key and the number."""
    step: str = ""
    """The text of the step whose block runs."""
    first: int | None = None
    """The number of requests before the first block of a When, None without one."""
    answers: dict[int, list[Any]] = field(default_factory=dict)
    """The messages of each answer, by the identity of its request."""
    is_in_call: bool = False
    facts: Json | None = None

    def passed(self, place: str, text: str, caller: int = 0) -> None:
        """Note an assertion that has passed.

        ``caller`` is the line that called its function. Two calls of a helper are two assertions.
        """
        if not self.is_in_call:
            return
        requests = self.requests()
        is_answered = any(each.status or each.method == "WEBSOCKET" for each in requests)
        text = " ".join(text.split())[:_LONGEST]
        place = relative(Path(place), self.item.config.rootpath)
        self.assertions[place, caller] = {
            "place": place,
            "text": text,
            "after": len(requests) if is_answered else 0,
            "step": self.step,
        }


class Recorder:
    """The ``Watcher`` of a run. Records the running test of a scenario, and never fails a test."""

    def __init__(self, run: ArenaRun) -> None:
        self.run = run
        self.record: Record | None = None
        self.failures: list[Failure] = []
        """How the repeated test has failed so far."""
        self.early: set[str] = set()
        """The places of assertions that the repeated test reaches only before its last request."""
        self.answers: dict[str, list[list[Any]]] = {}
        """The messages of each answer, by test."""

    # Called by the run.

    def asserted(self, place: str, text: str) -> None:
        """Record an assertion of pytest-arena that has passed, such as ``expect_changes``."""
        if self.record is not None:
            self.record.passed(place, text)

    def settled(self, errors: list[BaseException]) -> list[BaseException]:
        """Note the lost writes of a settled test. Return its errors, none of a repeated one."""
        if self.run.is_repeating:
            self.failures += [Failure(str(error).partition("\n")[0]) for error in errors]
            return []
        if self.record is not None and self.record.facts is not None:
            for warning, _ in self.run.ledger.warned.values():
                if isinstance(warning, LostWriteWarning):
                    what, cause, *_ = str(warning).splitlines()
                    self.record.facts["lost"].append(f"{what}, {cause.strip()}")
        return errors

    # Called by blocks and by the plugin of repeated tests.

    def note_failure(self, error: BaseException, *, is_in_call: bool = True) -> None:
        """Note how a repeated test has failed, or one of its blocks."""
        is_check = is_in_call and isinstance(error, AssertionError | pytest.fail.Exception)
        test = self.run.current.test
        for _, app_error in test.app_errors if test else ():
            is_check &= all(cause is not app_error for cause in causes(error))
        for frame, line in walk_tb(error.__traceback__):
            file = relative(Path(frame.f_code.co_filename), self.run.config.root)
            is_check &= f"{file}:{line}" not in self.early
        text = pytest.ExceptionInfo.from_exception(error).exconly(tryshort=True)
        self.failures.append(Failure(text.partition("\n")[0], is_check))

    def goes_on_after(self, error: BaseException) -> bool:
        """Note the error of a block, and return whether the test goes on after the block.

        A repeated test does, so that each later Then step gets its verdict.
        """
        is_called = self.record is not None and self.record.is_in_call
        is_failure = isinstance(error, Exception | pytest.fail.Exception)
        if not (self.run.is_repeating and is_called and is_failure):
            return False
        self.note_failure(error)
        return not by_timeout(error)

    # Called by the plugin.

    def begin(self, item: Any, scenarios: Sequence[ScenarioSpec]) -> None:
        """Begin to record a test at its set-up."""
        self.record = Record(item, scenarios, self.requests)

    async def note_answer(self, call: Any, scope: Any, receive: Any, send: Any) -> None:
        """Call an app, and keep its answer to a test of a scenario."""
        messages: list[Any] = []
        if self.record is not None:
            self.record.answers[id(REQUEST.get())] = messages

        async def note_and_send(message: Any) -> None:
            messages.append(message)
            await send(message)

        await call(scope, receive, note_and_send)

    def requests(self) -> list[Request]:
        """Return the requests of the running test, without logins."""
        return self.run.current.required_test().requests()

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
            if self.run.is_repeating:
                self.record = None
            else:
                record.facts = {
                    "seeded": [each for each in self._seeded(record.item) if each["tables"] != []],
                    "requests": [self._request(each) for each in self.requests()],
                    "assertions": [*record.assertions.values()],
                    "steps": [*record.steps.values()],
                    "first": record.first or 0,
                    "lost": [],
                }
                self.answers[record.item.nodeid] = [
                    record.answers.get(id(each), []) for each in self.requests()
                ]

    def take(self) -> Json | None:
        """Return the facts of the test, and forget them. None if its call was not reached."""
        record = self.record
        self.record = None
        return record.facts if record else None

    def _seeded(self, item: Any) -> Iterator[Json]:
        """Yield the sources of the rows before the first request, with the tables."""
        test = self.run.current.required_test()
        if self.run.config.seed and test.plan.stage is Stage.SEEDED:
            functions = ", ".join(filter(None, self.run.config.seed.values()))
            yield {"source": f"written for every test by {functions}", "tables": None}
        levels = tuple(self.run.databases.levels)
        for number, level in enumerate(levels, start=1):
            name = level.name.rpartition(" ")[2]
            if not level.is_test and name in item.fixturenames:
                tables = self._tables(None, None, depth=len(levels) - number)
                yield {"source": f"written for several tests by {name}", "tables": tables}
        turns = [turn for turn in test.turns if not all(each.is_login for each in turn.records)]
        tables = self._tables(None, turns[0].before if turns else None)
        yield {"source": "written by the test or its fixtures", "tables": tables}

    def _request(self, request: Request) -> Json:
        """Return the facts of a request."""
        changed = None  # it is unknown of requests at the same time, which have one set of changes
        turn = self.run.current.required_test().turn_of(request)
        if turn is not None and turn.before is not None and not turn.is_at_once:
            changed = self._tables(turn.before, turn.after)
        return {
            "method": request.method,
            "path": request.path,
            "route": request.route,
            "status": request.status,
            "role": request.role or "",
            "changed": changed,  # the tables in which it has committed changes
        }

    def _tables(
        self, since: StoryMoment | None, until: StoryMoment | None, *, depth: int = 0
    ) -> list[str] | None:
        """Return the tables with committed changes between two moments. None if that is unknown.

        Without moments these are the changes from the start of the level until now.
        """
        test = self.run.current.required_test()
        changes = StoryReader(test, most_rows=1).changes(since, until, depth=depth)
        return None if changes is None else [*changes.tables]


def evidence(attempt: Json) -> Iterator[tuple[str, str]]:
    """Yield what a try of a test did, each with a word for it."""
    facts = attempt["facts"]
    yield "test", f"{attempt['test']} {attempt['outcome']}"
    for source in facts["seeded"]:
        tables = ", ".join(source["tables"] or ())
        rows = f"rows of {tables}" if tables else "rows"
        yield "data", f"{rows}, {source['source']}"
    for request in facts["requests"]:
        text = f"{request['method']} {request['path']}"
        if request["role"]:
            text += f" as {request['role']}"
        status = request["status"]
        text += f", answered {status}" if status else ", no answer"
        if request["changed"]:
            text += f", changed {', '.join(request['changed'])}"
        yield "request", text
    if facts["assertions"] and not facts["steps"]:
        yield "check", "no block says for which Then a check is"
    for check in facts["assertions"]:
        of_step = f"{check['step']}: " if check["step"] else ""
        if facts["requests"] and not check["after"]:
            of_step = f"before the answer: {of_step}"
        yield "check", f"{of_step}{check['text']} ({check['place']})"
    if "sabotage" in attempt:
        yield from _wrong_answers(attempt["sabotage"], facts["assertions"])


def _wrong_answers(sabotage: Json, assertions: Sequence[Json]) -> Iterator[tuple[str, str]]:
    """Yield what the runs with broken answers have shown, in all or by Then step."""
    if sabotage["result"] != "noticed":
        yield "wrong answer", sabotage["why"]
        return
    if not assertions:
        yield "check", "not recorded (such as a unittest method)"
    for step in sabotage["steps"] or [{"text": "", "by": sabotage}]:
        broken = step["by"]
        text = "no wrong answer fails its checks"
        if broken:
            words, _ = KINDS[broken["kind"]]
            text = f"it fails if the app {words} for {broken['what']}: {broken['why']}"
        yield "wrong answer", f"{step['text']}: {text}".removeprefix(": ")


def noticed_text(kinds: Json) -> str:
    """Return which kinds of broken answers a test has noticed."""
    words = [KINDS[kind][0] for kind, is_noticed in kinds.items() if is_noticed]
    text = f"its test would fail if the app {' or '.join(words)}"
    return text if kinds.get("wrong", True) else f"{text}, not if it {KINDS['wrong'][0]}"
