"""Additions to pytest's report of a failed test."""

from __future__ import annotations

import traceback
from contextlib import suppress
from textwrap import dedent
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from pytest_arena._changes import without_values
from pytest_arena._config._load import is_library
from pytest_arena._config._supported import kind_of_error
from pytest_arena._databases._sessions import Sessions
from pytest_arena._run._story import StoryPart, story_lines, story_parts
from pytest_arena._run._summary import schema_to_set
from pytest_arena.errors import ArenaError, NotWritten, TemplateError, causes, redact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_arena._run._explanations import SourceStatement
    from pytest_arena._run._run import ArenaRun
    from pytest_arena._run._test import RunningTest


def explain_error(report: Any, excinfo: Any, run: ArenaRun, option: Any) -> None:
    """Show the user's lines of an error, and an explanation of it."""
    error = excinfo.value
    run.ledger.mark_reported(*causes(error))
    _show_users_lines(report, excinfo, option)
    test = run.current.test
    if test is not None:
        noted = [*test.sessions.failures, *(each for _, each in test.app_errors)]
        is_of_app = any(cause is each for cause in causes(error) for each in noted)
        is_of_sql = any(isinstance(cause, SQLAlchemyError) for cause in causes(error))
        if is_of_app or is_of_sql:
            _hide_library_frames(report, excinfo, option)
    explanations = [_explanation(cause, run) for cause in causes(error)]
    for text in filter(None, dict.fromkeys(explanations)):
        report.sections.append(("arena", text))


def _explanation(error: BaseException, run: ArenaRun) -> str:
    """Return an explanation of an error of a test, "" without one."""
    from pytest_arena._run._explanations import explanation  # noqa: PLC0415 - only failed tests need it

    if kind_of_error(error) == "no table":
        line = schema_to_set(run.config)
        return _EMPTY.format(line) if line else ""
    held = [checkout.line for checkout in run.connections.checked_out()]
    return explanation(error, held)


_EMPTY = """\
each test begins with an empty database, and no code of this test created the table
next: {}   in pytest's configuration"""


def show_causes(report: Any, raised: BaseException | None, run: ArenaRun) -> None:
    """Show the app's errors and the output of other programs in the report of a failed test."""
    test = run.current.test
    if test is not None:
        report.sections += server_sections(test, raised)
    report.sections += run.outputs()


def show_story(report: Any, excinfo: Any, run: ArenaRun) -> None:
    """Show what a failed test has changed, and its stale instances."""
    test = run.current.test
    if test is None:
        return
    raised = excinfo.value if excinfo is not None else None
    parts = story_parts(test, raised)
    if isinstance(raised, AssertionError):
        statements: list[SourceStatement] = []
        for entry in excinfo.traceback:
            if not is_library(str(entry.path)):
                statements.append((str(entry.statement), entry.frame.f_locals))
        with suppress(Exception):  # an object of the test may raise any error
            _show(report, "arena", _stale(statements, parts, run, test))
    _show(report, STORY, story_lines(parts))


def _stale(
    statements: Sequence[SourceStatement],
    parts: Sequence[StoryPart],
    run: ArenaRun,
    test: RunningTest,
) -> list[str]:
    """Return a line for each instance that a failed test names and a request has changed."""
    if not (test.turns and any(part.changes for part in parts)):
        return []
    from pytest_arena._run._explanations import stale_lines  # noqa: PLC0415 - only failed tests need it

    fresh: Any = run.engines.open_session(Sessions(), run.database(), wants_async=False)
    with fresh:
        return stale_lines(statements, fresh, is_async=test.plan.is_async)


def users_trace(error: BaseException) -> str:
    """Return the traceback of an error with only the user's lines, and its text.

    The text has no values of secret columns.
    """
    return _users_lines(traceback.TracebackException.from_exception(error))


def _users_lines(trace: traceback.TracebackException) -> str:
    frames = [frame for frame in trace.stack if not is_library(frame.filename)]
    parts = traceback.format_list(frames)
    parts += trace.format_exception_only()
    cause = trace.__cause__
    while cause is not None:
        parts += [f"{note}\n" for note in cause.__notes__ or ()]
        cause = cause.__cause__ or cause.__context__
    text = "".join(parts)
    return redact(without_values(text.rstrip()))


