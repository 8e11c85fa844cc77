"""`arena serve`: runs levels for tests in another language."""

from __future__ import annotations

import asyncio
import hmac
import inspect
import json
import os
import queue
import signal
import sys
from concurrent.futures import Future
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena._app._apps import body_of
from pytest_arena._app._live_server import CONTROL_PATH
from pytest_arena._config._load import load_attribute
from pytest_arena._fixtures import RUNS, start_live_server
from pytest_arena._run._arena import Arena
from pytest_arena._run._report import show_causes, show_story, trace_of_error
from pytest_arena.errors import ArenaError, ConfigError, redact

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from pytest_arena._app._apps import Receive, Scope, Send


TOKEN = "ARENA_SERVE_TOKEN"  # noqa: S105 - the name of the variable
_PAUSE = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class Command:
    """A request to the control interface, which waits for the reply."""

    name: str  # the method and the path
    arguments: Mapping[str, object]
    reply: Future[tuple[int, str]] = field(default_factory=Future)

    def answer(self, status: int, content: object) -> None:
        """Send a status and JSON. Values that JSON lacks become texts."""
        self.reply.set_result((status, json.dumps(content, default=str)))


class Commands:
    """Receives commands below `/__arena__` of the live server. A client needs the token."""

    def __init__(self, token: str) -> None:
        self._authorization = f"Bearer {token}".encode()
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._parent = os.getppid()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request when the main thread has executed its command."""
        status, text = await self._reply(scope, receive)
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": f"{text}\n".encode()})

    async def _reply(self, scope: Scope, receive: Receive) -> tuple[int, str]:
        authorization = dict(scope["headers"]).get(b"authorization", b"")
        if not hmac.compare_digest(authorization, self._authorization):
            return 401, json.dumps({"error": f"Authorization: Bearer <{TOKEN}>"})
        try:
            arguments = {**json.loads(await body_of(receive) or "{}")}
        except (TypeError, ValueError) as error:
            return 400, json.dumps({"error": f"the body is no JSON object: {error}"})
        path = scope["path"].removeprefix(CONTROL_PATH)
        command = Command(f"{scope['method']} {path}", arguments)
        self._commands.put(command)
        return await asyncio.wrap_future(command.reply)

    def take(self) -> Command | None:
        """Wait for the next command. Return None if the server stops, or its parent has ended."""
        # A wait without a timeout would block the handling of a signal that arrived just before.
        while os.getppid() == self._parent:
            with suppress(queue.Empty):
                return self._commands.get(timeout=_PAUSE)
        return None

    def stop(self, *_: object) -> None:
        """Stop the server. This is also a signal handler."""
        self._commands.put(None)


_COMMAND = "arena serve"
_ENTER = "POST /level/enter"
_LEAVE = "POST /level/leave"
_SEED = "POST /seed/"
_STORY = "GET /story"
_OPTIONS = (
    *("--override-ini=addopts=", "--override-ini=arena_scenarios=off"),
    # pytest warns that it cannot rewrite the assertions of pytest-arena.
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
    *("--capture=no", "-v", "--override-ini=console_output_style=classic"),
)
# The exit statuses that differ from those of pytest.
_STATUS: dict[int, int] = {
    pytest.ExitCode.USAGE_ERROR: 2,
    pytest.ExitCode.NO_TESTS_COLLECTED: 0,
}


def serve(options: argparse.Namespace) -> int:
    """Serve until a signal. Return the exit status, which is 1 if a level had a problem."""
    token = os.environ.get(TOKEN, "")
    if not token:
        raise ConfigError(
            f"{TOKEN} is not set",
            why="a request to the control interface changes data, so it needs a secret",
            cause="the program that starts `arena serve` sets the secret, and its tests send it",
            fix=f"export {TOKEN}=...   with a random word, such as from openssl rand -hex 16",
        )
    sys.path.insert(0, "")  # as `python -m pytest` has it
    os.environ["PYTEST_TIMEOUT"] = "0"  # a level has no time limit
    levels = LevelServer(Commands(token), port=options.port, seeds=options.seeds)
    # stdout has only the line with the URLs.
    with redirect_stdout(sys.stderr):
        status = pytest.main([*_OPTIONS, *options.others], plugins=[levels])
    return _STATUS.get(status, int(status))


class LevelServer:
    """A plugin of pytest that runs each level as a test, and collects no other test.

    Options, hooks, autouse fixtures and checks therefore work as in tests in Python.
    """

    def __init__(self, control: Commands, *, port: int, seeds: str) -> None:
        self._control = control
        self._port = port
        self._seeds = seeds
        self._stdout = sys.stdout
        self._problems: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> bool:
        """Collect no test, so that pytest imports no test module."""
        config = session.config
        config.hook.pytest_collection_modifyitems(session=session, config=config, items=[])
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run a level for each command that begins one, until the server stops."""
        module = _module_in(session)
        self._run = RUNS[session.config]
        self._arena = Arena(self._run)
        try:
            server = self._run.apps.live_server(self._port, self._control)
        except ConfigError as error:
            raise pytest.UsageError(str(error)) from None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._control.stop)
        urls = json.dumps({"app": server.url, "control": f"{server.url}{CONTROL_PATH}"})
        self._stdout.write(f"{urls}\n")
        self._stdout.flush()
        while True:
            command = self._control.take()
            if command is None:
                return True
            if command.name == _ENTER:
                self._run_level(command, module)
            else:
                _refuse(command, f"no level has begun. {_ENTER} begins one")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the problems of a level. The command that leaves the level returns them."""
        if report.failed or report.skipped:
            self._problems.append(redact(report.longreprtext))

    def _run_level(self, enter: Command, module: pytest.Module) -> None:
        """Enter a level, run commands in it, and leave it. The level is the body of a test."""
        # The command that ends the level, or None if the server stops.
        ending: Command | None = enter
        has_begun = False

        def level(arena_app: object) -> None:
            nonlocal ending, has_begun
            server = start_live_server(arena_app)
            enter.answer(200, {"app": server.url, "database": self._arena.url})
            has_begun = True
            ending = self._run_commands()

        # Without brackets, pytest shows :: for each dot of the name.
        name = f"level[{enter.arguments.get('name', '')}]"
        item = pytest.Function.from_parent(module, name=name, callobj=level)
        # Wide fixtures stay set up for the next item.
        next_item = pytest.Function.from_parent(module, name="next", callobj=level)
        module.session.testscollected += 1
        module.config.hook.pytest_runtest_protocol(item=item, nextitem=next_item)
        if ending is None:
            self._control.stop()  # `_run_commands` took the first request to stop
            return
        has_failed = bool(self._problems) or not has_begun
        ending.answer(500 if has_failed else 200, {"problems": self._problems})
        self._problems = []

    def _run_commands(self) -> Command | None:
        """Run commands. Return the one that ends the level, or None if the server stops."""
        while True:
            command = self._control.take()
            if command is None or command.name == _LEAVE:
                return command
            try:
                if command.name.startswith(_SEED):
                    name = command.name.removeprefix(_SEED)
                    command.answer(200, self._seed(name, command.arguments))
                elif command.name == _STORY:
                    command.answer(200, {"story": self._story()})
                else:
                    _refuse(command, f"a level has begun. {_LEAVE} ends it")
            except Exception as error:  # noqa: BLE001 - a seed may raise anything
                text = str(error)
                if not isinstance(error, ArenaError):
                    text = trace_of_error(error)
                command.answer(500, {"error": redact(text)})

    def _story(self) -> str:
        """Return the sections that pytest-arena adds to the report of a failed test."""
        report = SimpleNamespace(sections=[])
        show_causes(report, None, self._run)
        show_story(report, None, self._run)
        return "\n\n".join(f"{title}\n{text}" for title, text in report.sections)

    def _seed(self, name: str, arguments: Mapping[str, object]) -> object:
        """Call the seed function of this name with a session and the arguments."""
        function: Any = load_attribute(f"{self._seeds}:{name}", option="--seeds", source=_COMMAND)
        if inspect.iscoroutinefunction(function):
            return asyncio.run(self._async_seed(function, arguments))
        session: Any = self._arena.session()
        with session:
            result: object = function(session, **arguments)
            session.commit()
        return result

    async def _async_seed(self, function: Any, arguments: Mapping[str, object]) -> object:
        session: Any = self._arena.session()
        async with session:
            result: object = await function(session, **arguments)
            await session.commit()
        return result


def _module_in(session: pytest.Session) -> pytest.Module:
    """Return a module without a file, in the folder that pytest's arguments name."""
    config = session.config
    folder = config.invocation_params.dir / config.args[0].partition("::")[0]
    parent = pytest.Dir.from_parent(session, path=folder)
    module: pytest.Module = pytest.Module.from_parent(parent, path=folder / _COMMAND)
    module.obj = ModuleType("served")
    return module


def _refuse(command: Command, reason: str) -> None:
    """Refuse a command at the wrong time, or one that does not exist."""
    shown = ", ".join((_ENTER, _LEAVE, _STORY, f"{_SEED}NAME"))
    command.answer(409, {"error": f"{reason}. The commands are {shown}"})
