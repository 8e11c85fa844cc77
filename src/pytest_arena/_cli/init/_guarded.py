"""A run of pytest in which the app is imported, started and asked: under the gate, with no test.

It is a process of its own, which tells what it learns line by line: if it is ended, nothing of
that is lost.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena._cli._serve import module_in
from pytest_arena._cli.init._look import is_private
from pytest_arena._config._load import blame, described
from pytest_arena._databases._builders import candidates
from pytest_arena._fixtures import RUNS
from pytest_arena.errors import ArenaError, ConfigError, ServerError, causes, redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

Facts = dict[str, Any]

_ME = "pytest_arena._cli.init._guarded"
# What a suite has for its own runs (coverage, workers, a limit of time) is not meant for this one.
_OPTIONS = (
    *("-q", "-p", "no:timeout", "-p", "no:cacheprovider", "--override-ini=addopts="),
    *("--override-ini=arena_scenarios=off", "--override-ini=required_plugins="),
)
_HEALTH = (
    "health",
    "healthz",
    "health-check",
    "healthcheck",
    "ping",
    "status",
    "ready",
    "live",
)
# Pages of the framework, and what ends a login.
_PASSED_BY = (
    "/schema",
    "openapi.json",
    "/docs",
    "redoc",
    "oauth2",
    "logout",
    "callback",
)
REDIRECT = (
    "arena_drivers = redirect"  # the fix of an error that refuses a driver's connection
)
_ROUTES = 6  # that are asked: each may do more than answer
_SHOWN = 8  # lines of what pytest says where it could not begin


def run_python(
    folder: Path,
    *words: str,
    seconds: float | None = None,
    env: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Run Python; return its exit status, -1 where it took too long, and its output."""
    try:
        ran = subprocess.run(  # noqa: S603 - the project's own
            [sys.executable, *words],
            cwd=folder,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return -1, f"it did not end within {seconds:g} s: --timeout gives it more"
    return ran.returncode, redact(ran.stdout)


def guarded(
    folder: Path, asked: Facts, arguments: list[str], *, seconds: float
) -> Facts:
    """Look at an app in a folder; return what was told, and as ``problem`` what was wrong."""
    with tempfile.TemporaryDirectory(prefix="arena-init-") as temporary:
        report = Path(temporary, "facts")
        report.touch()
        told = json.dumps(asked | {"report": str(report)})
        _, output = run_python(folder, "-m", _ME, told, *arguments, seconds=seconds)
        facts: Facts = {"routes": [], "bases": [], "engines": []}
        for line in report.read_text(encoding="utf-8").splitlines():
            for name, value in json.loads(line).items():
                facts[name] = [*facts[name], value] if name == "routes" else value
    lines = [line for line in output.splitlines() if line.strip()]
    return facts if "ended" in facts else facts | {"problem": lines[-_SHOWN:]}


class Looking:
    """A plugin for one run of pytest, which collects nothing and looks at one app."""

    def __init__(self, asked: Facts) -> None:
        self._asked = asked
        self._answer: list[object] = []  # of the route that was asked last
        self._error: BaseException | None = None  # of the last level
        self._is_set_up_error = False  # whether a fixture raised it
        self._suite_fixtures = True  # whether the suite's fixtures act around a level

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> bool:
        """No module of tests is imported."""
        session.items = []
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Import the app, or ask it."""
        self._session = session
        self._run = RUNS[session.config]
        try:
            self._run.check()
            if not self._asked["app"]:
                self._tell(installed=self._asked["installed"])
            elif "schema" in self._asked:
                self._ask()
            else:
                self._look()
        except Exception as error:  # noqa: BLE001 - a factory's, say
            self._tell(error=_told(error))
        self._tell(ended=True)
        return True

    def pytest_exception_interact(self, call: pytest.CallInfo[Any]) -> None:
        """What a level has raised, or a fixture around it that acts by itself."""
        if self._error is None and call.excinfo is not None:
            self._error = call.excinfo.value
            self._is_set_up_error = call.when == "setup"

    def _tell(self, **facts: object) -> None:
        with Path(self._asked["report"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")

    def _look(self) -> None:
        """Say what the app's modules have made."""
        self._tell(installed=self._asked["installed"])
        likely = self._asked["bases"]
        near = [one for one in candidates() if Path.cwd() in one.file.resolve().parents]
        near.sort(
            key=lambda base: (
                is_private(base.name),
                base.name not in likely,
                not base.is_at_home,
                base.name,
            )
        )
        bases = {id(one.metadata): one for one in reversed(near)}
        self._tell(
            bases=[[one.name, sorted(one.metadata.tables)] for one in bases.values()]
        )
        with suppress(ArenaError):  # no engine, or it needs its tables to start
            self._run.database()
        engines = self._run.databases.known.by_key.values()
        of = [(one.name, one.dialect) for one in engines]
        self._tell(engines=[[name, it.name, it.driver, it.is_async] for name, it in of])

    def _ask(self) -> None:
        """Build the tables, then ask the app's routes, each in a separate level.

        The suite's fixtures do not run while the tables are built: they may fail for other reasons.
        """
        self._suite_fixtures = False
        error = self._level(lambda _: self._run.databases.ensure(self._run.database()))
        self._suite_fixtures = True
        ours = next((one for one in causes(error) if isinstance(one, ArenaError)), None)
        if error and not isinstance(
            ours, ConfigError
        ):  # that is an app without a database
            self._tell(
                unbuilt=_told(ours or error), server=isinstance(ours, ServerError)
            )
            return
        refusals = self._run.ledger.refusals
        suite_refusals: set[int] = set()  # places in the ledger
        for path in _ordered(_paths(self._run.apps.build()))[:_ROUTES] or ["/"]:
            before = len(refusals)
            error = self._level(self._get(path))
            if error is not None and self._is_set_up_error and self._suite_fixtures:
                self._tell(fixture=_told(error))
                self._suite_fixtures = False
                suite_refusals.update(range(before, len(refusals)))
                error = self._level(self._get(path))
            self._tell(
                routes=[path, 0, False, _told(error)[0]] if error else self._answer
            )
        app_refusals = [
            refusal
            for at, (refusal, _) in enumerate(refusals)
            if at not in suite_refusals
        ]
        self._tell(redirect=any(REDIRECT in refusal.fix for refusal in app_refusals))

    def _get(self, path: str) -> Callable[[Any], None]:
        """Ask twice: what differs is not sure, and the start of the app is not the second's."""

        def level(arena: Any) -> None:
            client = arena.test_client()
            used = self._run.connections.used
            first = client.get(path, follow_redirects=False).status_code
            used.clear()
            status = client.get(path, follow_redirects=False).status_code
            told = "" if status == first else f"{first}, then {status}"
            self._answer = [path, 0 if told else status, bool(used), told]

        return level

    def _level(self, function: Callable[[Any], object]) -> BaseException | None:
        """Call a function as a test's; return what was raised."""

        def level(arena: Any) -> None:
            function(arena)

        self._error = None
        self._is_set_up_error = False
        module = module_in(self._session, "arena init")
        item: pytest.Function = pytest.Function.from_parent(
            module, name="level", callobj=level
        )
        if not self._suite_fixtures:
            item.fixturenames[:] = ["arena"]  # without autouse fixtures
        self._session.testscollected += 1
        self._session.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        return self._error


def _told(error: BaseException) -> list[str]:
    if isinstance(error, ArenaError):
        return [error.what, error.cause, error.fix]
    return [redact(f"{described(error)}   {blame(error) or ''}".strip())]


def _paths(app: Any) -> Iterator[str]:
    """Yield the paths that a GET may ask without knowing anything."""
    yield from _walked(getattr(app, "routes", ()), "")
    if hasattr(app, "url_map"):  # Flask's
        rules = app.url_map.iter_rules()
        yield from (
            rule.rule for rule in rules if "GET" in rule.methods and not rule.arguments
        )
    with suppress(Exception):  # a model that has no schema
        for path, operations in app.openapi()["paths"].items():
            given = operations.get("get", {"parameters": [{"required": True}]})
            if not any(one.get("required") for one in given.get("parameters", ())):
                yield path


def _walked(routes: Iterable[Any], prefix: str) -> Iterator[str]:
    for route in routes:
        path = prefix + str(getattr(route, "path", ""))
        if "GET" in (getattr(route, "methods", None) or ()):
            yield path
        yield from _walked(getattr(route, "routes", None) or (), path)


def _ordered(paths: Iterable[str]) -> list[str]:
    """Those that need nothing, the likeliest to answer first."""
    fit = {
        one
        for one in paths
        if "{" not in one and not any(word in one for word in _PASSED_BY)
    }
    is_health = {path: path.rstrip("/").split("/")[-1] in _HEALTH for path in fit}
    return sorted(fit, key=lambda path: (not is_health[path], path.count("/"), path))


def main(told: str, *arguments: str) -> int:
    """Be the process that looks."""
    asked = json.loads(told)
    os.environ.pop("PYTEST_ADDOPTS", None)
    # The command `pytest` has no such entry, and what the app needs is to be found without it.
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path.cwd()]
    top = (asked["app"] or asked["module"]).partition(":")[0].partition(".")[0]
    asked["installed"] = bool(top) and find_spec(top) is not None
    return int(pytest.main([*_OPTIONS, *arguments], plugins=[Looking(asked)]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
