"""The plugin of runs with scenarios."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena._config._load import blame
from pytest_arena._values import CodeLine, counted
from pytest_arena.errors import ArenaError, cut, redact
from pytest_arena.scenarios import _outputs as outputs
from pytest_arena.scenarios._judge import judge
from pytest_arena.scenarios._markers import scenarios_of, write_stubs
from pytest_arena.scenarios._records import Recorder, record_assertions
from pytest_arena.scenarios._sabotage import Sabotage, hook
from pytest_arena.scenarios._specs import LOCK, accept, read_lock, read_specs, relative

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    import pytest

    from pytest_arena._config._read import Config
    from pytest_arena._run._run import ArenaRun
    from pytest_arena.scenarios._judge import Results
    from pytest_arena.scenarios._records import Json
    from pytest_arena.scenarios._specs import ScenarioSpec


_SENT = "arena_scenario"
"""The key of a worker's output."""
_LONGEST = 300  # characters of a reason
_WORST_FIRST = ("failed", "skipped", "passed")
_LISTS = ("collectonly", "setuponly", "setupplan")
_FAILED = 1  # pytest's exit statuses
_USAGE = 4
_BROKEN = (3, 4)  # an internal error, a usage error
NO_FACTS: Json = {"seeded": [], "requests": [], "assertions": [], "steps": [], "lost": []}
"""The facts of a test that was not called."""


