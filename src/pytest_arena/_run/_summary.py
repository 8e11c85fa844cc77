"""The summary: its facts, from this process and its workers, and its lines."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pytest_arena._databases._builders import suggested_schema
from pytest_arena._ledger import Ledger, TestFacts, noted_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_arena._config._read import Config
    from pytest_arena._databases._resolver import Databases


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The facts of one process for the summary. Times are seconds."""

    tests: tuple[TestFacts, ...] = ()
    # Of filled databases: the name with what it was given, the product, the isolation.
    filled: tuple[tuple[str, str, str], ...] = ()
    notes: tuple[str, ...] = ()
    noted: tuple[tuple[str, str], ...] = ()  # the ledger's lines, each with its test
    # For building templates that later runs use, and templates that ended with the run.
    build_seconds: float = 0.0
    has_template: bool = False
    has_redis: bool = False
    suggestion: str = ""  # the line of arena_schema that makes the tables, "" if unknown
    failures: tuple[str, ...] = ()  # lines that fail the run, though no test failed

    def __add__(self, other: Summary) -> Summary:
        """Return the summary of two processes together."""
        both = {name: _added(getattr(self, name), getattr(other, name)) for name in self.__slots__}
        # Equal tests, and equal times, are different facts, but `_added` would drop one of them.
        both["tests"] = self.tests + other.tests
        return Summary(**both)


def _added(value: object, other: Any) -> Any:
    """Return the distinct items of two tuples, the sum of numbers, or the first true value."""
    if isinstance(value, tuple):
        return tuple(dict.fromkeys(value + other))
    if isinstance(value, bool | str):
        return value or other
    return value + other


def summary_lines(summary: Summary, *, verbosity: int) -> list[str]:
    """Return the lines of the summary, with ``-q`` only those that report a problem."""
    problems = [*noted_lines(summary.noted), *summary.notes, *summary.failures]
    if verbosity < 0:
        return [f"arena: {line}" for line in problems]
    return [*_lines_with_figures(summary), *problems]


def _lines_with_figures(summary: Summary) -> Iterator[str]:
    used = [facts for facts in summary.tests if facts[0]]
    if used and summary.filled:
        databases, products, isolations = map(dict.fromkeys, zip(*summary.filled, strict=True))
        template = "template from the cache"
        if not summary.has_template:
            template = "no template: the database starts empty"
        elif summary.build_seconds:
            template = f"template built in {_ms(summary.build_seconds)}"
        redis = "; Redis on a private server" if summary.has_redis else ""
        yield (
            f"test databases in place of {', '.join(databases)} on {' and '.join(products)}, "
            f"isolation {' and '.join(isolations)}; {template}{redis}"
        )
        changed = sum(is_changed for _, is_changed, _ in used)
        line = f"{len(used)} of {len(summary.tests)} tests used a database of their own"
        first, *others = [seconds for _, _, seconds in used]
        cost = f"{_ms(first)} for the first test"
        if others:
            cost += f", {_ms(sum(others) / len(others))} for each other test"
        yield f"{line}, and {changed} changed it. Providing and restoring it took {cost}"
    if used and summary.suggestion and not summary.has_template:
        yield "set this, so that each test starts with the tables:"
        yield f"    {summary.suggestion}"


def _ms(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.2f} ms"
    return f"{seconds:.1f} s"


def summarize(config: Config, databases: Databases, ledger: Ledger) -> Summary:
    """Return the facts of this process."""
    return Summary(
        tests=tuple(ledger.tests),
        filled=tuple(ledger.filled),
        has_template=any(ledger.filled.values()),
        notes=tuple(filter(None, [ledger.kept])),
        failures=tuple(_failures(databases, ledger)),
        noted=tuple(ledger.noted),  # also what the failures have noted
        has_redis=ledger.has_redis,
        suggestion=schema_to_set(config) if ledger.filled else "",
        build_seconds=sum(store.build_seconds for store in databases.provision.stores.values()),
    )


def _failures(databases: Databases, ledger: Ledger) -> Iterator[str]:
    """Yield the lines that fail the run: about data, changed files, refusals outside of tests."""
    yield from ledger.failures
    for file in databases.files.changed():
        yield (
            f"{file} was changed during this run: by a development server or another program, "
            "which a test may have started, or before the app had an engine for the file. Next: "
            "end it, give it arena.url, or let arena_schema make the tables. If tests may change "
            f"the file: arena_allow = {file}"
        )
    for text in dict.fromkeys(map(str, ledger.unreported(""))):
        yield f"outside of any test: {text}"


def schema_to_set(config: Config) -> str:
    """Return the line of ``arena_schema`` that would create the tables, "" if unknown."""
    schema = "" if config.schema else suggested_schema(config.root)
    quote = '"' if str(config.file).endswith(".toml") else ""
    return f"arena_schema = {quote}{schema}{quote}" if schema else ""


# Keys in the report that a worker sends to pytest-xdist.
_MISTAKE = "arena_mistake"
_SUMMARY = "arena"


class FactsOfProcesses:
    """The facts of this process and its workers. A worker sends them at its end.

    A worker that crashes sends none.
    """

    def __init__(self, config: Any) -> None:
        # pytest-xdist sends this from a worker to the controller. None in any other process.
        self._output: dict[str, Any] | None = getattr(config, "workeroutput", None)
        self.mistake = ""
        self.summary = Summary()

    def send_mistake(self, mistake: str) -> bool:
        """Send a mistake of configuration to the controller. Return False if this is no worker."""
        if self._output is None:
            return False
        self._output[_MISTAKE] = mistake
        return True

    def end(self, summary: Summary) -> None:
        """Add the summary of this process after its tests, or send it to the controller."""
        if self._output is not None:
            self._output[_SUMMARY] = asdict(summary)
        self.summary = summary + self.summary

    def add_worker(self, output: Mapping[str, Any]) -> None:
        """Add the facts that a worker has sent at its end."""
        self.mistake = output.get(_MISTAKE, self.mistake)
        values = output.get(_SUMMARY)
        if values is not None:
            self.summary += Summary(**values)
