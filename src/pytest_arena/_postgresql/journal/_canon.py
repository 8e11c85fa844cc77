"""Under which settings is a row written down, so that equal rows are equal texts?

Two sessions of an app may show dates and numbers in two ways. What a trigger writes must not
depend on it: where the session's settings would change the text, they are set for the moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_arena._postgresql.journal._tables import JournalTable, Setting

__all__ = ["OURS", "are_set", "needed", "restored", "saved", "set_all"]

# Set where it is we who write: triggers do nothing, and no schema was "changed".
OURS = "pg_catalog.current_setting('arena.undo', true) OPERATOR(pg_catalog.=) '1'"


def needed(canon: Sequence[Setting], table: JournalTable) -> list[Setting]:
    """Return those that the text of this table's rows depends on."""
    if not any(column.varies for column in table.columns):
        return []
    has_names = any(column.has_names for column in table.columns)
    return [one for one in canon if has_names or not one.is_of_names]


def are_set(settings: Sequence[Setting]) -> str:
    """Write the condition that the session has them."""
    return " AND ".join(map(_is_set, settings))


def _is_set(setting: Setting) -> str:
    found = f"pg_catalog.current_setting({literal(setting.name)})"
    values = {setting.value, *setting.same}
    if len(values) == 1:
        return f"{found} OPERATOR(pg_catalog.=) {literal(setting.value)}"
    same = ", ".join(map(literal, sorted(values)))
    return f"{found} OPERATOR(pg_catalog.=) ANY (ARRAY[{same}])"


def saved(settings: Sequence[Setting]) -> str:
    """Write an array of what the session has."""
    found = (f"pg_catalog.current_setting({literal(one.name)})" for one in settings)
    return f"ARRAY[{', '.join(found)}]"


def set_all(settings: Sequence[Setting]) -> str:
    """Write the calls that set them, until the transaction's end at the latest."""
    return ", ".join(_set(one, literal(one.value)) for one in settings)


def restored(settings: Sequence[Setting], array: str) -> str:
    """Write the calls that give the session back what was saved."""
    return ", ".join(_set(one, f"{array}[{at}]") for at, one in enumerate(settings, 1))


def _set(setting: Setting, value: str) -> str:
    return f"pg_catalog.set_config({literal(setting.name)}, {value}, true)"
