"""Sabotages one request of a test: the data before it, its commits or its answer."""

import asyncio
import threading
from asyncio import timeout as timeout_after
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager

from pytest_arena._databases._resolver import Level
from pytest_arena._process import async_rest, running_loop
from pytest_arena._run._run import ArenaRun
from pytest_arena._run._test import RunningTest
from pytest_arena.errors import IsolationError, LateWorkError
from pytest_arena.scenarios.evidence._claim import BROKEN
from pytest_arena.scenarios.evidence._document import Facts, Requested, SabotageKind
from pytest_arena.scenarios.requests._reads import read_of
from pytest_arena.scenarios.requests._record import RequestRecord
from pytest_arena.scenarios.requests._tracker import Message, Send, request_of

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_BROKEN_AGAIN = frozenset({"commit", "empty", "500"})
_REFUSAL = 400
_ERROR = 500
BODILESS = frozenset({204, 304})
"""The statuses of answers without a body."""

_BODY_HEADERS = frozenset(
    {b"content-length", b"content-encoding", b"transfer-encoding", b"trailer"}
)
# Messages of extensions of ASGI that send a file.
_FILES = frozenset({"http.response.pathsend", "http.response.zerocopysend"})


class SabotagedRun:
    """One run of a test with one fault at one request. The number identifies the request.

    - ``seed``: before the request all databases get the content of their templates. Objects in
      memory stay. Leaving the test's level restores the rows of wide fixtures. Without wide
      fixtures pytest-arena empties the test's level.
    - ``commit``: after the request and the work that it began, pytest-arena removes the commits of
      the app and of concurrent requests. The answer stays. The fault also affects repetitions of
      the request, because a test may send it again until it succeeds.
    - ``policy``: before the request pytest-arena disables the row-level policies of all tables.
      Leaving the current level enables them again.
    - ``empty``, ``500``: the answer has no body, or is a plain 500. The commits stay. The fault
      also affects repetitions.
    - None: no fault. This run shows whether the test passes twice.

    Levels restore the databases, however the test ends. This class raises no error into the test.
    ``errors`` has the failures of the sabotage, and the errors that pytest-arena reports.
    """

    def __init__(
        self,
        run: ArenaRun,
        kind: SabotageKind | None,
        *,
        number: int | None,
        seconds: float,
    ) -> None:
        self._run = run
        self._kind = kind
        self._number = number
        self.seconds = seconds
        """How long the test's call may take."""
        self.is_reached = False
        """Whether the test sent the request."""
        self.is_applied = False
        """Whether the fault was applied."""
        self.is_timed_out = False
        self.overlapped: int | None = None
        """The number of a concurrent request that prevented the fault."""
        self.tables_with_policies: tuple[str, ...] = ()
        """The tables whose policies are disabled."""
        self.touched: set[str] = set()
        """The tables with disabled policies that requests have read."""
        self.errors: list[Exception] = []
        self._lock = threading.Lock()  # several threads may use sync clients
        self._under_way = 0
        self._first_under_way = 0
        self._level: Level | None = None
        self._request: RequestRecord | None = None  # once it is sent, or sent again
        self._is_over = False  # whether the test's function has ended

    async def call_limited(self, call: Coroutine[object, object, None]) -> None:
        """Await the test's coroutine for a limited time. With a fault it may wait for ever."""
        __tracebackhide__ = True
        if running_loop() is None:  # the loop is not asyncio's
            await call
            return
        try:
            async with timeout_after(self.seconds) as limit:
                await call
        finally:
            if limit.expired():
                self.time_out()

    def time_out(self) -> None:
        """Note that pytest-arena has ended the test's call."""
        self.is_timed_out = True

    def end_call(self) -> None:
        """Note that the test's function has ended. Requests of the tear-down get no fault."""
        self._is_over = True

    def keep(self, errors: Iterable[Exception]) -> None:
        """Keep errors of this run of the test."""
        self.errors += errors

    def apply(self) -> None:
        """Note that the fault was applied."""
        self.is_applied = True

    # Called at each request.

    def begins(self, request: RequestRecord) -> None:
        """Apply the fault if this is the request to break. Called before the app answers."""
        if not request.is_counted:
            return
        with self._lock:
            if not self._under_way:
                self._first_under_way = request.number
            self._under_way += 1
            if self._is_to_break(request):
                is_repetition = self.is_reached
                self.is_reached = True
                self._request = request
                # A fault at a repetition would also remove the commits of concurrent requests.
                if not is_repetition or self._under_way == 1:
                    self._change_databases(self._run.current.running())

    def _is_to_break(self, request: RequestRecord) -> bool:
        """Return whether a request gets the fault: the planned request, or its repetition.

        A helper that retries may send another body, such as a new id or the time.
        """
        if request.number == self._number:
            return True
        if self._request is None or self._is_over:
            return False
        sent = request.request
        broken = self._request.request
        is_repetition = (sent.method, sent.path) == (broken.method, broken.path)
        return is_repetition and self._kind in _BROKEN_AGAIN

    def _change_databases(self, test: RunningTest) -> None:
        if self._kind not in {"seed", "commit", "policy"}:
            return
        if self._under_way > 1:
            self.overlapped = self._first_under_way
            return
        with self._errors_kept():
            match self._kind:
                case "seed":
                    self._remove_seeds(test)
                case "commit":
                    self._enter(test, serial=next(self._run.serials))
                case "policy":
                    self._switch_policies_off(test)

    def _remove_seeds(self, test: RunningTest) -> None:
        levels = self._run.levels
        level = levels.find(test)
        if level and self._run.databases.levels == [level]:
            levels.restart(level)
        else:
            self._enter(test, serial=test.serial, from_template=True)
        # Moments before this one must not be compared with moments after it.
        test.restart_counting()
        self.apply()

    def _switch_policies_off(self, test: RunningTest) -> None:
        level = self._run.levels.find(test)
        if level is None or self._run.databases.levels[-1] is not level:
            self._enter(test, serial=test.serial)
        self.tables_with_policies = tables_with_policies(self._run, is_off=True)
        self.is_applied = bool(self.tables_with_policies)

    def _enter(
        self,
        test: RunningTest,
        *,
        serial: int,
        from_template: bool = False,
    ) -> None:
        """Enter a level above the level of the test."""
        level = Level(
            self,
            f"{test.plan.name}, sabotaged",
            serial,
            test.plan.stage,
            from_template=from_template,
        )
        self._run.levels.enter(level)
        self._level = level

    def sending(self, request: RequestRecord, send: Send) -> Send:
        """Return the ``send`` that the app is to call."""
        if not request.is_counted or not self._is_to_break(request):
            return send
        match self._kind:
            case "empty":
                return emptied(send, self.apply)
            case "500":
                return failed(send, self.apply)
        return send

    async def returned(self, request: RequestRecord) -> None:
        """Wait up to ``arena_settle`` for the work of the request whose commits are removed."""
        is_broken = self._kind == "commit" and request is self._request
        if not is_broken or self._level is None or running_loop() is None:
            return
        late_work = self._run.current.running().late_work
        for _ in late_work.pausing(self._is_begun_by_request):
            await async_rest(0)

    def ends(self, request: RequestRecord) -> None:
        """Called when the app has returned, its background tasks included."""
        if not request.is_counted:
            return
        with self._lock, self._errors_kept():
            self.touched.update(
                read_of(request.statement_log.statements, self.tables_with_policies)
            )
            self._under_way -= 1
            level = self._level
            if self._kind == "commit" and level and not self._under_way:
                self._level = None
                changed = self._run.levels.leave(level)
                self.is_applied |= bool(changed)
                late_work = self._run.current.running().late_work
                unfinished = late_work.lines(self._is_begun_by_request)
                if unfinished and not changed:
                    self.errors.append(_still_running(unfinished[0]))

    def _is_begun_by_request(self, task: asyncio.Task[object]) -> bool:
        """Return whether the app began a task in the request. The client has tasks too."""
        return request_of(task) is self._request

    @contextmanager
    def _errors_kept(self) -> Iterator[None]:
        """Keep an error of the block. The app would turn a raised error into a 500."""
        try:
            yield
        except IsolationError as error:
            line = error.cause.partition("\n")[0]
            kept = IsolationError(
                f"an open transaction prevented the sabotage ({line})",
                why=error.why,
                cause=error.cause,
                fix="commit or roll back before the request",
            )
            kept.__cause__ = error
            self.errors.append(kept)
        except Exception as error:  # noqa: BLE001 - the app would handle any error
            self.errors.append(error)


