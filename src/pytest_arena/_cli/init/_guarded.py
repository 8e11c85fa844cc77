"""A run of pytest that collects no test, imports the app and sends it requests.

The gate of pytest-arena refuses connections to the user's databases. The run is a separate
process. It writes each fact to a file at once, so no fact is lost if the
process is ended.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import partial
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

    from pytest_arena._databases._builders import Candidate

Facts = dict[str, Any]
"""The facts that a guarded run learned. It always has the first three keys.

- bases: the name and the tables of each base
- engines: the name, the dialect, the driver of each engine, and whether it is async
- routes: a path, its status (0 if unknown), whether it used the database, and a problem
- installed: whether the app's package is installed
- problem, error, unbuilt, fixture: lines that say why pytest, the app, the build of the tables or
  a fixture of the suite failed
- server: whether the build failed because no server was found
- redirect: whether pytest-arena refused a driver's connection
"""

_MODULE = "pytest_arena._cli.init._guarded"
# Options that a suite has for its test runs (coverage, workers, a time limit) do not apply here.
_OPTIONS = (
    *("-q", "-p", "no:timeout", "-p", "no:cacheprovider", "--override-ini=addopts="),
    *("--override-ini=arena_scenarios=off", "--override-ini=required_plugins="),
    # pytest warns that it cannot rewrite the assertions of pytest-arena.
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
)
_HEALTH = re.compile(r".*/(health|healthz|health-?check|ping|status|ready|live)/?")
# Pages of the framework, routes that end a login, and paths with parameters.
_SKIPPED = re.compile(r"/schema|openapi\.json|/docs|redoc|oauth2|logout|callback|{")
REDIRECT = "arena_drivers = redirect"
"""the next step of an error that refuses a driver's connection"""
_ROUTES = 6  # a request may have side effects
_SHOWN = 8  # lines of pytest's output


