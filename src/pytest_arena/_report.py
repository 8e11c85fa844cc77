"""From facts to the lines that a person reads. Decides nothing."""

from __future__ import annotations

import os
import re
import traceback
from dataclasses import dataclass, replace
from itertools import groupby
from textwrap import dedent
from typing import TYPE_CHECKING, Any

from pytest_arena._config._load import is_library, package_of
from pytest_arena.errors import ArenaError, NotWritten, TemplateError, causes, redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_arena._changes import Changes
    from pytest_arena._ledger import TestFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What one process has to say at the end. Times are seconds."""

    tests: tuple[TestFacts, ...]
    databases: tuple[str, ...]
    notes: tuple[str, ...]
    refusals: tuple[str, ...]
    spoiled: tuple[str, ...]  # files of the app's own that were changed
    built_seconds: float
    products: tuple[str, ...]
    isolations: tuple[str, ...]
    has_template: bool = True
    built_because: tuple[str, ...] = ()
    table_seconds: tuple[
        float, ...
    ] = ()  # one for each test in which the app made its tables
    known: tuple[str, ...] = ()  # databases that engines have meant
    unasked: tuple[
        str, ...
    ] = ()  # databases that options name, and no engine of its has meant
    unused: tuple[str, ...] = ()  # that what `arena_database` names was not used
    suggestion: str = (
        ""  # the arena_schema that would make the tables once; "" if not known
    )
    failures: tuple[
        str, ...
    ] = ()  # lines that make the run fail, though no test failed
    in_memory: int = 0  # databases, which may be gone
    verified: int = 0  # how often a database was read whole, to be compared
    verified_seconds: float = 0.0

    def __add__(self, other: Summary) -> Summary:
        """Return what two processes have to say together."""
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


def _added(one: Any, other: Any) -> Any:
    """What was told once, whichever process said it; numbers in all."""
    if isinstance(one, tuple):
        return tuple(dict.fromkeys(one + other))
    return one or other if isinstance(one, bool | str) else one + other


def _unused_by_both(one: Summary, other: Summary) -> tuple[str, ...]:
    """What one process has used that connected to something was used."""
    if any(both.products and not both.unused for both in (one, other)):
        return ()
    return tuple(dict.fromkeys(one.unused + other.unused))


def lines(summary: Summary | None, *, verbosity: int) -> list[str]:
    """Return what is told at the end: with ``-v`` a line for each test as well."""
    if summary is None:
        return []
    if (
        verbosity < 0
    ):  # all but the figures: what was lost or cut off is no less so there
        spoiled = map(_spoiled_line, summary.spoiled)
        outside = (f"outside of any test {refusal}" for refusal in summary.refusals)
        shown = [*summary.unused, *summary.notes, *summary.failures, *spoiled, *outside]
        return [f"arena: {line}" for line in shown]
    told = list(_summary_lines(summary))
    return [*told, *_test_lines(summary)] if told and verbosity > 0 else told


def _summary_lines(summary: Summary) -> Iterator[str]:
    """The few lines at the end of every run that connected to something."""
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
        yield f"    arena_schema = {summary.suggestion}"
    yield from (*summary.unused, *summary.notes)
    for name in summary.unasked:
        yield (
            f"no engine asked for a database {name!r}, which the options name (there are: "
            f"{', '.join(sorted(summary.known)) or 'none'})"
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
    are_many = summary.in_memory > 1
    names = [
        name
        for name in summary.databases
        if not (are_many and _IN_MEMORY.fullmatch(name))
    ]
    more = f" and {len(names) - _MOST_NAMES} more" * (len(names) > _MOST_NAMES)
    named = [f"database {', '.join(names[:_MOST_NAMES])}{more}"] * bool(names)
    named += [f"{summary.in_memory:,} databases in memory"] * are_many
    named = named or ["a database in memory"]  # it ended with its test
    products, isolations = (
        " and ".join(summary.products),
        " and ".join(summary.isolations),
    )
    how = f"on {products}, isolation {isolations}; {_template_words(summary)}"
    return f"{' and '.join(named)} {how}"


def _template_words(summary: Summary) -> str:
    if not summary.has_template:
        maker = (
            "the app makes its tables" if summary.table_seconds else "it starts empty"
        )
        return f"no template: {maker}"
    if not summary.built_seconds:
        return "template from the cache: nothing that it was made of has changed"
    reasons = f" ({'; '.join(summary.built_because)})" if summary.built_because else ""
    return f"template built in {_ms(summary.built_seconds)}{reasons}, and kept for the next run"


def _cost_line(summary: Summary, used: list[TestFacts]) -> str:
    total = sum(test.isolation_seconds for test in used)
    changed = sum(1 for test in used if test.changed)
    others = len(summary.tests) - len(used)
    unused = f" ({others} used none)" * (others > 0)
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
    yield f"    arena_schema = {summary.suggestion}"


_LONGEST_NAME = (
    70  # of a test, in the table of `-v`: the rest of the line fits beside it
)


def _test_lines(summary: Summary) -> Iterator[str]:
    """One line a test, for ``-v``: its database, its requests, what taking it back cost."""
    width = max((len(_short(test.name)) for test in summary.tests), default=0)
    for test in summary.tests:
        yield f"{_short(test.name):<{width}}  {_story(test)}"


def _story(test: TestFacts) -> str:
    if not test.databases:
        return "no database"
    changed = f"changed {', '.join(test.changed) or 'nothing'}"
    requests = f"{test.requests} request{'s' * (test.requests != 1)}; " * (
        test.requests > 0
    )
    had = f"had {', '.join(test.databases)}"
    return f"{had}; {requests}{changed}; {_ms(test.isolation_seconds)}"


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else "…" + name[1 - _LONGEST_NAME :]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms" if seconds < 1 else f"{seconds:.1f} s"


def kept_notes(texts: list[str]) -> list[str]:
    """Where the databases of tests that passed are; a failed test's report says it itself."""
    more = f" (and of {len(texts) - 1} more tests, beside it)" * (len(texts) > 1)
    return [texts[-1] + more] if texts else []


