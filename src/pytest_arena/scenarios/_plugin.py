"""What becomes of the scenarios in one run of pytest, from its options to its exit status?"""

import os
from collections.abc import Generator
from contextlib import nullcontext, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pluggy

from pytest_arena._config._project import read_project
from pytest_arena._config._read import Config
from pytest_arena._run._run import ArenaRun
from pytest_arena.errors import ArenaError, ConfigError
from pytest_arena.scenarios._assertions import enable, heard
from pytest_arena.scenarios._instruments import Instruments
from pytest_arena.scenarios._mapping import (
    Mapped,
    Mapper,
    Mappings,
    Unawaited,
    check_agreed,
    uncollected,
    what_is_left_out,
)
from pytest_arena.scenarios._sabotage import SabotagePasses
from pytest_arena.scenarios._tries import (
    SENT,
    Tries,
    evidence_line,
    failure_of,
    plain_facts,
)
from pytest_arena.scenarios.evidence._agreed import Lock, read_baseline, read_waivers
from pytest_arena.scenarios.evidence._document import Document, Sabotage
from pytest_arena.scenarios.evidence._judge import Rules, judge
from pytest_arena.scenarios.outputs import _terminal as terminal
from pytest_arena.scenarios.outputs._ci import workflow_commands
from pytest_arena.scenarios.outputs._targets import targets, write
from pytest_arena.scenarios.specs import _reader as reader
from pytest_arena.scenarios.specs._index import Index, Reference

hook = pluggy.HookimplMarker("pytest")

_OUTPUT = "arena_scenarios"  # in what a worker hands to pytest-xdist
_LISTS = ("collectonly", "setuponly", "setupplan")
_FAILED, _USAGE = 1, 4


