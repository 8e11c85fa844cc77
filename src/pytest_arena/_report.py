"""Writes the summary, and what pytest-arena adds to the report of a failed test."""

from __future__ import annotations

import os
import re
import traceback
from dataclasses import dataclass, replace
from itertools import groupby
from textwrap import dedent, indent
from typing import TYPE_CHECKING, Any

from pytest_arena._config._load import is_library, package_of
from pytest_arena.errors import ArenaError, NotWritten, TemplateError, causes, redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_arena._changes import Changes
    from pytest_arena._ledger import TestFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The facts of one process for the summary. Times are seconds."""

    tests: tuple[TestFacts, ...]
    databases: tuple[str, ...]
    notes: tuple[str, ...]
    refusals: tuple[str, ...]
    spoiled: tuple[str, ...]  # changed files of the app
    built_seconds: float
    products: tuple[str, ...]
    isolations: tuple[str, ...]
    has_template: bool = True
    built_because: tuple[str, ...] = ()
    # One for each test in which the app made its tables.
    table_seconds: tuple[float, ...] = ()
    known: tuple[str, ...] = ()  # databases that engines named
    unasked: tuple[str, ...] = ()  # databases that options name, and no engine
    unused: tuple[str, ...] = ()  # messages: no engine used `arena_database`
    suggestion: str = ""  # lines of arena_schema that make the tables; "" if unknown
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
        return replace(
            Summary(**both),
            tests=self.tests + other.tests,
            table_seconds=self.table_seconds + other.table_seconds,
            unasked=tuple(name for name in self.unasked if name in other.unasked),
            unused=_unused_by_both(self, other),
        )


def _added(value: Any, other: Any) -> Any:
    """Return each item of two tuples once, the sum of numbers, or the first true value."""
    if isinstance(value, tuple):
        return tuple(dict.fromkeys(value + other))
    if isinstance(value, bool | str):
        return value or other
    return value + other


def _unused_by_both(summary: Summary, other: Summary) -> tuple[str, ...]:
    """Return the messages, unless one of the processes used what the other did not."""
    for process in (summary, other):
        if process.products and not process.unused:
            return ()
    return tuple(dict.fromkeys(summary.unused + other.unused))


def lines(summary: Summary | None, *, verbosity: int) -> list[str]:
    """Return the lines of the summary. With ``-v`` there is a line for each test too."""
    if summary is None:
        return []
    if verbosity < 0:
        return _quiet_lines(summary)
    shown = list(_summary_lines(summary))
    if shown and verbosity > 0:
        shown += _test_lines(summary)
    return shown


def _quiet_lines(summary: Summary) -> list[str]:
    """Return the lines without figures: losses count under ``-q`` too."""
    shown = [*summary.unused, *summary.notes, *summary.failures]
    shown += map(_spoiled_line, summary.spoiled)
    shown += [f"outside of any test {refusal}" for refusal in summary.refusals]
    return [f"arena: {line}" for line in shown]


def _summary_lines(summary: Summary) -> Iterator[str]:
    """Yield the lines of each run that connected to a database."""
    used = [test for test in summary.tests if test.databases]
    if used:
        yield _databases_line(summary)
        yield _cost_line(summary, used)
    if summary.verified:
        cost = _ms(summary.verified_seconds)
        times = f"verified {summary.verified} times"
        yield f"{times}, by reading all that was in a database: {cost} of it"
    if used and summary.table_seconds:
        yield from _table_lines(summary)
    elif used and not summary.has_template and summary.suggestion:
        yield "to have each test start with the tables:"
        yield indent(summary.suggestion, "    ")
    yield from (*summary.unused, *summary.notes)
    known = ", ".join(sorted(summary.known)) or "none"
    for name in summary.unasked:
        yield (
            f"no engine asked for a database {name!r}, which the options name (there are: "
            f"{known})"
        )
    yield from summary.failures
    yield from map(_spoiled_line, summary.spoiled)
    for refusal in summary.refusals:
        yield f"refused outside of any test: {refusal}"


def _spoiled_line(file: str) -> str:
    return (
        f"{file} was changed during this run, by another process, past any driver, or by a driver "
        "alone before there was an engine on it: arena leads engines into the test's database, and "
        f"those that read its URL from the environment. If tests may do that: arena_allow = {file}"
    )


_MOST_NAMES = 8  # of databases
_IN_MEMORY = re.compile(r"(?:\d+-)?memory")  # a suite may have one for each test


def _databases_line(summary: Summary) -> str:
    databases = " and ".join(_named_databases(summary))
    products = " and ".join(summary.products)
    isolations = " and ".join(summary.isolations)
    how = f"on {products}, isolation {isolations}; {_template_words(summary)}"
    return f"{databases} {how}"


def _named_databases(summary: Summary) -> list[str]:
    are_many = summary.in_memory > 1
    names = [*summary.databases]
    if are_many:
        names = [name for name in names if not _IN_MEMORY.fullmatch(name)]
    named = []
    if names:
        shown = ", ".join(names[:_MOST_NAMES])
        if len(names) > _MOST_NAMES:
            shown += f" and {len(names) - _MOST_NAMES} more"
        named.append(f"database {shown}")
    if are_many:
        named.append(f"{summary.in_memory:,} databases in memory")
    return named or ["a database in memory"]  # it ended with its test


def _template_words(summary: Summary) -> str:
    if not summary.has_template:
        if summary.table_seconds:
            return "no template: the app makes its tables"
        return "no template: it starts empty"
    if not summary.built_seconds:
        return "template from the cache: no file that its build read has changed"
    reasons = ""
    if summary.built_because:
        reasons = f" ({'; '.join(summary.built_because)})"
    return f"template built in {_ms(summary.built_seconds)}{reasons}, and kept for the next run"


def _cost_line(summary: Summary, used: list[TestFacts]) -> str:
    total = sum(test.isolation_seconds for test in used)
    changed = len([test for test in used if test.changed])
    others = len(summary.tests) - len(used)
    unused = f" ({others} used none)" if others else ""
    return (
        f"{len(used)} of {len(summary.tests)} tests had a database of their own{unused}, {changed} "
        f"changed it; giving and taking back cost {_ms(total)} in all, {_ms(total / len(used))} a "
        "test"
    )


def _table_lines(summary: Summary) -> Iterator[str]:
    number = len(summary.table_seconds)
    times = "once" if number == 1 else f"{number} times"
    cost = f"the app made its tables itself, {times}, {_ms(sum(summary.table_seconds))} in all"
    if not summary.suggestion:
        yield f"{cost}; arena_schema makes them once, to be copied for each test"
        return
    yield f"{cost}; to make them once and copy them for each test:"
    yield indent(summary.suggestion, "    ")


_LONGEST_NAME = 70  # of a test under `-v`: the rest of the line fits beside it


def _test_lines(summary: Summary) -> Iterator[str]:
    """Yield a line for each test: its database, its requests, the cost to restore it."""
    width = max((len(_short(test.name)) for test in summary.tests), default=0)
    for test in summary.tests:
        yield f"{_short(test.name):<{width}}  {_story(test)}"


def _story(test: TestFacts) -> str:
    if not test.databases:
        return "no database"
    parts = [f"had {', '.join(test.databases)}"]
    if test.requests == 1:
        parts.append("1 request")
    elif test.requests:
        parts.append(f"{test.requests} requests")
    parts.append(f"changed {', '.join(test.changed) or 'nothing'}")
    parts.append(_ms(test.isolation_seconds))
    return "; ".join(parts)


def _short(name: str) -> str:
    if len(name) <= _LONGEST_NAME:
        return name
    return "…" + name[1 - _LONGEST_NAME :]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms" if seconds < 1 else f"{seconds:.1f} s"


def kept_notes(texts: list[str]) -> list[str]:
    """Return where the databases of passed tests are. The report of a failed test says it too."""
    if not texts:
        return []
    last = texts[-1]
    if len(texts) > 1:
        last += f" (and of {len(texts) - 1} more tests, beside it)"
    return [last]


def users_trace(error: BaseException) -> str:
    """Return the traceback of an error with only the user's lines, and its text in full."""
    return _users_lines(traceback.TracebackException.from_exception(error))


