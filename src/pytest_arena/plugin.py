"""pytest's hooks and options: each hook is a few lines that call the arena."""

from __future__ import annotations

import atexit
import functools
import inspect
import os
import sys
import unittest
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pytest

from pytest_arena import _report
from pytest_arena._arena import ArenaRun
from pytest_arena._config import MARKER, OPTIONS, SWITCHES, check_names, load_config, marker_values
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
from pytest_arena._load import is_library
from pytest_arena._values import CodeLine, Plan, Stage
from pytest_arena.errors import (
    ArenaError,
    ConfigError,
    ConnectionLeak,
    TemplateError,
)

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
MISTAKE = pytest.StashKey[str]()

_MARKER = (
    f"{MARKER}: this test's database. isolation: how it is brought back afterwards; keep: when to "
    "keep a copy for a look (never, failed, always); seed=False: without the rows of arena_seed; "
    "schema=False: empty, without tables, for tests of migrations."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Every option as ``--arena-<name>`` and as ``arena_<name>`` in the configuration."""
    group = parser.getgroup(
        "arena",
        "pytest-arena: every test of a web app gets a database of its own. Each option may also "
        "stand in pytest's configuration file (arena_app = ...) or in the environment (ARENA_APP)",
    )
    for option in OPTIONS:
        group.addoption(
            option.flag, dest=option.ini, default=None, metavar=option.metavar, help=option.help
        )
        kind: Literal["linelist", "string"] = "linelist" if option.many else "string"
        parser.addini(
            option.ini, f"The same as {option.flag}.", type=kind, default=[] if option.many else ""
        )
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
        check_names(_names_in_file(early_config), inipath=early_config.inipath)
        config = load_config(
            flags=flags,
            environ=os.environ,
            ini=early_config.getini,
            root=early_config.rootpath,
            inipath=early_config.inipath,
        )
    run = early_config.stash[RUN] = ArenaRun(config, Ledger())
    early_config.stash[WIDE] = {}
    atexit.register(_last_words, run)
    atexit.register(run.finish)  # whatever happens between here and the session's finish
    run.start()


def _last_words(run: ArenaRun) -> None:
    """Tell of what was refused when there was no summary any more, which the app may swallow."""
    for text in dict.fromkeys(str(error) for error in run.ledger.unreported("")):
        sys.stderr.write(f"arena: {text}\n")


def _names_in_file(config: pytest.Config) -> list[str]:
    # Private since pytest 9; without it pytest's own warning about unknown names has to do.
    return list(vars(config).get("_inicfg") or vars(config).get("inicfg") or ())


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known.

    Raises:
        pytest.UsageError: the plugin came after the user's code, which has gone around the gate.
    """
    if RUN not in config.stash:
        raise pytest.UsageError(
            "pytest_arena.plugin was loaded too late to lead the app into test databases: "
            "take it out of pytest_plugins; it is found by itself, or by -p pytest_arena.plugin"
        )
    config.addinivalue_line("markers", _MARKER)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    """Before any test: import and check what the options name, plan each test by its markers."""
    run = config.stash[RUN]
    try:
        run.check()
        for item in items:
            item.stash[PLAN] = _planned(item, run)
    except ConfigError as error:
        if not hasattr(config, "workeroutput"):
            raise pytest.UsageError(str(error)) from None
        config.workeroutput["arena_mistake"] = str(error)  # the controller says it, once for all
        items.clear()


def _planned(item: pytest.Item, run: ArenaRun) -> Plan:
    place = str(CodeLine(str(item.path), (item.location[1] or 0) + 1))
    values: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers("arena"))):
        values.update(marker_values(marker.args, marker.kwargs, place=place))
    stage = Stage.SEEDED if values.get("seed", True) else Stage.SCHEMA
    return Plan(
        name=item.nodeid,
        isolation="copy",  # what `auto` means on SQLite; other names are refused as mistakes
        keep=values.get("keep", run.config.keep),
        stage=stage if values.get("schema", True) else Stage.EMPTY,
        is_async=_is_async(item),
    )


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
        except BaseException:
            await run.aclose_failed_test()
            raise
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
        if isinstance(call.excinfo.value, ArenaError) and _wants_few_lines(item.config):
            _show_users_lines(report, call.excinfo)
    if refused := run.ledger.unreported(item.nodeid):
        run.ledger.report(*refused)
        _tell_of(report, _report.refusal_text(refused, swallowed=report.passed))
    if run.test is not None:
        run.test.failed |= report.failed
        if _is_to_be_kept(run.test.plan.keep, report):
            texts = [_report.kept_text(file) for file in run.keep_if_used()]
            report.sections += [("arena", text) for text in texts]
            if report.passed:
                run.ledger.kept += texts
    return report


