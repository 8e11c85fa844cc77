"""Imports the app and sends requests, while pytest-arena guards the user's databases.

The guard refuses connections to these databases. The run is a separate process. It writes each fact
to a file at once, so that a timeout loses no fact.
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
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pytest_arena._cli._serve import check_unchanged, module_in, run_without_tests
from pytest_arena._cli.init._look import is_private
from pytest_arena._config._load import blame, described
from pytest_arena._databases._app_databases import states_below
from pytest_arena._databases._builders import candidates
from pytest_arena._databases._child_programs import child_programs
from pytest_arena._fixtures import RUNS
from pytest_arena._gate._listeners import CHILD_EVENTS, child_of_event
from pytest_arena._origin import is_own, user_line
from pytest_arena._process import on_audit_events
from pytest_arena.errors import ArenaError, ConfigError, ServerError, causes, redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pytest_arena._databases._builders import Candidate

Facts = dict[str, Any]
"""The facts that a guarded run reported. The first three keys always exist.

- bases: the name of each declarative base or metadata, and the names of its tables
- engines: the name, the dialect and the driver of each engine, and whether it is async
- routes: a ``RouteAnswer`` for each path
- installed: whether the app's package is installed
- problem, error, unbuilt, fixture: lines about the failure of pytest, the app, the build of the
  tables or a fixture of the suite
