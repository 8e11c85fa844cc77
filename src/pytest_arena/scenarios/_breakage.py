"""What is broken under a test that is run again, to see whether it notices?"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from pytest_arena._databases._resolver import Level
from pytest_arena._ledger import Request
from pytest_arena._process import running_loop
from pytest_arena._run._run import ArenaRun
from pytest_arena._run._test import RunningTest
from pytest_arena.errors import IsolationError
from pytest_arena.scenarios._log import read_of
from pytest_arena.scenarios.evidence._document import Facts, Requested, SabotageKind

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Breaking:
    """One thing that is broken around one request of a test, known by its number.

    - ``seed``: before the request all databases become what their templates are. What the test
      and its fixtures hold in memory is not gone. What wide fixtures have written is back when the
      test's own level is left; without them that level is emptied.
    - ``commit``: what the app has committed is taken back when the request is over, and what those
      have that were under way together with it; its answer stays.
    - ``policy``: before the request the policies of all tables (row-level security) are switched
      off, until the level that stands then is left.
    - ``empty``, ``500``: the answer comes without its body, or as a plain 500; the work stays.
    - None: nothing is broken, to compare others with.

    Databases are brought back by levels, whatever becomes of the test. Nothing is raised into the
    test: what fails here is found in ``errors``, with all else that arena itself has to say of
    this run.
    """

    def __init__(
        self,
        run: ArenaRun,
        kind: SabotageKind | None,
        *,
        number: int | None,
        seconds: float,
    ) -> None:
        self._run, self._kind, self._number, self.seconds = run, kind, number, seconds
        self.is_reached = False  # the request that is meant was made
        self.is_applied = False
        self.is_timed_out = False
        self.is_late_since: int | None = None
        """The request that was under way already: what was to be done needs a quiet moment."""
        self.policed: tuple[str, ...] = ()  # tables whose policies are off
        self.touched = set[str]()  # those of them that requests have read since
        self.errors: list[Exception] = []
        self._lock = threading.Lock()  # sync clients may be called in several threads
        self._under_way = 0
        self._first = 0  # of those that are under way
        self._level: Level | None = None  # above the test's

    async def limited(self, call: Coroutine[Any, Any, None]) -> None:
        """Await the test's coroutine, which may wait for ever for what was broken."""
        __tracebackhide__ = True
        if running_loop() is None:  # another library's: it has a way of its own
            await call
            return
        try:
            async with asyncio.timeout(self.seconds) as limit:
                await call
        finally:
            self.is_timed_out |= limit.expired()

    # Each request that reaches the app, told by whoever watches it.

    def begins(self, request: Request) -> None:
        """A request is about to be answered; what was pending is committed."""
        if not request.is_counted:
            return
        with self._lock:
            self._first = self._first if self._under_way else request.number
            self._under_way += 1
            if request.number == self._number:
                self.is_reached = True
                self._change_databases(self._run.current.running())

    def _change_databases(self, test: RunningTest) -> None:
        if self._kind not in {"seed", "commit", "policy"}:
            return
        if self._under_way > 1:
            self.is_late_since = self._first
            return
        levels, standing = self._run.levels, self._run.databases.levels
        level, is_seed = levels.find(test), self._kind == "seed"
        with self._errors_kept():
            if is_seed and level is not None and standing == [level]:
                levels.begin_anew(level)
            elif self._kind != "policy" or level is None or standing[-1] is not level:
                serial = (
                    next(self._run.serials) if self._kind == "commit" else test.serial
                )
                name, stage = f"{test.plan.name}, sabotaged", test.plan.stage
                above = Level(self, name, serial, stage, is_anew=is_seed)
                levels.enter(above)
                self._level = above
            if (
                is_seed
            ):  # whoever looked before this would take it for what the test has done
                test.begin_anew()
                self.is_applied = True
            elif self._kind == "policy":
                self.policed = policed(self._run, is_off=True)
                self.is_applied = bool(self.policed)

    def sending(self, request: Request, send: Send) -> Send:
        """Return what the app is to send its answer by."""
        alter = {"empty": emptied, "500": failed}.get(self._kind or "")
        if alter is None or not request.is_counted or request.number != self._number:
            return send
        return alter(send, lambda: setattr(self, "is_applied", True))

    def ends(self, request: Request) -> None:
        """A request is over, with all that the app does after its answer."""
        if not request.is_counted:
            return
        with self._lock, self._errors_kept():
            self.touched.update(read_of(request.doings.statements, self.policed))
            self._under_way -= 1
            if (
                not self._under_way
                and self._kind == "commit"
                and self._level is not None
            ):
                level, self._level = self._level, None
                self.is_applied = bool(self._run.levels.leave(level))

    @contextmanager
    def _errors_kept(self) -> Iterator[None]:
        """Keep an error: the app would answer with a 500, for our reason."""
        try:
            yield
        except IsolationError as error:
            line = error.cause.partition("\n")[0]
            kept = IsolationError(
                f"an open transaction stood in the way of what was to be broken ({line})",
                why=error.why,
                cause=error.cause,
                fix="commit, or roll back, before the request",
            )
            kept.__cause__ = error
            self.errors.append(kept)
        except Exception as error:  # noqa: BLE001 - as said
            self.errors.append(error)