def _wants_few_lines(config: pytest.Config) -> bool:
    return config.option.tbstyle in {"auto", "long", "short"} and not config.option.fulltrace


def _show_users_lines(report: pytest.TestReport, excinfo: pytest.ExceptionInfo[Any]) -> None:
    """Our messages say what is wrong: of the way there only the user's own lines matter."""
    report.longrepr = excinfo.getrepr(
        style="short",
        chain=False,
        tbfilter=lambda info: info.traceback.filter(lambda one: not is_library(str(one.path))),
    )
    if isinstance(excinfo.value, TemplateError) and (cause := excinfo.value.__cause__):
        report.sections.append(("arena: where the build failed", _report.users_trace(cause)))


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
    try:
        result = yield
    except BaseException as error:
        for told in _settled(run):
            error.add_note(f"{type(told).__name__}: {told}")
        raise
    if errors := _settled(run):
        _raise(errors)
    return result


def _settled(run: ArenaRun) -> list[Exception]:
    """Settle, and return what somebody has to be told: a failed test may well leave its session."""
    failed = run.test is not None and run.test.failed
    errors = run.settle()
    run.tearing_down = False
    return [error for error in errors if not (failed and isinstance(error, ConnectionLeak))]


def _raise(errors: list[Exception]) -> None:
    __tracebackhide__ = True
    if all(isinstance(error, ArenaError) for error in errors):
        texts = [f"{type(error).__name__}: {error}" for error in errors]
        pytest.fail("\n\n".join(texts), pytrace=False)
    for more in errors[1:]:
        errors[0].add_note(f"{type(more).__name__}: {more}")
    raise errors[0]


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
        # A fixture that another plugin has kept from being set up is never finished.
        if fixturedef.cached_result is not None:
            fixturedef.addfinalizer(functools.partial(run.ending_wide, owner, name))
    if fixturedef.argname == "tmp_path_factory":
        run.databases.temporary = lambda: result.getbasetemp().resolve()  # type: ignore[attr-defined]  # pytest's own factory
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
    if MISTAKE in session.config.stash:
        session.exitstatus = pytest.ExitCode.USAGE_ERROR


def _summary(run: ArenaRun) -> _report.Summary:
    suggestion = run.suggested_schema() if run.ledger.table_seconds else ""
    refused = run.ledger.unreported("")
    run.ledger.report(*refused)
    for file in run.databases.changed_files():
        run.ledger.note(
            f"{file} was changed during this run, by another process: arena leads only those into "
            "the test's database that read its URL from the environment"
        )
    for name in run.unused_names():
        run.ledger.note(f"no engine asked for a database {name!r}, which the options name")
    return _report.Summary(
        tests=tuple(run.ledger.tests),
        databases=tuple(database.name for database in run.databases.provisioned()),
        notes=(*run.ledger.notes, *_report.kept_notes(run.ledger.kept)),
        has_template=bool(run.config.schema or run.config.seed),
        built_because=tuple(run.built_because),
        table_seconds=tuple(run.ledger.table_seconds.values()) if suggestion else (),
        suggestion=suggestion,
        refusals=tuple(dict.fromkeys(str(error) for error in refused)),
        built_seconds=run.built_seconds,
        product=f"SQLite {_sqlite.version()}",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist has ended: take over its facts."""
    output = getattr(node, "workeroutput", {})
    if "arena_mistake" in output:
        node.config.stash[MISTAKE] = output["arena_mistake"]
    values = output.get("arena")
    if values is not None:
        summary = _report.Summary.from_dict(values)
        earlier = node.config.stash.get(SUMMARY, None)
        node.config.stash[SUMMARY] = earlier + summary if earlier else summary


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The few lines at the end, and with ``-v`` a line for each test."""
    if MISTAKE in config.stash:
        terminalreporter.write_line(f"ERROR: {config.stash[MISTAKE]}", red=True)
    summary = config.stash.get(SUMMARY, None)
    if summary is None:
        return
    if config.get_verbosity() < 0:
        lines = list(_report.quiet_lines(summary))
    else:
        lines = list(_report.summary_lines(summary))
        if lines:
            terminalreporter.write_sep("=", "arena")
    if lines and config.get_verbosity() > 0:
        lines += list(_report.test_lines(summary))
    for line in lines:
        terminalreporter.write_line(line)
