"""Additions to pytest's report of a failed test: its story, and explanations of errors."""

from __future__ import annotations

import re
import traceback
from contextlib import suppress
from functools import partial
from itertools import dropwhile
from textwrap import dedent
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm.attributes import instance_state

from pytest_arena._changes import without_values
from pytest_arena._config._load import ARENA, blame, is_library, next_step
from pytest_arena._config._supported import kind_of_error
from pytest_arena._databases._app_databases import Whose
from pytest_arena._databases._sessions import Sessions
from pytest_arena._interpreter import patch
from pytest_arena._product import CROWDED, FEWER_CONNECTIONS
from pytest_arena._run._story import story_lines, story_parts
from pytest_arena._run._summary import schema_to_set
from pytest_arena.errors import ArenaError, TemplateError, causes, in_words, redact

if TYPE_CHECKING:
    from pytest_arena._run._run import ArenaRun
    from pytest_arena._run._test import RunningTest


def prepare_report(excinfo: Any, run: ArenaRun, option: Any) -> None:
    """Choose the lines that pytest renders of an error, and note tasks that have failed."""
    test = run.current.test
    if test is not None:
        test.note_failed_tasks()
    if option.tbstyle == "native" or option.fulltrace:
        return
    is_ours = isinstance(excinfo.value, ArenaError)
    if is_ours or _has_frames_to_hide(excinfo.value):
        style = "short" if is_ours or option.tbstyle == "short" else "long"
        shown = partial(excinfo.getrepr, chain=not is_ours, tbfilter=_users_entries)
        patch(excinfo, "getrepr", lambda **_: _of_user(shown(style=style), excinfo))


def explain_error(report: Any, error: BaseException | None, run: ArenaRun) -> None:
    """Explain an error in sections of the report."""
    if isinstance(error, TemplateError) and error.__cause__:
        _show(report, "arena: where the build failed", [trace_of_error(error.__cause__)])
    # An error of pytest-arena has its next step in its text.
    others = [cause for cause in causes(error) if not isinstance(cause, ArenaError)]
    for text in dict.fromkeys(_explanation(cause, run) for cause in others):
        if text.removeprefix("next: ") != getattr(error, "fix", ""):
            _show(report, "arena", [text])


def _has_frames_to_hide(error: BaseException) -> bool:
    """Return whether SQLAlchemy raised an error, or the code of a test called pytest-arena."""
    for cause in causes(error):
        files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(cause.__traceback__)]
        from_user = dropwhile(is_library, files)
        if isinstance(cause, SQLAlchemyError) or any(each.startswith(ARENA) for each in from_user):
            return True
    return False


def _of_user(shown_error: Any, excinfo: Any) -> Any:
    """Let an error that pytest shows end at the user's line, without secret values."""
    users = _users_entries(excinfo)
    crash = shown_error.reprcrash
    if users and crash is not None:
        crash.path = str(users[-1].path)
        crash.lineno = users[-1].lineno + 1
    for shown, *_ in shown_error.chain:
        for entry in shown.reprentries[-1:]:  # it has the text of the error
            if entry.style == "native":  # an exception without a traceback
                continue
            # If all frames are of libraries, the entry has no place, and all lines are the error.
            place = entry.reprfileloc
            code = [each for each in entry.lines if place and each[:1] != "E"]
            error = [each[1:] for each in entry.lines if not place or each[:1] == "E"]
            text = without_values(dedent("\n".join(error)))
            entry.lines = [*code, *(f"E   {line}" for line in text.splitlines())]
    return shown_error


def _users_entries(excinfo: Any) -> Any:
    return excinfo.traceback.filter(lambda entry: not is_library(str(entry.path)))


def report_swallowed(report: Any, errors: list[ArenaError]) -> None:
    """Fail a passed test whose app or program swallowed these errors, or add them to a report."""
    text = "\n\n".join(dict.fromkeys(map(in_words, errors)))  # an app may try again
    if report.passed:
        report.outcome = "failed"
        report.longrepr = f"{text}\n\nthe app, or a program, caught or lost this error"
    else:
        report.sections.append(("arena: refused", text))


