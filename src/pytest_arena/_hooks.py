"""pytest's hooks in a run that uses databases."""

from __future__ import annotations

import asyncio
import atexit
import inspect
import os
import unittest
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena import _fixtures
from pytest_arena._config._load import is_library
from pytest_arena._config._read import load_config, marker_values
from pytest_arena._fixtures import RUNS
from pytest_arena._interpreter import patch
from pytest_arena._ledger import Ledger
from pytest_arena._owner import WideFixture, phase_of
from pytest_arena._process import interrupted, is_interruption
from pytest_arena._run import _report
from pytest_arena._run._run import ArenaRun, conducted
from pytest_arena._run._summary import FactsOfProcesses, summarize, summary_lines
from pytest_arena._values import CodeLine, Plan, Stage
from pytest_arena.errors import ArenaError, ConfigError, causes, in_words
from pytest_arena.warnings import ArenaWarning

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping
    from pathlib import Path
    from types import ModuleType


PLAN = pytest.StashKey[Plan]()
FACTS = pytest.StashKey[FactsOfProcesses]()


def start(
    config: pytest.Config,
    *,
    flags: Mapping[str, Any],
    earlier: Iterable[ModuleType],
    names: Iterable[str],
    temporary: Path | None,
) -> None:
    """Read the options and install the gate, before pytest imports the user's code.

    ``flags`` are the values of the command line, ``earlier`` the plugins that may have connected
    before. ``names`` are those that the configuration file sets. ``temporary`` is pytest's
    temporary folder, if it exists.
    """
    with _usage_errors():
        for module in earlier:
            if not is_library(module.__file__ or "<"):
                raise ConfigError(
                    f"pytest has loaded the plugin {module.__name__} before pytest-arena",
                    why="SQLAlchemy or a driver was imported by then. What the plugin did with a "
                    "database, and what it has imported from a driver, no guard sees",
                    cause=str(module.__file__),
                    fix=f"addopts = -p arena -p {module.__name__}   (each of your plugins after "
                    "ours)",
                )
        options = load_config(
            flags=flags,
            environ=os.environ,
            ini=config.getini,
            root=config.rootpath,
            file=config.inipath,
            names=names,
        )
        scenarios = None
        if options.specs and options.scenarios != "off":
            from pytest_arena.scenarios import require_extra  # noqa: PLC0415 - only runs with scenarios

            require_extra(options.place("specs"))
            from pytest_arena.scenarios._plugin import Scenarios  # noqa: PLC0415 - needs the extra

            scenarios = Scenarios(config, options)
            config.pluginmanager.register(scenarios, "arena_scenarios")
        run = ArenaRun(options, Ledger(), config.hook, scenarios)
        run.databases.files.temporary = temporary
        RUNS[config] = run
        atexit.register(run.finish)  # if the session never finishes
        run.databases.environment.redirect()  # needs the gate


@contextmanager
def _usage_errors() -> Iterator[None]:
    """Raise errors of pytest-arena as UsageError, which pytest shows without a traceback."""
    try:
        yield
    except ArenaError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Redirect a variable that a plugin has set, such as pytest-dotenv."""
    with _usage_errors():
        RUNS[early_config].databases.environment.redirect()


def pytest_configure(config: pytest.Config) -> None:
    """Begin what a run needs before the collection."""
    from_controller = getattr(config, "workerinput", {}).get("arena")
    if from_controller:  # this process is a worker of pytest-xdist
        files = RUNS[config].databases.files
        files.began, removed = from_controller
        files.removed.update(removed)
    # The live server's uvicorn imports deprecated parts of websockets before version 0.50.
    ignored = "ignore::DeprecationWarning:uvicorn.protocols|websockets.legacy"
    config.addinivalue_line("filterwarnings", ignored)
    config.stash[FACTS] = FactsOfProcesses(config)
    run = RUNS[config]
    if run.config.replay:
        from pytest_arena._run._replay import Replays  # noqa: PLC0415 - few runs need it

        config.pluginmanager.register(Replays(config, run), "arena_replay")
    if run.scenarios is not None:
        run.scenarios.prepare()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Read the specifications before the collection and before xdist's workers start."""
    scenarios = RUNS[session.config].scenarios
    if scenarios is not None:
        with _usage_errors():
            scenarios.read()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    """Import and check the objects that options name. Read the markers of each test."""
    run = RUNS[config]
    try:
        run.check()
        for item in items:
            item.stash[PLAN] = _plan_of(item, run)
        if run.scenarios is not None:
            run.scenarios.map()
    except ArenaError as error:
        run.ledger.mark_reported(*causes(error))
        if not config.stash[FACTS].send_mistake(str(error)):
            raise pytest.UsageError(str(error)) from None
        items.clear()


def pytest_exception_interact(node: pytest.Collector | pytest.Item, call: Any) -> None:
    """Note that pytest reports this error, also one of the collection."""
    RUNS[node.config].ledger.mark_reported(*causes(call.excinfo.value))


