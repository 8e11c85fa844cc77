"""Writes the summary, and additions to the report of a failed test."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass, replace
from itertools import groupby
from textwrap import dedent, indent
from typing import TYPE_CHECKING, Any

from pytest_arena._changes import without_values
from pytest_arena._config._load import is_library
from pytest_arena._ledger import noted_lines
from pytest_arena._values import counted
from pytest_arena.errors import ArenaError, NotWritten, TemplateError, causes, redact

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_arena._changes import Changes
    from pytest_arena._ledger import Request, TestFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The facts of one process for the summary. Times are seconds."""

    tests: tuple[TestFacts, ...] = ()
    databases: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    noted: tuple[tuple[str, str], ...] = ()  # the ledger's lines, each with its test
    refusals: tuple[str, ...] = ()
    # Files and URLs of the app's databases that were changed.
    spoiled: tuple[str, ...] = ()
    # Files of these databases that are older than the run.
    # For building templates that later runs use, and templates that ended with the run.
    kept_seconds: float = 0.0
    run_seconds: float = 0.0
    products: tuple[str, ...] = ()
    isolations: tuple[str, ...] = ()
    has_template: bool = True
    template_words: str = ""  # in place of words about templates
    known: tuple[str, ...] = ()  # databases that engines named
    unasked: tuple[str, ...] = ()  # databases that options name, but no engine
    suggestion: str = ""  # lines of arena_schema that make the tables, "" if unknown
    failures: tuple[str, ...] = ()  # lines that fail the run, though no test failed
    in_memory: int = 0  # databases in memory, which may have ended
    verified: int = 0  # how often a whole database was read and compared
    verified_seconds: float = 0.0

    def __add__(self, other: Summary) -> Summary:
        """Return the summary of two processes together."""
        both = {
            name: _added(getattr(self, name), getattr(other, name))
            for name in self.__slots__
        }
        # Equal tests, and equal times, are different facts, but `_added` would drop one of them.
        both["tests"] = self.tests + other.tests
        both["unasked"] = tuple(filter(other.unasked.__contains__, self.unasked))
        return Summary(**both)


def _added(value: object, other: Any) -> Any:
    """Return the distinct items of two tuples, the sum of numbers, or the first true value."""
    if isinstance(value, tuple):
        return tuple(dict.fromkeys(value + other))
    if isinstance(value, bool | str):
        return value or other
    return value + other


def lines(summary: Summary | None, *, verbosity: int) -> list[str]:
    """Return the lines of the summary. With ``-v`` there is a line for each test too."""
    if summary is None:
        return []
    if verbosity < 0:
        return [f"arena: {line}" for line in _problem_lines(summary)]
    shown = list(_summary_lines(summary))
    if shown and verbosity > 0:
        shown += _test_lines(summary)
    return shown


def _problem_lines(summary: Summary) -> Iterator[str]:
    """Yield the lines that report a problem. ``-q`` shows only these lines."""
    yield from noted_lines(summary.noted)
    yield from summary.notes
    yield from summary.failures
    yield from spoiled_lines(summary.spoiled)
    for refusal in summary.refusals:
        yield f"outside of any test: {refusal}"


def _summary_lines(summary: Summary) -> Iterator[str]:
    """Yield the lines with figures, then the lines that report a problem."""
    used = [test for test in summary.tests if test.databases]
    if used:
        yield _databases_line(summary)
        yield _cost_line(summary, used)
    if summary.verified:
        cost = _ms(summary.verified_seconds)
        times = f"verified {summary.verified} times"
        yield f"{times} by reading a whole database, which took {cost} of this time"
    has_template = summary.has_template or summary.template_words
    if used and summary.suggestion and not has_template:
        yield (
            "set this, and delete create_all and drop_all in fixtures, so that each test "
            "starts with the tables:"
        )
        yield indent(summary.suggestion, "    ")
    known = ", ".join(sorted(summary.known)) or "none"
    for name in summary.unasked:
        problem = f"the options name a database {name!r}, but no engine used it"
        yield f"{problem} (engines used: {known})"
    yield from _problem_lines(summary)


CHANGED = " was changed during this run, "