def users_trace(error: BaseException) -> str:
    """The traceback of an error, with the user's own lines alone, and its text in full."""
    return _users_lines(traceback.TracebackException.from_exception(error))


def _users_lines(trace: traceback.TracebackException) -> str:
    lines = [frame for frame in trace.stack if not is_library(frame.filename)]
    notes = []
    cause = trace.__cause__
    while cause is not None:
        notes += [f"{note}\n" for note in cause.__notes__ or ()]
        cause = cause.__cause__ or cause.__context__
    text = "".join(
        [*traceback.format_list(lines), *trace.format_exception_only(), *notes]
    )
    return redact(text.rstrip())


# What a test that failed has changed.


@dataclass(frozen=True, slots=True)
class StoryPart:
    """One part of the story: who wrote, and what. ``changes`` is None where nobody knows.

    ``rows`` says how many of each table are shown; 0 for their number alone. ``request`` is the
    method and the path, if a request made the changes, and ``statements`` are what it sent.
    ``is_whole`` says that it is not known which request made them.
    """

    title: str
    changes: Changes | None
    rows: int = 8
    notes: tuple[str, ...] = ()
    request: str = ""
    statements: tuple[str, ...] = ()
    is_whole: bool = False


_WIDEST_TITLE = 48  # of those that stand below each other
_MOST_LINES = 40


def story_lines(parts: list[StoryPart]) -> list[str]:
    """Return a line for each part, with its rows below it; about forty in all.

    Where there are too many rows those of the last parts are shown: a test fails at its end.
    """
    parts = list(_joined(parts))
    room = _MOST_LINES - len(parts) - sum(len(part.notes) for part in parts)
    bodies: list[list[str]] = []
    for part in reversed(parts):
        rows = _rows_within(part, max(room, 0))
        room -= len(rows)
        bodies.append([*rows, *part.notes])
    titles = [_cut_title(part.title) for part in parts]
    # Of those that have something beside them, without the widest ones.
    beside = [
        title
        for title, part in zip(titles, parts, strict=True)
        if part.changes is not None
    ]
    width = max(
        (len(title) for title in beside if len(title) <= _WIDEST_TITLE), default=0
    )
    told: list[str] = []
    for part, title, body in zip(parts, titles, reversed(bodies), strict=True):
        counted = "" if part.changes is None else part.changes.counted()
        told += [
            f"{title:<{width}}  {counted}".rstrip(),
            *(f"    {line}" for line in body),
        ]
    return told


def _joined(parts: list[StoryPart]) -> Iterator[StoryPart]:
    """What is the same and changed nothing, as a request that asks until something is there."""
    for (title, changed, *_), same in groupby(parts, key=_sameness):
        alike = list(same)
        if len(alike) == 1 or changed:
            yield from alike
        else:
            yield replace(alike[0], title=f"{title}, {len(alike):,} times")


def _sameness(part: StoryPart) -> tuple[str, bool, bool]:
    return part.title, bool(part.changes or part.notes), part.changes is None


def _rows_within(part: StoryPart, room: int) -> list[str]:
    if part.changes is None or not part.rows:
        return []
    lines = part.changes.lines(part.rows)
    if len(lines) <= room:
        return lines
    shown = lines[: max(room - 1, 0)]
    return [*shown, f"… {len(lines) - len(shown):,} lines more"] if shown else []


_LONGEST_TITLE = 150


def _cut_title(title: str) -> str:
    title = " ".join(title.split())
    return title if len(title) <= _LONGEST_TITLE else title[: _LONGEST_TITLE - 1] + "…"


def show_users_lines(report: Any, excinfo: Any, option: Any) -> None:
    """Our messages say what is wrong: of the way there only the user's own lines matter."""
    wants_few_lines = (
        option.tbstyle in {"auto", "long", "short"} and not option.fulltrace
    )
    if not isinstance(excinfo.value, ArenaError) or not wants_few_lines:
        return
    users = excinfo.traceback.filter(lambda one: not is_library(str(one.path)))
    report.longrepr = excinfo.getrepr(
        style="short", chain=False, tbfilter=lambda _: users
    )
    shown = getattr(report.longrepr, "reprtraceback", None)
    if shown is not None and not users:
        shown.extraline = None  # that all lines are hidden: there is none of the user's
    if shown is not None:
        _show_short_name(report.longrepr, excinfo.value)
        if users and (crash := getattr(report.longrepr, "reprcrash", None)) is not None:
            crash.path, crash.lineno = str(users[-1].path), users[-1].lineno + 1
    if isinstance(excinfo.value, TemplateError) and (cause := excinfo.value.__cause__):
        report.sections.append(("arena: where the build failed", users_trace(cause)))


