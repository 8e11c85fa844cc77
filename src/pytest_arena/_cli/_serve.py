"""`arena serve`: runs levels for tests in another language."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import sys
from contextlib import redirect_stdout
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena._cli._control_server import TOKEN, Command, ControlServer
from pytest_arena._config._load import load_attribute
from pytest_arena._config._supported import FILES
from pytest_arena._databases._app_databases import changed_since
from pytest_arena._fixtures import RUNS, start_live_server
from pytest_arena._report import STORY, server_sections, story_lines, users_trace
from pytest_arena._run._facade import Arena
from pytest_arena.errors import ArenaError, ConfigError, redact

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from pytest_arena._changes import Change
    from pytest_arena._databases._app_databases import FileStates
    from pytest_arena._run._run import ArenaRun

_COMMAND = "arena serve"
_TIME_LIMIT = "PYTEST_TIMEOUT"
_ENTER = "/level/enter"
_LEAVE = "/level/leave"
_RESET = "/level/reset"
_SEED = "/seed/"
_METHODS = {
    _ENTER: "POST",
    _LEAVE: "POST",
    _RESET: "POST",
    "/changes": "GET",
    "/story": "GET",
}
_WITHOUT_TESTS = (
    *("--override-ini=addopts=", "--override-ini=arena_scenarios=off"),
    # pytest warns that it cannot rewrite the assertions of pytest-arena.
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
)
_OPTIONS = ("--capture=no", "-v", "--override-ini=console_output_style=classic")
# The exit statuses that differ from those of pytest.
_STATUS: dict[int, int] = {
    pytest.ExitCode.USAGE_ERROR: 2,
    pytest.ExitCode.NO_TESTS_COLLECTED: 0,
}


def serve(options: argparse.Namespace) -> int:
    """Serve until a signal. Return the exit status, which is 1 if a level had a problem.

    Raises:
        ConfigError: there is no token, or another program uses a port.
    """
    token = os.environ.get(TOKEN, "")
    if not token:
        raise ConfigError(
            f"{TOKEN} is not set",
            why="a request to the control interface changes data, so it needs a secret",
            cause="the program that starts `arena serve` sets the secret, and its tests send it",
            fix=f"export {TOKEN}=...   with a random word, such as from openssl rand -hex 16",
        )
    sys.path.insert(0, "")  # as `python -m pytest` has it
    with ControlServer(token, port=options.control_port) as control:
        levels = LevelServer(control, port=options.port, seeds=options.seeds)
        # stdout has only the line with the URLs.
        with redirect_stdout(sys.stderr):
            status = run_without_tests([*_OPTIONS, *options.others], levels)
        control.shutdown()
    return _STATUS.get(status, status)


def run_without_tests(options: Sequence[str], plugin: object) -> int:
    """Run pytest for a command, and return the exit status.

    The options of the suite for its tests (coverage, workers, a time limit) do not apply.
    """
    plugins = [plugin, _NoTimeLimit()]
    return int(pytest.main([*_WITHOUT_TESTS, *options], plugins=plugins))


class _NoTimeLimit:
    """A plugin of pytest that switches pytest-timeout off, but not for child programs."""

    def __init__(self) -> None:
        # With `-p no:timeout` pytest may refuse the unknown setting `timeout`.
        self._former = os.environ.get(_TIME_LIMIT)
        os.environ[_TIME_LIMIT] = "0"

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Restore the variable. pytest-timeout has read it."""
        os.environ.pop(_TIME_LIMIT)
        if self._former is not None:
            os.environ[_TIME_LIMIT] = self._former