def spoiled_lines(names: Iterable[str]) -> list[str]:
    """Return a line for each changed file of the app."""
    return [
        f"{name}{CHANGED}by another program, which a test may have started, or before the app had "
        "an engine for the file. Next: give that program arena.url, or let arena_schema make the "
        f"tables. If tests may change the file: arena_allow = {name}"
        for name in names
    ]


_MOST_NAMES = 8  # of databases
_IN_MEMORY = re.compile(r"(?:\d+-)?memory")  # the name of a database in memory


def _databases_line(summary: Summary) -> str:
    databases = " and ".join(_named_databases(summary))
    products = " and ".join(summary.products)
    isolations = " and ".join(summary.isolations)
    template = _template_words(summary)
    return f"{databases} on {products}, isolation {isolations}; {template}"


def _named_databases(summary: Summary) -> list[str]:
    """Return words for the databases with a name, and words for those in memory."""
    are_many = summary.in_memory > 1
    names = list(summary.databases)
    if are_many:  # a suite may have a database in memory for each test
        names = [name for name in names if not _IN_MEMORY.fullmatch(name)]
    named = []
    if names:
        shown = ", ".join(names[:_MOST_NAMES])
        if len(names) > _MOST_NAMES:
            shown += f" and {len(names) - _MOST_NAMES} more"
        named.append(f"database {shown}")
    if are_many:
        named.append(f"{summary.in_memory:,} databases in memory")
    return named or ["a database in memory"]  # this database ended with its test


def _template_words(summary: Summary) -> str:
    if summary.template_words:
        return summary.template_words
    if not summary.has_template:
        return "no template: the database starts empty"
    seconds = summary.kept_seconds + summary.run_seconds
    if seconds:
        return _build_words(summary, seconds)
    return "template from the cache"


def _build_words(summary: Summary, seconds: float) -> str:
    words = f"template built in {_ms(seconds)}"
    if not summary.kept_seconds:
        return words
    if summary.run_seconds:
        return f"{words}, and its schema kept for the next run"
    return f"{words}, and kept for the next run"


def _cost_line(summary: Summary, used: list[TestFacts]) -> str:
    number = len(used)
    tests = len(summary.tests)
    changed = sum(bool(test.changed) for test in used)
    line = f"{number} of {tests} tests had a separate database"
    if number < tests:
        line += f" ({tests - number} used none)"
    first, *others = [test.isolation_seconds for test in used]
    cost = f"{_ms(first)} for the first test"
    if others:
        cost += f", {_ms(sum(others) / len(others))} for each other test"
    return f"{line}, and {changed} changed it. Providing and restoring it took {cost}"


_LONGEST_NAME = 70  # of a test under `-v`: the rest of the line fits beside it


def _test_lines(summary: Summary) -> Iterator[str]:
    """Yield a line for each test: its databases, its requests, the cost of its isolation."""
    names = [_short(test.name) for test in summary.tests]
    width = max(map(len, names), default=0)
    for name, test in zip(names, summary.tests, strict=True):
        yield f"{name:<{width}}  {_facts_of(test)}"


def _facts_of(test: TestFacts) -> str:
    if not test.databases:
        return "no database"
    parts = [f"had {', '.join(test.databases)}"]
    if test.requests:
        parts.append(counted(test.requests, "request"))
    changed = ", ".join(test.changed) or "nothing"
    parts.append(f"changed {changed}")
    parts.append(_ms(test.isolation_seconds))
    return "; ".join(parts)


def _short(name: str) -> str:
    if len(name) <= _LONGEST_NAME:
        return name
    return "…" + name[1 - _LONGEST_NAME :]


def _ms(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.2f} ms"
    return f"{seconds:.1f} s"


def kept_notes(texts: list[str]) -> list[str]:
    """Return the line with the place of the kept databases of passed tests."""
    if not texts:
        return []
    last = texts[-1]
    if len(texts) > 1:
        last += f" (and of {len(texts) - 1} more tests, beside it)"
    return [last]


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


@dataclass(frozen=True, slots=True)
class StoryPart:
    """One part of the story of a failed test: a request, the set-up of a fixture, or other work."""

    title: str
    changes: Changes | None
    """None if they are unknown"""
    rows: int = 8
    """the largest number of shown rows of each table. 0 shows only the count"""
    notes: tuple[str, ...] = ()


