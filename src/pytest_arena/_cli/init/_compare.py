"""`arena init --check`."""

import json
import re
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pytest_arena._cli._lines import ask, say
from pytest_arena._cli.init._guarded import run_python
from pytest_arena._cli.init._look import FIXTURES, likely_schema, parse_project
from pytest_arena._cli.init._outcomes import DATABASES, FILE
from pytest_arena._report import CHANGED
from pytest_arena.errors import redact

_FAILED = 1
_FEW = 5  # the number of shown differences, because a suite has few causes
_HAS_RUN = (0, 1)  # pytest's exit statuses
_MISSING_FIXTURE = re.compile(
    rf"fixture '({'|'.join((*FIXTURES, 'make', 'scenario'))})' not found"
)
_SCHEMA = "alembic.ini   or module:Base, which creates them"
# A pattern of a failure with the plugin, the reason, and the next step.
_CAUSES = (
    (
        r"no such table|relation .* does not exist",
        "its tables were created before the run, in another database",
        f"arena_schema = {_SCHEMA}",
    ),
    (
        r"(table|relation) .* already exists",
        "a fixture creates tables that arena_schema has created",
        "delete that fixture, or do not set arena_schema",
    ),
    (
        r"UNIQUE constraint|UniqueViolation|duplicate key",
        "arena_seed or a wider fixture has created the row",
        "read the row instead of adding it",
    ),
    (
        r"lock timeout|database is locked",
        "it waits for a row that the test has not committed",
        "commit before the request, or set a longer arena_lock_timeout",
    ),
)
_OTHER_CAUSE = (
    "it relied on rows of another test or run, or on a session shared with the app",
    "create its rows in a fixture or in arena_seed, and read rows again after a request",
)


@dataclass(frozen=True, slots=True)
class Suite:
    """The outcome and the report of each test in one run."""

    outcomes: dict[str, tuple[str, str]]

    @property
    def bad(self) -> set[str]:
        """The tests that failed."""
        return {
            name
            for name, (outcome, _) in self.outcomes.items()
            if outcome in {"failed", "error"}
        }

    @property
    def counts(self) -> str:
        """The number of tests with each outcome."""
        counts = Counter(outcome for outcome, _ in self.outcomes.values())
        names = sorted(counts, reverse=True)
        numbers = [f"{counts[name]} {name}" for name in names]
        return ", ".join(numbers) or "no tests"

    def report(self, name: str) -> str:
        """Return the report of a test, "" if it passed."""
        if name not in self.outcomes:
            return "it was not collected, or its file cannot be imported"
        return self.outcomes[name][1]


def check(*, is_agreed: bool) -> int:
    """Run the suite twice and compare. Return 1 if a test passes only without the plugin."""
    say("The suite runs twice: with the plugin, and without it (-p no:arena).")
    with tempfile.TemporaryDirectory(prefix="arena-init-") as temporary:
        folder = Path(temporary)
        with_plugin = _run("with the plugin:", folder)
        if with_plugin is None:
            return _FAILED
        say("The second run connects without the plugin, and may change its databases:")
        for place in _databases(folder):
            say(f"  {place}")
        if not ask(
            "Run it without the plugin?",
            is_agreed=is_agreed,
            refusal="the second run is left out",
            command="arena init --check --yes",
        ):
            return _FAILED
        without = _run("without it:     ", folder, "-p", "no:arena")
    if without is None:
        return _FAILED
    return _compare(with_plugin, without)


def _databases(folder: Path) -> list[str]:
    """Return the databases of the app's engines. The first run wrote them to files."""
    databases: set[str] = set()
    for file in folder.glob(f"{DATABASES}*"):
        names = file.read_text(encoding="utf-8").splitlines()
        databases.update(filter(None, names))
    if databases:
        return sorted(databases)
    # No test has opened a connection. The code shows where the engines connect.
    engines = parse_project(Path.cwd()).all("engine")
    return [f"{engine.name}   {engine.place}" for engine in engines[:_FEW]]


def _run(title: str, folder: Path, *words: str) -> Suite | None:
    """Run the suite and print its result. Return None if pytest could not run it."""
    file = folder / "outcomes"
    file.unlink(missing_ok=True)
    start = time.monotonic()
    status, output = run_python(
        Path.cwd(),
        *("-m", "pytest", "-q", "--override-ini=required_plugins=", *words),
        *("-p", "pytest_arena._cli.init._outcomes"),
        env={FILE: str(file)},
    )
    seconds = time.monotonic() - start
    outcomes = {}
    if file.exists():
        outcomes = json.loads(file.read_text(encoding="utf-8"))
    suite = Suite(outcomes)
    say(f"{title} {suite.counts} in {seconds:.1f} s")
    if status in _HAS_RUN and CHANGED not in output:
        return suite
    lines = output.splitlines()
    say(
        *lines[-20:],
        f"pytest ended with exit status {status}, so there is nothing to compare",
    )
    return None


def _compare(with_plugin: Suite, without: Suite) -> int:
    """Print the differences. Return 1 if a test passes only without the plugin."""
    bad_with = with_plugin.bad
    bad_without = without.bad
    plugin_tests = {
        name for name in bad_without if _MISSING_FIXTURE.search(without.report(name))
    }
    if plugin_tests:
        number = len(plugin_tests)
        say(f"tests with fixtures of the plugin, which cannot run without it: {number}")
    for name in sorted(bad_without - bad_with - plugin_tests):
        say(f"passes only with the plugin: {name}")
        say(f"  without: {_error(without.report(name))}")
    for name in sorted(bad_without & bad_with):
        title = "fails with the plugin" if name in plugin_tests else "fails either way"
        error = _error(with_plugin.report(name))
        say(f"{title}: {name}", f"  {error}")
    uncollected = without.outcomes.keys() - with_plugin.outcomes
    worse = sorted((bad_with - bad_without) | uncollected)
    for name in worse[:_FEW]:
        report = with_plugin.report(name)
        reason, step = _cause(report)
        say(f"passes only without the plugin: {name}", f"  with: {_error(report)}")
        say(f"  why:  {reason}", f"  next: {step}")
    if len(worse) > _FEW:
        more = len(worse) - _FEW
        say(f"{more} more tests pass only without the plugin. Repair these first.")
    if not worse:
        say("No test passes only without the plugin.")
        return 0
    return _FAILED


def _error(report: str) -> str:
    """Return the line of a report that names the error."""
    lines = report.splitlines()
    errors = [line for line in lines if line.startswith("E  ")]
    first = "".join((errors or lines)[:1])
    return redact(first.removeprefix("E").strip())


def _cause(report: str) -> tuple[str, str]:
    """Return the likely reason of a failure, and the next step."""
    why = re.search(r"(?m)^(?:E\s+)?\s*why:\s+(.*)$", report)
    step = re.search(r"(?m)^(?:E\s+)?\s*next:\s+(.*)$", report)
    if why and step and re.search(r"\[A\d{3}\]", report):
        return why[1], step[1]
    for pattern, reason, proposal in _CAUSES:
        if not re.search(pattern, report):
            continue
        if _SCHEMA in proposal:
            schema = likely_schema(parse_project(Path.cwd()))
            return reason, f"arena_schema = {schema or _SCHEMA}"
        return reason, proposal
    return _OTHER_CAUSE