def _users_lines(trace: traceback.TracebackException) -> str:
    frames = [frame for frame in trace.stack if not is_library(frame.filename)]
    notes = []
    cause = trace.__cause__
    while cause is not None:
        notes += [f"{note}\n" for note in cause.__notes__ or ()]
        cause = cause.__cause__ or cause.__context__
    text = "".join(
        [*traceback.format_list(frames), *trace.format_exception_only(), *notes]
    )
    return redact(text.rstrip())


@dataclass(frozen=True, slots=True)
class StoryPart:
    """One part of the story: a title, and its changes. ``changes`` is None if they are unknown.

    ``rows`` is the most rows of each table to show; 0 shows only their number. ``request`` is the
    method and the path, if a request made the changes, and ``statements`` are its statements.
    ``is_whole`` is true if it is unknown which request made them.
    """

    title: str
    changes: Changes | None
    rows: int = 8
    notes: tuple[str, ...] = ()
    request: str = ""
    statements: tuple[str, ...] = ()
    is_whole: bool = False


_WIDEST_TITLE = 48  # of titles in a column
_MOST_LINES = 40


def story_lines(parts: list[StoryPart]) -> list[str]:
    """Return a line for each part, with its rows below it: about forty in all.

    If there are too many rows, those of the last parts are shown: a test fails at its end.
    """
    parts = list(_joined(parts))
    space = _MOST_LINES - len(parts) - sum(len(part.notes) for part in parts)
    bodies: list[list[str]] = []
    for part in reversed(parts):
        rows = _rows_within(part, max(space, 0))
        space -= len(rows)
        bodies.append([*rows, *part.notes])
    bodies.reverse()
    width = _width_of_titles(parts)
    shown: list[str] = []
    for part, body in zip(parts, bodies, strict=True):
        counted = "" if part.changes is None else part.changes.counted()
        shown.append(f"{_cut_title(part.title):<{width}}  {counted}".rstrip())
        shown += [f"    {line}" for line in body]
    return shown


