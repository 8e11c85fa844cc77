"""``verified`` finds what an isolation forgets, has it put right, and tells of it once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_arena._databases._provision import Verified
from pytest_arena._ledger import Ledger
from pytest_arena._product import Held
from pytest_arena.errors import IsolationError

if TYPE_CHECKING:
    from pytest_arena._product import Isolation


class _Faulty:
    """An isolation of a dictionary, which may forget something."""

    name = "undo"
    generation = 3

    def __init__(self) -> None:
        self.state = {"table orders": "1 rows, x", "sequence orders_id_seq": "1, called"}
        self.levels: list[dict[str, str]] = []
        self.forgets: set[str] = set()
        self.forgets_by_force = False
        self.is_locked = False

    @property
    def depth(self) -> int:
        return len(self.levels)

    def enter(self) -> None:
        self.levels.append(dict(self.state))

    def restore(self) -> bool:
        if self.is_locked:
            raise Held("somebody is in a transaction")
        changed = self.state != self.levels[-1]
        self._restore(self.forgets)
        return changed

    def leave(self) -> bool:
        return self.levels.pop() != self.state

    def leave_by_force(self) -> None:
        self._restore(self.forgets if self.forgets_by_force else set())
        self.levels.pop()

    def _restore(self, forgotten: set[str]) -> None:
        kept = {name: self.state[name] for name in forgotten if name in self.state}
        self.state = {**self.levels[-1], **kept}

    def forget(self) -> None:
        self.levels.pop()

    def content(self) -> dict[str, str]:
        if self.is_locked:
            raise Held("a table is locked")
        return dict(self.state)

    def moment(self) -> str:
        return "now"


@pytest.fixture
def true() -> _Faulty:
    """The isolation below."""
    return _Faulty()


@pytest.fixture
def ledger() -> Ledger:
    """What is told."""
    return Ledger()


@pytest.fixture
def isolation(true: _Faulty, ledger: Ledger) -> Isolation:
    """It, looked over."""
    return Verified(true, "shop", ledger)  # type: ignore[arg-type]  # as far as it is needed here


def test_what_is_brought_back_is_no_news(
    isolation: Isolation, true: _Faulty, ledger: Ledger
) -> None:
    """At any depth; each level begins with what stands then."""
    isolation.enter()
    true.state["table orders"] = "2 rows, y"
    isolation.enter()
    true.state["table orders"] = "3 rows, z"
    assert isolation.leave() is True
    assert true.state["table orders"] == "2 rows, y"
    isolation.enter()
    isolation.forget()
    assert isolation.leave() is True
    assert ([*ledger.noted], ledger.verified) == ([], 5)


def test_a_difference_is_named_when_the_level_was_left_by_force(
    isolation: Isolation, true: _Faulty
) -> None:
    """The level is there until then, and everything is as it should be after it."""
    isolation.enter()
    true.state |= {"table orders": "2 rows, y", "table notes": "1 rows, a"}
    true.forgets = {"table notes", "table orders"}
    with pytest.raises(IsolationError) as raised:
        isolation.leave()
    assert len(true.levels) == 1
    with pytest.raises(IsolationError) as told:
        isolation.leave_by_force()
    assert told.value is raised.value
    assert "table notes (is new), table orders (2 rows, and had 1 rows)" in str(told.value)
    assert not true.levels
    isolation.enter()
    assert isolation.leave() is False


def test_what_force_leaves_is_told_as_well(isolation: Isolation, true: _Faulty) -> None:
    """Nothing can put it right any more."""
    isolation.enter()
    true.state["sequence orders_id_seq"] = "7, called"
    true.forgets, true.forgets_by_force = {"sequence orders_id_seq"}, True
    with pytest.raises(IsolationError):
        isolation.leave()
    with pytest.raises(IsolationError, match="sequence orders_id_seq"):
        isolation.leave_by_force()


def test_what_cannot_be_read_is_noted(isolation: Isolation, true: _Faulty, ledger: Ledger) -> None:
    """And nothing is said to be different."""
    true.is_locked = True
    isolation.enter()
    true.is_locked = False
    true.state["table orders"] = "2 rows, y"
    isolation.leave()
    assert [*ledger.noted] == [("shop: not every level was verified: a table is locked", "")]