def _plan_of(item: pytest.Item, run: ArenaRun) -> Plan:
    values: dict[str, Any] = {}
    # `iter_markers` yields the innermost marker first. It overrides the others.
    for marker in reversed(list(item.iter_markers("arena"))):
        place = str(CodeLine.of_test(item))
        values.update(marker_values(marker.args, marker.kwargs, place=place))
    _, _, function = _own_function(item)
    is_async = inspect.iscoroutinefunction(function)
    names = set(getattr(item, "fixturenames", ()))
    stage = Stage.SEEDED
    if not values.get("schema", True):
        stage = Stage.EMPTY
    elif not values.get("seed", True):
        stage = Stage.SCHEMA
    return Plan(
        name=item.nodeid,
        isolation=values.get("isolation", run.config.isolation),
        keep=values.get("keep", run.config.keep),
        stage=stage,
        is_async=is_async,
        starts_app=_fixtures.uses_client(names, is_async=is_async),
        needs_database=not _fixtures.DATABASE_FIXTURES.isdisjoint(names),
    )


# One test.


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begin the test. No connection is opened yet."""
    run = RUNS[item.config]
    plan = item.stash.get(PLAN, None)
    run.begin_test(plan or _plan_of(item, run), getattr(item, "_request", None))
    if run.scenarios is not None:
        run.scenarios.begin(item)


def join_test(item: pytest.Item) -> None:
    """Begin a test that pytest already runs, because its code has begun the run."""
    pytest_runtest_setup(item)
    _enter_test(RUNS[item.config])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Enter the test's level, and call its function."""
    run = RUNS[item.config]
    test = run.current.required_test()
    if not test.has_level:
        _enter_test(run)
    run.apps.choose()
    test.end_set_up()
    try:
        if not test.plan.is_async:
            return (yield)  # pytest calls the function unchanged
        with _replace_function(item, run):
            return (yield)
    except BaseException as error:
        # Otherwise the loop could wait for a statement for ever.
        if is_interruption(error):
            run.interrupt()
        raise


def _enter_test(run: ArenaRun) -> None:
    """Enter the level of the running test."""
    _prepare(run)
    run.levels.enter_test()


def _prepare(run: ArenaRun) -> None:
    """Build the templates of a test that may connect, before its first fixture.

    Such a test uses pytest-arena's fixtures. This runs after the session fixtures, because a build
    may need them.
    """
    test = run.current.required_test()
    if not test.has_level and test.plan.needs_database:
        run.databases.provision.prepare()


@contextmanager
def _replace_function(item: pytest.Item, run: ArenaRun) -> Iterator[None]:
    """Replace the test's coroutine function by one that also settles the test."""
    if issubclass(getattr(item, "cls", None) or object, unittest.TestCase):
        yield  # pytest-arena cannot enter the event loop of unittest's async test
        return
    owner, attribute, function = _own_function(item)
    replacement = conducted(function, run.current.required_test(), is_example=owner is not item)
    with ExitStack() as undo:
        patch(owner, attribute, replacement, undo)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add sections to the report of a test. Fail the test if the app caught a refusal."""
    run = RUNS[item.config]
    excinfo = call.excinfo
    if excinfo is not None:
        run.ledger.mark_reported(*causes(excinfo.value))
        _report.prepare_report(excinfo, run, item.config.option)
    report = yield
    if run.is_repeating:
        return report  # pytest does not show the report of a repeated run
    if report.when == "teardown":
        item.session.shouldfail = run.ledger.reason_to_stop or item.session.shouldfail
    raised = excinfo.value if excinfo else None
    _report.explain_error(report, raised, run)
    if report.outcome == "failed" and report.when == "call":
        _report.show_causes(report, raised, run)
    refused = run.ledger.unreported(item.nodeid)
    if refused:
        run.ledger.mark_reported(*refused)
        _report.report_swallowed(report, refused)
    # After the tear-down the test's level no longer exists.
    if report.outcome == "failed" and report.when != "teardown":
        _report.show_story(report, excinfo, run)
    for text in run.note_outcome(report.when, report.outcome, has_error=excinfo is not None):
        report.sections.append(("arena", text))
    _report.show_with_traceback(report)
    return report


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Settle the test after the tear-down of its fixtures, also after a failure."""
    __tracebackhide__ = True
    run = RUNS[item.config]
    run.current.in_teardown = True
    try:
        result = yield
    except BaseException as error:
        _add_notes(error, _settle(item, run))
        raise
    errors = _settle(item, run)
    if errors:
        _raise(errors)
    return result


def _settle(item: pytest.Item, run: ArenaRun) -> list[BaseException]:
    """Settle the test, and emit its warnings. Return all errors."""
    errors = run.settle()
    # Pytest has asked for failed threads before `settle` waited for those of the requests.
    threads: Any = item.config.pluginmanager.get_plugin("threadexception")
    try:
        if threads is not None:
            threads.pytest_runtest_teardown(item)
    except (Warning, ExceptionGroup) as error:  # by a filter of warnings
        errors.append(error.with_traceback(None))
    if not run.is_repeating:
        errors += run.ledger.emit_warnings(CodeLine.of_test(item))
    return errors


