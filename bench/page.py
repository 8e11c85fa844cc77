"""How does a measure become a page? Tables, and the place between two marks where they stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BEGIN", "END", "Table", "milliseconds", "replace_tables"]

BEGIN = "<!-- written by `make {}`, from here -->"
END = "<!-- to here -->"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the page."""

    title: str
    about: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """The table as it stands in the page."""
        lines = [self.header, tuple(["---"] + ["---:"] * (len(self.header) - 1)), *self.rows]
        body = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        return f"### {self.title}\n\n{self.about}\n\n{body}\n"


def milliseconds(seconds: float) -> str:
    """Return a time with three digits, in milliseconds: 0.012, 1.23 or 12.3."""
    return f"{seconds * 1e3:.{_digits(seconds)}f}"


def _digits(seconds: float) -> int:
    milliseconds = abs(seconds) * 1e3
    return 1 if milliseconds >= 10 else 2 if milliseconds >= 1 else 3  # noqa: PLR2004 - three digits


def replace_tables(page: Path, text: str, *, target: str = "bench") -> None:
    """Put the text between the marks of a make target; what stands around is written by hand."""
    mark = BEGIN.format(target)
    before, begin, rest = page.read_text(encoding="utf-8").partition(mark)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has not both marks: {mark} and {END}")
    page.write_text(f"{before}{mark}\n\n{text}\n{END}{after}", encoding="utf-8")
