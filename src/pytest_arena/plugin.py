"""pytest's hooks and options: each hook is a few lines that call the arena."""

from __future__ import annotations

import atexit
import functools
import inspect
import os
import unittest
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena import _report
from pytest_arena._arena import ArenaRun
from pytest_arena._config import ISOLATIONS, KEEPS, OPTIONS, SWITCHES, check_choice, load_config
from pytest_arena._dialects import _sqlite
from pytest_arena._fixtures import (
    RUN,
    _arena_in_use,
    arena,
    arena_app,
    arena_lifespan,
    client,
    client_as,
    client_options,
    db_session,
    test_client,
    test_client_as,
)
from pytest_arena._ledger import Ledger
from pytest_arena._values import Plan, Stage
from pytest_arena.errors import ArenaError, ConfigError, ConnectionLeak

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = [
    "_arena_in_use",
    "arena",
    "arena_app",
    "arena_lifespan",
    "client",
    "client_as",
    "client_options",
    "db_session",
    "test_client",
    "test_client_as",
]

PLAN = pytest.StashKey[Plan]()
SUMMARY = pytest.StashKey[_report.Summary]()
WIDE = pytest.StashKey[dict[Any, "WideFixture"]]()

_MARKER = (
    "arena(isolation=..., keep=..., seed=False, schema=False): how this test's database is made "
    "and undone; seed=False and schema=False give an empty one, for tests of migrations."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Every option as ``--arena-<name>`` and as ``arena_<name>`` in the configuration."""
    group = parser.getgroup("arena", "arena: end-to-end tests, each in a database of its own")
    for option in OPTIONS:
        group.addoption(
            option.flag, dest=option.ini, default=None, metavar="VALUE", help=option.help
        )
        kind = "linelist" if option.many else "string"
        parser.addini(option.ini, option.help, type=kind, default=[] if option.many else "")
    for name, text in SWITCHES:
        group.addoption(f"--arena-{name}", dest=f"arena_{name}", action="store_true", help=text)


@contextmanager
def _as_usage_error() -> Iterator[None]:
    """A mistake of configuration ends the run with its message, without a traceback."""
    try:
        yield
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before any of the user's code is imported: options, environment, gate."""
    flags = {
        name.removeprefix("arena_"): value
        for name, value in vars(early_config.known_args_namespace).items()
        if name.startswith("arena_")
    }
    with _as_usage_error():
        config = load_config(
            flags=flags, environ=os.environ, ini=early_config.getini, root=early_config.rootpath
        )
    run = early_config.stash[RUN] = ArenaRun(config, Ledger())
    early_config.stash[WIDE] = {}
    atexit.register(run.finish)  # whatever happens between here and the session's finish
    run.start()


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """After collection, and before any test: what the options name is imported and checked."""
    result = yield
    with _as_usage_error():
        session.config.stash[RUN].check()
    return result


def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    """Plan each test by its markers."""
    with _as_usage_error():
        for item in items:
            item.stash[PLAN] = _planned(item, config.stash[RUN])


def _planned(item: pytest.Item, run: ArenaRun) -> Plan:
    values: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers("arena"))):
        values.update(_marked(item, *marker.args, **marker.kwargs))
    stage = Stage.SEEDED if values.get("seed", True) else Stage.SCHEMA
    return Plan(
        name=item.nodeid,
        isolation=_on_sqlite(values.get("isolation", run.config.isolation), item.nodeid),
        keep=values.get("keep", run.config.keep),
        stage=stage if values.get("schema", True) else Stage.EMPTY,
        is_async=_is_async(item),
    )


