"""``--arena-replay``: asks three more questions of each writing request of a green suite.

After the last test, each passed test that reached a new route runs once more, unreported. Before
its first success on that route reaches the app, the request is replayed, each time in a nested
level: twice at once (Warszawski and Bailis, "ACIDRain", 2017), interrupted at each of its steps
(Pillai et al., "All file systems are not created equal", 2014), and without its credentials.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import warnings
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from textwrap import indent
from typing import TYPE_CHECKING, Any

import pluggy
from _pytest.junitxml import xml_key

from pytest_arena._app._apps import body_of
from pytest_arena._ledger import FAILURE, READING, REFUSAL, route_of
from pytest_arena._process import async_rest, run_in_new_loop, seconds
from pytest_arena._run._interruptions import Interruption
from pytest_arena._run._nested import Fresh
from pytest_arena._run._races import FIX, MOST_SHOWN, REFUSED, Races, outcome_of, refused_isolations
from pytest_arena._run._repeats import Repeats, is_repeatable
from pytest_arena._values import CodeLine, counted
from pytest_arena.errors import PAGE, is_secret, redact
from pytest_arena.warnings import (
    AccessWarning,
    ArenaWarning,
    LeakWarning,
    LostWriteWarning,
    RaceWarning,
    TornWriteWarning,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable

    import pytest

    from pytest_arena._changes import Column, Outcome
    from pytest_arena._ledger import Request
    from pytest_arena._run._run import ArenaRun
    from pytest_arena._run._test import RunningTest

    # Sends the request, with or without its credentials.
    Send = Callable[..., Awaitable["Answer"]]

hook = pluggy.HookimplMarker("pytest")

_LONGEST = 10.0  # seconds, for one request
# The number of replays is limited, and not their time: a loaded machine asks as much as any other.
_SLOW = 2.0  # seconds, for a request that is replayed
_MOST_STEPS = 100
_PATIENCE = 0.1  # seconds, for work that a replay has begun
_MOST_ORDERS = 60
_MOST_LETTERS = 200  # of a body in a block to paste
_CREDENTIALS = {"authorization", "proxy-authorization", "cookie"}
_FORMS = {"multipart/form-data": "files", "application/x-www-form-urlencoded": "data"}
_SENT = "arena_replay"  # the key of a worker's output
# A test that fails while the endpoint has the fault.
_TEST = """\
@pytest.mark.filterwarnings("error::pytest_arena.RaceWarning")
{async}def test_{name}(arena, {client}):
"""
_RACES = """\
    {async}for race in arena.races():
        answers = {await}race({call}, {call})
        assert min(answer.status_code for answer in answers) < 400
"""
_PASSES = """\
    {async}for attempt in arena.interruptions():
        answer = {await}attempt({call})
        rows = "{whole}" if getattr(answer, "status_code", 500) < 400 else "nothing"
        assert arena.changes().counted() in (rows, "{whole}")
"""
_FIXES = {
    RaceWarning: FIX,
    TornWriteWarning: "commit once, at the end of the request",
    LostWriteWarning: "let the error of the database become an answer of 500",
    LeakWarning: "roll back, and give back what the request holds, in `finally`",
    AccessWarning: "let the endpoint ask for its login",
}


class NotReplayedError(Exception):
    """Why a request is not replayed, or not further."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The status of a replay, the name of the exception that the app has raised, or a timeout."""

    status_code: int | str

    @property
    def is_success(self) -> bool:
        """Whether the app has done what the request asks for."""
        return isinstance(self.status_code, int) and self.status_code < REFUSAL


@dataclass(slots=True)
class Replayed:
    """A replay: the answer, the changed rows, and the steps."""

    answer: Answer
    outcome: Outcome
    schedule: Interruption
    steps: list[str]  # the statements and commits
    following: Answer | None = None  # to the same request, sent once more
    completed: Outcome | None = None  # after that