class Scenarios:
    """Registered as a plugin where specifications are to be read, in every process of the run.

    Each process maps the tests that it collects, and tells of the tries that it makes in their
    reports. The process that has seen all of them judges.
    """

    instruments: Instruments

    def __init__(self, config: Any, wanted: Config) -> None:
        self._config, self._wanted, self._process = config, wanted, os.getpid()
        self._tests: dict[int, Mapped] = {}
        self._unawaited = Unawaited()
        self._mappings, self._tries = Mappings(), Tries()
        self._broken: dict[str, None] = {}  # files that could not be collected
        self._failed: set[str] = (
            set()
        )  # tests of this process that have failed at least once
        self._is_again = False  # whether the test that runs is one of them
        self._lines: list[str] = []
        self._is_run = False
        self.document: Document | None = None

    # Before the tests.

    def watch(self, run: ArenaRun) -> Instruments:
        """Return who is to watch a run, before any test file is imported."""
        self.instruments = Instruments(run)
        if why := enable(self._config):
            self.instruments.off["asserted"] = why
        return self.instruments

    def more_plugins(self) -> list[tuple[str, object]]:
        """Return what else is to be registered in this run, with its names."""
        if not self._wanted.scenarios_sabotage:
            return []
        passes = SabotagePasses(
            self._config, self.instruments, self._tries, self._tests
        )
        return [("arena_sabotage", passes)]

    def read(self) -> None:
        """Read all files that options name.

        Raises:
            ArenaError: there is no such file, no scenario in it, or something is wrong in the lock
                file, the baseline, a waiver or ``--scenarios-out``; or one of the first two was
                named, and is not there.
        """
        wanted = self._wanted
        self._targets = targets(wanted.scenarios_out)
        self._specification = reader.read(wanted.specs, wanted.root)
        place = f"{wanted.places['specs']}; seen from {wanted.root}"
        reader.require_scenarios(self._specification, wanted.specs, place=place)
        self._rules = self._read_rules()
        scenarios = self._specification.scenarios
        index = Index(
            self._specification, partial(self._rules.lock.former_names, scenarios)
        )
        form = "--scenario={}"
        asked = (
            Reference(name=it, place=form.format(it), form=form)
            for it in wanted.scenario
        )
        self._chosen = {index.find(one).key for one in asked}
        self._mapper = Mapper(self._specification, index, wanted.root)
        self.instruments.specification = self._specification

    def _read_rules(self) -> Rules:
        wanted = self._wanted
        is_list = any(getattr(self._config.option, name, False) for name in _LISTS)
        check_agreed(wanted, lists_only=is_list)
        baseline, lock = wanted.scenario_baseline, wanted.scenario_lock
        place = wanted.places["scenario_waive"]
        known = read_baseline(wanted.root / baseline) if baseline else ()
        return Rules(
            evidence=wanted.scenario_evidence,
            agreed_gaps=(*known, *read_waivers(wanted.scenario_waive, place=place)),
            lock=Lock.read(wanted.root / lock) if lock else Lock(),
            today=datetime.now(tz=UTC).date(),
            lists_only=is_list,
        )

    @hook(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """All tests are there: others deselect later."""
        self._map(items)
        if self._chosen:
            self._choose(items)
        if note := self._unawaited.watch():
            self.instruments.run.ledger.note(note)

    def _map(self, items: list[Any]) -> None:
        for mapped in self._mapper.all_of(items):
            self._tests[id(mapped.item)] = mapped
            # For JUnit's XML, which shows strings. At collection: so a skipped test has them too.
            keys = [("arena_scenario", one.key) for one in mapped.scenarios]
            revs = [("arena_scenario_rev", one.rev) for one in mapped.scenarios]
            mapped.item.user_properties += keys + revs

    def _choose(self, items: list[Any]) -> None:
        """Leave the tests of the scenarios that ``--scenario`` names."""
        chosen = {
            test
            for test, mapped in self._tests.items()
            if any(one.key in self._chosen for one in mapped.scenarios)
        }
        if gone := [item for item in items if id(item) not in chosen]:
            self._config.hook.pytest_deselected(items=gone)
            items[:] = [item for item in items if id(item) in chosen]

    @hook
    def pytest_collection_finish(self, session: Any) -> None:
        """What is left will run. Somebody may have marked more of it in the meantime."""
        self._map([item for item in session.items if id(item) not in self._tests])
        self._mappings.add(
            self._tests.values(), selected=frozenset(map(id, session.items))
        )

    @hook
    def pytest_collectreport(self, report: Any) -> None:
        """A file that does not import may have the tests of any scenario."""
        if report.failed:
            self._broken[report.nodeid] = None
        if not report.passed:
            self._mappings.problems[uncollected(report)] = None

    @hook(tryfirst=True)
    def pytest_runtestloop(self) -> None:
        """Tests are to be run: it is no ``--fixtures`` or the like."""
        self._is_run = True
        self.instruments.expect()

    # One test.

    def begin(self, item: Any) -> None:
        """A test begins, and the arena has opened it.

        Raises:
            ScenarioError: its marker means no scenario. Nothing else of it runs.
        """
        mapped = self._tests.get(id(item))
        if mapped is None:
            return
        if mapped.errors:
            raise mapped.errors[0]
        names = frozenset(getattr(item, "fixturenames", ()))
        rows = frozenset(one.row for one in mapped.mappings)
        self.instruments.begin_test(mapped.scenarios, names, rows=rows)

    @hook(wrapper=True)
    def pytest_runtest_call(self, item: Any) -> Generator[None, object, object]:
        """Listen, while the test's own function runs."""
        try:
            is_ours = id(item) in self._tests and self.instruments.breaking is None
            with heard(self.instruments, item) if is_ours else nullcontext():
                result = yield
        except BaseException as error:
            if (forgotten := self._unawaited.take()) is not None:
                error.add_note(str(forgotten))
            raise
        if (forgotten := self._unawaited.take()) is not None:
            raise forgotten
        return result

    @hook(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: Any, call: Any
    ) -> Generator[None, Any, Any]:
        """Have the report tell of the try, once all others have had their say."""
        report = yield
        mapped = self._tests.get(id(item))
        if mapped is None or self.instruments.breaking is not None:
            return report
        if report.when == "setup":
            self._is_again = mapped.test in self._failed
        sent = failure_of(report, call.excinfo, item, self.instruments.mask)
        sent["again"] = self._is_again
        if report.failed:
            self._failed.add(mapped.test)
        if report.when == "teardown" and (facts := self.instruments.take()) is not None:
            # A worker's reports go to another process, and so do those of a fork.
            is_sent = (
                hasattr(self._config, "workerinput") or os.getpid() != self._process
            )
            sent["facts"] = plain_facts(facts) if is_sent else self._tries.keep(facts)
            report.user_properties.append(("arena_evidence", evidence_line(facts)))
        setattr(report, SENT, sent)
        return report

    @hook
    def pytest_runtest_logreport(self, report: Any) -> None:
        """A phase of a test is over, in this process or another."""
        self._tries.see(report)

    # The end.

    @hook(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker of pytest-xdist has ended; one that has died left nothing."""
        sent = (getattr(node, "workeroutput", None) or {}).get(_OUTPUT)
        if sent is not None:
            self._mappings.take_over(sent["found"])
            for test, values in sent["sabotaged"].items():
                self._tries.add_sabotages(
                    test, tuple(Sabotage(**one) for one in values)
                )

    @hook(trylast=True)
    def pytest_sessionfinish(self, session: Any) -> None:
        """Judge, write, and have a strict run fail; in a worker: hand on what was found."""
        self._unawaited.unwatch()
        if (output := getattr(self._config, "workeroutput", None)) is not None:
            sabotaged = {
                test: list(map(asdict, one))
                for test, one in self._tries.sabotaged.items()
            }
            output[_OUTPUT] = {"found": self._mappings.plain(), "sabotaged": sabotaged}
        elif self._is_run and session.exitstatus not in _BROKEN:
            self.document = self._judged(session)
            self._write(session)
            if self._fails:
                session.exitstatus = session.exitstatus or _FAILED

    @property
    def _fails(self) -> bool:
        is_strict = self._wanted.scenarios == "strict"
        return is_strict and self.document is not None and bool(self.document.gaps)

    def _judged(self, session: Any) -> Document:
        return judge(
            self._specification,
            self._mappings.all(),
            list(self._tries.all(self._mappings.names)),
            rules=self._rules,
            partial=what_is_left_out(session, self._mappings, sorted(self._broken)),
            problems=list(self._mappings.problems),
            is_sabotaged=self._wanted.scenarios_sabotage,
        )

    def _write(self, session: Any) -> None:
        assert self.document is not None, "it was judged"  # noqa: S101 - for the type checker
        try:
            self._lines = write(
                self._targets,
                self.document,
                root=self._wanted.root,
                folder=self._config.invocation_params.dir,
            )
        except ArenaError as error:
            self._lines = [f"ERROR: {error}"]
            session.exitstatus = session.exitstatus or _USAGE

    @hook
    def pytest_terminal_summary(self, terminalreporter: Any, config: Any) -> None:
        """The scenarios that are not proven, and how many there are."""
        if self.document is None:
            return
        verbosity = config.get_verbosity()
        if verbosity >= 0:
            terminalreporter.write_sep("=", "scenarios")
        strict = "--scenarios=strict" * (self._wanted.scenarios == "strict")
        specs = self._specs_to_name()
        told_lines = terminal.lines(
            self.document, verbosity=verbosity, strict=strict, specs=specs
        )
        annotations = []
        if os.environ.get("GITHUB_ACTIONS") == "true":
            root = self._wanted.root
            annotations = workflow_commands(
                self.document, root=root, is_strict=bool(strict)
            )
        for line in [*told_lines, *self._lines, *annotations]:
            terminalreporter.write_line(
                line, red=self._fails and line.startswith("scenarios: ")
            )

    def _specs_to_name(self) -> list[str]:
        """The specifications of this run alone: no command would find them in the configuration."""
        wanted, folder = self._wanted, self._config.invocation_params.dir
        with suppress(ConfigError):  # of this folder, which the run may have left out
            if read_project().specs == wanted.specs:
                return []
        return [
            reader.relative(wanted.root / pattern, folder) for pattern in wanted.specs
        ]


_BROKEN = (3, 4)  # pytest's internal error, and its usage error