def _raise(errors: list[BaseException]) -> None:
    """Raise an error with the texts of all errors. pytest-arena's errors have no traceback."""
    __tracebackhide__ = True
    if all(isinstance(error, ArenaError | ArenaWarning) for error in errors):
        pytest.fail("\n\n".join(map(in_words, errors)), pytrace=False)
    _add_notes(errors[0], errors[1:])
    raise errors[0]


def _add_notes(error: BaseException, others: list[BaseException]) -> None:
    for other in others:
        error.add_note(in_words(other))


# Wide fixtures.


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(fixturedef: Any, request: Any) -> Generator[None, object, object]:
    """Enter a level for each fixture that outlives the test."""
    __tracebackhide__ = True
    run = RUNS[request.config]
    # `parametrize(…, indirect=True, scope="class")` overrides the scope of the fixture.
    is_wide = request.scope != "function"
    try:
        if is_wide:
            with _as_wide_fixture(fixturedef, request, run):
                result = yield
        else:
            if not run.current.required_test().has_level:
                _enter_test(run)
            if fixturedef.argname == "arena_app":
                with run.apps.in_fixture():
                    result = yield
            else:
                result = yield
    except BaseException as error:  # also a refusal or a timeout
        # pytest records an error of the fixture's function, but not of this hook. Without the
        # record, no later test could set the fixture up.
        if fixturedef.cached_result is None:
            fixturedef.cached_result = (None, None, (error, None))
        raise
    # pytest-asyncio has created the event loop of a scope, which has no tasks yet.
    if is_wide and isinstance(result, asyncio.Runner):
        run.tasks.record_loop(result.get_loop())
    if isinstance(result, pytest.TempPathFactory):
        run.databases.files.temporary = result.getbasetemp().resolve()
    return result


@contextmanager
def _as_wide_fixture(fixturedef: Any, request: Any, run: ArenaRun) -> Iterator[None]:
    """Enter a level for the set-up of a wide fixture. Register a call before its tear-down."""
    if request.scope != "session":
        _prepare(run)
    owner = WideFixture(
        f"{request.scope} fixture {fixturedef.argname}",
        partial(fixturedef.finish, request),
        request.getfixturevalue,
    )
    # Finalizers run in reverse order: of dependent fixtures, `before_teardown`, the fixture's
    # tear-down, `leave_fixture`. They run only after a set-up, which another plugin may prevent.
    fixturedef.addfinalizer(partial(run.levels.leave_fixture, owner))
    try:
        with phase_of(owner), run.levels.fixture(owner):
            yield
    finally:
        if fixturedef.cached_result is not None:
            fixturedef.addfinalizer(partial(run.levels.before_teardown, owner))


# The end.


@pytest.hookimpl(tryfirst=True)
def pytest_keyboard_interrupt() -> None:
    """Let drops of databases wait only briefly from now on."""
    interrupted.set()


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    """Write the summary, leave the levels and close the gate. A worker sends its facts."""
    run = RUNS[session.config]
    run.current.in_teardown = True  # pytest now tears down what Ctrl-C has interrupted
    # Before a hook of the suite drops the tables.
    run.databases.provision.compare_with_first_contents()
    result = yield
    facts = session.config.stash[FACTS]
    summary = summarize(run.config, run.databases, run.ledger)
    run.finish()
    interrupted.clear()
    facts.end(summary)
    if facts.mistake:
        session.exitstatus = pytest.ExitCode.USAGE_ERROR
    elif session.exitstatus == pytest.ExitCode.OK and facts.summary.failures:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return result


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Send a worker when the run began, and which databases it has removed since."""
    files = RUNS[node.config].databases.files
    node.workerinput["arena"] = (files.began, files.removed)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over the facts of a worker of pytest-xdist."""
    node.config.stash[FACTS].add_worker(getattr(node, "workeroutput", {}))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Write the summary."""
    facts = config.stash[FACTS]
    verbosity = config.get_verbosity()
    if facts.mistake:
        terminalreporter.write_line(f"ERROR: {facts.mistake}", red=True)
    lines = summary_lines(facts.summary, verbosity=verbosity)
    if lines and verbosity >= 0:
        terminalreporter.write_sep("=", "arena")
    for line in lines:
        terminalreporter.write_line(line)


# Other plugins that affect a test.


def _own_function(item: object) -> tuple[object, str, Any]:
    """Return the object that has the test's function, the name of the attribute, and the function.

    Under Hypothesis' ``@given`` the attribute is ``inner_test``, which plugins may replace.
    """
    function = getattr(item, "obj", None)
    hypothesis = getattr(function, "hypothesis", None)
    if hypothesis:
        return hypothesis, "inner_test", hypothesis.inner_test
    return item, "obj", function