@dataclass(slots=True)
class Route:
    """A method and a route, and what its replays have shown."""

    name: str
    test: str
    start: str = ""  # of a test
    blocks: dict[type[ArenaWarning], str] = field(default_factory=dict)  # of a test, by finding
    # The warning, what was found, and the statements or rows.
    findings: list[tuple[type[ArenaWarning], str, list[str]]] = field(default_factory=list)
    reason: str = ""  # why it was not replayed, or not further

    def lines(self) -> list[str]:
        """Return the lines of the report."""
        if not self.findings:
            return [f"{self.name}: {self.reason or 'nothing found'}   ({self.test})"]
        lines = [f"{self.name}   ({self.test})"]
        for category, what, steps in self.findings:
            lines.append(f"  {category.__name__}: {what}")
            lines += [f"    {each}" for each in (*steps, f"next: {_FIXES[category]}")]
        if self.reason:
            lines.append(f"  {self.reason}")
        loops = dict.fromkeys(self.blocks.get(category, "") for category, *_ in self.findings)
        if any(loops):
            lines.append('  as a test, after its rows, with a value for each "…":')
            lines.append(indent("".join([self.start, *loops]), "    ").rstrip())
        return lines


class Replay:
    """Replays the requests of a test that runs again, before the app gets them."""

    longest = _LONGEST  # seconds, for each request of the test itself

    def __init__(self, replays: Replays, test: RunningTest, wanted: dict[int, str]) -> None:
        self.replays = replays
        self.run = replays.run
        self.test = test
        self._wanted = wanted
        self._is_busy = False
        test.patience = min(test.patience, _PATIENCE)

    # Called where a request enters the app.

    async def of_asgi(self, record: Any, scope: Any, receive: Any) -> Any:
        """Replay a request of ASGI. Return what receives it again."""
        if scope["type"] != "http" or scope["method"] in READING:
            return receive
        body = await body_of(receive)
        before = {**scope, "state": {**scope.get("state", {})}}

        async def send(*, with_login: bool = True) -> Answer:
            headers = [each for each in before["headers"] if with_login or not _is_login(each[0])]
            state = {**before["state"]}  # Litestar keeps what it has read of a request there
            again = {**before, "headers": headers, "state": state}
            return await _answer_of_asgi(record, again, body)

        headers = {_header(name): value.decode("latin-1") for name, value in before["headers"]}
        await self._ask(send, headers, body)
        return _receiver(body, receive)

    def of_wsgi(self, record: Any, environ: Any) -> None:
        """Replay a request of WSGI, in threads."""
        if environ["REQUEST_METHOD"] in READING:
            return
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        before = {**environ}

        async def send(*, with_login: bool = True) -> Answer:
            kept = {name: before[name] for name in before if with_login or not _is_login(name)}
            kept["wsgi.input"] = io.BytesIO(body)
            loop = asyncio.get_running_loop()
            run = _own_context().run
            return await loop.run_in_executor(None, run, _answer_of_wsgi, record, kept)

        headers = {_header(name): value for name, value in environ.items()}
        run_in_new_loop(self._ask(send, headers, body))

    async def _ask(self, send: Send, headers: dict[str, Any], body: bytes) -> None:
        """Replay a request, unless another one runs."""
        while self._is_busy:  # the app gets no request while rows of a replay exist
            await async_rest(0)
        test = self.test
        wanted = self._wanted.get(len(test.requests()) - self.replays.before, "")
        is_old = wanted in {"", *self.replays.routes}
        is_free = test.is_set_up and self.run.databases.levels[-1] is test
        is_busy = test.under_way or self.run.connections.schedule is not None
        if is_old or is_busy or not is_free:
            return
        self._is_busy = True
        records = len(test.records)
        turns = len(test.turns)
        try:
            route = Route(wanted, test.name)
            whole = await self.alone(send)
            sent = test.requests()[-1]
            parts = _blocks(sent, headers, body, whole.outcome, is_async=test.plan.is_async)
            route.start, route.blocks = parts
            if route_of(sent) == wanted and whole.answer.is_success and whole.outcome:
                self.replays.routes[wanted] = route
                has_login = _has_login(sent, headers, body)
                await _Questions(self, route, send, whole).ask(has_login=has_login)
        except NotReplayedError as error:  # the answer has no end
            route.reason = str(error)
            self.replays.routes[wanted] = route
        finally:
            del test.records[records:]
            del test.turns[turns:]
            self._is_busy = False

    async def alone(
        self, send: Send, number: int = 0, *, with_login: bool = True, is_sent_again: bool = False
    ) -> Replayed:
        """Send the request in a level of its own, interrupted at a step."""
        schedule = Interruption(number)
        self.replays.count += 1
        async with Fresh(self.run, "a replay"):
            self.run.connections.schedule = schedule
            try:
                answer = await send(with_login=with_login)
            finally:
                self.run.connections.schedule = None
            late = await self.test.asettle()
            if late:
                raise NotReplayedError(
                    f"not replayed: its work still runs {_PATIENCE:g} s after the answer, {late[0]}"
                )
            outcome = outcome_of(self.run)
            following = None
            if is_sent_again:
                try:
                    following = await send()
                except NotReplayedError:  # it waits for what the interrupted one holds
                    following = Answer("a timeout")
            completed = outcome_of(self.run) if following and outcome else None
        steps = [text for text, _ in schedule.steps]
        return Replayed(answer, outcome, schedule, steps, following, completed)


