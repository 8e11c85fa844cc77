"""How do facts of other processes arrive?"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_arena._ledger import TestFacts
from pytest_arena._report import Summary

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_arena._ledger import Ledger

__all__ = ["FactsOfProcesses"]

_MISTAKE, _SUMMARY = "arena_mistake", "arena"  # in what a worker hands to pytest-xdist


class FactsOfProcesses:
    """The facts of this process, its forks and its workers; in a worker: the way to the controller.

    The facts of each test travel with its last report. A worker that dies has sent them by then,
    and a fork has no other way.
    """

    def __init__(self, config: Any, ledger: Ledger) -> None:
        self._config, self._ledger = config, ledger
        self._next = 0  # the first one that no report was given: a skipped test has no facts
        self._sent: set[int] = set()
        self.mistake = ""
        self.summary: Summary | None = None

    @property
    def _output(self) -> dict[str, Any] | None:
        """What pytest-xdist hands from a worker to the controller; None in any other process."""
        output: dict[str, Any] | None = getattr(self._config, "workeroutput", None)
        return output

    def attach(self, report: Any) -> None:
        """Have the facts of the test that was settled last travel with its report."""
        number = len(self._ledger.tests) - 1
        if report.when == "teardown" and number >= self._next:
            self._next = number + 1
            settled = self._ledger.tests[number]
            # Flat already: asdict() would copy each value, for 12 µs a test.
            facts = {name: getattr(settled, name) for name in TestFacts.__slots__}
            report.arena_facts = {"process": os.getpid(), "number": number, "facts": facts}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A test has ended, in this process or another."""
        sent = getattr(report, "arena_facts", None)
        if sent is None:
            return
        if sent["process"] == os.getpid():
            self._sent.add(sent["number"])
        else:
            self._ledger.tests.append(TestFacts(**sent["facts"]))

    def hands_on(self, mistake: str) -> bool:
        """Whether a mistake of configuration goes to a controller, which says it once for all."""
        if self._output is None:
            return False
        self._output[_MISTAKE] = mistake
        return True

    def end(self, summary: Summary) -> None:
        """This process has ended its tests: add its summary, or send it to the controller."""
        if self._output is not None:
            self._output[_SUMMARY] = replace(summary, tests=self._unsent()).as_dict()
        if self._config.pluginmanager.has_plugin("dsession"):  # a controller runs no test itself
            summary = replace(summary, unasked=self.summary.unasked if self.summary else ())
        self.summary = summary + self.summary if self.summary else summary

    def _unsent(self) -> tuple[TestFacts, ...]:
        """The facts that no report has carried: of attempts that were made again."""
        tests = enumerate(self._ledger.tests)
        return tuple(facts for number, facts in tests if number not in self._sent)

    def take_over(self, output: Mapping[str, Any]) -> None:
        """A worker has ended: add what it has handed on."""
        self.mistake = output.get(_MISTAKE, self.mistake)
        if (values := output.get(_SUMMARY)) is not None:
            summary = Summary.from_dict(values)
            self.summary = self.summary + summary if self.summary else summary
