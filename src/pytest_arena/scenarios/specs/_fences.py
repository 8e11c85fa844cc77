"""Which pieces of a Markdown file are Gherkin, and which ones should have been?"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from itertools import takewhile
from pathlib import PurePosixPath
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from pytest_arena.scenarios.specs._features import requirement_in
from pytest_arena.scenarios.specs._gherkin import Language, language, languages, nearest
from pytest_arena.scenarios.specs._specification import GherkinText, Problem

# ```gherkin, ~~~ Gherkin title="x", ``` {.gherkin #id}
_INFO = r"[\s{.]*(?:gherkin|feature|cucumber)(?![\w-])"
_GHERKIN = re.compile(_INFO, re.IGNORECASE)
_MARKED = re.compile(rf"(?:```|~~~){_INFO}", re.IGNORECASE)
_FRONT_MATTER = re.compile(r"---[ \t]*\n.*?\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_OPENING = re.compile(rf"^[\s>]*(`{{3,}}|~{{3,}}){_INFO}", re.IGNORECASE)
_LANGUAGE = re.compile(
    r"^[ \t]*#[ \t]*language[ \t]*:[ \t]*([a-zA-Z\-_]+)[ \t]*$", re.MULTILINE
)
_SHOWN = 5
_LIST_MARKS = " \t-*+_>#`"


def fences(text: str, spec: str) -> tuple[list[GherkinText], list[Problem]]:
    """Return the Gherkin of a Markdown file, and what looks like it and is not read.

    A file without either is not looked at any further: it costs a search for a few words.

    Args:
        text: the file's lines, ended by line feeds alone.
        spec: its path.
    """
    suspects = _suspects(text)
    if not suspects and not _MARKED.search(text):
        return [], []
    page = _Page(spec=spec, lines=without_front_matter(text).split("\n"))
    # What stands within a paragraph is nobody's business here, and takes most of the time.
    tokens = MarkdownIt("commonmark").disable("inline").parse("\n".join(page.lines))
    problems = [problem for token in tokens for problem in page.misread(token)]
    foreign = {
        place for token in tokens if _is_foreign(token) for place in _span(token)
    }
    problems += page.unread([place for place in suspects if place not in foreign])
    blocks = [page.block(*fence) for fence in _sectioned(tokens)]
    return blocks, sorted(problems, key=lambda problem: problem.line)


def without_front_matter(text: str) -> str:
    """Return it with the lines of its front matter empty: all others keep their numbers.

    Markdown would take the last line of it for a heading.
    """
    front = _FRONT_MATTER.match(text)
    return "\n" * front[0].count("\n") + text[front.end() :] if front else text


def _span(token: Token) -> range:
    """The lines of a token, from 0, with those that are its marks."""
    return range(*(token.map or (0, 0)))


def is_gherkin(token: Token) -> bool:
    """Whether it is a fence that is marked as Gherkin."""
    return token.type == "fence" and bool(_GHERKIN.match(token.info))


def _is_foreign(token: Token) -> bool:
    """Whether it says that it is something else than scenarios, or has been read."""
    name = (token.info.split() or [""])[0].strip("{.,}").casefold()
    is_named = bool(name) and not get_close_matches(name, ["gherkin"])
    is_other = token.type == "fence" and (is_named or is_gherkin(token))
    return token.type == "html_block" or is_other


def _sectioned(tokens: Sequence[Token]) -> Iterator[tuple[Token, str, str]]:
    """Yield each fence of Gherkin with the heading above it, and its business rule.

    The rule is the one that is named last above it, in a quote, a bold line or the heading of its
    section; else in the sections around it.
    """
    sections: list[tuple[int, str, str]] = [(0, "", "")]  # level, heading, rule
    quotes = 0
    for token, inside in zip(tokens, (*tokens[1:], None), strict=True):
        text = inside.content if inside else ""
        quotes += token.type == "blockquote_open"
        quotes -= token.type == "blockquote_close"
        if token.type == "heading_open":
            level = int(token.tag[1:])
            heading = re.sub(r"[*`]|\[([^\]]*)\]\([^)]*\)", r"\1", text).strip()
            sections = [section for section in sections if section[0] < level]
            sections.append((level, heading, requirement_in(heading)))
        elif token.type == "paragraph_open":
            is_bold = token.level == 0 and text.startswith(("**", "__"))
            if (quotes or is_bold) and (rule := requirement_in(text)):
                sections[-1] = (*sections[-1][:2], rule)
        elif is_gherkin(token):
            rules = (rule for _, _, rule in reversed(sections) if rule)
            yield token, sections[-1][1], next(rules, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    spec: str
    lines: list[str]

    def block(self, token: Token, heading: str, requirement: str) -> GherkinText:
        """A fence's text; where it has no ``Feature:``, one stands in the line of its mark."""
        spoken = language_of(token.content)
        is_titled = _is_titled(token.content, spoken)
        # Joined: a heading that is underlined may have several lines.
        title = " ".join((heading or PurePosixPath(self.spec).stem).split())
        above = "" if is_titled else f"{spoken.title('feature')} {title}\n"
        return GherkinText(
            spec=self.spec,
            text=above + token.content,
            first_line=_span(token).start + 2 - (not is_titled),
            language="en" if is_titled else spoken.code,
            requirement=requirement,
            is_untitled=not is_titled,
        )

    def misread(self, token: Token) -> Iterator[Problem]:
        """Yield what is wrong with the marks of a fence."""
        span = _span(token)
        if token.type == "html_block" and not token.content.lstrip().startswith("<!--"):
            for place in (place for place in span if _OPENING.match(self.lines[place])):
                yield self._problem(
                    place,
                    "this fence is read as HTML, as is all from the tag above to a blank line",
                    "put a blank line before it",
                )
        if token.type != "fence":
            return
        last = self.lines[span.stop - 1].lstrip(" >\t").rstrip()
        is_closed = (
            len(span) > 1 and last.startswith(token.markup) and not last.strip(last[0])
        )
        inside = self._swallowed(token)
        if not is_closed and (is_gherkin(token) or inside):
            yield self._problem(
                span.start,
                "the fence that begins here is never closed: all that follows is in it",
                f"end it with a line {token.markup}",
            )
        elif inside:
            yield self._problem(
                inside,
                f"the fence opened in line {span.start + 1} is still open here: "
                "this Gherkin is read as a part of it",
                f"close that one with a line {token.markup}",
            )
        elif is_gherkin(token):
            yield from self._misread_gherkin(token)

    def _swallowed(self, token: Token) -> int:
        """The line of a Gherkin fence within one that could not have been meant to hold it."""
        marks = (
            (place, _OPENING.match(self.lines[place])) for place in _span(token)[1:]
        )
        return next(
            (at for at, mark in marks if mark and mark[1].startswith(token.markup)), 0
        )

    def _misread_gherkin(self, token: Token) -> Iterator[Problem]:
        span, spoken = _span(token), language_of(token.content)
        # A doc string's ``` closes the fence, and the rest of the scenario is prose.
        below = list(takewhile(str.strip, self.lines[span.stop :]))
        opened, closed = self.lines[span.start], self.lines[span.stop - 1]
        is_deeper = closed.find(token.markup) > opened.find(token.markup)
        if below and (is_deeper or any(_is_step(line, (spoken,)) for line in below)):
            yield self._problem(
                span.stop - 1,
                f"this {token.markup} closes the fence: what follows is no Gherkin any more",
                'mark a doc string with """, or the fence with more of its marks',
            )
        # Where the line `Feature:` is ours, the parser never comes to see this comment.
        named = _LANGUAGE.search(token.content)
        if (
            named
            and language(named[1]) is None
            and not _is_titled(token.content, spoken)
        ):
            yield self._problem(
                span.start + 1 + token.content.count("\n", 0, named.start(1)),
                f"{named[1]!r} is no language that Gherkin knows",
                f"did you mean `# language: {spoken.code}`?",
            )

    def unread(self, suspects: Sequence[int]) -> Iterator[Problem]:
        """Yield what looks like a scenario and was not parsed as one."""
        shown = suspects if len(suspects) <= _SHOWN else suspects[:1]
        for place in shown:
            more = f"; so do {len(suspects) - 1} more in this file" * (
                len(shown) < len(suspects)
            )
            yield self._problem(
                place,
                f"{self.lines[place].strip()!r} looks like a scenario, but stands in no fence "
                f"that is marked as gherkin{more}",
                "write ```gherkin before it, ```text if it is none",
            )

    def _problem(self, place: int, what: str, hint: str) -> Problem:
        return Problem(spec=self.spec, line=place + 1, what=what, hint=hint)