def run_python(
    folder: Path,
    *words: str,
    seconds: float | None = None,
    env: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Run Python. Return its exit status, -1 after a timeout, and its output."""
    try:
        process = subprocess.run(  # noqa: S603 - the user's suite
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
    return process.returncode, redact(process.stdout)


def guarded(
    folder: Path, question: Facts, arguments: list[str], *, seconds: float
) -> Facts:
    """Run pytest with an ``AppProbe`` in a folder. Return the facts that it learned.

    ``question`` has the ``app`` ("" for a library), the ``module`` that defines the app or the
    tables, and the likely ``bases``. With a ``schema``, the probe builds the tables and sends
    requests.
    """
    with tempfile.TemporaryDirectory(prefix="arena-init-") as temporary:
        report = Path(temporary, "facts")
        report.touch()
        words = [json.dumps({**question, "report": str(report)}), *arguments]
        _, output = run_python(folder, "-m", _MODULE, *words, seconds=seconds)
        lines = report.read_text(encoding="utf-8").splitlines()
    facts: Facts = {"bases": [], "engines": [], "routes": []}
    for name, value in map(json.loads, lines):
        if name == "route":
            facts["routes"].append(value)
        else:
            facts[name] = value
    if "ended" not in facts:
        lines = [line for line in output.splitlines() if line.strip()]
        facts["problem"] = lines[-_SHOWN:]
    return facts


class AppProbe:
    """A plugin of pytest that collects no test and looks at one app."""

    def __init__(self, question: Facts) -> None:
        self._question = question
        self._answer: list[object] = []  # of the last route
        self._uses_fixtures = False  # whether autouse fixtures of the suite run
        self._error: BaseException | None = None  # of the last level
        self._is_set_up_error = False
        self._is_driver_refused = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> bool:
        """Collect no test, so that pytest imports no test module."""
        session.items = []
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Import the app, or build its tables and send requests."""
        self._session = session
        self._run = RUNS[session.config]
        try:
            self._run.check()
            if "schema" in self._question and self._question["app"]:
                self._try_schema()
            else:
                self._report("installed", self._question["installed"])
                self._report_imported()
        except Exception as error:  # noqa: BLE001 - the app may raise anything
            self._report("error", _lines_of(error))
        self._report("ended", "")
        return True

    def pytest_exception_interact(self, call: pytest.CallInfo[Any]) -> None:
        """Keep the first exception of a level."""
        if self._error is None and call.excinfo is not None:
            self._error = call.excinfo.value
            self._is_set_up_error = call.when == "setup"

    def _report(self, name: str, value: object) -> None:
        with Path(self._question["report"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps([name, value]) + "\n")

    def _report_imported(self) -> None:
        """Report the bases and the engines of the imported modules."""
        if not self._question["app"]:
            return
        likely = self._question["bases"]

        def rank(base: Candidate) -> tuple[object, ...]:
            is_unlikely = base.name not in likely
            return is_private(base.name), is_unlikely, not base.is_at_home, base.name

        bases: dict[int, Candidate] = {}
        for base in sorted(candidates(), key=rank):
            if Path.cwd() in base.file.resolve().parents:
                bases.setdefault(id(base.metadata), base)
        names = [[base.name, sorted(base.metadata.tables)] for base in bases.values()]
        self._report("bases", names)
        # The app may have no engine, or may need its tables to start.
        with suppress(ArenaError):
            self._run.database()
        engines = []
        for engine in self._run.databases.known.by_key.values():
            dialect = engine.dialect
            row = [engine.name, dialect.name, dialect.driver, dialect.is_async]
            engines.append(row)
        self._report("engines", engines)

    def _try_schema(self) -> None:
        """Build the tables, then send GET requests.

        The suite's fixtures do not run while the tables are built. They may fail for other reasons.
        """
        error = self._level(lambda _: self._run.databases.ensure(self._run.database()))
        refused = [self._is_driver_refused]
        if error:
            ours = [cause for cause in causes(error) if isinstance(cause, ArenaError)]
            error = next(iter(ours), error)
            # A ConfigError says that the app has no database.
            if not isinstance(error, ConfigError):
                self._report("unbuilt", _lines_of(error))
                self._report("server", isinstance(error, ServerError))
                return
        self._uses_fixtures = True
        paths = sorted(set(_paths(self._run.apps.build())), key=_rank)
        for path in paths[:_ROUTES] or ["/"]:
            get = partial(self._get, path)
            error = self._level(get)
            if error and self._is_set_up_error and self._uses_fixtures:
                self._report("fixture", _lines_of(error))
                self._uses_fixtures = False
                error = self._level(get)
            refused.append(self._is_driver_refused)
            if error:
                self._answer = [path, 0, False, _lines_of(error)[0]]
            self._report("route", self._answer)
        self._report("redirect", any(refused))

    def _get(self, path: str, arena: Any) -> None:
        """Send a request twice. The first may include the app's start, so the second counts."""
        client = arena.test_client()
        first = client.get(path, follow_redirects=False).status_code
        used = self._run.connections.used
        used.clear()
        status = client.get(path, follow_redirects=False).status_code
        self._answer = [path, status, bool(used), ""]
        if status != first:
            self._answer = [path, 0, bool(used), f"{first}, then {status}"]

    def _level(self, function: Callable[[Any], object]) -> BaseException | None:
        """Call a function as the body of a test. Return the exception."""

        def level(arena: Any) -> None:
            function(arena)

        self._error = None
        module = module_in(self._session, "arena init")
        item: pytest.Function = pytest.Function.from_parent(
            module, name="level", callobj=level
        )
        if not self._uses_fixtures:
            item.fixturenames[:] = ["arena"]
        self._session.testscollected += 1
        before = self._run.ledger.mark()
        self._session.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        refusals = self._run.ledger.since(before)
        self._is_driver_refused = any(REDIRECT in refusal.fix for refusal in refusals)
        return self._error


def _lines_of(error: BaseException) -> list[str]:
    if isinstance(error, ArenaError):
        return [error.what, error.cause, error.fix]
    return [redact(f"{described(error)}   {blame(error) or ''}".strip())]


def _paths(app: Any) -> Iterator[str]:
    """Yield the paths of GET routes without parameters."""
    paths = [*_routes(getattr(app, "routes", ()), "")]
    if hasattr(app, "url_map"):  # of Flask
        for rule in app.url_map.iter_rules():
            if "GET" in rule.methods and not rule.arguments:
                paths.append(rule.rule)
    # FastAPI lists the routes of included routers only in its schema.
    with suppress(Exception):  # a model may have no schema
        paths += _schema_paths(app.openapi())
    return (path for path in paths if not _SKIPPED.search(path))


def _schema_paths(schema: Any) -> Iterator[str]:
    for path, operations in schema["paths"].items():
        parameters = operations.get("get", {}).get("parameters", [])
        needs_value = any(parameter.get("required") for parameter in parameters)
        if "get" in operations and not needs_value:
            yield path


def _routes(routes: Iterable[Any], prefix: str) -> Iterator[str]:
    for route in routes:
        path = prefix + str(getattr(route, "path", ""))
        if "GET" in (getattr(route, "methods", None) or ()):
            yield path
        yield from _routes(getattr(route, "routes", None) or (), path)


def _rank(path: str) -> tuple[bool, int, str]:
    """Return a key that is lowest for the path that most likely answers."""
    return not _HEALTH.fullmatch(path), path.count("/"), path


def main(text: str, *arguments: str) -> int:
    """Run pytest in the process that ``guarded`` starts."""
    os.environ.pop("PYTEST_ADDOPTS", None)
    # The command `pytest` does not import from the working folder, so this run does not either.
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path.cwd()]
    question = json.loads(text)
    package = question["module"].partition(".")[0]
    question["installed"] = bool(package) and find_spec(package) is not None
    return int(pytest.main([*_OPTIONS, *arguments], plugins=[AppProbe(question)]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
