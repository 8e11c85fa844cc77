"""What was refused, and who was told of it."""

from __future__ import annotations

from pytest_arena._ledger import Ledger
from pytest_arena.errors import RefusedError


def error() -> RefusedError:
    """Return one as any other."""
    return RefusedError("refused", why="so", cause="test_it.py:1", fix="do not")


def test_an_error_that_is_gone_hides_none_that_comes_after_it() -> None:
    """What is created next stands at the same place in memory, and was told to nobody."""
    ledger = Ledger()
    ledger.begin("test_it")
    for _ in range(20):
        ledger.mark_reported(error())
        ledger.refused(error())
    assert len(ledger.unreported("test_it")) == 20


def test_who_was_told_is_told_once() -> None:
    """By the test that it failed."""
    ledger = Ledger()
    ledger.begin("test_it")
    told, other = ledger.refused(error()), ledger.refused(error())
    ledger.mark_reported(told)
    assert ledger.unreported("test_it") == [other]