def _width_of_titles(parts: list[StoryPart]) -> int:
    """Return the width of the titles with a number beside them, without the widest ones."""
    width = 0
    for part in parts:
        length = len(_cut_title(part.title))
        if part.changes is not None and width < length <= _WIDEST_TITLE:
            width = length
    return width


def _joined(parts: list[StoryPart]) -> Iterator[StoryPart]:
    """Join equal parts without changes: a request that polls until something exists."""
    for (title, changed, _), group in groupby(parts, key=_sameness):
        same = list(group)
        if len(same) == 1 or changed:
            yield from same
        else:
            yield replace(same[0], title=f"{title}, {len(same):,} times")


def _sameness(part: StoryPart) -> tuple[str, bool, bool]:
    return part.title, bool(part.changes or part.notes), part.changes is None


def _rows_within(part: StoryPart, space: int) -> list[str]:
    """Return as many lines of a part's rows as there is space for."""
    if part.changes is None or not part.rows:
        return []
    rows = part.changes.lines(part.rows)
    if len(rows) <= space:
        return rows
    shown = rows[: max(space - 1, 0)]
    if shown:
        shown.append(f"… {len(rows) - len(shown):,} lines more")
    return shown


_LONGEST_TITLE = 150


def _cut_title(title: str) -> str:
    title = " ".join(title.split())
    if len(title) <= _LONGEST_TITLE:
        return title
    return title[: _LONGEST_TITLE - 1] + "…"


def show_users_lines(report: Any, excinfo: Any, option: Any) -> None:
    """Show only the user's lines on the way to an error of pytest-arena: its message is enough."""
    error = excinfo.value
    if not isinstance(error, ArenaError) or not _wants_few_lines(option):
        return
    users = excinfo.traceback.filter(lambda entry: not is_library(str(entry.path)))
    report.longrepr = excinfo.getrepr(
        style="short", chain=False, tbfilter=lambda _: users
    )
    shown = getattr(report.longrepr, "reprtraceback", None)
    if shown is not None:
        if not users:
            shown.extraline = None  # "All traceback entries are hidden"
        _show_short_name(report.longrepr, error)
        crash = getattr(report.longrepr, "reprcrash", None)
        if users and crash is not None:
            crash.path = str(users[-1].path)
            crash.lineno = users[-1].lineno + 1
    if isinstance(error, TemplateError) and error.__cause__:
        trace = users_trace(error.__cause__)
        report.sections.append(("arena: where the build failed", trace))


def _wants_few_lines(option: Any) -> bool:
    return option.tbstyle in {"auto", "long", "short"} and not option.fulltrace


def fold_library_frames(report: Any, raised: BaseException, option: Any) -> None:
    """Show the lines of the test and of the app. Fold library frames between them into one line.

    Called if a request of the test ended in an error that the app raised.
    """
    if not _wants_few_lines(option) or isinstance(raised, ArenaError):
        return
    for traceback_shown, *_ in getattr(report.longrepr, "chain", ()):
        if traceback_shown.style != "native":
            traceback_shown.reprentries = list(_folded(traceback_shown.reprentries))


def _folded(entries: Iterable[Any]) -> Iterator[Any]:
    for is_of_library, group in groupby(entries, key=_is_of_library):
        run = list(group)
        if not is_of_library:
            yield from run
            continue
        hidden = replace(run[-1], reprfuncargs=None, reprlocals=None, reprfileloc=None)
        yield replace(hidden, lines=[_folded_line(run)], style="value")
        error_lines = [
            line.removeprefix("E")
            for line in run[-1].lines
            if line.startswith(_ERROR_MARK)
        ]
        if error_lines:
            texts = dedent("\n".join(error_lines)).splitlines()
            marked = [_ERROR_MARK + text for text in texts]
            yield replace(hidden, lines=marked, style="short")


_ERROR_MARK = "E   "  # pytest's, before each line of an error's text


def _is_of_library(entry: Any) -> bool:
    file = _file_of(entry)
    return file != "" and is_library(file)


