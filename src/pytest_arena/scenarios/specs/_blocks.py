"""What is handed to the parser: a piece of a file that is Gherkin."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Block"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A whole ``.feature`` file, a whole ``.feature.md``, or one fence of another Markdown file."""

    spec: str
    text: str
    first_line: int = 1
    """Its first line's number in the file."""
    language: str = "en"
    """Where the text names none."""
    requirement: str = ""
    """The id of the business rule that it stands under."""
    is_markdown: bool = False
    """Whether keywords are headings and bullets."""
    is_untitled: bool = False
    """Whether its line ``Feature:`` is ours, from the heading above it."""
    lines: Sequence[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lines", self.text.split("\n"))

    def line(self, number: int) -> str:
        """Return the line of this number in the file; empty if it is not of this block."""
        place = number - self.first_line
        return self.lines[place] if 0 <= place < len(self.lines) else ""

    @property
    def last_line(self) -> int:
        """The number of its last line that says something."""
        places = range(len(self.lines) - 1, -1, -1)
        return self.first_line + next((one for one in places if self.lines[one].strip()), 0)
