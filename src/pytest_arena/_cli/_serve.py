"""What does ``arena serve`` do? It is the tests' part of a run, for tests in another language."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import sys
from contextlib import redirect_stdout
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena._cli._control_server import TOKEN, Command, ControlServer
from pytest_arena._config._load import load_attribute
from pytest_arena._fixtures import RUNS, started_server
from pytest_arena._report import show_processes, show_server, show_story, users_trace
from pytest_arena._run._facade import Arena
from pytest_arena.errors import ArenaError, ConfigError, redact

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from pytest_arena._changes import Change
    from pytest_arena._run._run import ArenaRun

_COMMAND = "arena serve"
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
# What a suite has for its own runs (workers, coverage, a limit of time) is not meant for this one.
_OPTIONS = (
    *("--override-ini=addopts=", "--override-ini=console_output_style=classic"),
    *("--capture=no", "-v", "-p", "no:timeout", "--override-ini=arena_scenarios=off"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # arena itself is no test
)

# pytest's statuses, where those of our commands are other ones.
_STATUS: dict[int, int] = {
    pytest.ExitCode.USAGE_ERROR: 2,
    pytest.ExitCode.NO_TESTS_COLLECTED: 0,
}


def serve(given: argparse.Namespace) -> int:
    """Serve until told to end. Returns the exit status: 1 where a level had a problem.

    Raises:
        ConfigError: there is no token, or a port is taken.
    """
    if not (token := os.environ.get(TOKEN, "")):
        raise _no_token()
    sys.path.insert(0, "")  # as `python -m pytest` has it
    with ControlServer(token, port=given.control_port) as control:
        serving = Serving(control, port=given.port, seeds=given.seeds)
        with redirect_stdout(
            sys.stderr
        ):  # who begins this reads one line: where everything is
            status = pytest.main([*_OPTIONS, *given.others], plugins=[serving])
        control.shutdown()
    return _STATUS.get(status, int(status))


class Serving:
    """A plugin for one run of pytest, in which each level is a test, and no other is collected.

    So settings, hooks, fixtures of conftest files that act by themselves, and all that arena looks
    after, are for tests in another language what they are for those in Python.
    """

    def __init__(self, control: ControlServer, *, port: int, seeds: str) -> None:
        self._control = control
        self._port = port
        self._seeds = seeds
        self._stdout = sys.stdout
        self._problems: list[str] = []
        self._again: Command | None = (
            None  # it has ended a level, to begin the next one
        )

    def pytest_configure(self, config: pytest.Config) -> None:
        """What it is a part of has to be there.

        Raises:
            pytest.UsageError: it is not.
        """
        if config not in RUNS:
            raise pytest.UsageError(
                "pytest-arena is switched off for this run: by -p no:arena, or by "
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD, with which it takes -p pytest_arena.plugin"
            )

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> bool:
        """No module of tests is imported."""
        session.items = []
        config = session.config
        config.hook.pytest_collection_modifyitems(
            session=session, config=config, items=[]
        )
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Have a level for whoever asks, until told to end."""
        run = RUNS[session.config]
        self._module = module_in(session, _COMMAND)
        run.apps.port = self._port
        try:
            server = run.apps.live_server()
        except ConfigError as error:
            raise pytest.UsageError(str(error)) from None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._control.stop)
        self._stdout.write(
            f"{json.dumps({'app': server.url, 'control': self._control.url})}\n"
        )
        self._stdout.flush()
        while (asked := self._again or self._control.take()) is not None:
            self._again = None
            if asked.path in {_ENTER, _RESET} and asked.method == "POST":
                self._through(asked, session)
            else:
                asked.answer(
                    *_refused(asked, "no level stands: POST /level/enter begins one")
                )
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """What is wrong with a level is for whoever leaves it; a skipped one has not begun."""
        if report.failed or report.skipped:
            self._problems.append(redact(report.longreprtext))

    def _through(self, asked: Command, session: pytest.Session) -> None:
        """Enter a level, do what is asked in it, leave it."""
        commands = _Commands(RUNS[session.config], self._seeds)
        before = self._problems
        self._problems = []
        ended: list[Command | None] = []

        def level(request: pytest.FixtureRequest, arena_app: object) -> None:
            server = started_server(request, arena_app)
            where = {"app": server.url, "database": commands.arena.url}
            asked.answer(500 if before else 200, where | {"problems": before})
            ended.append(commands.until_ended(self._control))

        name = f"level[{asked.arguments.get('name', '')}]"  # else pytest shows :: for each dot
        session.testscollected += 1
        item, following = (
            pytest.Function.from_parent(self._module, name=each, callobj=level)
            for each in (name, "the next one")  # for it wide fixtures stay
        )
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        problems = {"problems": self._problems}
        if not ended:  # it has not begun
            asked.answer(500, problems)
            self._problems = []
        for end in ended:
            if end is None:
                self._control.stop()  # that was for the level: now all is to end
            elif end.path == _RESET:
                self._again = end
            else:
                end.answer(500 if self._problems else 200, problems)
                self._problems = []


