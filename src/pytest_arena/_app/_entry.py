"""Sees each request of each client: a hook around the call of an app.

The classes of the frameworks are wrapped when they are imported. `AppRun` wraps its app too,
because that may be a plain function.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from traceback import TracebackException
from typing import TYPE_CHECKING, Any

from pytest_arena._app._apps import FRAMEWORKS
from pytest_arena._config._load import blame, described, next_step
from pytest_arena._interpreter import patch, when_imported
from pytest_arena._ledger import FAILURE, REFUSAL, Request
from pytest_arena._origin import REQUEST
from pytest_arena._owner import (
    OWNER,
    Phase,
    watch_background_work,
    watch_failures,
)
from pytest_arena._process import seconds as now
from pytest_arena.errors import ArenaError, causes, in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import ExitStack

    from pytest_arena._app._apps import Message, Scope
    from pytest_arena._run._test import RunningTest

# The statuses with which a server accepts or refuses a websocket.
ACCEPTED = 101
REFUSED = 403


@dataclass(slots=True)
class ClientCall:
    """What one call of our client sends: a request, and the redirects that it follows."""

    role: str | None = None
    is_login: bool = False
    requests: list[Request] = field(default_factory=list)

    def attach(self, response: Any) -> None:
        """Attach the records of the requests to the answers of the HTTP library."""
        answers = [*response.history, response]
        for answer, record in zip(answers, self.requests, strict=False):
            answer.extensions["arena"] = record


# What our client sends now.
CLIENT_CALL: ContextVar[ClientCall | None] = ContextVar("arena: a client's call", default=None)


def watch_requests(undo: ExitStack) -> None:
    """Record the requests of all clients, and watch the work that requests begin.

    The frameworks are wrapped when they are imported. This imports none of them. ``undo`` restores
    their classes.
    """
    watch_background_work(undo)
    watch_failures(undo)

    def watch(name: str, module: object) -> None:
        kind = getattr(module, name)
        wrap = _observed_wsgi if name == "Flask" else observed
        patch(kind, "__call__", wrap(kind.__call__), undo)

    for module, name in FRAMEWORKS.items():
        when_imported(module, functools.partial(watch, name))


def observed(call: Any) -> Any:
    """Return a function that calls an app, or a framework's class, and records the request."""

    @functools.wraps(call, updated=())
    async def observing(*args: Any) -> None:
        *first, scope, receive, send = args
        test: RunningTest | None = Phase.test
        # Code of a request or a lifespan that calls an app begins no other request.
        if test is None or scope["type"] == "lifespan" or REQUEST.get() is not None:
            await call(*args)
            return
        client_call = CLIENT_CALL.get()
        if client_call is None:  # a client of the user, or a browser
            await test.acommit()
            client_call = ClientCall()
        if test.replay is not None and not client_call.is_login:
            recorded = functools.partial(record, test, ClientCall(client_call.role), *first)
            receive = await test.replay.of_asgi(recorded, scope, receive)
        # A request of a test that runs again may wait for what a replay has kept.
        limit = nullcontext() if test.replay is None else asyncio.timeout(test.replay.longest)
        async with limit:
            await record(test, client_call, *first, scope, receive, send)

    async def record(test: RunningTest, client_call: ClientCall, *args: Any) -> None:
        *_, scope, receive, send = args
        request = Request(
            method=scope.get("method", "WEBSOCKET"),
            path=scope["path"],
            query=scope.get("query_string", b"").decode(errors="replace"),
            role=client_call.role,
            is_login=client_call.is_login,
            began=now(),
        )
        client_call.requests.append(request)
        entry = _Entry(request, test, functools.partial(_route_of, scope))
        app = functools.partial(call, *args[:-3])
        for enter_with_fault in test.faults:
            app = functools.partial(enter_with_fault, app)

        async def send_and_note(message: Message) -> None:
            is_last = entry.note_message(message)
            await send(message)
            request.is_answered |= is_last

        with entry.answering():
            await app(scope, receive, send_and_note)

    return observing


def _observed_wsgi(call: Any) -> Any:
    @functools.wraps(call)
    def entered(app: Any, environ: Any, start_response: Any) -> object:
        test: RunningTest | None = Phase.test
        outer = REQUEST.get()
        if outer is not None:  # of the ASGI app around it
            outer.route = _rule_of(app, environ)
        if test is None or outer is not None:
            return call(app, environ, start_response)
        test.commit()
        if test.replay is not None:
            test.replay.of_wsgi(functools.partial(record, test, app), environ)
        return record(test, app, environ, start_response)

    def record(test: RunningTest, app: Any, environ: Any, start_response: Any) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        path = environ.get("PATH_INFO", "")
        query = environ.get("QUERY_STRING", "")
        request = Request(method=method, path=path, query=query, began=now())

        def start(status: str, headers: Any, *error: Any) -> object:
            request.status = int(status.partition(" ")[0])
            request.is_open = "text/event-stream" in str(headers)
            return start_response(status, headers, *error)

        with _Entry(request, test, functools.partial(_rule_of, app, environ)).answering():
            body: Iterable[bytes] = call(app, environ, start)
            if request.is_open:
                return body  # it may have no end
            try:
                parts = [*body]  # a generator of the app runs in the request
                if request.is_refused:
                    request.refusal = b"".join(parts)
                return parts
            finally:
                getattr(body, "close", bool)()

    return entered