def _first_line(text: str) -> str:
    """The first line that is neither blank, nor a comment, nor a tag."""
    lines = (line for line in text.split("\n") if line.strip())
    return next(
        (line for line in lines if not line.lstrip().startswith(("#", "@"))), ""
    )


def language_of(text: str) -> Language:
    """Return the language that a comment above the first other line names, else English."""
    named = _LANGUAGE.search(text.partition(_first_line(text) or "\0")[0])
    codes = [named[1], nearest(named[1])] if named else []
    return next(known for code in (*codes, "en") if (known := language(code)))


def _is_titled(text: str, spoken: Language) -> bool:
    line = _first_line(text)
    slip = spoken.title_slip(line)
    return not line or (slip is not None and slip.title == "feature")


def _suspects(text: str) -> list[int]:
    """The lines, from 0, that look like a scenario's heading with a step below it."""
    lines = text.split("\n")
    return [
        place
        for place, line in enumerate(lines)
        if ":" in line
        and (word := line.partition(":")[0].strip(_LIST_MARKS).casefold())
        in _headings()
        and _has_steps(lines[place + 1 : place + 4], word)
    ]


@cache
def _headings() -> dict[str, tuple[Language, ...]]:
    """The languages in which a word begins a scenario, in small letters."""
    headings: dict[str, tuple[Language, ...]] = {}
    for known in languages():
        for word in (*known.words["scenario"], *known.words["scenarioOutline"]):
            headings[word.casefold()] = (*headings.get(word.casefold(), ()), known)
    return headings