class _Questions:
    """The three questions about one request. Each kind of finding is reported once."""

    def __init__(self, replay: Replay, route: Route, send: Send, whole: Replayed) -> None:
        self._replay = replay
        self._route = route
        self._send = send
        self._whole = whole
        self._chance: set[Column] = set()

    async def ask(self, *, has_login: bool) -> None:
        """Ask the questions. Interruptions are the last, because the app may not recover."""
        run = self._replay.run
        questions = {
            "races": self._race,
            "logins": self._without_login,
            "interruptions": self._interrupt,
        }
        if not has_login:
            del questions["logins"]
        refused = refused_isolations(run)
        if refused:
            del questions["races"], questions["interruptions"]
            why = " and ".join(f"{name} {REFUSED[name]}" for name in refused)
            self._route.reason = f"only asked without its login: the isolation {why}"
        if await self._answered(self._settle):
            for name, question in questions.items():
                if name in run.config.replay:
                    await self._answered(question)

    async def _answered(self, question: Callable[[], Awaitable[None]]) -> bool:
        """Ask a question. Note why it has no answer."""
        try:
            await question()
        except NotReplayedError as error:
            self._route.reason = str(error)
        except Exception as error:  # noqa: BLE001 - the others are asked
            self._route.reason = f"not replayed: {getattr(error, 'what', repr(error))}"
        else:
            return True
        return False

    async def _settle(self) -> None:
        """Replay until two replays have the same steps."""
        left = self._replay.run.ledger.left
        if left:
            raise NotReplayedError(f"not replayed: {left}")
        if not self._whole.outcome.is_whole:
            raise NotReplayedError("not replayed: it changes more than 1,000 rows")
        if len(self._whole.steps) > _MOST_STEPS:
            raise NotReplayedError("not replayed: it sends more than a hundred statements")
        for _ in range(2):
            began = seconds()
            again = await self._replay.alone(self._send)
            if seconds() - began > _SLOW:
                raise NotReplayedError("not replayed: it takes more than two seconds")
            if again.answer != self._whole.answer:
                status = again.answer.status_code
                raise NotReplayedError(f"not replayed: it answers {status} when it is sent again")
            is_equal = again.steps == self._whole.steps
            self._whole = again
            if is_equal:
                return
        raise NotReplayedError("not replayed: its statements differ from replay to replay")

    async def _race(self) -> None:
        races = Races(self._replay.run, 1, _MOST_ORDERS, "")
        races.is_of_replay = True
        is_partial = False
        try:
            async for race in races:
                await race(self._send(), self._send())
                is_partial |= race.schedule.has_others_waiting
        finally:
            await races.aclose()
            self._replay.replays.count += races.passes
        found = races.finding()
        if found is not None:
            words, ending = found
            if "different event loop" in ending.raised:
                raise NotReplayedError("not replayed: a lock needs arena_lifespan = session")
            self._route.findings.append((RaceWarning, f"at once: {words}", ending.lines[:-1]))
        elif races.differences or is_partial:
            raise NotReplayedError("not replayed in all orders: it waits for something else")
        else:
            self._route.reason = races.accepted_at_once()

    async def _without_login(self) -> None:
        replayed = await self._replay.alone(self._send, with_login=False)
        # Without rows it may redirect to a login. A refusal may write a row that says so.
        is_done = replayed.answer.is_success or str(replayed.outcome) == str(self._whole.outcome)
        if replayed.outcome and is_done:
            what = f"without its login: {replayed.answer.status_code}, {replayed.outcome}"
            self._route.findings.append((AccessWarning, what, []))

    async def _interrupt(self) -> None:
        found: set[type[ArenaWarning]] = set()
        for number in range(1, len(self._whole.steps) + 1):
            replayed = await self._replay.alone(self._send, number, is_sent_again=True)
            category, _ = self._judged(replayed)
            if category not in {None, LeakWarning, *found}:
                await self._look_again()
            category, what = self._judged(replayed)
            if category is not None and category not in found:
                found.add(category)
                where = "after two at once"  # such as in a session of all requests
                if len(replayed.steps) >= number:
                    where = f"interrupted at {replayed.schedule.line(len(self._whole.steps))}"
                rows = [*map(str, replayed.outcome.beyond([], set())[:MOST_SHOWN])]
                if str(replayed.outcome) == str(self._whole.outcome):
                    del self._route.blocks[category]  # that test counts rows, and would pass
                self._route.findings.append((category, f"{where}: {what}", rows))
            if LeakWarning in found:
                raise NotReplayedError("not replayed further: the app does not recover")

    async def _look_again(self) -> None:
        """Replay undisturbed: a column of whole seconds differs only when a second has passed."""
        whole = self._whole.outcome
        again = await self._replay.alone(self._send)
        self._chance |= whole.differing(again.outcome)
        if again.outcome.content(self._chance) != whole.content(self._chance):
            raise NotReplayedError("not replayed: its rows differ from replay to replay")

    def _judged(self, replayed: Replayed) -> tuple[type[ArenaWarning] | None, str]:
        """Return what an interruption has shown, with None for nothing."""
        if replayed.following == Answer("a timeout"):
            return LeakWarning, "the next request has no answer within ten seconds"
        whole = self._whole
        status = replayed.answer.status_code
        wanted = whole.outcome.content(self._chance)
        is_same = replayed.outcome.content(self._chance) == wanted
        if replayed.completed and not replayed.answer.is_success:  # the client sends it again
            is_same |= replayed.completed.content(self._chance) == wanted
        if replayed.outcome and not is_same:
            what = f"{replayed.outcome} stays, without the rest of {whole.outcome}"
            return TornWriteWarning, f"answered {status}, {what}"
        if replayed.answer.is_success and not is_same:
            return LostWriteWarning, f"answered {status}, and nothing was written"
        following = replayed.following
        if following == Answer(429):
            raise NotReplayedError("not replayed further: it limits the number of requests")
        if following is None or replayed.outcome or following == whole.answer:
            return None, ""
        words = f"{following.status_code}, not {whole.answer.status_code}"
        return LeakWarning, f"the next request ends with {words}"