def check_unchanged(states: FileStates, command: str, line: str = "") -> None:
    """Check that a command has changed no database of the project.

    Args:
        states: the states of the files before the command ran the user's code.
        command: the words of the command, for the message.
        line: the user's line whose program the command did not start, or "".

    Raises:
        ConfigError: a file has changed, or a program was not started.
    """
    changed = ", ".join(changed_since(states))
    if line:
        problem = f"{command} did not start the program of {line}"
    elif changed:
        problem = f"{changed} changed while {command} ran your code"
    else:
        return
    fix = f"move your {FILES.shown} files out of the project, then: {command}"
    if not states:
        fix = f"start it in a fixture of a test, not at import, then: {command}"
    raise ConfigError(
        problem,
        why="pytest-arena cannot guard other programs, which may change your databases",
        cause="your app, a conftest.py or env.py starts a program, or one runs beside the command",
        fix=fix,
    )


class LevelServer:
    """A plugin of pytest that runs each level as a test, and collects no other test.

    Options, hooks, autouse fixtures and checks therefore work as in tests in Python.
    """

    def __init__(self, control: ControlServer, *, port: int, seeds: str) -> None:
        self._control = control
        self._port = port
        self._seeds = seeds
        self._stdout = sys.stdout
        self._problems: list[str] = []
        # The command that has ended the last level and begins the next one.
        self._reset: Command | None = None

    def pytest_configure(self, config: pytest.Config) -> None:
        """Check that pytest-arena is active.

        Raises:
            pytest.UsageError: pytest-arena is switched off.
        """
        if config not in RUNS:
            raise pytest.UsageError(
                "pytest-arena is switched off for this run: by -p no:arena, or by "
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD, which needs -p pytest_arena.plugin"
            )

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> bool:
        """Collect no test, so that pytest imports no test module."""
        config = session.config
        config.hook.pytest_collection_modifyitems(
            session=session, config=config, items=[]
        )
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run a level for each command that begins one, until the control server stops."""
        self._module = module_in(session, _COMMAND)
        run = RUNS[session.config]
        try:
            server = run.apps.live_server(self._port)
        except ConfigError as error:
            raise pytest.UsageError(str(error)) from None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._control.stop)
        urls = json.dumps({"app": server.url, "control": self._control.url})
        self._stdout.write(f"{urls}\n")
        self._stdout.flush()
        while True:
            command = self._reset or self._control.take()
            self._reset = None
            if command is None:
                return True
            if command.method == "POST" and command.path in {_ENTER, _RESET}:
                self._run_level(command, session)
            else:
                _refuse(command, "no level has begun. POST /level/enter begins one")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the problems of a level. The command that leaves the level returns them."""
        if report.failed or report.skipped:
            self._problems.append(redact(report.longreprtext))

    def _run_level(self, enter: Command, session: pytest.Session) -> None:
        """Enter a level, run commands in it, and leave it. The level is the body of a test."""
        commands = _LevelCommands(RUNS[session.config], self._seeds)
        earlier_problems = self._problems
        self._problems = []
        # The command that ended the level, or None if the server stops. Empty without a level.
        endings: list[Command | None] = []

        def level(request: pytest.FixtureRequest, arena_app: object) -> None:
            server = start_live_server(request, arena_app)
            content = {
                "app": server.url,
                "database": commands.arena.url,
                "problems": earlier_problems,
            }
            enter.answer(500 if earlier_problems else 200, content)
            endings.append(commands.run_until_end(self._control))

        # Without brackets, pytest shows :: for each dot of the name.
        item = pytest.Function.from_parent(
            self._module,
            name=f"level[{enter.arguments.get('name', '')}]",
            callobj=level,
        )
        # Wide fixtures stay set up for the next item.
        next_item = pytest.Function.from_parent(
            self._module, name="the next level", callobj=level
        )
        session.testscollected += 1
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=next_item)
        ending = endings[0] if endings else enter
        if ending is None:
            self._control.stop()  # `run_until_end` took the first request to stop
        elif ending.path == _RESET and endings:
            self._reset = ending
        else:
            status = 500 if self._problems or not endings else 200
            ending.answer(status, {"problems": self._problems})
            self._problems = []


def module_in(session: pytest.Session, name: str) -> pytest.Module:
    """Return a module without a file, in the folder that pytest's arguments name."""
    config = session.config
    argument = config.args[0].partition("::")[0]
    folder = config.invocation_params.dir / argument
    parent = pytest.Dir.from_parent(session, path=folder)
    path = folder / name
    module: pytest.Module = pytest.Module.from_parent(parent, path=path)
    module.obj = ModuleType("served")
    return module