def _has_steps(below: list[str], word: str) -> bool:
    """Whether steps stand right below. `Example: …` needs two: prose may begin with When."""
    spoken = _headings()[word]
    names = [known.words["scenario"] for known in spoken]
    # Of Example and Scenario, in whatever language, it is the first.
    is_usual = any(len(words) == 1 or word != words[0].casefold() for words in names)
    lines = [line for line in below if line.strip()]
    is_begun = bool(lines) and _is_step(lines[0], spoken)
    return is_begun and (
        is_usual or any(_is_step(line, spoken, is_and=True) for line in lines[1:2])
    )


def _is_step(line: str, spoken: Sequence[Language], *, is_and: bool = False) -> bool:
    """Whether a line begins with Given, When or Then; a small one may begin a line of prose."""
    slips = [(known, known.step_slip(line)) for known in spoken]
    return not line.strip(_LIST_MARKS)[:1].islower() and any(
        slip and slip.kind != "letters" and (is_and or known.steps[slip.keyword])
        for known, slip in slips
    )


# Of ``*.feature.md``, where keywords are headings and bullets.
_HEADING = re.compile(r"^\s*#{1,6}\s+(.*)")
_BULLET = re.compile(r"^\s*[*+-]\s+(.*)")
_RULER = re.compile(r"^[\s|:-]+$")
_FENCE = re.compile(r'^\s*(`{3,}|~{3,}|""")')


def headings_and_bullets(text: str, spec: str) -> GherkinText:
    """Return a ``*.feature.md`` as one block.

    The parser takes the first line of all for the feature, whatever it says: what stands before
    the first heading is left out, apart from tags.
    """
    lines = text.split("\n")
    first = next((place for place, line in enumerate(lines) if _HEADING.match(line)), 0)
    tags = (
        place
        for place, line in enumerate(lines[:first])
        if line.strip().startswith("`@")
    )
    begin = next(tags, first)
    block = "\n".join(lines[begin:])
    return GherkinText(spec=spec, text=block, first_line=begin + 1, is_markdown=True)