# How a request enters the app


async def _answer_of_asgi(record: Any, scope: Any, body: bytes) -> Answer:
    statuses = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    call = asyncio.ensure_future(record(scope, _receiver(body, None), send))
    await asyncio.wait({call}, timeout=_LONGEST)
    if not call.done():
        call.cancel()
        await asyncio.wait({call}, timeout=1)
        raise NotReplayedError("not replayed: it takes more than ten seconds, or has no end")
    error = call.exception()
    if error is not None:
        return Answer(type(error).__name__)
    return Answer(statuses[0] if statuses else FAILURE)


def _receiver(body: bytes, receive: Any) -> Any:
    """Return a function that receives a body, then what ``receive`` does, without it nothing."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Any:
        if messages:
            return messages.pop()
        return await (receive() if receive else asyncio.get_running_loop().create_future())

    return received


def _own_context() -> Context:
    """Return a context without a fixture's app context, whose session Flask-SQLAlchemy shares."""
    context = Context()
    for variable, value in copy_context().items():
        if variable.name.startswith("arena"):
            context.run(variable.set, value)
    return context


def _answer_of_wsgi(record: Any, environ: Any) -> Answer:
    statuses: list[str] = []
    try:
        for _ in record(environ, lambda status, *_: statuses.append(status)):
            pass
    except Exception as error:  # noqa: BLE001 - its name is the answer
        return Answer(type(error).__name__)
    return Answer(int(statuses[-1].partition(" ")[0]))


