"""How does the report of a test that failed tell of errors of ours?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_arena import _report
from pytest_arena._config._load import is_library
from pytest_arena.errors import ArenaError, NotWritten, TemplateError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._report import StoryPart

__all__ = [
    "causes",
    "explain",
    "show_server",
    "show_story",
    "show_users_lines",
    "tell_of",
]


def show_users_lines(report: Any, excinfo: Any, option: Any) -> None:
    """Our messages say what is wrong: of the way there only the user's own lines matter."""
    wants_few_lines = option.tbstyle in {"auto", "long", "short"} and not option.fulltrace
    if not isinstance(excinfo.value, ArenaError) or not wants_few_lines:
        return
    users = excinfo.traceback.filter(lambda one: not is_library(str(one.path)))
    report.longrepr = excinfo.getrepr(style="short", chain=False, tbfilter=lambda _: users)
    shown = getattr(report.longrepr, "reprtraceback", None)
    if shown is not None and not users:
        shown.extraline = None  # that all lines are hidden: there is none of the user's
    if shown is not None:
        _show_short_name(report.longrepr, excinfo.value)
    if isinstance(excinfo.value, TemplateError) and (cause := excinfo.value.__cause__):
        report.sections.append(("arena: where the build failed", _report.users_trace(cause)))


def _show_short_name(longrepr: Any, error: ArenaError) -> None:
    """A name with a module would leave no room for the text, in pytest's one line for each test."""
    short = f"{type(error).__name__}: "
    long = f"{type(error).__module__}.{short}"
    if (crash := getattr(longrepr, "reprcrash", None)) is not None:
        crash.message = crash.message.replace(long, short, 1)
    for entry in longrepr.reprtraceback.reprentries if isinstance(error, NotWritten) else ():
        entry.lines = [line.replace(long, short, 1) for line in entry.lines]


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it was raised from or in the course of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def show_server(report: Any, broken: list[tuple[str, Exception]], raised: Any) -> None:
    """Show what the app has raised where the test only saw a 500."""
    shown = list(causes(raised))
    for request, error in broken:
        if not any(error is one for one in shown):
            title = f"arena: the server's traceback, {request}"
            report.sections.append((title, _report.users_trace(error)))


def show_story(report: Any, parts: list[StoryPart]) -> None:
    """Show what the test has changed, and which of its requests did it."""
    if parts:
        report.sections.append((_STORY, "\n".join(_report.story_lines(parts))))


_STORY = "arena: what this test changed (+ inserted, ~ updated, - deleted)"


def explain(report: Any, raised: Any) -> None:
    """Say what a driver's own error means for tests in several processes."""
    states = (getattr(one, "sqlstate", None) for one in causes(raised))
    if _TOO_MANY_CLIENTS in states:
        report.sections.append(("arena", _CROWDED))


_TOO_MANY_CLIENTS = "53300"
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