_WIDEST_TITLE = 48  # of titles in a column
_MOST_LINES = 40


def story_lines(parts: list[StoryPart]) -> list[str]:
    """Return about forty lines: a line for each part, with its rows below.

    With too many rows, only the last parts show rows, because a test fails at its end.
    """
    parts = list(_joined(parts))
    space = _MOST_LINES - len(parts)
    for part in parts:
        space -= len(part.notes)
    bodies = []
    for part in reversed(parts):
        rows = _rows_within(part, max(space, 0))
        space -= len(rows)
        bodies.append([*rows, *part.notes])
    bodies.reverse()
    width = _width_of_titles(parts)
    shown = []
    for part, body in zip(parts, bodies, strict=True):
        line = _cut_title(part.title)
        if part.changes is not None:
            line = f"{line:<{width}}  {part.changes.counted()}"
        shown.append(line)
        shown += [f"    {text}" for text in body]
    return shown


def _width_of_titles(parts: list[StoryPart]) -> int:
    """Return the width of the titles beside a number. Very wide titles do not count."""
    width = 0
    for part in parts:
        length = len(_cut_title(part.title))
        if part.changes is not None and width < length <= _WIDEST_TITLE:
            width = length
    return width


def _joined(parts: list[StoryPart]) -> Iterator[StoryPart]:
    """Join equal parts without changes, such as requests that poll until something exists."""

    def kind(part: StoryPart) -> tuple[str, bool, bool]:
        has_lines = bool(part.changes or part.notes)
        return part.title, has_lines, part.changes is None

    for (title, has_lines, _), group in groupby(parts, key=kind):
        equal = list(group)
        if has_lines or len(equal) == 1:
            yield from equal
        else:
            number = len(equal)
            yield replace(equal[0], title=f"{title}, {number:,} times")


def _rows_within(part: StoryPart, space: int) -> list[str]:
    """Return at most ``space`` lines of a part's rows. The last line counts the other rows."""
    if part.changes is None or not part.rows:
        return []
    rows = part.changes.lines(part.rows)
    if len(rows) <= space:
        return rows
    shown = rows[: max(space - 1, 0)]
    if shown:
        more = len(rows) - len(shown)
        shown.append(f"… {more:,} lines more")
    return shown


_LONGEST_TITLE = 150


def _cut_title(title: str) -> str:
    title = " ".join(title.split())
    if len(title) <= _LONGEST_TITLE:
        return title
    return title[: _LONGEST_TITLE - 1] + "…"


def show_users_lines(report: Any, excinfo: Any, option: object) -> None:
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


def hide_library_frames(report: Any, excinfo: Any, option: Any) -> None:
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
            # If all frames are of libraries, the entry has no place, and all lines are the error.
            is_error = entry.reprfileloc is None
            code = [each for each in entry.lines if not (is_error or each[:1] == "E")]
            error = [each[1:] for each in entry.lines if is_error or each[:1] == "E"]
            text = without_values(dedent("\n".join(error)))
            entry.lines = [*code, *(f"E   {line}" for line in text.splitlines())]


def _users_entries(excinfo: Any) -> Any:
    return excinfo.traceback.filter(lambda entry: not is_library(str(entry.path)))


def server_sections(
    app_errors: list[tuple[Request, Exception]],
    handled: list[tuple[Request, traceback.TracebackException]],
    raised: Any,
) -> list[tuple[str, str]]:
    """Return sections with the errors of the app that became a 500.

    ``app_errors`` has each error that the app raised instead of an answer, with its request.
    Errors that the report of the test already shows are left out. ``handled`` has the unexpected
    errors for which the app sent an answer.
    """
    shown = {id(error) for error in causes(raised)}
    sections = [
        (_SERVER + request.shown, users_trace(error))
        for request, error in app_errors
        if id(error) not in shown
    ]
    return sections + [
        (_SERVER + request.shown, _users_lines(trace)) for request, trace in handled
    ]


_SERVER = "arena: the server's traceback, "


def show(report: Any, title: str, lines: list[str]) -> None:
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