def _still_running(line: str) -> LateWorkError:
    """Return the error about work whose commits could not be removed."""
    return LateWorkError(
        f"work of the request still ran when pytest-arena had to remove its commits ({line})",
        why="its later commits stay, and the test may pass because of them",
        cause=line,
        fix="let the work end without the test, or set a longer arena_settle",
    )


def tables_with_policies(run: ArenaRun, *, is_off: bool = False) -> tuple[str, ...]:
    """Return the tables of all databases with policies that limit the app's roles.

    ``is_off`` also disables these policies.
    """
    tables: list[str] = []
    for database in run.databases.provisioned():
        tables += database.product.tables_with_policies(database, is_off=is_off)
    return tuple(tables)


def sabotage_plan(
    facts: Facts,
    *,
    has_policies: bool,
) -> dict[SabotageKind, int | str]:
    """Return the number of the request to break for each kind, or why the kind does not apply.

    - ``seed``: the first request that is not preparation, if it is known that rows were written
      before it.
    - ``commit``: the last request that changed rows and is not preparation. A GET, which may write
      to an access log, counts only if each such request is safe.
    - ``policy``: the first request that is not preparation, if policies act for the app.
    - ``empty``: the last request, if its answer may have a body. The body of a refusal (4xx) says
      no more than its status.
    - ``500``: the last request, if it has an answer.
    """
    if not facts.requests:
        return dict.fromkeys(BROKEN, "it sends no request")
    last = facts.requests[-1]
    last_number = len(facts.requests) - 1
    plan: dict[SabotageKind, int | str] = {
        "seed": facts.first,
        "commit": _last_change(facts),
        "policy": facts.first,
        "empty": _why_not_emptied(last) or last_number,
        "500": _why_not_failed(last) or last_number,
    }
    # Unknown rows may be rows of the app. If a Given needs rows, the scenario is UNKNOWN then.
    if not facts.seeded:
        plan["seed"] = "it is not known to write a row before its first request"
    if not has_policies:
        plan["policy"] = "no policy applies to the app"
    return plan