def _header(name: bytes | str) -> str:
    """Return the name of a header in a scope or an environ, in small letters."""
    text = name.decode("latin-1") if isinstance(name, bytes) else name.removeprefix("HTTP_")
    return text.lower().replace("_", "-")


def _is_login(name: bytes | str) -> bool:
    """Return whether a header has credentials."""
    header = _header(name)
    return header in _CREDENTIALS or is_secret(header)


def _has_login(sent: Request, headers: Iterable[str], body: bytes) -> bool:
    """Return whether there is a login to leave out. A secret elsewhere is a login of its own."""
    text = f"{sent.query} {body.decode('latin-1')}"
    # The parameters of the path, and the fields of an upload.
    names = re.findall("[{<][^}>]+(?<!id)[}>]", sent.route) + re.findall('; name=".+?"', text)
    is_elsewhere = redact(text) != text or any(map(is_secret, names))
    return any(map(_is_login, headers)) and not is_elsewhere


def _blocks(
    sent: Request, headers: dict[str, Any], body: bytes, whole: Outcome, *, is_async: bool
) -> tuple[str, dict[type[ArenaWarning], str]]:
    """Return the parts of a test: how it begins, and a loop for each finding."""
    path = redact(f"{sent.path}?{sent.query}".removesuffix("?")).replace("***", "…")
    client = "client" if is_async else "test_client"
    call = f'{"user" if sent.role else client}.{sent.method.lower()}("{path}"'
    if body:
        name = _FORMS.get(headers.get("content-type", "").partition(";")[0], "content")
        text = ""
        with suppress(ValueError):
            text = redact(repr(json.loads(body))).replace("***", "'…'")
            name = "json"
        call += f", {name}={text}" if 0 < len(text) < _MOST_LETTERS else f', {name}="…"'
    logins = dict.fromkeys(filter(_is_login, headers), "…")
    if logins and not sent.role:
        call += f", headers={logins}"
    parts = [_TEST, _RACES, _PASSES]
    if sent.role:  # otherwise a login would be a part of each pass
        client += "_as"
        login = f'    {{async}}with {{client}}("{sent.role}") as user:\n'
        parts = [_TEST + login, indent(_RACES, "    "), indent(_PASSES, "    ")]
    words = {
        "name": "_".join(re.findall(r"\w+", route_of(sent).lower())),
        "client": client,
        "call": f"{call})" if is_async else f"lambda: {call})",
        "whole": whole,
        "async": "async " if is_async else "",
        "await": "await " if is_async else "",
    }
    start, races, passes = [part.format_map(words) for part in parts]
    return start, {RaceWarning: races, TornWriteWarning: passes, LostWriteWarning: passes}


# The run


