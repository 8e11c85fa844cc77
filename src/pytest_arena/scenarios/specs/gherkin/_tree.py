"""What does the official parser make of a text, and what does it find wrong?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gherkin.errors import CompositeParserException

from pytest_arena.scenarios.specs.gherkin._languages import Language, language
from pytest_arena.scenarios.specs.gherkin._quick import (
    LineScanner,
    MarkdownMatcher,
    PatientParser,
    QuickMatcher,
    QuickParser,
)
from pytest_arena.scenarios.specs.gherkin._words import Fault, in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gherkin.parser import Parser
    from gherkin.token_matcher import TokenMatcher

__all__ = ["Fault", "Node", "Tree", "grown"]

Node = dict[str, Any]
"""What the parser returns for a feature, a rule, a scenario, a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """What could be read of a text, and what could not."""

    feature: Node | None
    """None where there is none, or nothing of it could be read."""
    language: Language
    faults: tuple[Fault, ...]


def grown(
    text: str, *, first_line: int, language_code: str, is_markdown: bool = False, quick: bool = True
) -> Tree:
    """Return what the parser reads in a text; scenarios without an error are in it in any case.

    Args:
        text: the lines, ended by line feeds alone.
        first_line: the number of its first line in the file.
        language_code: the language, where the text names none; it has to exist.
        is_markdown: whether keywords are headings and bullets, as in ``*.feature.md``.
        quick: the same, as it comes from the library, for the tests to compare.
    """
    parser = QuickParser() if quick and not is_markdown else PatientParser()
    matcher = MarkdownMatcher(language_code) if is_markdown else QuickMatcher(language_code)
    errors = _parsed(parser, matcher, LineScanner(text, first_line))
    opened, feature = matcher.open_doc_string, _feature(parser)
    if (
        errors
        and feature is None
        and (ended := _ended(text, opened - first_line if opened else -1))
    ):
        # A text that ends too early is lost as a whole; with an end, its scenarios can be read.
        _parsed(parser, matcher, LineScanner(ended, first_line))
        feature = _feature(parser)
    spoken = _spoken(feature, matcher)
    place = _Place(text.split("\n"), first_line, spoken, opened)
    return Tree(feature=feature, language=spoken, faults=tuple(_faults(errors, place)))


def _parsed(parser: Parser, matcher: TokenMatcher, scanner: LineScanner) -> list[Exception]:
    try:
        parser.parse(scanner, matcher)
    except CompositeParserException as composite:
        return list(composite.errors)
    except Exception as error:  # noqa: BLE001 - a text that the library cannot bear is a fault of the text
        return [error]
    return []


def _feature(parser: Parser) -> Node | None:
    document: Any = parser.get_result()
    return document.get("feature") if isinstance(document, dict) else None


def _ended(text: str, opening: int) -> str:
    """The text with an end for its doc string, or without the tags that nothing follows."""
    lines = text.rstrip().split("\n")
    if opening >= 0:
        mark = re.match(r"\s*(`{3,}|\"{3})", lines[opening])
        return "\n".join([*lines, mark.group(1) if mark else '"""'])
    while lines and lines[-1].lstrip(" \t`")[:1] in {"@", "#", ""}:
        lines.pop()
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Place:
    lines: list[str]
    first_line: int
    language: Language
    open_doc_string: int

    def last_line(self) -> int:
        """The last line that says something."""
        told = [number for number, line in enumerate(self.lines) if line.strip()]
        return self.first_line + (told[-1] if told else 0)


def _spoken(feature: Node | None, matcher: QuickMatcher | MarkdownMatcher) -> Language:
    code = (feature or {}).get("language") or matcher.dialect_name
    found = language(code) or language("en")
    assert found is not None, "English is a language"  # noqa: S101 - for mypy
    return found


def _faults(errors: list[Exception], place: _Place) -> Iterator[Fault]:
    for error in errors:
        location = getattr(error, "location", None) or {}
        line = min(location.get("line") or place.last_line(), place.last_line())
        text = place.lines[line - place.first_line] if line >= place.first_line else ""
        yield in_words(
            str(error),
            line=line,
            text=text,
            language=place.language,
            open_doc_string=place.open_doc_string,
        )