def module_in(session: pytest.Session, name: str) -> pytest.Module:
    """Return a module in the folder that the run is about, whose fixtures its tests have."""
    config = session.config
    folder = config.invocation_params.dir / config.args[0].partition("::")[0]
    inside = pytest.Dir.from_parent(session, path=folder)
    module: pytest.Module = pytest.Module.from_parent(inside, path=folder / name)
    module.obj = ModuleType("served")  # there is no file to import
    return module


class _Commands:
    """What can be asked for while a level stands."""

    def __init__(self, run: ArenaRun, seeds: str) -> None:
        self.arena = Arena(run)
        self._run = run
        self._seeds = seeds

    def until_ended(self, control: ControlServer) -> Command | None:
        """Do what is asked for. Returns who ends the level; None where all is to end."""
        while (asked := control.take()) is not None:
            if asked.path in {_LEAVE, _RESET} and asked.method == "POST":
                break
            try:
                asked.answer(*self._done(asked))
            except Exception as error:  # noqa: BLE001 - a seed's: the level goes on
                told = (
                    str(error) if isinstance(error, ArenaError) else users_trace(error)
                )
                asked.answer(500, {"error": redact(told)})
        return asked

    def _done(self, asked: Command) -> tuple[int, object]:
        if asked.path.startswith(_SEED) and asked.method == "POST":
            return 200, self._seed(asked.path.removeprefix(_SEED), asked.arguments)
        if asked.method == "GET" and asked.path == "/changes":
            return 200, {"changes": [self._shown(one) for one in self.arena.changes()]}
        if asked.method == "GET" and asked.path == "/story":
            return 200, {"story": self._story()}
        return _refused(
            asked, "a level stands: POST /level/leave ends it, /level/reset anew"
        )

    def _story(self) -> str:
        """Return what the report of a failed test says."""
        report = SimpleNamespace(sections=[])
        test = self._run.current.running()
        show_server(report, test.broken, test.handled_traces, None)
        show_processes(report, self._run.outputs())
        show_story(report, self._run.story())
        return "\n\n".join(f"{title}\n{text}" for title, text in report.sections)

    def _shown(self, change: Change) -> dict[str, object]:
        rows = {"before": change.before, "after": change.after}
        hides = self._run.moments.mask.hides
        return {"table": change.table, "kind": change.kind} | {
            name: {key: "***" if hides(change.table, key) else row[key] for key in row}
            for name, row in rows.items()
        }

    def _seed(self, name: str, arguments: Mapping[str, Any]) -> object:
        """Call the function of this name with a session, and what was given by name."""
        function: Any = load_attribute(
            f"{self._seeds}:{name}", option="--seeds", source=_COMMAND
        )
        if name.startswith("_") or getattr(function, "__module__", None) != self._seeds:
            raise _no_seed(name, self._seeds)
        if inspect.iscoroutinefunction(function):
            return asyncio.run(self._awaited(function, arguments))
        session: Any = self.arena.session()
        with session:
            result: object = function(session, **arguments)
            session.commit()
            return result

    async def _awaited(self, function: Any, arguments: Mapping[str, Any]) -> object:
        session: Any = self.arena.session()
        async with session:
            result: object = await function(session, **arguments)
            await session.commit()
            return result


def _refused(asked: Command, why: str) -> tuple[int, object]:
    """What is said to a request that cannot be done now, or never."""
    method = "POST" if asked.path.startswith(_SEED) else _METHODS.get(asked.path)
    if method is None:
        return 404, {"error": f"there are {', '.join(_METHODS)} and {_SEED}NAME"}
    if method != asked.method:
        return 405, {"error": f"{method} {asked.path}"}
    return 409, {"error": why}


def _no_seed(name: str, module: str) -> ConfigError:
    return ConfigError(
        f"{module}:{name} is no seed",
        why="a seed is a public function that this module itself defines",
        cause=f"--seeds {module}",
        fix=f"def {name.lstrip('_')}(session, ...): ...   in {module}",
    )


def _no_token() -> ConfigError:
    return ConfigError(
        f"{TOKEN} is not set",
        why="what asks for a level changes data: nobody else on this machine may",
        cause="whoever starts `arena serve` gives it a secret, and sends the same",
        fix=f"export {TOKEN}   with a word that nobody guesses: openssl rand -hex 16",
    )
