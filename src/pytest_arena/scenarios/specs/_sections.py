"""What stands above a fence in a Markdown file, and which business rule does it name?"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_arena.scenarios.specs._requirements import requirement_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from markdown_it.token import Token

__all__ = ["Section", "sectioned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Where a fence stands."""

    heading: str = ""
    requirement: str = ""


@dataclass(slots=True)
class _Open:
    level: int
    heading: str
    requirement: str


@dataclass(slots=True)
class _Outline:
    sections: list[_Open] = field(default_factory=lambda: [_Open(0, "", "")])

    def begin(self, level: int, heading: str) -> None:
        while len(self.sections) > 1 and self.sections[-1].level >= level:
            self.sections.pop()
        self.sections.append(_Open(level, heading, requirement_in(heading)))

    def name(self, text: str) -> None:
        if requirement := requirement_in(text):
            self.sections[-1].requirement = requirement

    def here(self) -> Section:
        named = (one.requirement for one in reversed(self.sections) if one.requirement)
        return Section(heading=self.sections[-1].heading, requirement=next(named, ""))


def sectioned(tokens: Sequence[Token]) -> Iterator[tuple[Token, Section]]:
    """Yield each block of code with its section.

    The rule is the one that is named last above it, in a quote, a bold line or the heading of its
    section; else in the sections around it.
    """
    outline, quotes = _Outline(), 0
    for place, token in enumerate(tokens):
        match token.type:
            case "heading_open":
                outline.begin(int(token.tag[1:]), _plain(tokens[place + 1].content))
            case "blockquote_open":
                quotes += 1
            case "blockquote_close":
                quotes -= 1
            case "paragraph_open":
                text = tokens[place + 1].content
                if quotes or (token.level == 0 and text.startswith(("**", "__"))):
                    outline.name(text)
            case "fence" | "code_block":
                yield token, outline.here()


def _plain(heading: str) -> str:
    return re.sub(r"[*`]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip()
