"""Planted defects that the random histories must find."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Flaky

from pytest_arena._mysql._control import MySQLFailure
from pytest_arena._mysql.journal import _key_journal
from pytest_arena._mysql.journal._changed_tables import ChangedTables
from pytest_arena._mysql.journal._journal_levels import JournalLevel
from pytest_arena._mysql.journal._key_journal import KeyJournal
from pytest_arena._mysql.journal._restore_statements import JournaledTable
from pytest_arena._mysql.journal._row_triggers import row_triggers
from tests.mysql.journal.test_key_journal_random import HISTORIES, SCHEMA, run_history

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.mysql.journal.world import MySQLWorld

pytestmark = pytest.mark.slow

_restore = JournaledTable.restore
_record_cascaded = ChangedTables._record_cascaded


def _triggers(old: str, new: str = "") -> Any:
    """Write triggers with a replaced text, or without those that contain it."""

    def written(*arguments: Any) -> Iterator[str]:
        for statement in row_triggers(*arguments):
            if new or old not in statement:
                yield statement.replace(old, new)

    return written


def _delete_only(table: JournaledTable, base: str, *, is_whole: bool) -> tuple[str, ...]:
    delete, _ = _restore(table, base, is_whole=is_whole)
    return (delete,)


def _record_once(changed: ChangedTables, key: Any, bases: Any) -> bool:
    _record_cascaded(changed, key, bases)
    return False


def _note_no_tables(journal: KeyJournal, _level: Any) -> None:
    journal._known = journal._witness.read()


def _no_counters(*_: Any) -> list[Any]:
    return []


def _keep_copies(level: JournalLevel, names: Iterable[str]) -> list[str]:
    level.replaced.update(names)
    return []


def _nothing(*_: Any) -> None:
    pass


# What is replaced by what.
DEFECTS: dict[str, tuple[Any, str, Any]] = {
    "an insert has no entry": (_key_journal, "row_triggers", _triggers("AFTER INSERT ON")),
    "an update has no entry": (_key_journal, "row_triggers", _triggers("AFTER UPDATE ON")),
    "a delete has no entry": (_key_journal, "row_triggers", _triggers("AFTER DELETE ON")),
    "a new key has no entry": (
        _key_journal,
        "row_triggers",
        _triggers("IF NOT (", "IF FALSE AND ("),
    ),
    "the app's triggers fire": (_key_journal, "guard_app_triggers", _nothing),
    "cascades are not followed": (ChangedTables, "_follow_cascades", _nothing),
    "cascades are followed once": (ChangedTables, "_record_cascaded", _record_once),
    "counters stay": (KeyJournal, "_moved_counters", _no_counters),
    "TRUNCATE is not noticed": (KeyJournal, "_note_truncated", _note_no_tables),
    "old rows are not inserted": (JournaledTable, "restore", _delete_only),
    "copies are kept": (JournalLevel, "replace", _keep_copies),
}


@pytest.mark.slow
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_found(
    worlds: type[MySQLWorld], monkeypatch: pytest.MonkeyPatch, defect: str
) -> None:
    """One of some hundred histories fails."""
    monkeypatch.setattr(*DEFECTS[defect])
    world = worlds(*SCHEMA)

    @settings(
        max_examples=400,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(steps=HISTORIES)
    def search(steps: list[str | list[str]]) -> None:
        run_history(world, steps)

    # A defect leaves rows behind, so that Hypothesis cannot repeat its failure.
    with pytest.raises((AssertionError, MySQLFailure, Flaky)):
        search()