class Scenarios:
    """The plugin that each process of a run with specifications registers.

    Each process maps the tests that it collects, and makes one dict of each try. Workers send their
    dicts at the end to the controller, which judges the scenarios.
    """

    recorder: Recorder

    def __init__(self, config: pytest.Config, options: Config) -> None:
        self.results: Results | None = None
        self._config = config
        self._options = options
        self._collected: list[pytest.Item] = []
        # The scenarios of each item, by its identity.
        self._scenarios: dict[int, list[ScenarioSpec]] = {}
        self._tests: dict[str, list[str]] = {}  # the keys of scenarios, by test
        self._deselected: set[str] = set()
        self._attempt: Json = {}  # of the running test
        self._tries: list[Json] = []
        self._lines: list[str] = []
        self._is_run = False
        self._sabotage: Sabotage | None = None

    # Before the tests.

    def watch(self, run: ArenaRun) -> Recorder:
        """Return the watcher of a run. Called before any test file is imported."""
        self.recorder = Recorder(run)
        record_assertions(self.recorder, self._config)
        return self.recorder

    def prepare(self) -> None:
        """Register the plugin of a strict run."""
        if self._is_strict:
            self._sabotage = Sabotage(self._config, self.recorder, self._tries)
            self._config.pluginmanager.register(self._sabotage, "arena_sabotage")

    def read(self) -> None:
        """Read the specifications and the lock file."""
        options = self._options
        self._outputs = outputs.outputs(options.scenarios_out)
        self.specification = read_specs(options.specs, options.root)
        self._lock = read_lock(options.root / LOCK)

    @hook
    def pytest_cmdline_main(self, config: pytest.Config) -> int | None:
        """Do what ``--scenarios-accept`` or ``--scenarios-merge`` say, and run no test."""
        merged = config.option.arena_scenarios_merge
        if not (merged or config.option.arena_scenarios_accept):
            return None
        try:
            self.read()
            if merged:
                return self._merge([Path(each) for each in merged])
            accept(self._options.root / LOCK, self.specification.scenarios)
            self._print([f"{LOCK} written"])
        except (ArenaError, OSError) as error:
            sys.stderr.write(f"ERROR: {error}\n")
            return _USAGE
        return 0

    def _merge(self, paths: list[Path]) -> int:
        self._tests, self._tries, is_sabotaged = outputs.joined(paths, self.specification)
        results = self._judge(is_sabotaged=is_sabotaged)
        self._print([*outputs.lines(results, is_strict=self._is_strict), *self._lines])
        return _FAILED if self._fails else 0

    def _judge(self, partial: str = "", *, is_sabotaged: bool) -> Results:
        """Judge the scenarios by all tries, and write the outputs."""
        self.results = judge(
            self.specification,
            self._tests,
            self._tries,
            self._lock,
            partial=partial,
            is_sabotaged=is_sabotaged,
        )
        self._lines = outputs.write(self._outputs, self.results, self._options.root)
        return self.results

    def _print(self, lines: Sequence[str]) -> None:
        # An option that runs no test has no terminal reporter.
        sys.stdout.write("".join(f"{line}\n" for line in lines))

    @hook(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, items: list[pytest.Item]
    ) -> Generator[None, None, None]:
        """Remember all tests, also those that other plugins deselect."""
        self._collected = [*items]
        return (yield)

    def map(self) -> None:
        """Find the scenarios of the collected tests."""
        for item in self._collected:
            scenarios = scenarios_of(item, self.specification)
            if scenarios:
                self._scenarios[id(item)] = scenarios
                self._tests[item.nodeid] = [each.key for each in scenarios]

    @hook
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note which tests of scenarios will not run."""
        selected = {id(item) for item in session.items}
        for item in self._collected:
            if id(item) in self._scenarios and id(item) not in selected:
                self._deselected.add(item.nodeid)

    @hook(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> object:
        """Note that tests will run, or write stubs in place of running them."""
        folder = self._config.option.arena_scenarios_stubs
        if not folder:
            option = self._config.option
            self._is_run = not any(getattr(option, name, False) for name in _LISTS)
            return None
        if session.testsfailed:
            return None  # pytest reports the files that could not be collected
        lines = write_stubs(self.specification, self._tests, Path(folder), self._config)
        self._print(["", *lines])
        return True

    # One test.

    def begin(self, item: pytest.Item) -> None:
        """Begin to record a test at its set-up."""
        scenarios = self._scenarios.get(id(item))
        if scenarios:
            self.recorder.begin(item, scenarios)

    @hook(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        """Record the assertions and the facts of a test."""
        with self.recorder.calling():
            return (yield)

    @hook(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[object]
    ) -> Generator[None, Any, object]:
        """Add the reports of the phases of a test to its try. Note how a repeated test failed."""
        report = yield
        if self.recorder.run.is_repeating:
            if call.excinfo is not None:
                self.recorder.note_failure(call.excinfo.value, is_in_call=call.when == "call")
            return report
        if id(item) not in self._scenarios:
            return report
        if report.when == "setup":
            self._attempt = {"test": item.nodeid, "outcome": "passed", "reason": ""}
        error = call.excinfo and blame(call.excinfo.value)
        _add_phase(self._attempt, report, error, item.config.rootpath)
        if report.when == "teardown":
            self._attempt["facts"] = self.recorder.take() or NO_FACTS
            self._tries.append(self._attempt)
        return report

    # The end.

    @hook(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Take what a worker of pytest-xdist sent. A worker that died sent nothing."""
        output = getattr(node, "workeroutput", {})
        if _SENT in output:
            sent = json.loads(output[_SENT])
            self._tests |= sent["tests"]
            self._deselected.update(sent["deselected"])
            self._tries += sent["tries"]

    @hook(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Judge the scenarios, write the outputs, fail a strict run. A worker sends its part."""
        output = getattr(self._config, "workeroutput", None)
        if self._config.option.arena_scenarios_stubs and not session.testsfailed:
            session.exitstatus = 0
        if output is not None:
            sent = {"tests": self._tests, "deselected": [*self._deselected], "tries": self._tries}
            output[_SENT] = json.dumps(sent)
        elif self._is_run and session.exitstatus not in _BROKEN:
            self._finish(session)

    def _finish(self, session: pytest.Session) -> None:
        # Why the run left out tests.
        reasons = [*_narrowed(self._config)]
        if self._deselected:
            reasons.append(
                f"{len(self._deselected)} of {counted(len(self._tests), 'test')} "
                "with a scenario deselected"
            )
        stopped = session.shouldfail or session.shouldstop
        if stopped:
            reasons.append(str(stopped))
        is_sabotaged = self._sabotage is not None and not self._sabotage.why_not
        self._judge("; ".join(reasons), is_sabotaged=is_sabotaged)
        if self._fails:
            session.exitstatus = session.exitstatus or _FAILED

    @property
    def _is_strict(self) -> bool:
        return self._options.scenarios == "strict"

    @property
    def _fails(self) -> bool:
        return self._is_strict and self.results is not None and bool(self.results.open)

    @hook
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, config: pytest.Config
    ) -> None:
        """Print the scenarios that are not proven, and the totals."""
        if self.results is None:
            return
        verbosity = config.get_verbosity()
        shown = outputs.lines(self.results, verbosity=verbosity, is_strict=self._is_strict)
        if self._sabotage is not None:
            shown.append(self._sabotage.line())
        shown += self._lines
        if shown and verbosity >= 0:
            terminalreporter.write_sep("=", "scenarios")
        for line in shown:
            terminalreporter.write_line(line)


def _narrowed(config: pytest.Config) -> Iterator[str]:
    """Yield the options that made pytest collect only a part of the tests."""
    if config.args_source.name != "TESTPATHS":
        here = config.invocation_params.dir
        folders = [Path(here, arg).resolve() for arg in config.args if "::" not in arg]
        paths = [Path(config.rootpath, each).resolve() for each in config.getini("testpaths")]
        for path in paths or [config.rootpath]:
            if not any(path.is_relative_to(folder) for folder in folders):
                hint = "" if paths else " (if these are all tests, set testpaths)"
                yield " ".join(config.args) + hint
                break
    if getattr(config.option, "lf", False):
        yield "--lf"


def _add_phase(attempt: Json, report: Any, line: CodeLine | None, root: Path) -> None:
    """Add the outcome of a phase, or of a subtest, to its try, with the user's line of an error."""
    outcome = report.outcome
    longrepr = report.longrepr
    reason = str(longrepr[2] if isinstance(longrepr, tuple) else longrepr or "")
    crash = getattr(longrepr, "reprcrash", None)
    if hasattr(report, "wasxfail"):
        passes = ", and passes" if outcome == "passed" else ""
        outcome = "failed"
        expected = report.wasxfail.removeprefix("reason: ")
        reason = f"it is expected to fail{passes}: {expected}"
    elif outcome == "failed" and crash is not None:
        place = f" ({relative(Path(line.file), root)}:{line.number})" if line else ""
        reason = f"{_one_line(crash.message)}{place}"
    if outcome == "failed" and report.when != "call":
        reason = f"{report.when}: {reason}"
    if _WORST_FIRST.index(outcome) < _WORST_FIRST.index(attempt["outcome"]):
        attempt["outcome"] = outcome
        attempt["reason"] = _one_line(reason.removeprefix("Skipped: "))


def _one_line(text: str) -> str:
    line, _, _ = text.strip().partition("\n")
    return cut(redact(line.rstrip()), _LONGEST)