def show_with_traceback(report: Any) -> None:
    """Move pytest-arena's sections to the traceback, which JUnit's XML has, too."""
    for title, text in [each for each in report.sections if each[0].startswith("arena")]:
        if isinstance(report.longrepr, str):  # a refusal that the app caught
            report.longrepr += f"\n\n{title}\n{text}"
        elif hasattr(report.longrepr, "addsection"):
            report.longrepr.addsection(title, text)
        else:
            return
        report.sections.remove((title, text))


def show_causes(report: Any, raised: BaseException | None, run: ArenaRun) -> None:
    """Show errors of the app that became a 500, and the output of other programs.

    The app raised such an error, or sent an answer for it. Errors that the test's report already
    shows are left out. Those of earlier passes and blocks have a line each, without the last one.
    """
    test = run.current.required_test()
    shown = [*causes(raised), *getattr(raised, "exceptions", ())]
    lines: dict[str, None] = {}
    for request, error in test.app_errors:
        place = f"{request.part}: {request.shown}".removeprefix(": ")
        if request.part and request is not test.app_errors[-1][0]:
            lines[f"{place} raised {request.raised}"] = None
        elif not any(error is each for each in shown):
            _show(report, f"arena: the server's traceback, {place}", [trace_of_error(error)])
    _show(report, "arena: the app's errors in earlier passes", [*lines])
    report.sections += run.outputs()


def trace_of_error(error: BaseException | traceback.TracebackException) -> str:
    """Return the traceback of an error with only the user's lines, and its text.

    The text has no values of secret columns.
    """
    trace: Any = error
    if isinstance(error, BaseException):
        trace = traceback.TracebackException.from_exception(error)
    frames = [frame for frame in trace.stack if not is_library(frame.filename)]
    parts = [*traceback.format_list(frames), *trace.format_exception_only()]
    return redact(without_values("".join(parts).rstrip()))


def show_story(report: Any, excinfo: Any, run: ArenaRun) -> None:
    """Show what a failed test has changed, and its stale instances."""
    test = run.current.required_test()
    raised = excinfo.value if excinfo else None
    parts = story_parts(test, raised)
    if isinstance(raised, AssertionError) and test.turns and any(part.changes for part in parts):
        with suppress(Exception):  # an object of the test may raise any error
            _show(report, "arena", _stale_lines(excinfo, run, test))
    _show(
        report,
        "arena: what this test changed (+ inserted, ~ updated, - deleted)",
        story_lines(parts),
    )
    keys = run.redis.lines(test)
    _show(report, "arena: the keys in Redis that the test set, changed or deleted", keys)
    if test.race is not None:
        _show(report, test.race.title, test.race.lines())


def _show(report: Any, title: str, lines: list[str]) -> None:
    """Add a section to a report, if there are lines for it."""
    if any(lines):
        report.sections.append((title, "\n".join(lines)))


def _stale_lines(excinfo: Any, run: ArenaRun, test: RunningTest) -> list[str]:
    """Return a line for each instance with an old value of an attribute that the line reads."""
    lines = []
    awaited = "await " if test.plan.is_async else ""
    words = re.findall(r"\.(\w+)", str(_users_entries(excinfo)[-1].statement))
    fresh: Any = run.engines.open_session(Sessions(), run.database(), wants_async=False)
    with fresh:
        for _, instances in test.sessions.instances():
            for state in map(instance_state, instances):
                present = fresh.get(state.class_, state.identity)
                # Without the columns that their next use loads.
                known = state.unmodified.difference(state.expired_attributes, state.callables)
                columns = [
                    key
                    for key in sorted(known.intersection(words, state.mapper.column_attrs.keys()))
                    # A column that an insert has left out has no key, and None.
                    if state.dict.get(key) != getattr(present, key)
                ]
                if columns:
                    name = state.class_.__name__
                    keys: Any = state.identity
                    key = keys if keys[1:] else keys[0]
                    lines.append(
                        f"{name} {key!r} was loaded before another session changed its "
                        f"{', '.join(columns)}. next: {awaited}db_session.get({name}, {key!r})"
                    )
    return lines