@dataclass(slots=True, eq=False)
class _Entry:
    """One call of an app for a request."""

    request: Request
    test: RunningTest
    find_route: Callable[[], str]  # returns the template of the path
    traces: list[TracebackException] = field(default_factory=list)
    # The bytes of the body that the app has still to send. Negative if it has named no number.
    missing: int = -1

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Make the code of the block, and the work that it begins, a part of the request."""
        request = self.request
        owner = OWNER.set(self.test)
        self.test.begin_request(request)
        token = REQUEST.set(request)
        try:
            yield
            for trace in self.traces:
                self.test.app_errors.append((request, trace))
        except BaseException as error:
            self._note_error(error)
            raise
        finally:
            request.route = self.find_route() or request.route
            request.end(now())
            self.test.end_request(request)
            REQUEST.reset(token)
            OWNER.reset(owner)

    def _note_error(self, error: BaseException) -> None:
        """Note an exception that the app has raised."""
        if is_disconnect(error):
            return
        request = self.request
        if isinstance(error, Exception):
            request.raised = _with_cause(error)
            self.test.app_errors.append((request, error))
        is_answered = request.is_answered and not request.is_refused
        if request.status == ACCEPTED or not isinstance(error, Exception):
            is_answered = request.status is not None  # the client has left
        if not is_answered:
            request.error = in_words(error)

    def note_message(self, message: Message) -> bool:
        """Note a message that the app sends. Return whether it completes the answer.

        The last byte of the body does. A middleware may send an empty message afterwards, when the
        app has finished.
        """
        request = self.request
        match message["type"]:
            case "http.response.start" | "websocket.http.response.start":
                request.status = message["status"]
                request.is_open = True
                self.missing = int(dict(message.get("headers", ())).get(b"content-length", -1))
                self._note_handled(message["status"])
            case "http.response.body":
                body = message.get("body", b"")
                self.missing -= len(body)
                if request.is_refused:
                    request.refusal = request.refusal or body
                has_more = self.missing != 0 and message.get("more_body", False)
                request.is_open = has_more
                return not has_more
            case "websocket.accept":
                request.status = ACCEPTED
                request.is_open = True
            case "websocket.close":
                request.status = request.status or REFUSED
                self._note_handled(FAILURE)
        return False

    def _note_handled(self, status: int) -> None:
        """Note the exception that the app is handling when it answers with this status.

        Frameworks answer an exception in their ``except`` block.
        """
        error = sys.exception()
        if not isinstance(error, Exception):
            return
        is_expected = _is_http(error)
        is_of_app = not is_expected and blame(error) is not None
        if status >= FAILURE or (status >= REFUSAL and is_of_app):
            self.request.raised = _with_cause(error)
        if status >= FAILURE and not is_expected:
            # Copied now: some frameworks remove the traceback after the answer.
            self.traces.append(TracebackException.from_exception(error))


def _rule_of(app: Any, environ: Mapping[str, Any]) -> str:
    """Return the template of the path of a request to a Flask app."""
    try:
        rule, _ = app.url_map.bind_to_environ(environ).match(return_rule=True)
    except Exception:  # noqa: BLE001 - Werkzeug's for a path, a method or a host without a rule
        return ""
    return str(rule.rule)


def _route_of(scope: Scope) -> str:
    """Return the template of the path, ``/battles/{battle_id}``, or "" if the app has none."""
    litestar_template = scope.get("path_template")
    if litestar_template:
        return str(litestar_template)
    route = scope.get("route")
    # In new versions of FastAPI the route of an included router lacks the prefixes.
    whole = scope.get("fastapi", {}).get("effective_route_context")
    path = getattr(whole, "path_format", "") or getattr(route, "path_format", "")
    path = path or getattr(route, "path", "")
    if not path:
        return ""
    root = str(scope.get("root_path", ""))
    mount = root.removeprefix(str(scope.get("app_root_path", root)))
    return f"{mount}{path}"


def _with_cause(error: BaseException) -> str:
    """Return an exception in one line, with the app's line and its innermost cause in the app."""
    words = in_one_line(error)
    inner = []
    for cause in causes(error):
        if cause is not error and not _is_http(cause) and blame(cause) is not None:
            inner.append(cause)
    return f"{words} from {in_one_line(inner[-1])}" if inner else words


def in_one_line(error: BaseException) -> str:
    """Return an exception in one line, with the app's line."""
    text = in_words(error).partition("\n")[0]
    line = blame(error)
    return text if line is None else f"{text} ({line.short})"


def explained(error: BaseException) -> tuple[str, str, str]:
    """Return the reason, the line and the next step of an app's error, "" without a next step."""
    for cause in causes(error):
        if isinstance(cause, ArenaError):
            return described(cause), cause.cause, cause.fix
    line = blame(error) or "no line of your code: see the error above"
    return described(error), str(line), next_step(error)


def _is_http(error: BaseException) -> bool:
    """Return whether an exception sets the status of the answer, like ``HTTPException``."""
    return isinstance(getattr(error, "status_code", None), int)


def is_disconnect(error: BaseException | None) -> bool:
    """Return whether a framework raises this error to open, refuse or close a websocket."""
    return any(kind.__name__ in _OF_WEBSOCKETS for kind in type(error).__mro__)


_OF_WEBSOCKETS = {"WebSocketDisconnect", "ConnectionUpgradeExceptionError"}