def _show_users_lines(report: Any, excinfo: Any, option: object) -> None:
    """Show only the user's lines in the traceback of an error of pytest-arena."""
    error = excinfo.value
    if not isinstance(error, ArenaError) or not _wants_few_lines(option):
        return

    users = _users_entries(excinfo)
    shown = excinfo.getrepr(style="short", chain=False, tbfilter=lambda _: users)
    report.longrepr = shown
    if not users:
        shown.reprtraceback.extraline = None  # "All traceback entries are hidden"
    # pytest raises the error of a wider fixture again in each test that uses the fixture.
    first = error.first_report(report.nodeid)
    if first != report.nodeid:
        words = f"E   {type(error).__name__}: {error.what}  (as in {first})"
        entries = shown.reprtraceback.reprentries
        del entries[:-1]
        entries[0].lines[:] = [words]
    # Remove the module from the name of the error, because pytest's summary cuts long lines.
    kind = type(error)
    short = f"{kind.__name__}: "
    long = f"{kind.__module__}.{short}"
    crash = shown.reprcrash
    if crash is not None:
        crash.message = crash.message.replace(long, short, 1)
        if users:
            last = users[-1]
            crash.path = str(last.path)
            crash.lineno = last.lineno + 1
    if isinstance(error, NotWritten):
        for entry in shown.reprtraceback.reprentries:
            entry.lines = [line.replace(long, short, 1) for line in entry.lines]
    if isinstance(error, TemplateError) and error.__cause__:
        trace = users_trace(error.__cause__)
        report.sections.append(("arena: where the build failed", trace))


def _wants_few_lines(option: Any) -> bool:
    """Return whether pytest's options want neither a whole, a native nor an empty traceback."""
    return option.tbstyle in {"auto", "long", "short"} and not option.fulltrace


def _hide_library_frames(report: Any, excinfo: Any, option: Any) -> None:
    """Show only the lines of the test and of the app. `--full-trace` shows all.

    Called for an error of SQLAlchemy. Also called if a request of the test ended with an error of
    the app, or of the commit that pytest-arena makes before the request.
    """
    if not _wants_few_lines(option) or isinstance(excinfo.value, ArenaError):
        return
    style = "long" if option.tbstyle == "auto" else option.tbstyle
    report.longrepr = excinfo.getrepr(style=style, tbfilter=_users_entries)
    for shown, *_ in report.longrepr.chain:
        shown.extraline = None  # "All traceback entries are hidden"
        for entry in shown.reprentries[-1:]:  # it has the text of the error
            if entry.style == "native":  # an exception without a traceback
                continue
            # If all frames are of libraries, the entry has no place, and all lines are the error.
            place = entry.reprfileloc
            code = [each for each in entry.lines if place and each[:1] != "E"]
            error = [each[1:] for each in entry.lines if not place or each[:1] == "E"]
            text = without_values(dedent("\n".join(error)))
            entry.lines = [*code, *(f"E   {line}" for line in text.splitlines())]


def _users_entries(excinfo: Any) -> Any:
    return excinfo.traceback.filter(lambda entry: not is_library(str(entry.path)))


def server_sections(
    test: RunningTest, raised: BaseException | None
) -> list[tuple[str, str]]:
    """Return sections with the errors of the app that became a 500.

    These are the errors that the app raised instead of an answer, unless the report of the test
    already shows them, and the unexpected errors for which the app sent an answer.
    """
    shown = {id(error) for error in causes(raised)}
    sections = []
    for request, error in test.app_errors:
        if id(error) not in shown:
            sections.append((_SERVER + request.shown, users_trace(error)))
    for request, trace in test.handled_traces:
        sections.append((_SERVER + request.shown, _users_lines(trace)))
    return sections


_SERVER = "arena: the server's traceback, "


def _show(report: Any, title: str, lines: list[str]) -> None:
    """Add a section to a report, if there are lines for it."""
    if lines:
        report.sections.append((title, "\n".join(lines)))


STORY = "arena: what this test changed (+ inserted, ~ updated, - deleted)"


def report_swallowed(report: Any, errors: list[ArenaError]) -> None:
    """Fail a passed test whose app swallowed these errors, or add them to a failed report."""
    texts = [f"{type(error).__name__}: {error}" for error in errors]
    text = "\n\n".join(texts)
    if report.passed:
        head = "the app caught this error of pytest-arena and continued:\n\n"
        report.outcome = "failed"
        report.longrepr = head + text
    else:
        report.sections.append(("arena: refused", text))