def _last_change(facts: Facts) -> int | str:
    changing = []
    for number in range(facts.first, len(facts.requests)):
        request = facts.requests[number]
        is_unsafe = request.method not in _SAFE_METHODS
        if request.changed or (request.changed is None and is_unsafe):
            changing.append((is_unsafe, number))
    if changing:
        return max(changing)[1]
    return "none of its requests changes a row"


def _why_not_emptied(last: Requested) -> str:
    if last.status in BODILESS or last.method == "HEAD":
        return "its last answer has no body"
    if last.status is not None and _REFUSAL <= last.status < _ERROR:
        return f"its last answer is a refusal: {last.status}"
    return _why_not_failed(last)


def _why_not_failed(last: Requested) -> str:
    if last.method == "WEBSOCKET":
        return "its last request opens a websocket"
    if last.status is None:
        return "its last request has no answer"
    if last.status >= _ERROR:
        return f"its last answer is an error: {last.status}"
    return ""


# Bodies without information.
_NOTHING = {b"", b"null"}


def emptied(send: Send, done: Callable[[], object]) -> Send:
    """Return a ``send`` that sends the status and the headers of an answer, and no body.

    The headers fit the missing body. An answer without a body, or with JSON's ``null``, stays
    unchanged. ``done`` is called for any other answer. Messages of a websocket stay unchanged.
    """
    start = None  # the first message, until a part of the body arrives
    text = b""
    is_over = False

    async def send_without_body(message: Message) -> None:
        nonlocal start, text, is_over
        kind = message["type"]
        if kind == "http.response.start" and message["status"] not in BODILESS:
            start = message
        elif start is None:
            await send(message)
        elif not is_over:
            text += message.get("body", b"")
            if kind in _FILES or text.strip() not in _NOTHING:
                is_over = True
                done()
                await _send_whole(send, start, b"")
            elif kind == "http.response.body" and not message.get("more_body", False):
                is_over = True
                await send(start)
                await send({**message, "body": text})

    return send_without_body


def failed(send: Send, done: Callable[[], object]) -> Send:
    """Return a ``send`` that sends a plain 500 instead of the answer.

    The app has done its work when it answers. ``done`` is called when the answer begins. Messages
    of a websocket stay unchanged.
    """
    is_over = False

    async def send_500(message: Message) -> None:
        nonlocal is_over
        if not message["type"].startswith("http.response."):
            await send(message)
        elif not is_over:
            is_over = True
            done()
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            start = {"type": "http.response.start", "status": 500, "headers": headers}
            await _send_whole(send, start, b"Internal Server Error")

    return send_500


async def _send_whole(
    send: Send,
    start: Message,
    body: bytes,
) -> None:
    headers = [
        (name, value)
        for name, value in start.get("headers", ())
        if name.lower() not in _BODY_HEADERS
    ]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({**start, "headers": headers})
    await send({"type": "http.response.body", "body": body})