def _file_of(entry: Any) -> str:
    """Return the file of a frame. pytest may show it relative to the current folder."""
    if entry.reprfileloc is None:
        return ""
    shown = str(entry.reprfileloc.path)
    if shown.startswith("<"):  # generated code
        return shown
    return os.path.abspath(shown)  # noqa: PTH100 - links stay as they are


def _folded_line(entries: list[Any]) -> str:
    packages = [package_of(_file_of(entry)) for entry in entries]
    names = ", ".join(dict.fromkeys(filter(None, packages))) or "Python's own modules"
    count = len(entries)
    if count == 1:
        return f"    1 frame of {names}: `--full-trace` shows it"
    return f"    {count} frames of {names}: `--full-trace` shows them"


def _show_short_name(longrepr: Any, error: ArenaError) -> None:
    """Remove the module from an error's name: pytest has one line for each test."""
    short = f"{type(error).__name__}: "
    long = f"{type(error).__module__}.{short}"
    crash = getattr(longrepr, "reprcrash", None)
    if crash is not None:
        crash.message = crash.message.replace(long, short, 1)
    if isinstance(error, NotWritten):
        for entry in longrepr.reprtraceback.reprentries:
            entry.lines = [line.replace(long, short, 1) for line in entry.lines]


def show_server(
    report: Any,
    broken: list[tuple[str, Exception]],
    handled: list[tuple[str, traceback.TracebackException]],
    raised: Any,
) -> None:
    """Show the errors of the app where the test only got a 500."""
    shown = {id(error) for error in causes(raised)}
    traces = [
        (request, users_trace(error))
        for request, error in broken
        if id(error) not in shown
    ]
    traces += [(request, _users_lines(trace)) for request, trace in handled]
    for request, text in traces:
        report.sections.append((f"arena: the server's traceback, {request}", text))


def show_missing_file(
    report: Any,
    errors: list[BaseException | None],
    look: Callable[[list[BaseException]], str],
) -> None:
    """Show where the test's database is, if the app did not find its file."""
    raised: list[BaseException] = []
    for error in errors:
        raised += causes(error)
    words = look(raised)
    if words:
        report.sections.append(("arena", words))


def show_processes(report: Any, outputs: list[tuple[str, str]]) -> None:
    """Show the last lines of other programs on the test's database."""
    report.sections += [
        (f"arena: the output of {command}", text) for command, text in outputs
    ]


def show_children(report: Any, warnings: list[str]) -> None:
    """Report the child processes that may have worked on another database than the test's."""
    if warnings:
        report.sections.append(
            ("arena: processes on another database", "\n".join(warnings))
        )


def show_story(report: Any, parts: list[StoryPart]) -> None:
    """Show the changes of the test and of each of its requests."""
    if parts:
        report.sections.append((_STORY, "\n".join(story_lines(parts))))


def show_stale(report: Any, lines: list[str]) -> None:
    """Show which instances of a failed assertion have old values."""
    if lines:
        report.sections.append(("arena", "\n".join(lines)))


_STORY = "arena: what this test changed (+ inserted, ~ updated, - deleted)"


def explain(
    report: Any,
    raised: Any,
    missing_schema: Callable[[], str],
    explained: Callable[[BaseException], str],
) -> None:
    """Explain an error of a driver: too many connections, or a database without tables.

    ``missing_schema`` returns an option that would have made a table. ``explained`` returns what is
    known about an error. Both return "" if nothing is known.
    """
    errors = [*causes(raised)]
    for words in dict.fromkeys(filter(None, map(explained, errors))):
        report.sections.append(("arena", words))
    if any(_state_of(error) == _TOO_MANY_CLIENTS for error in errors):
        report.sections.append(("arena", _CROWDED))
    if any(_says_no_table(error) for error in errors):
        words = missing_schema()
        if words:
            report.sections.append(("arena", words))


def _state_of(error: BaseException) -> object:
    """Return PostgreSQL's code of an error. psycopg2 has another name for it."""
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)


def _says_no_table(error: BaseException) -> bool:
    if _state_of(error) == _NO_TABLE:
        return True
    # By the name of its class: `str` of an error of the user may fail.
    return type(error).__name__ == "OperationalError" and "no such table" in str(error)


_TOO_MANY_CLIENTS = "53300"
_NO_TABLE = "42P01"
_CROWDED = """\
all connections of the server are taken: each process of the tests has those of the app's pools, and
two of arena's own with one more for each database of the app
next: pytest -n 2, a smaller pool_size in tests, or a larger max_connections on the server"""


def report_swallowed(report: Any, errors: list[ArenaError]) -> None:
    """Fail a passed test whose app swallowed these errors, or add them to a failed one."""
    text = "\n\n".join(f"{type(error).__name__}: {error}" for error in errors)
    if report.passed:
        head = "the app caught this error of pytest-arena and went on:\n\n"
        report.outcome = "failed"
        report.longrepr = head + text
    else:
        report.sections.append(("arena: refused", text))
