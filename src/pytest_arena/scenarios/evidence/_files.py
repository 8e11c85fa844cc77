"""What can be wrong with a file that people edit and merge?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_arena.errors import ScenarioError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["failed_to_read", "refuse_conflicts", "text_of"]

_MARK = re.compile(r"(<{7}|={7}|>{7}|\|{7})(\s.*)?")


def text_of(path: Path) -> str | None:
    """Return the text of a file, None where there is none.

    Raises:
        ScenarioError: it is there, and cannot be read as text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise failed_to_read(
            f"{path.name} cannot be read", str(error), "a text in UTF-8"
        ) from error


def refuse_conflicts(text: str, name: str) -> None:
    """Look for what git leaves where it could not merge.

    Raises:
        ScenarioError: a mark of a conflict is there, with its line.
    """
    for number, line in enumerate(text.splitlines(), 1):
        if _MARK.fullmatch(line):
            raise ScenarioError(
                f"{name} has the marks of a merge conflict",
                why="which of the two sides holds is not for arena to say",
                cause=f"{name}:{number}  {line}",
                fix="keep the lines of both sides, one for each scenario, and delete the marks; "
                "`arena scenarios accept KEY` writes the line of a scenario anew",
            )


def failed_to_read(what: str, cause: str, expected: str) -> ScenarioError:
    """Return the error for a file, or a line, that is not what it should be."""
    why = "without it nobody can say what was agreed on before"
    return ScenarioError(what, why=why, cause=cause, fix=f"expected: {expected}")
