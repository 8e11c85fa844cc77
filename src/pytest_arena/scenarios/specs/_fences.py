"""Which pieces of a Markdown file are Gherkin, and which ones should have been?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

from pytest_arena.scenarios.specs._blocks import Block
from pytest_arena.scenarios.specs._near import edits, near_title
from pytest_arena.scenarios.specs._sections import sectioned
from pytest_arena.scenarios.specs._values import Problem
from pytest_arena.scenarios.specs.gherkin import Language, language, languages, nearest_language

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from markdown_it.token import Token

    from pytest_arena.scenarios.specs._sections import Section

__all__ = ["Fences", "fences"]

# ```gherkin, ~~~ Gherkin title="x", ``` {.gherkin #id}
_INFO = r"[\s{.]*(?:gherkin|feature|cucumber)(?![\w-])"
_GHERKIN = re.compile(_INFO, re.IGNORECASE)
_MARKED = re.compile(rf"(?:```|~~~){_INFO}", re.IGNORECASE)
_OPENING = re.compile(rf"^[\s>]*(`{{3,}}|~{{3,}}){_INFO}", re.IGNORECASE)
_LANGUAGE = re.compile(r"^[ \t]*#[ \t]*language[ \t]*:[ \t]*([a-zA-Z\-_]+)[ \t]*$", re.MULTILINE)
_SHOWN = 5
_LIST_MARKS = " \t-*+_>#`"


@dataclass(frozen=True, slots=True)
class Fences:
    """What a Markdown file has."""

    blocks: tuple[Block, ...] = ()
    problems: tuple[Problem, ...] = ()


def fences(text: str, spec: str, language_code: str) -> Fences:
    """Return the Gherkin of a Markdown file, and what looks like it and is not read.

    A file without either is not looked at any further: it costs a search for a few words.
    """
    suspects = _suspects(text)
    if not suspects and not _MARKED.search(text):
        return Fences()
    page = _Page(spec=spec, lines=_without_front_matter(text).split("\n"), code=language_code)
    tokens = _markdown().parse("\n".join(page.lines))
    blocks: list[Block] = []
    problems: list[Problem] = []
    read: set[int] = set()
    for token, section in sectioned(tokens):
        problems += page.misread(token)
        if _is_gherkin(token):
            blocks.append(page.block(token, section))
        if not _may_be_gherkin(token):
            read.update(_span(token))
    for token in (one for one in tokens if one.type == "html_block"):
        problems += page.within_html(token)
        read.update(_span(token))
    problems += page.unread([line for line in suspects if line not in read])
    return Fences(tuple(blocks), tuple(sorted(problems, key=lambda one: one.line)))


@cache
def _markdown() -> MarkdownIt:
    # What stands within a paragraph is nobody's business here, and takes most of the time.
    return MarkdownIt("commonmark").disable("inline")


def _without_front_matter(text: str) -> str:
    """Markdown would take the last line of it for a heading."""
    if not text.startswith("---\n") or (end := text.find("\n---\n", 3)) < 0:
        return text
    matter = text[: end + 5]
    return "\n" * matter.count("\n") + text[end + 5 :]


def _span(token: Token) -> range:
    """The lines of a token, from 0, with those that are its marks."""
    return range(*(token.map or (0, 0)))


def _is_gherkin(token: Token) -> bool:
    return token.type == "fence" and bool(_GHERKIN.match(token.info))


def _may_be_gherkin(token: Token) -> bool:
    """Whether scenarios in it are there by mistake: it does not say what else it is."""
    words = token.info.split()
    if token.type == "code_block" or not words:
        return True
    return not _is_gherkin(token) and edits(words[0].strip("{.,}").casefold(), "gherkin") <= 2  # noqa: PLR2004 - two letters


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    spec: str
    lines: list[str]
    code: str

    def block(self, token: Token, section: Section) -> Block:
        """A fence's text; where it has no ``Feature:``, one stands in the line of its mark."""
        opening = _span(token).start
        spoken = _language_of(token.content, self.code)
        is_titled = _is_titled(token.content, spoken)
        # Joined: a heading that is underlined may have several lines.
        title = " ".join((section.heading or PurePosixPath(self.spec).stem).split())
        above = "" if is_titled else f"{spoken.title('feature')} {title}\n"
        return Block(
            spec=self.spec,
            text=above + token.content,
            first_line=opening + 2 - (not is_titled),
            language=self.code if is_titled else spoken.code,
            requirement=section.requirement,
            is_untitled=not is_titled,
        )

    def misread(self, token: Token) -> Iterator[Problem]:
        """Yield what is wrong with the marks of a fence."""
        if token.type != "fence":
            return
        span, inside = _span(token), self._swallowed(token)
        if not self._is_closed(token) and (_is_gherkin(token) or inside):
            yield self._said(
                span.start,
                "the fence that begins here is never closed: all that follows is in it",
                f"end it with a line {token.markup}",
            )
        elif inside:
            yield self._said(
                inside,
                f"the fence opened in line {span.start + 1} is still open here: "
                "this Gherkin is read as a part of it",
                f"close that one with a line {token.markup}",
            )
        elif _is_gherkin(token):
            yield from self._cut_short(token)
            yield from self._strange_language(token)

    def within_html(self, token: Token) -> Iterator[Problem]:
        """Yield a fence right below a tag: all is HTML there, up to a blank line."""
        if token.content.lstrip().startswith("<!--"):
            return
        for place in _span(token):
            if _OPENING.match(self.lines[place]):
                yield self._said(
                    place,
                    "this fence is read as HTML, as is all from the tag above to a blank line",
                    "put a blank line before it",
                )

    def _is_closed(self, token: Token) -> bool:
        last = self.lines[_span(token).stop - 1].lstrip(" >\t").rstrip()
        return len(_span(token)) > 1 and last.startswith(token.markup) and not last.strip(last[0])

    def _swallowed(self, token: Token) -> int:
        """The line of a Gherkin fence within one that could not have been meant to hold it."""
        for place in _span(token)[1:]:
            mark = _OPENING.match(self.lines[place])
            if mark and mark.group(1).startswith(token.markup):
                return place
        return 0

    def _cut_short(self, token: Token) -> Iterator[Problem]:
        """A doc string's ``` closes the fence, and the rest of the scenario is prose."""
        span = _span(token)
        below = list(takewhile(str.strip, self.lines[span.stop :]))
        opened, closed = self.lines[span.start], self.lines[span.stop - 1]
        is_deeper = closed.find(token.markup) > opened.find(token.markup)
        spoken = (_language_of(token.content, self.code),)
        if below and (is_deeper or any(_is_step(line, spoken) for line in below)):
            yield self._said(
                span.stop - 1,
                f"this {token.markup} closes the fence: what follows is no Gherkin any more",
                'mark a doc string with """, or the fence with more of its marks',
            )

    def _strange_language(self, token: Token) -> Iterator[Problem]:
        """A comment that names no language, where the parser never comes to see it."""
        spoken = _language_of(token.content, self.code)
        named = _LANGUAGE.search(token.content)
        if named and language(named.group(1)) is None and not _is_titled(token.content, spoken):
            yield self._said(
                _span(token).start + 1 + token.content.count("\n", 0, named.start(1)),
                f"{named.group(1)!r} is no language that Gherkin knows",
                f"did you mean `# language: {spoken.code}`?",
            )

    def unread(self, suspects: Sequence[int]) -> Iterator[Problem]:
        """Yield what looks like a scenario and was not parsed as one."""
        shown = suspects if len(suspects) <= _SHOWN else suspects[:1]
        for place in shown:
            more = f"; so do {len(suspects) - 1} more in this file" * (len(shown) < len(suspects))
            yield self._said(
                place,
                f"{self.lines[place].strip()!r} looks like a scenario, but stands in no fence "
                f"that is marked as gherkin{more}",
                "write ```gherkin before it, ```text if it is none",
            )

    def _said(self, place: int, what: str, hint: str) -> Problem:
        return Problem(spec=self.spec, line=place + 1, what=what, hint=hint)