def tagged_headings(block: GherkinText, spoken: Language) -> Iterator[Problem]:
    """Yield the headings that are lost since a line with a tag is nothing but tags."""
    for number, line in enumerate(block.lines, block.first_line):
        heading = _HEADING.match(line)
        if heading and "`@" in line and spoken.title_slip(heading[1]):
            what = (
                f"{line.strip()!r} is read as a line of tags, and its heading is lost"
            )
            hint = "put tags in a line of their own, above it"
            yield block.problem(number, what, hint)


def unread_marks(
    block: GherkinText, spoken: Language, document: Any
) -> Iterator[Problem]:
    """Yield the headings, bullets and rows that were meant as Gherkin and are not read as it."""
    marks = _Marks(spoken, dict(_read(document, "")))
    for number, line in enumerate(block.lines, block.first_line):
        if fault := marks.fault(number, line):
            what, hint, is_error = fault
            yield block.problem(number, what, hint, is_error=is_error)


def _read(node: Any, kind: str) -> Iterator[tuple[int, str]]:
    """The lines of all nodes of the parser's document, each with what it is read as."""
    for name, value in node.items() if isinstance(node, dict) else ():
        if name == "location":
            yield value["line"], kind
        for item in value if isinstance(value, list) else [value]:
            yield from _read(item, name)


@dataclass(slots=True)
class _Marks:
    """Goes through the lines, and knows what they stand in."""

    spoken: Language
    read: dict[int, str]
    fence: str = ""
    above: str = ""
    """What the heading or the bullet above is read as."""
    is_prose: bool = False
    """Whether the lines before this one, since the heading, end in prose."""
    is_in_scenario: bool = False

    def fault(self, number: int, line: str) -> tuple[str, str, bool] | None:
        """What is wrong with a line, what to do, and whether it is an error."""
        kind = self.read.get(number, "")
        mark = _FENCE.match(line)
        if mark and line.strip().startswith(self.fence):
            self.fence = "" if self.fence else mark[1]
            is_step = (
                bool(self.fence) and kind == "docString" and line.startswith(self.fence)
            )
            what = "a fenced block after a step is read as its doc string"
            hint = "indent it to show that, or put a heading before it"
            return (what, hint, False) if is_step else None
        if self.fence or not line.strip():
            return None
        if heading := _HEADING.match(line):
            return self._heading(heading[1], kind)
        if bullet := _BULLET.match(line):
            return self._bullet(bullet[1], kind)
        if not line.lstrip().startswith("|"):
            self.is_prose, self.above = True, self.above if line.startswith(" ") else ""
        elif (
            self.above in {"steps", "examples"} and not kind and not _RULER.match(line)
        ):
            indent = len(line) - len(line.lstrip())
            what = f"a row of a table is not read: {indent} blanks before it; expected 2 to 5"
            return what, "indent the table by 2 blanks", True
        return None

    def _heading(self, text: str, kind: str) -> tuple[str, str, bool] | None:
        self.above, self.is_prose = kind, False
        self.is_in_scenario = kind in {"background", "scenario", "examples"}
        slip = None if kind else self.spoken.title_slip(text)
        if re.match(r"language\s*:", text):
            what = (
                "the comment `# language:` is a heading in Markdown, and has no effect"
            )
            return (
                what,
                "write a .feature file, or a fence marked as gherkin in an .md file",
                True,
            )
        if slip and ":" in text and slip.title != "feature" and "`@" not in text:
            what = f"expected {slip.keyword}, but {text!r} is read as a description"
            return what, f"write `# {slip.keyword} …`", True
        return None

    def _bullet(self, text: str, kind: str) -> tuple[str, str, bool] | None:
        self.above = kind
        slip = self.spoken.step_slip(text) if self.is_in_scenario and not kind else None
        if slip and slip.kind != "exact":
            what = f"expected {slip.keyword}, but {text!r} is not read as a step"
            return what, f"write `* {slip.keyword} …`", slip.kind != "letters"
        if kind and self.is_prose:
            what = f"a bullet after prose is read as a step: {text!r}"
            return what, "begin it with another word if it is none", False
        return None