def _explanation(error: BaseException, run: ArenaRun) -> str:
    """Return an explanation of an error, "" without one."""
    kind = kind_of_error(error)
    if kind == "no table":
        if run.config.schema:
            return _NO_TABLE
        line = schema_to_set(run.config)
        return _EMPTY.format(line) if line else ""
    if kind == "no connection":
        return f"{CROWDED}\nnext: {FEWER_CONNECTIONS}"
    words = " ".join(each for each in error.args if isinstance(each, str))  # `str` may fail
    for pattern, hint in _HINTS.items():
        found = re.search(pattern, words, re.DOTALL)
        if found:
            return hint.format(*found.groups())
    file = str(getattr(error, "filename", ""))
    if isinstance(error, FileNotFoundError) and run.databases.files.whose(file) is Whose.APP:
        return _NO_FILE.format(file, blame(error))
    step = next_step(error)
    return f"next: {step}" if step else ""


_EMPTY = """\
each test begins with an empty database, and no code of this test created the table
next: {}   in pytest's configuration"""
_NO_TABLE = """\
arena_schema has not created this table in this database
next: add the table to its source, or a line for the database: name = package.module:Base
or, if `db_session` should use another database: its variable first in arena_env"""
_NO_FILE = """\
pytest-arena opens a copy in place of the app's database {0!r}, so nothing creates this file
cause: {1}
next: remove the line, or let it accept a missing file: Path({0!r}).unlink(missing_ok=True)"""
_HINTS = {
    "terminating connection due to administrator command": """\
pytest-arena ended this connection when it replaced the test's database: a start-up or a fixture
has changed the schema, as by CREATE TABLE IF NOT EXISTS
next: create it there: arena_schema = package.module:function   in pytest's configuration""",
    "bound to a different event loop|attached to a different loop|Event loop is closed": """\
a lock, a queue, a client or a session of a wide fixture belongs to the event loop that used it
first, most often an earlier test's. This test uses it in another loop
next: make it in the app's lifespan: app.state.name = ...   or open the session in the test
or run the app in one loop for all tests: arena_lifespan = session   in pytest's configuration""",
    "can't be (used in 'await'|awaited)|asynchronous context manager": """\
what the call returns is not awaitable, such as that of `add`, or of each call of a Session. A `def`
test, also in its async fixtures, and each test of an app with a sync engine have one
next: call it without `await` and `async`, or, if the engine is async, make the test `async def`""",
    "^QueuePool limit of size": """\
no connection of the pool is free: code has checked them out and has not returned them
next: open the session or the connection by `with`, which returns it""",
    "async def functions are not natively supported": """\
no plugin runs this `async def` test. For pytest-asyncio:
next: asyncio_mode = auto   in pytest's configuration, or @pytest.mark.asyncio""",
    "'coroutine' object": """\
next: `await` the call that returns the coroutine""",
    "greenlet_spawn has not been called": """\
most often, the line reads an attribute that is not loaded. An async session cannot load it then
next: `await session.refresh(instance, ["name"])`. Load a relationship by each query:
`options(selectinload(…))`. Or keep columns after a commit: `async_sessionmaker(…,
expire_on_commit=False)`""",
    r"^ScopeMismatch: .*def arena_lifespan\(arena_app": """\
next: @pytest.fixture(scope="session") for `arena_app`: arena_lifespan = session starts one app""",
    r"^ScopeMismatch: .* with a (\w+) scoped.*pytest_asyncio": """\
an async fixture has a wider scope than the event loop that pytest-asyncio runs it in
next: name its scope twice: @pytest_asyncio.fixture(scope="{0}", loop_scope="{0}")""",
    r"^ScopeMismatch: .* the function scoped .* with a (\w+) scoped": """\
a fixture of {0} scope requests what each test gets anew
next: the scope "function", or in place of a session or client: arena.session(), arena.client()""",
    "command denied to|Access denied (for user .* to database|; you need)": """\
in tests the app logs in as a user who has rights on databases named arena_... only
next: name the table without its database, or connect another engine to the other database""",
    "permission denied (for|to) ": """\
in tests the app's role has the rights that arena_schema gives it, and no others
next: GRANT ... TO the role in the schema, or arena_database = own   (a private server)""",
}