class _LevelCommands:
    """The commands inside a level."""

    def __init__(self, run: ArenaRun, seeds: str) -> None:
        self.arena = Arena(run)
        self._run = run
        self._seeds = seeds

    def run_until_end(self, control: ControlServer) -> Command | None:
        """Run commands. Return the one that ends the level, or None if the server stops."""
        while True:
            command = control.take()
            if command is None:
                return None
            if command.method == "POST" and command.path in {_LEAVE, _RESET}:
                return command
            try:
                self._run_command(command)
            except Exception as error:  # noqa: BLE001 - a seed may raise anything
                text = str(error)
                if not isinstance(error, ArenaError):
                    text = users_trace(error, self._run.moments.mask)
                command.answer(500, {"error": redact(text)})

    def _run_command(self, command: Command) -> None:
        match command.method, command.path:
            case "POST", path if path.startswith(_SEED):
                name = path.removeprefix(_SEED)
                command.answer(200, self._seed(name, command.arguments))
            case "GET", "/changes":
                changes = list(map(self._as_json, self.arena.changes()))
                command.answer(200, {"changes": changes})
            case "GET", "/story":
                command.answer(200, {"story": self._story()})
            case _:
                steps = (
                    "POST /level/leave ends it, and POST /level/reset begins the next"
                )
                _refuse(command, f"a level has begun. {steps}")

    def _story(self) -> str:
        """Return the sections that pytest-arena adds to the report of a failed test."""
        test = self._run.current.running()
        mask = self._run.moments.mask
        sections = server_sections(test.app_errors, test.handled_traces, None, mask)
        sections += self._run.outputs()
        lines = story_lines(self._run.story())
        if lines:
            sections.append((STORY, "\n".join(lines)))
        return "\n\n".join(f"{title}\n{text}" for title, text in sections)

    def _as_json(self, change: Change) -> dict[str, object]:
        """Return a change as JSON. The values of masked columns are hidden."""
        mask = self._run.moments.mask
        before = dict(change.before)
        after = dict(change.after)
        for row in (before, after):
            for column in row:
                if mask.hides(change.table, column):
                    row[column] = "***"
        return {
            "table": change.table,
            "kind": change.kind,
            "before": before,
            "after": after,
        }

    def _seed(self, name: str, arguments: Mapping[str, object]) -> object:
        """Call the seed function of this name with a session and the arguments."""
        path = f"{self._seeds}:{name}"
        function: Any = load_attribute(path, option="--seeds", source=_COMMAND)
        is_imported = getattr(function, "__module__", None) != self._seeds
        if name.startswith("_") or is_imported:
            raise ConfigError(
                f"{path} is not a seed",
                why="a seed is a public function that this module defines",
                cause=f"--seeds {self._seeds}",
                fix=f"def {name.lstrip('_')}(session, ...): ...   in {self._seeds}",
            )
        if inspect.iscoroutinefunction(function):
            return asyncio.run(self._async_seed(function, arguments))
        session: Any = self.arena.session()
        with session:
            result: object = function(session, **arguments)
            session.commit()
        return result

    async def _async_seed(
        self, function: Any, arguments: Mapping[str, object]
    ) -> object:
        session: Any = self.arena.session()
        async with session:
            result: object = await function(session, **arguments)
            await session.commit()
        return result


def _refuse(command: Command, reason: str) -> None:
    """Refuse a command with a wrong path or a wrong method, or for this reason."""
    path = command.path
    method = _METHODS.get(path)
    if path.startswith(_SEED):
        method = "POST"
    if method is None:
        paths = ", ".join(_METHODS)
        command.answer(404, {"error": f"the paths are {paths} and {_SEED}NAME"})
    elif method != command.method:
        command.answer(405, {"error": f"{method} {path}"})
    else:
        command.answer(409, {"error": reason})
