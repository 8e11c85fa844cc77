"""The plugin of runs with scenarios."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pluggy

from pytest_arena.errors import ArenaError
from pytest_arena.scenarios._mapping import (
    Mapped,
    Mapper,
    Mappings,
    UnawaitedSteps,
    uncollected,
    what_is_left_out,
)
from pytest_arena.scenarios._recorder import EvidenceRecorder
from pytest_arena.scenarios._sabotage import SabotagePasses
from pytest_arena.scenarios._tries import (
    SENT,
    Tries,
    evidence_line,
    failure_of,
    plain_facts,
)
from pytest_arena.scenarios.assertions._assertions import (
    enable,
    record_assertions,
    record_teardown_assertions,
)
from pytest_arena.scenarios.assertions._updated_snapshots import updates_snapshots
from pytest_arena.scenarios.evidence._document import Document, Sabotage
from pytest_arena.scenarios.evidence._judge import Rules, judge
from pytest_arena.scenarios.evidence._lock import FILE as LOCK
from pytest_arena.scenarios.evidence._lock import Lock
from pytest_arena.scenarios.outputs import _terminal as terminal
from pytest_arena.scenarios.outputs._ci import workflow_commands
from pytest_arena.scenarios.outputs._targets import targets, write
from pytest_arena.scenarios.specs import _reader as reader
from pytest_arena.scenarios.specs._index import Index

if TYPE_CHECKING:
    from collections.abc import Generator

    import pytest

    from pytest_arena._config._read import Config
    from pytest_arena._run._run import ArenaRun

hook = pluggy.HookimplMarker("pytest")

_OUTPUT = "arena_scenarios"  # the key of the values that a worker of pytest-xdist sends
_LISTS = ("collectonly", "setuponly", "setupplan")
_FAILED = 1  # pytest's exit statuses
_USAGE = 4
_BROKEN = (3, 4)  # an internal error, a usage error


class Scenarios:
    """The plugin that each process of a run with specifications registers.

    Each process maps the tests that it collects, and adds facts to the reports of its tests. The
    controller receives all reports, and judges the scenarios.
    """

    recorder: EvidenceRecorder

    def __init__(self, config: pytest.Config, wanted: Config) -> None:
        self.document: Document | None = None
        self._config = config
        self._wanted = wanted
        self._tests: dict[int, Mapped] = {}  # by the identity of their items
        self._unawaited = UnawaitedSteps()
        self._mappings = Mappings()
        self._tries = Tries()
        self._broken: dict[str, None] = {}  # files that could not be collected
        self._failed: set[str] = set()  # tests that failed at least once here
        self._is_again = False  # whether the running test has failed before
        self._lines: list[str] = []
        self._is_run = False

    # Before the tests.

    def watch(self, run: ArenaRun) -> EvidenceRecorder:
        """Return the watcher of a run. Called before any test file is imported."""
        self.recorder = EvidenceRecorder(run)
        why = enable(self._config)
        if why:
            self.recorder.off["asserted"] = why
        return self.recorder

    def more_plugins(self) -> list[tuple[str, object]]:
        """Return further plugins of this run, with their names."""
        if not self._wanted.scenarios_sabotage:
            return []
        passes = SabotagePasses(
            self._config,
            self.recorder,
            self._tries,
            self._tests,
        )
        return [("arena_sabotage", passes)]

    def read(self) -> None:
        """Read all files that options name.

        Raises:
            ArenaError: a file does not exist, the specifications have no scenario, or the lock
                file or ``--scenarios-out`` is wrong.
        """
        wanted = self._wanted
        self._targets = targets(wanted.scenarios_out)
        self._specification = reader.read(wanted.specs, wanted.root)
        place = f"{wanted.place('specs')} (paths are relative to {wanted.root})"
        reader.require_scenarios(self._specification, wanted.specs, place=place)
        self._rules = self._read_rules()
        index = Index(self._specification)
        self._mapper = Mapper(self._specification, index, wanted.root)
        self.recorder.read_steps_of(self._specification)

    def _read_rules(self) -> Rules:
        option = self._config.option
        return Rules(
            lock=Lock.read(self._wanted.root / LOCK),
            today=datetime.now(tz=UTC).date(),
            lists_only=any(getattr(option, name, False) for name in _LISTS),
        )

    @hook(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, items: list[pytest.Item]
    ) -> Generator[None, None, None]:
        """Map all tests, also those that other plugins deselect or mark."""
        collected = dict.fromkeys(items)
        yield
        collected.update(dict.fromkeys(items))
        self._map([*collected])
        note = self._unawaited.watch()
        if note:
            self.recorder.run.ledger.note(note)

    def _map(self, items: list[pytest.Item]) -> None:
        for mapped in self._mapper.all_of(items):
            self._tests[id(mapped.item)] = mapped
            # JUnit's XML shows these strings, also for a skipped test.
            keys = [("arena_scenario", each.key) for each in mapped.scenarios]
            revs = [("arena_scenario_rev", each.rev) for each in mapped.scenarios]
            mapped.item.user_properties.extend(keys + revs)

    @hook
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Record which tests will run."""
        selected = frozenset(map(id, session.items))
        self._mappings.add(self._tests.values(), selected=selected)

    @hook
    def pytest_collectreport(self, report: Any) -> None:
        """Record a file that was not collected. It may have tests of any scenario."""
        if report.failed:
            self._broken[report.nodeid] = None
        if not report.passed:
            self._mappings.problems[uncollected(report)] = None

    @hook(tryfirst=True)
    def pytest_runtestloop(self) -> None:
        """Note that tests will run. ``--fixtures`` and similar options run none."""
        self._is_run = True
        self.recorder.start_watching()

    # One test.

    def begin(self, item: pytest.Item) -> None:
        """Begin to record a test whose level exists.

        Raises:
            ScenarioError: a marker of the test names no scenario. The test does not run.
        """
        mapped = self._tests.get(id(item))
        if mapped is None:
            return
        if mapped.errors:
            _, error = mapped.errors[0]
            raise error
        names = frozenset(getattr(item, "fixturenames", ()))
        rows = frozenset(mapping.row for mapping in mapped.mappings)
        self.recorder.begin_test(mapped.scenarios, names, rows=rows)

    @hook(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Record assertions while the test's function runs."""
        is_recorded = id(item) in self._tests and not self.recorder.is_repeating
        try:
            with (
                record_assertions(self.recorder, item) if is_recorded else nullcontext()
            ):
                result = yield
        except BaseException as error:
            unawaited = self._unawaited.take()
            if unawaited:
                error.add_note(str(unawaited))
            raise
        unawaited = self._unawaited.take()
        if unawaited:
            raise unawaited
        return result

    @hook(wrapper=True)
    def pytest_runtest_teardown(
        self, item: pytest.Item
    ) -> Generator[None, object, object]:
        """Record assertions in the tear-down of the test's fixtures."""
        mapped = self._tests.get(id(item))
        self._mappings.note_late_marker(item, mapped)
        if mapped is None or self.recorder.is_repeating:
            return (yield)
        with record_teardown_assertions(self.recorder, item):
            return (yield)

    @hook(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[object]
    ) -> Generator[None, Any, object]:
        """Add facts to the report, after all other plugins."""
        report = yield
        mapped = self._tests.get(id(item))
        if mapped is None or self.recorder.is_repeating:
            return report
        if report.when == "setup":
            self._is_again = mapped.test in self._failed
        sent = failure_of(
            report,
            call.excinfo,
            item,
            self.recorder.mask,
        )
        sent["again"] = self._is_again
        if report.failed:
            self._failed.add(mapped.test)
        if report.when == "teardown":
            facts = self.recorder.take()
            if facts:
                # The report may go to another process.
                sent["facts"] = plain_facts(facts)
                evidence = ("arena_evidence", evidence_line(facts))
                report.user_properties.append(evidence)
        setattr(report, SENT, sent)
        return report

    @hook
    def pytest_runtest_logreport(self, report: object) -> None:
        """Add the report of a phase, from this process or another."""
        self._tries.see(report)

    # The end.

    @hook(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Add the part that a worker of pytest-xdist sent. A worker that died sent nothing."""
        sent = (getattr(node, "workeroutput", None) or {}).get(_OUTPUT)
        if sent is None:
            return
        self._mappings.take_over(sent["mappings"])
        for test, shapes in sent["sabotaged"].items():
            sabotages = tuple(Sabotage(**shape) for shape in shapes)
            self._tries.add_sabotages(test, sabotages)

    @hook(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Judge the scenarios, write the outputs, fail a strict run. A worker sends its part."""
        self._unawaited.unwatch()
        output = getattr(self._config, "workeroutput", None)
        if output is not None:
            output[_OUTPUT] = self._plain()
        elif self._is_run and session.exitstatus not in _BROKEN:
            self.document = self._judged(session)
            self._write(session, self.document)
            if self._fails:
                session.exitstatus = session.exitstatus or _FAILED

    def _plain(self) -> dict[str, object]:
        """Return the mappings and sabotages of this process as plain values."""
        sabotaged = {
            test: [asdict(sabotage) for sabotage in sabotages]
            for test, sabotages in self._tries.sabotaged.items()
        }
        return {"mappings": self._mappings.plain(), "sabotaged": sabotaged}

    @property
    def _is_strict(self) -> bool:
        return self._wanted.scenarios == "strict"

    @property
    def _fails(self) -> bool:
        has_gaps = self.document is not None and bool(self.document.gaps)
        return self._is_strict and has_gaps

    def _judged(self, session: pytest.Session) -> Document:
        is_sabotaged = self._wanted.scenarios_sabotage
        is_sabotaged = is_sabotaged and not updates_snapshots(self._config)
        return judge(
            self._specification,
            self._mappings.all(),
            list(self._tries.all(self._mappings.names)),
            rules=self._rules,
            partial=what_is_left_out(session, self._mappings, sorted(self._broken)),
            problems=list(self._mappings.problems),
            is_sabotaged=is_sabotaged,
        )

    def _write(self, session: pytest.Session, document: Document) -> None:
        folder = self._config.invocation_params.dir
        try:
            self._lines = write(
                self._targets, document, root=self._wanted.root, folder=folder
            )
        except ArenaError as error:
            self._lines = [f"ERROR: {error}"]
            session.exitstatus = session.exitstatus or _USAGE

    @hook
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, config: pytest.Config
    ) -> None:
        """Print the scenarios that are not proven, and the totals."""
        document = self.document
        if document is None:
            return
        verbosity = config.get_verbosity()
        if verbosity >= 0:
            terminalreporter.write_sep("=", "scenarios")
        strict = ""
        if self._is_strict:
            strict = "--scenarios=strict"
        lines = [
            *terminal.lines(document, verbosity=verbosity, strict=strict),
            *self._lines,
        ]
        if os.environ.get("GITHUB_ACTIONS") == "true":
            root = self._wanted.root
            lines += workflow_commands(document, root=root, is_strict=self._is_strict)
        for line in lines:
            is_red = self._fails and line.startswith("scenarios: ")
            terminalreporter.write_line(line, red=is_red)
