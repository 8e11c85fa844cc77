"""What has the collection of all processes found of the scenarios' tests?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_arena.scenarios.evidence import Mapping, from_shape, to_shape
from pytest_arena.scenarios.specs import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_arena.scenarios._mapped import Mapped

__all__ = ["Found"]


class Found:
    """Mappings, wrong markers and the names of tests.

    Every worker collects all of them: what one tells is told by the others too.
    """

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        """Node ids as reports have them, which plugins may have changed, and those of mappings."""
        self.collectors = 0
        """How many processes have told of their collection."""
        self._mappings: dict[Mapping, bool] = {}  # whether it is deselected, in all of them
        self._problems: dict[Problem, None] = {}

    @property
    def mappings(self) -> list[Mapping]:
        """Those of all processes."""
        return [replace(one, is_deselected=gone) for one, gone in self._mappings.items()]

    @property
    def problems(self) -> list[Problem]:
        """Markers that mean nothing, files whose tests nobody knows."""
        return list(self._problems)

    def add_problem(self, problem: Problem) -> None:
        """This process has come upon something."""
        self._problems[problem] = None

    def add(self, tests: Iterable[Mapped], *, selected: frozenset[int]) -> None:
        """This process has collected these, and will run those with such an identity."""
        self.collectors += 1
        for test in tests:
            self.names[test.item.nodeid] = test.test
            self._problems |= dict.fromkeys(test.orphans)
            self._add(test.mappings, is_deselected=id(test.item) not in selected)

    def _add(self, mappings: Iterable[Mapping], *, is_deselected: bool) -> None:
        for one in mappings:
            self._mappings[one] = self._mappings.get(one, True) and is_deselected

    def plain(self) -> dict[str, Any]:
        """Return it as plain values, to be sent to another process."""
        return {
            "names": self.names,
            "mappings": [to_shape(one) for one in self.mappings],
            "problems": [to_shape(one) for one in self._problems],
        }

    def take_over(self, sent: dict[str, Any]) -> None:
        """Add what another process has found."""
        self.collectors += 1
        self.names |= sent["names"]
        self._problems |= {Problem(**one): None for one in sent["problems"]}
        for values in sent["mappings"]:
            one = from_shape(Mapping, values)
            self._add([replace(one, is_deselected=False)], is_deselected=one.is_deselected)