def _marked(item: pytest.Item, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Have Python check the marker's arguments by a call."""
    try:
        return _arguments(*args, **kwargs)
    except TypeError as error:
        problem = str(error).removeprefix("_arguments() ")
        raise ConfigError(
            f"@pytest.mark.arena on {item.nodeid}: {problem}",
            why="the test would not run as it says",
            cause=f"{item.location[0]}:{(item.location[1] or 0) + 1}",
            fix=f"@pytest.mark.{_MARKER.partition(':')[0]}",
        ) from None


def _arguments(
    *,
    isolation: str | None = None,
    keep: str | None = None,
    seed: bool | None = None,
    schema: bool | None = None,
) -> dict[str, Any]:
    if isolation is not None:
        check_choice(isolation, ISOLATIONS, source="@pytest.mark.arena(isolation=…)")
    if keep is not None:
        check_choice(keep, KEEPS, source="@pytest.mark.arena(keep=…)")
    given = {"isolation": isolation, "keep": keep, "seed": seed, "schema": schema}
    return {name: value for name, value in given.items() if value is not None}


def _on_sqlite(isolation: str, where: str) -> str:
    if isolation not in {"auto", "copy"}:
        raise ConfigError(
            f"isolation {isolation} is not to be had on SQLite ({where})",
            why="a test that asked for one isolation should not run under another one",
            cause="arena_isolation, or the test's marker",
            fix="arena_isolation = auto   (copy on SQLite)",
        )
    return "copy"


def _is_async(item: pytest.Item) -> bool:
    return inspect.iscoroutinefunction(_coroutine_of(item)[2])


def _coroutine_of(item: pytest.Item) -> tuple[Any, str, Any]:
    """Return where the test's own function stands: object, attribute and value."""
    function = getattr(item, "obj", None)
    if (given := getattr(function, "hypothesis", None)) is not None:
        return given, "inner_test", given.inner_test
    return item, "obj", function


# One test.


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Name the test; nothing is connected yet."""
    run = item.config.stash[RUN]
    plan = item.stash.get(PLAN, None)
    run.open(plan or _planned(item, run))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """The test's level is open, and its own coroutine is wrapped."""
    run = item.config.stash[RUN]
    run.enter_test()
    with _closing_in_its_loop(item, run):
        return (yield)


@contextmanager
def _closing_in_its_loop(item: pytest.Item, run: ArenaRun) -> Iterator[None]:
    """Close clients, lifespan and sessions in the loop that the runner gives the test."""
    owner, name, function = _coroutine_of(item)
    is_unittest = issubclass(getattr(item, "cls", None) or object, unittest.TestCase)
    if is_unittest or not inspect.iscoroutinefunction(function):
        yield
        return

    @functools.wraps(function)
    async def closing(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        try:
            await function(*args, **kwargs)
        finally:
            await run.aclose_test()

    setattr(owner, name, closing)
    try:
        yield
    finally:
        setattr(owner, name, function)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the database of a failed test; fail a test whose refusals the app has swallowed."""
    report = yield
    run = item.config.stash[RUN]
    if call.excinfo is not None:
        run.ledger.report(*_causes(call.excinfo.value))
    if refused := run.ledger.unreported(item.nodeid):
        run.ledger.report(*refused)
        _tell_of(report, _report.refusal_text(refused, swallowed=report.passed))
    if run.test is not None:
        run.test.failed |= report.failed
        if _is_to_be_kept(run.test.plan.keep, report):
            report.sections.append(("arena", _report.kept_text(run.keep())))
    return report


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _tell_of(report: pytest.TestReport, text: str) -> None:
    if report.passed:
        report.outcome, report.longrepr = "failed", text
    else:
        report.sections.append(("arena: refused", text))


def _is_to_be_kept(keep: str, report: pytest.TestReport) -> bool:
    if report.when == "teardown":
        return False
    return (keep == "always" and report.when == "call") or (keep != "never" and report.failed)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Settle when all fixtures of the test are down, whatever happened before."""
    run = item.config.stash[RUN]
    run.tearing_down = True
    errors: list[Exception] = []
    try:
        return (yield)
    finally:
        failed = run.test is not None and run.test.failed
        errors = run.settle()
        run.tearing_down = False
        if told := [error for error in errors if not (failed and isinstance(error, ConnectionLeak))]:
            _raise(told[0])


def _raise(error: Exception) -> None:
    __tracebackhide__ = True
    if isinstance(error, ArenaError):
        pytest.fail(f"{type(error).__name__}: {error}", pytrace=False)
    raise error


# Wide fixtures.


@dataclass(frozen=True, slots=True, eq=False)
class WideFixture:
    """A fixture that outlives the test, as the owner of a level."""

    definition: Any
    request: Any

    def finish(self) -> None:
        """Have pytest finish it, and all that depends on it; it is set up again at its next use."""
        self.definition.finish(self.request)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(fixturedef: Any, request: Any) -> Generator[None, object, object]:
    """A level of its own for each fixture that outlives the test."""
    run = request.config.stash[RUN]
    if fixturedef.scope == "function":
        run.enter_test()
        return (yield)
    owner = request.config.stash[WIDE][fixturedef] = WideFixture(fixturedef, request)
    name = f"{fixturedef.scope} fixture {fixturedef.argname}"
    try:
        with run.wide_fixture(owner, name):
            result = yield
    finally:
        # Finalizers run last in, first out: dependents come before this, its own tear-down after.
        fixturedef.addfinalizer(functools.partial(run.ending_wide, owner, name))
    if fixturedef.argname == "tmp_path_factory":
        run.databases.temporary = lambda: result.getbasetemp().resolve()  # type: ignore[attr-defined]
    return result


def pytest_fixture_post_finalizer(fixturedef: Any, request: Any) -> None:
    """What the fixture wrote, in its tear-down too, goes."""
    owner = request.config.stash[WIDE].pop(fixturedef, None)
    if owner is not None:
        request.config.stash[RUN].leave_wide(owner)


# The end.


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave the levels, close the gate for good, send a worker's facts to the controller."""
    run = session.config.stash[RUN]
    summary = _summary(run)
    run.finish()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["arena"] = summary.as_dict()
    earlier = session.config.stash.get(SUMMARY, None)
    session.config.stash[SUMMARY] = summary + earlier if earlier else summary
    if session.config.stash[SUMMARY].refusals and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _summary(run: ArenaRun) -> _report.Summary:
    return _report.Summary(
        tests=tuple(run.ledger.tests),
        databases=tuple(database.name for database in run.databases.provisioned()),
        notes=tuple(run.ledger.notes),
        refusals=tuple(str(error) for error in run.ledger.unreported("")),
        built_seconds=run.built_seconds,
        product=f"SQLite {_sqlite.version()}",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist has ended: take over its facts."""
    values = getattr(node, "workeroutput", {}).get("arena")
    if values is not None:
        summary = _report.Summary.from_dict(values)
        earlier = node.config.stash.get(SUMMARY, None)
        node.config.stash[SUMMARY] = earlier + summary if earlier else summary


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The few lines at the end, and with ``-v`` a line for each test."""
    summary = config.stash.get(SUMMARY, None)
    lines = list(_report.summary_lines(summary)) if summary else []
    if lines and config.get_verbosity() >= 0:
        terminalreporter.write_sep("=", "arena")
        if config.get_verbosity() > 0:
            lines += list(_report.test_lines(summary))
        for line in lines:
            terminalreporter.write_line(line)