def _language_of(text: str, code: str) -> Language:
    """The language that a comment above the first other line names, else the usual one."""
    for line in text.split("\n"):
        if named := _LANGUAGE.match(line):
            return language(named.group(1)) or _known(nearest_language(named.group(1)))
        if line.strip() and not line.lstrip().startswith(("#", "@")):
            break
    return _known(code)


def _known(code: str) -> Language:
    found = language(code) or language("en")
    assert found is not None, "English is a language"  # noqa: S101 - for mypy
    return found


def _is_titled(text: str, spoken: Language) -> bool:
    for line in text.split("\n"):
        if line.strip() and not line.lstrip().startswith(("#", "@")):
            near = near_title(line, spoken)
            return near is not None and near.title == "feature"
    return True


def _suspects(text: str) -> list[int]:
    """The lines, from 0, that look like a scenario's heading with a step below it."""
    lines = text.split("\n")
    return [
        place
        for place, line in enumerate(lines)
        if ":" in line
        and (spoken := _headings().get(line.partition(":")[0].strip(_LIST_MARKS).casefold()))
        and _has_steps(lines, place, spoken)
    ]


@cache
def _headings() -> dict[str, tuple[Language, ...]]:
    """The languages in which a word begins a scenario, in small letters."""
    found: dict[str, tuple[Language, ...]] = {}
    for one in languages():
        for word in (*one.words["scenario"], *one.words["scenarioOutline"]):
            found[word.casefold()] = (*found.get(word.casefold(), ()), one)
    return found


def _has_steps(lines: list[str], place: int, spoken: tuple[Language, ...]) -> bool:
    """Whether steps stand right below. `Example: …` needs two: prose may begin with When."""
    word = lines[place].partition(":")[0].strip(_LIST_MARKS).casefold()
    names = [one.words["scenario"] for one in spoken]
    # Of Example and Scenario, in whatever language, it is the first.
    is_usual = any(len(one) == 1 or word != one[0].casefold() for one in names)
    below = [line for line in lines[place + 1 : place + 4] if line.strip()]
    is_begun = bool(below) and _is_step(below[0], spoken)
    return is_begun and (is_usual or any(_is_step(one, spoken, "and") for one in below[1:2]))


def _is_step(line: str, spoken: tuple[Language, ...], *more: str) -> bool:
    body = line.lstrip(_LIST_MARKS)
    return any(
        body.startswith((word, f"{word.strip()}*", word.upper(), f"{word.strip().upper()}*"))
        for one in spoken
        for name in ("given", "when", "then", *more)
        for word in one.words[name]
        if word != "* "
    )