def fold_library_frames(report: Any, raised: BaseException, option: Any) -> None:
    """Show the lines of the test and of the app. Fold library frames between them into one line.

    Called if a request of the test ended in an error that the app raised.
    """
    is_readable = option.tbstyle in {"auto", "long", "short"} and not option.fulltrace
    if not is_readable or isinstance(raised, ArenaError):
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
        error_lines = [line for line in run[-1].lines if line.startswith(_ERROR_MARK)]
        if error_lines:
            texts = dedent(
                "\n".join(line.removeprefix("E") for line in error_lines)
            ).splitlines()
            yield replace(
                hidden, lines=[_ERROR_MARK + text for text in texts], style="short"
            )


_ERROR_MARK = "E   "  # pytest's, before each line of an error's text


def _is_of_library(entry: Any) -> bool:
    file = _file_of(entry)
    return file != "" and is_library(file)


def _file_of(entry: Any) -> str:
    """Return the file of a frame, which pytest may show from the current folder."""
    if entry.reprfileloc is None:
        return ""
    shown = str(entry.reprfileloc.path)
    is_generated = shown.startswith("<")
    return shown if is_generated else os.path.abspath(shown)  # noqa: PTH100 - links stay as they are


def _folded_line(entries: list[Any]) -> str:
    packages = (package_of(_file_of(entry)) for entry in entries)
    names = list(dict.fromkeys(name for name in packages if name)) or [
        "Python's own modules"
    ]
    count = len(entries)
    if count == 1:
        return f"    1 frame of {', '.join(names)}: `--full-trace` shows it"
    return f"    {count} frames of {', '.join(names)}: `--full-trace` shows them"


def _show_short_name(longrepr: Any, error: ArenaError) -> None:
    """A name with a module would leave no room for the text, in pytest's one line for each test."""
    short = f"{type(error).__name__}: "
    long = f"{type(error).__module__}.{short}"
    if (crash := getattr(longrepr, "reprcrash", None)) is not None:
        crash.message = crash.message.replace(long, short, 1)
    for entry in (
        longrepr.reprtraceback.reprentries if isinstance(error, NotWritten) else ()
    ):
        entry.lines = [line.replace(long, short, 1) for line in entry.lines]


def show_server(
    report: Any,
    broken: list[tuple[str, Exception]],
    handled: list[tuple[str, traceback.TracebackException]],
    raised: Any,
) -> None:
    """Show what the app has raised where the test only saw a 500."""
    shown = list(causes(raised))
    traces = [
        (request, users_trace(error))
        for request, error in broken
        if not any(error is one for one in shown)
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
    raised = [error for error in errors if error is not None]
    words = look([cause for error in raised for cause in causes(error)])
    if words:
        report.sections.append(("arena", words))


def show_processes(report: Any, outputs: list[tuple[str, str]]) -> None:
    """Show the end of what other programs on the test's database have written."""
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
    """Show what the test has changed, and which of its requests did it."""
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
    """Say what a driver's own error means: tests in several processes, a database without tables.

    ``missing_schema`` returns what would have made a table. ``explained`` returns what is known
    about an error. Both return "" if nothing is known.
    """
    every = [*causes(raised)]
    for words in dict.fromkeys(filter(None, map(explained, every))):
        report.sections.append(("arena", words))
    # psycopg2 has another name for it.
    states = [
        getattr(it, "sqlstate", None) or getattr(it, "pgcode", None) for it in every
    ]
    if _TOO_MANY_CLIENTS in states:
        report.sections.append(("arena", _CROWDED))
    # By its name: an error of the user's own may not even have words.
    of_sqlite = [str(one) for one in every if type(one).__name__ == "OperationalError"]
    has_no_table = _NO_TABLE in states or any(
        "no such table" in words for words in of_sqlite
    )
    if has_no_table and (words := missing_schema()):
        report.sections.append(("arena", words))


_TOO_MANY_CLIENTS, _NO_TABLE = "53300", "42P01"
_CROWDED = """\
all connections of the server are taken: each process of the tests has those of the app's pools, and
two of arena's own with one more for each database of the app
next: pytest -n 2, a smaller pool_size in tests, or a larger max_connections on the server"""


def tell_of(report: Any, errors: list[ArenaError]) -> None:
    """Fail a test that has passed while its app swallowed these; tell of them if it has failed."""
    text = "\n\n".join(f"{type(error).__name__}: {error}" for error in errors)
    if report.passed:
        head = "the app caught this error of pytest-arena and went on:\n\n"
        report.outcome, report.longrepr = "failed", head + text
    else:
        report.sections.append(("arena: refused", text))
