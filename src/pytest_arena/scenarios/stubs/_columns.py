"""How does code say the values of an Outline's row, where the scenario has placeholders?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena.scenarios.stubs._layout import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["filled_in", "replacements"]


def filled_in(text: str, columns: Mapping[str, str]) -> str:
    """Return the code for ``text``; ``columns`` has the code for each column.

    >>> filled_in("<p> %", {"p": "p"})
    '"<p> %".replace("<p>", p)'
    """
    if text.startswith("<") and text.endswith(">") and text[1:-1] in columns:
        return columns[text[1:-1]]
    return quoted(text) + replacements(text, columns)


def replacements(text: str, columns: Mapping[str, str]) -> str:
    """Return the calls that put a row's values in place of the placeholders in ``text``."""
    return "".join(
        f".replace({quoted(f'<{column}>')}, {code})"
        for column, code in columns.items()
        if f"<{column}>" in text
    )