- server: whether the build failed because no server was found
- redirect: whether pytest-arena refused a driver's connection
- program: the user's line whose program was not started
"""


class RouteAnswer(NamedTuple):
    """The answer to a GET request."""

    path: str
    status: int
    """0 without an answer, or if two requests had different statuses"""
    uses_database: bool
    problem: str
    """why the status is 0"""


_MODULE = "pytest_arena._cli.init._guarded"
_OPTIONS = ("-q", "-p", "no:cacheprovider", "--override-ini=required_plugins=")
_HEALTH = re.compile(r".*/(health|healthz|health-?check|ping|status|ready|live)/?")
# Pages of the framework, routes that log out, and paths with parameters.
_SKIPPED = re.compile(r"/schema|openapi\.json|/docs|redoc|oauth2|logout|callback|{")
REDIRECT = "arena_drivers = redirect"
"""the next step in an error about a refused connection of a driver"""
_TIMED_OUT = -1
_ROUTES = 6  # a request may have side effects
_SHOWN = 8  # lines of pytest's output


def run_python(
    folder: Path,
    *words: str,
    seconds: float | None = None,
    env: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Run Python. Return its exit status and its output. After a timeout the status is -1."""
    environment = dict(os.environ)
    environment.update(env or {})
    try:
        process = subprocess.run(  # noqa: S603 - the user's suite
            [sys.executable, *words],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return (
            _TIMED_OUT,
            f"it did not end within {seconds:g} s. --timeout sets a longer limit",
        )
    return process.returncode, redact(process.stdout)


def guarded(
    folder: Path, question: Facts, arguments: list[str], *, seconds: float
) -> Facts:
    """Run pytest with an ``AppProbe`` in a folder. Return the facts that the probe reported.

    ``question`` has these keys. With a ``schema``, the probe builds the tables and sends requests.

    - ``app``: the app, "" for a library
    - ``module``: the module that defines the app or the tables
    - ``bases``: the names of the likely bases
    - ``server``: whether a server may have a database of the app

    ``arguments`` are arguments of pytest.

    Raises:
        ConfigError: the user's code starts a Python program in a project with an SQLite file or a
            server, such a file has changed, or the import timed out.
    """
    states = states_below(folder)
    with tempfile.TemporaryDirectory(prefix="arena-init-") as temporary:
        report = Path(temporary, "facts")
        report.touch()
        is_guarded = bool(states) or question["server"]
        text = json.dumps({**question, "report": str(report), "is_guarded": is_guarded})
        words = ["-m", _MODULE, text, *arguments]
        status, output = run_python(folder, *words, seconds=seconds)
        lines = report.read_text(encoding="utf-8").splitlines()
    facts: Facts = {"bases": [], "engines": [], "routes": []}
    for name, value in map(json.loads, lines):
        if name == "route":
            facts["routes"].append(RouteAnswer(*value))
        else:
            facts[name] = value
    check_unchanged(states, "arena init", facts.get("program", ""))
    if status == _TIMED_OUT and "schema" not in question:
        raise ConfigError(
            f"the import of your code did not end within {seconds:g} s",
            why="the options and the first test depend on what the import defines",
            cause="a line waits or loops in the app, in one of its imports, or in a conftest.py",
            fix=f"arena init --timeout {2 * seconds:g}   if the import is only slow",
        )
    if "ended" not in facts:
        facts["problem"] = filled_lines(output)[-_SHOWN:]
    return facts


def filled_lines(text: str) -> list[str]:
    """Return the lines that are not blank."""
    return [line for line in text.splitlines() if line.strip()]


class AppProbe:
    """A plugin of pytest that collects no test, and reports facts about one app."""

    def __init__(self, question: Facts) -> None:
        self._question = question
        self._answer: RouteAnswer | None = None  # of the last request
        self._uses_fixtures = False  # whether autouse fixtures of the suite run
        self._error: BaseException | None = None  # of the last level
        self._is_set_up_error = False
        self._is_driver_refused = False  # in the last level
        if question["is_guarded"]:
            on_audit_events(
                {event: partial(self._on_child, event) for event in CHILD_EVENTS}
            )

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> bool:
        """Collect no test, so that pytest imports no test module."""
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Import the app, or build its tables and send requests."""
        self._session = session
        self._run = RUNS[session.config]
        try:
            self._run.check()
            if self._question["app"] and "schema" in self._question:
                self._try_schema()
            else:
                self._report("installed", self._question["installed"])
                if self._question["app"]:
                    self._report_bases()
                    self._report_engines()
        except Exception as error:  # noqa: BLE001 - the app may raise anything
            self._report("error", _lines_of(error))
        self._report("ended", "")
        return True

    def pytest_exception_interact(self, call: pytest.CallInfo[Any]) -> None:
        """Keep the first exception of a level."""
        if self._error is None and call.excinfo is not None:
            self._error = call.excinfo.value
            self._is_set_up_error = call.when == "setup"

    def _on_child(self, event: str, *values: object) -> None:
        """End this process before the user's code starts a Python program.

        The program may run the app or its migrations. The user's code might catch an exception.
        """
        line = user_line()
        if line is None or is_own():
            return
        for program in child_programs(child_of_event(event, values)):
            if not program.may_run_app:
                continue
            self._report("program", str(line))
            os._exit(1)

    def _report(self, name: str, value: object) -> None:
        line = json.dumps([name, value])
        path = Path(self._question["report"])
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def _report_bases(self) -> None:
        """Report the bases that files of the project define, the likeliest first."""
        likely = self._question["bases"]

        def rank(base: Candidate) -> tuple[object, ...]:
            is_unlikely = base.name not in likely
            is_conftest, *others = base.rank()
            return is_conftest, is_private(base.name), is_unlikely, *others

        names = []
        reported = set()
        for base in sorted(candidates(), key=rank):
            metadata = base.metadata
            is_of_project = Path.cwd() in base.file.resolve().parents
            # Several names may lead to one metadata.
            if is_of_project and id(metadata) not in reported:
                reported.add(id(metadata))
                names.append([base.name, sorted(metadata.tables)])
        self._report("bases", names)

    def _report_engines(self) -> None:
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

        The suite's fixtures do not run while the tables are built, because they may fail for
        another reason.
        """
        error = self._run_level(self._build)
        refused = [self._is_driver_refused]
        if error:
            # Report the error of pytest-arena among the causes, because it explains the others.
            for cause in causes(error):
                if isinstance(cause, ArenaError):
                    error = cause
                    break
            # A ConfigError means that the app has no database.
            if not isinstance(error, ConfigError):
                self._report("unbuilt", _lines_of(error))
                self._report("server", isinstance(error, ServerError))
                return
        self._uses_fixtures = True
        app = self._run.apps.build()
        paths = sorted(set(_paths(app)), key=_rank)
        for path in paths[:_ROUTES] or ["/"]:
            get = partial(self._get, path)
            error = self._run_level(get)
            if error and self._is_set_up_error and self._uses_fixtures:
                self._report("fixture", _lines_of(error))
                self._uses_fixtures = False
                error = self._run_level(get)
            refused.append(self._is_driver_refused)
            if error:
                problem = _lines_of(error)[0]
                if isinstance(error, ArenaError):
                    problem += f". Next: {error.fix}"
                self._answer = RouteAnswer(
                    path, 0, uses_database=False, problem=problem
                )
            self._report("route", self._answer)
        self._report("redirect", any(refused))

    def _build(self, _: object) -> None:
        database = self._run.database()
        self._run.databases.ensure_content(database)

    def _get(self, path: str, arena: Any) -> None:
        """Send a request twice. The second counts, because the first may start the app."""
        client = arena.test_client()
        first = client.get(path, follow_redirects=False).status_code
        self._run.connections.forget_uses()
        status = client.get(path, follow_redirects=False).status_code
        problem = ""
        if status != first:
            problem = f"{first}, then {status}"
            status = 0
        self._answer = RouteAnswer(
            path, status, self._run.connections.has_used, problem
        )

    def _run_level(self, function: Callable[[object], None]) -> BaseException | None:
        """Call a function with the fixture `arena`, as the body of a test. Return the exception."""

        def level(arena: object) -> None:
            function(arena)

        self._error = None
        module = module_in(self._session, "arena init")
        item: pytest.Function = pytest.Function.from_parent(
            module, name="level", callobj=level
        )
        if not self._uses_fixtures:
            item.fixturenames[:] = ["arena"]
        self._session.testscollected += 1
        ledger = self._run.ledger
        before = ledger.mark()
        self._session.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        steps = [refusal.fix for refusal in ledger.since(before)]
        self._is_driver_refused = REDIRECT in "\n".join(steps)
        return self._error


def _lines_of(error: BaseException) -> list[str]:
    if isinstance(error, ArenaError):
        return [error.what, error.cause, error.fix]
    line = f"{described(error)}   {blame(error) or ''}"
    return [redact(line.strip())]


def _paths(app: Any) -> list[str]:
    """Return the paths of GET routes without parameters."""
    routes = getattr(app, "routes", ())
    paths = list(_route_paths(routes, ""))
    if hasattr(app, "url_map"):  # of Flask
        paths += [
            rule.rule
            for rule in app.url_map.iter_rules()
            if "GET" in rule.methods and not rule.arguments
        ]
    # FastAPI lists the routes of included routers only in its schema.
    with suppress(Exception):  # a model may have no schema
        paths += _schema_paths(app.openapi())
    return [path for path in paths if not _SKIPPED.search(path)]


def _schema_paths(schema: Any) -> Iterator[str]:
    for path, operations in schema["paths"].items():
        if "get" not in operations:
            continue
        parameters = operations["get"].get("parameters", [])
        required = [parameter.get("required") for parameter in parameters]
        if not any(required):
            yield path


def _route_paths(routes: Iterable[Any], prefix: str) -> Iterator[str]:
    """Yield the paths of GET routes, also of routers that are mounted below a path."""
    for route in routes:
        path = prefix + str(getattr(route, "path", ""))
        methods = getattr(route, "methods", None) or ()
        if "GET" in methods:
            yield path
        inner_routes = getattr(route, "routes", None) or ()
        yield from _route_paths(inner_routes, path)


def _rank(path: str) -> tuple[bool, int, str]:
    """Return a sort key. The path that most likely answers has the lowest key."""
    is_health_check = _HEALTH.fullmatch(path) is not None
    return not is_health_check, path.count("/"), path


def main(text: str, *arguments: str) -> int:
    """Run pytest in the process that ``guarded`` starts."""
    os.environ.pop("PYTEST_ADDOPTS", None)
    # The command `pytest` does not import from the working folder, so this run does not either.
    here = Path.cwd()
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != here]
    question = json.loads(text)
    package = question["module"].partition(".")[0]
    question["installed"] = bool(package and find_spec(package))
    probe = AppProbe(question)
    return run_without_tests([*_OPTIONS, *arguments], probe)


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    sys.exit(status)