def policed(run: ArenaRun, *, is_off: bool = False) -> tuple[str, ...]:
    """Return the tables of all databases on which policies act for the app."""
    known = run.databases.provisioned()
    return tuple(
        name for one in known for name in one.product.policed(one, is_off=is_off)
    )


_SAFE = {"GET", "HEAD", "OPTIONS", "TRACE"}
_REFUSAL, _ERROR = 400, 500


def to_break(facts: Facts, *, has_policies: bool) -> dict[SabotageKind, int | str]:
    """Return of each kind the number of the request around which it is done, or why it is not.

    - ``seed``: the first request that is no preparation, where rows were written before it.
    - ``commit``: the last one that changed rows, those of the preparation left out.
    - ``policy``: the first one, too; ``has_policies``: where some act for the app.
    - ``empty``: the last one, where its answer may have a body. That of a refusal (4xx) says no
      more than its status does.
    - ``500``: the last one, where it has an answer.
    """
    if not facts.requests:
        return dict.fromkeys(
            ("seed", "commit", "policy", "empty", "500"), "it makes no request"
        )
    last = facts.requests[-1]
    number = len(facts.requests) - 1
    return {
        "seed": "it writes no row before its first request"
        if facts.seeded == ()
        else facts.first,
        "commit": _last_change(facts),
        "policy": facts.first
        if has_policies
        else "no policy acts on what the app does",
        "empty": _why_not_emptied(last) or number,
        "500": _why_not_failed(last) or number,
    }


def _last_change(facts: Facts) -> int | str:
    changing = [
        at
        for at, one in enumerate(facts.requests)
        # Where it is not known, a method that may change something has done so.
        if at >= facts.first
        and (one.method not in _SAFE if one.changed is None else one.changed)
    ]
    return changing[-1] if changing else "none of its requests changes a row"


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
    return (
        f"its last answer is an error: {last.status}" if last.status >= _ERROR else ""
    )


_OF_A_BODY = {b"content-length", b"content-encoding", b"transfer-encoding", b"trailer"}
_FILES = {
    "http.response.pathsend",
    "http.response.zerocopysend",
}  # by extensions of ASGI
BODILESS = {204, 304}


def emptied(send: Send, done: Callable[[], object]) -> Send:
    """Return a ``send`` that lets the status and the headers pass, and no body.

    The headers that tell how long a body is and how it is packed are mended. An answer that has
    no body passes as it is; ``done`` is called for one that had. What else an app sends, messages
    of a websocket for one, passes.
    """
    begin: MutableMapping[str, Any] | None = (
        None  # held until it is known whether a body comes
    )
    is_over = False

    async def emptying(message: MutableMapping[str, Any]) -> None:
        nonlocal begin, is_over
        if (
            message["type"] == "http.response.start"
            and message["status"] not in BODILESS
        ):
            begin = message
        elif begin is None:
            await send(message)
        elif is_over:
            pass
        elif message["type"] in _FILES or message.get("body"):
            is_over = True
            done()
            await _send_whole(send, begin, b"")
        elif message["type"] == "http.response.body" and not message.get(
            "more_body", False
        ):
            is_over = True
            await send(begin)
            await send(message)

    return emptying


def failed(send: Send, done: Callable[[], object]) -> Send:
    """Return a ``send`` that lets a plain 500 pass in the place of the answer.

    The app has done its work by then. ``done`` is called when its answer begins; what else it
    sends, messages of a websocket for one, passes.
    """
    is_over = False

    async def failing(message: MutableMapping[str, Any]) -> None:
        nonlocal is_over
        if not message["type"].startswith("http.response."):
            await send(message)
        elif not is_over:
            is_over = True
            done()
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            start = {"type": "http.response.start", "status": 500, "headers": headers}
            await _send_whole(send, start, b"Internal Server Error")

    return failing


async def _send_whole(send: Send, start: MutableMapping[str, Any], body: bytes) -> None:
    headers = [
        one for one in start.get("headers", ()) if one[0].lower() not in _OF_A_BODY
    ]
    length = (b"content-length", str(len(body)).encode())
    await send({**start, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