class Replays:
    """The plugin of ``--arena-replay`` in each process of a run."""

    def __init__(self, config: pytest.Config, run: ArenaRun) -> None:
        self.run = run
        self.routes: dict[str, Route] = {}
        self.count = 0  # of replays, where a race of two requests is one
        self._config = config
        # The routes to which a passed test has written, by test and number of the request. Others
        # are sent once: a test double may count its calls.
        self._reached: dict[str, dict[int, str]] = {}
        self._wanted: dict[int, str] = {}  # by the test that runs again
        self._failure = ""  # of that test
        self.before = 0  # the number of requests that the fixtures of the test have sent
        # The facts of all processes: whether a route has a finding, and its lines, by its name.
        self._lines: dict[str, tuple[bool, list[str]]] = {}
        self._failures: list[str] = []  # lines about findings that a filter turns into errors
        self._seconds = 0.0

    @hook(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[object]
    ) -> Generator[None, Any, object]:
        """Note the routes of a passed test. Note why a test fails when it runs again."""
        report = yield
        test = self.run.current.test
        if self.run.is_repeating:
            if call.excinfo is not None:
                self._failure = call.excinfo.exconly(tryshort=True).partition("\n")[0]
        elif not report.passed:
            self._reached.pop(item.nodeid, None)
        elif report.when == "call" and test is not None:
            self._reached[item.nodeid] = {
                number: route_of(each)
                for number, each in enumerate(test.requests()[self.before :])
                if each.has_written and not (each.method in READING or each.is_refused)
            }
        elif report.when == "teardown" and self.run.ledger.left:
            for name in self._reached.pop(item.nodeid, {}).values():
                text = f"{name}: not replayed: {self.run.ledger.left}"
                self._lines.setdefault(name, (False, [text]))
        return report

    @hook(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        """Replay the requests of a test that runs again."""
        test = self.run.current.test
        self.run.ledger.left = ""
        if test is not None:
            self.before = len(test.requests())
            if self._wanted:
                test.replay = Replay(self, test, self._wanted)
        return (yield)

    @hook(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Run tests again after the last test. A stopped run (-x, Ctrl-C) raises before that."""
        result = yield
        began = seconds()
        repeats = Repeats.of(self._config, self.run)
        reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and self._reached:
            reporter.write_line("\narena: the requests are replayed now")
        last = None
        for item in session.items:
            self._wanted = {
                number: name
                for number, name in self._reached.get(item.nodeid, {}).items()
                if name not in self.routes
            }
            if self._wanted and is_repeatable(item):
                self._failure = ""
                if last is not None:
                    repeats.tear_down(last, item)
                repeats.run_again(item, item.parent, partial(self._filter, item))
                last = item
        self._wanted = {}
        if last is not None:
            repeats.tear_down(last, None)
        self.run.ledger.failures += self._failures
        self._seconds += seconds() - began
        return result

    def _filter(self, item: pytest.Item) -> None:
        """Ask the filters of a test which of its findings are errors. The report shows all."""
        place = CodeLine.of_test(item)
        for route in self.routes.values():
            self._lines[route.name] = (bool(route.findings), route.lines())  # also before Ctrl-C
            for category, what, _ in route.findings if route.test == item.nodeid else ():
                text = f"{route.name}: {what}"
                try:
                    with warnings.catch_warnings(record=True):
                        warnings.warn_explicit(text, category, place.shown_file, place.number)
                except ArenaWarning:
                    found = f"{category.__name__} of {route.name}"
                    self._failures.append(f"replay fails this run, by filterwarnings: {found}")
        missed = {*self._wanted.values()} - self.routes.keys()
        for name in missed if self._failure else ():
            text = f"{name}: not replayed: {item.nodeid} fails when it runs again"
            self._lines[name] = (False, [f"{text}: {self._failure}"])

    # The end

    @hook(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what a worker of pytest-xdist has sent."""
        sent = getattr(node, "workeroutput", {}).get(_SENT)
        if sent is not None:
            lines, duration, count = sent
            for name, (has_finding, of_route) in lines.items():
                if has_finding or name not in self._lines:
                    self._lines[name] = (has_finding, of_route)
            self._seconds = max(self._seconds, duration)
            self.count += count

    @hook(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Send the facts of a worker, or write them into JUnit's XML."""
        output = getattr(self._config, "workeroutput", None)
        if output is not None:
            output[_SENT] = self._lines, self._seconds, self.count
            return
        xml = self._config.stash.get(xml_key, None)
        for name, (has_finding, lines) in self._lines.items():
            if xml is not None and has_finding:
                xml.add_global_property(f"arena_replay {name}", "\n".join(lines))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print a line for each route, the findings first."""
        terminalreporter.write_sep("=", "arena: replay")
        for _, lines in sorted(self._lines.values(), key=lambda each: not each[0]):
            terminalreporter.write_line("\n".join(lines))
        number = counted(len(self._lines), "route")
        text = f"{counted(self.count, 'replay')} of {number} in {self._seconds:.2f} s"
        if not self._lines:
            text = "--arena-replay: no request of a passed test has changed a row"
        if any(has_finding for has_finding, _ in self._lines.values()):
            text += f". The findings: {PAGE}#warnings"
        terminalreporter.write_line(text)
