"""Finds the Gherkin in a Markdown file."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from itertools import takewhile, zip_longest
from pathlib import PurePosixPath

from markdown_it import MarkdownIt
from markdown_it.token import Token

from pytest_arena.scenarios.specs._features import requirement_in
from pytest_arena.scenarios.specs._gherkin import (
    ENGLISH,
    LANGUAGES,
    Language,
    Node,
    nearest,
)
from pytest_arena.scenarios.specs._specification import GherkinText, Problem

# A directive of MyST: ```{code-block} gherkin. Lines such as ":caption: x" are its options.
_DIRECTIVE = r"\{(?:code-block|code|sourcecode)\}"
# ```gherkin, ~~~ Gherkin title="x", ``` {.gherkin #id}, ```bdd as Pygments knows it
_INFO = rf"\s*(?:{_DIRECTIVE})?[\s{{.]*(?:gherkin|feature|cucumber|bdd)(?![\w-])"
_GHERKIN = re.compile(_INFO, re.IGNORECASE)
_MARKED = re.compile(rf"(?:```|~~~){_INFO}", re.IGNORECASE)
_FRONT_MATTER = re.compile(r"---[ \t]*\n.*?\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_OPENING = re.compile(rf"^[\s>]*(`{{3,}}|~{{3,}}){_INFO}", re.IGNORECASE)
_OPTION = re.compile(r"[ \t]*:[\w-]+:")
_LANGUAGE = re.compile(
    r"^[ \t]*#[ \t]*language[ \t]*:[ \t]*([a-zA-Z\-_]+)[ \t]*$", re.MULTILINE
)
_LINKS_AND_MARKS = re.compile(r"[*`]|\[([^\]]*)\]\([^)]*\)")
# Code blocks in these files are not read. A fence of Markdown would be text of the page.
_OTHER_MARKUP = (".rst", ".adoc", ".asciidoc", ".org")
_MOST_SUSPECTS = 5
_LIST_MARKS = " \t-*+_>#`"


def fences(
    text: str,
    spec: str,
) -> tuple[list[GherkinText], list[Problem]]:
    """Return the Gherkin of a Markdown file, and the problems of its fences.

    A file without Gherkin takes little time, because it is not parsed.

    Args:
        text: the text of the file, with line feeds as line ends.
        spec: the path of the file.
    """
    suspects = _suspects(text)
    if not suspects and not _MARKED.search(text):
        return [], []
    lines = without_front_matter(text).split("\n")
    page = _Page(spec=spec, lines=lines)
    # Parsing the inside of paragraphs would take most of the time, and is not needed.
    tokens = MarkdownIt("commonmark").disable("inline").parse("\n".join(lines))
    problems: list[Problem] = []
    for token in tokens:
        problems += page.misread(token)
        if _is_foreign(token):
            span = _span(token)
            suspects = [line for line in suspects if line not in span]
    problems += page.unread(suspects)
    problems.sort(key=lambda problem: problem.line)
    return list(page.blocks(tokens)), problems


def is_other_markup(spec: str) -> bool:
    """Return whether a file is in a markup whose code blocks are not read."""
    return spec.lower().endswith(_OTHER_MARKUP)


def advice(spec: str, advice_for_markdown: str) -> str:
    """Return advice that makes the scenarios of a file readable."""
    if is_other_markup(spec):
        return "move the scenarios to a .feature file, and include it here"
    return advice_for_markdown


def without_front_matter(text: str) -> str:
    """Return a text with blank lines instead of its front matter. That is not Markdown."""
    front = _FRONT_MATTER.match(text)
    if front is None:
        return text
    return "\n" * front[0].count("\n") + text[front.end() :]


def _span(token: Token) -> range:
    """Return the numbers of a token's lines from 0, with the lines of its marks."""
    begin, end = token.map or (0, 0)
    return range(begin, end)


def is_gherkin(token: Token) -> bool:
    """Return whether a token is a fence that is marked as Gherkin."""
    return token.type == "fence" and bool(_GHERKIN.match(token.info))


def _is_foreign(token: Token) -> bool:
    """Return whether a token is HTML, a fence of another language, or Gherkin that is read."""
    if token.type == "html_block" or is_gherkin(token):
        return True
    if token.type != "fence" or not token.info.strip():
        return False
    info = re.sub(_DIRECTIVE, "", token.info).split()
    if not info:
        return False
    name = info[0].strip("{.,}").casefold()
    return bool(name) and not get_close_matches(name, ["gherkin"])


@dataclass(frozen=True, slots=True)
class _Section:
    """A section of the page, with the last business rule in it."""

    level: int
    heading: str
    rule: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    spec: str
    lines: list[str]

    def blocks(self, tokens: Sequence[Token]) -> Iterator[GherkinText]:
        """Yield the text of each fence of Gherkin.

        The business rule of a fence is the last rule above in its section: in a quote, a bold line
        or the heading. A section without a rule has the rule of the section around it.
        """
        sections = [_Section(0, "", "")]
        quotes = 0
        for token, following in zip_longest(tokens, tokens[1:]):
            if token.type == "blockquote_open":
                quotes += 1
            elif token.type == "blockquote_close":
                quotes -= 1
            elif token.type == "heading_open":
                level = int(token.tag.removeprefix("h"))
                heading = _LINKS_AND_MARKS.sub(r"\1", following.content).strip()
                sections = [section for section in sections if section.level < level]
                sections.append(
                    _Section(
                        level,
                        heading,
                        requirement_in(heading),
                    )
                )
            elif token.type == "paragraph_open":
                text = following.content
                is_bold = token.level == 0 and text.startswith(("**", "__"))
                rule = requirement_in(text)
                if rule and (quotes or is_bold):
                    sections[-1] = replace(sections[-1], rule=rule)
            elif is_gherkin(token):
                yield self._block(token, sections)

    def _block(self, token: Token, sections: list[_Section]) -> GherkinText:
        """Return the text of a fence. A missing ``Feature:`` replaces the opening mark."""
        rules = [section.rule for section in sections if section.rule]
        content = token.content
        if token.info.lstrip().startswith("{"):
            content = _without_options(content)
        block = GherkinText(
            spec=self.spec,
            text=content,
            first_line=_span(token).start + 2,
            requirement=rules[-1] if rules else "",
        )
        language = language_of(content)
        if _is_titled(content, language):
            return block
        # An underlined heading may have several lines.
        title = " ".join(sections[-1].heading.split())
        if not title:
            title = PurePosixPath(self.spec).stem
        return replace(
            block,
            text=f"{language.title('feature')} {title}\n{content}",
            first_line=block.first_line - 1,
            language=language.code,
            is_untitled=True,
        )

    def misread(self, token: Token) -> Iterator[Problem]:
        """Yield the problems of the marks of a fence."""
        if token.type not in {"fence", "html_block"}:
            return
        span = _span(token)
        marks = [place for place in span if _OPENING.match(self.lines[place])]
        if token.type == "html_block":
            if token.content.lstrip().startswith("<!--"):
                return
            for place in marks:
                yield self._problem(
                    place,
                    "Markdown reads this fence as HTML, with all lines from the tag above it to "
                    "the next blank line",
                    "put a blank line before the fence",
                )
            return
        markup = token.markup
        inner = [
            place
            for place in marks
            if place > span.start and self._bare(place).startswith(markup)
        ]
        last = self._bare(span.stop - 1).rstrip()
        is_closed = last.startswith(markup) and not last.strip(markup[0])
        is_closed = is_closed and len(span) > 1
        if not is_closed and (is_gherkin(token) or inner):
            yield self._problem(
                span.start,
                "the fence that begins here is never closed, so it contains the rest of the file",
                f"close it with a line {markup}",
            )
        elif inner:
            yield self._problem(
                inner[0],
                f"the fence opened in line {span.start + 1} is still open here, "
                "so this Gherkin is read as a part of it",
                f"close the fence above with a line {markup}",
            )
        elif is_gherkin(token):
            yield from self._closed_early(token)
            yield from self._unknown_language(token)

    def _bare(self, place: int) -> str:
        """Return a line without the marks of quotes."""
        return self.lines[place].lstrip(" >\t")

    def _closed_early(self, token: Token) -> Iterator[Problem]:
        """Yield a problem if the ``` of a doc string closed the fence too early."""
        span = _span(token)
        language = language_of(token.content)
        below = list(takewhile(str.strip, self.lines[span.stop :]))
        opening = self.lines[span.start].find(token.markup)
        closing = self.lines[span.stop - 1].find(token.markup)
        has_step = any(_is_step(line, (language,)) for line in below)
        if has_step or (below and closing > opening):
            yield self._problem(
                span.stop - 1,
                f"this {token.markup} closes the fence, so the lines below are not read as Gherkin",
                'mark the doc string with """, or make the marks of the fence longer',
            )

    def _unknown_language(self, token: Token) -> Iterator[Problem]:
        """Yield the unknown language of an untitled block. The parser does not see its comment."""
        content = token.content
        named = _LANGUAGE.search(content)
        language = language_of(content)
        if named and named[1] not in LANGUAGES and not _is_titled(content, language):
            lines_above = content.count("\n", 0, named.start(1))
            yield self._problem(
                _span(token).start + 1 + lines_above,
                f"Gherkin does not know the language {named[1]!r}",
                f"did you mean `# language: {language.code}`?",
            )

    def unread(self, suspects: Sequence[int]) -> Iterator[Problem]:
        """Yield problems for lines that look like a scenario outside of any Gherkin."""
        more = ""
        if len(suspects) > _MOST_SUSPECTS:
            more = f". The same is true of {len(suspects) - 1} more lines of this file"
            suspects = suspects[:1]
        problem = "it is not in a fence marked as gherkin"
        if is_other_markup(self.spec):
            problem = "pytest-arena reads code blocks only in Markdown"
        hint = "write ```gherkin before it, or ```text if it is not a scenario"
        for place in suspects:
            yield self._problem(
                place,
                f"{self.lines[place].strip()!r} looks like a scenario, but {problem}{more}",
                advice(self.spec, hint),
            )

    def _problem(
        self,
        place: int,
        what: str,
        hint: str,
    ) -> Problem:
        return Problem(
            spec=self.spec,
            line=place + 1,
            what=what,
            hint=hint,
        )


def _without_options(content: str) -> str:
    """Return the text of a MyST directive with blank lines instead of its options."""
    lines = content.split("\n")
    for place, line in enumerate(lines):
        if not _OPTION.match(line):
            break
        lines[place] = ""
    return "\n".join(lines)


def _first_line(text: str) -> str:
    """Return the first line that is not blank, a comment or a tag, or "" without such a line."""
    for line in text.split("\n"):
        if line.strip() and not line.lstrip().startswith(("#", "@")):
            return line
    return ""


def language_of(text: str) -> Language:
    """Return the language that a comment at the beginning names, or English."""
    first_line = _first_line(text)
    comments = text.partition(first_line)[0] if first_line else text
    named = _LANGUAGE.search(comments)
    if named is None:
        return ENGLISH
    code = named[1]
    if code not in LANGUAGES:
        code = nearest(code)
    return LANGUAGES.get(code, ENGLISH)


def _is_titled(text: str, language: Language) -> bool:
    """Return whether a text begins with ``Feature:``, or is empty."""
    line = _first_line(text)
    slip = language.title_slip(line)
    return not line or (slip is not None and slip.title == "feature")


# Scenarios outside of fences.


def _suspects(text: str) -> list[int]:
    """Return the lines, from 0, that look like a scenario's heading with a step below it."""
    lines = text.split("\n")
    suspects = []
    for place, line in enumerate(lines):
        head, colon, _ = line.partition(":")
        word = head.strip(_LIST_MARKS).casefold()
        below = lines[place + 1 : place + 4]
        if colon and word in _headings() and _has_steps(below, word):
            suspects.append(place)
    return suspects


@cache
def _headings() -> dict[str, list[Language]]:
    """Return the languages of each word that begins a scenario, in small letters."""
    headings: dict[str, list[Language]] = {}
    for language in LANGUAGES.values():
        words = language.words
        for word in (*words["scenario"], *words["scenarioOutline"]):
            headings.setdefault(word.casefold(), []).append(language)
    return headings


def _has_steps(below: list[str], word: str) -> bool:
    """Return whether steps follow. `Example: …` needs two, because prose may begin with When."""
    languages = _headings()[word]
    lines = [line for line in below if line.strip()]
    if not lines or not _is_step(lines[0], languages):
        return False
    for language in languages:
        # Each language has its words for Example and Scenario in this order.
        words = language.words["scenario"]
        if len(words) == 1 or word != words[0].casefold():
            return True
    return len(lines) > 1 and _is_step(lines[1], languages, is_and=True)


def _is_step(
    line: str,
    languages: Sequence[Language],
    *,
    is_and: bool = False,
) -> bool:
    """Return whether a line begins with Given, When or Then. ``is_and`` allows And and But."""
    if line.strip(_LIST_MARKS)[:1].islower():  # prose
        return False
    for language in languages:
        slip = language.step_slip(line)
        if slip is None or slip.kind == "letters":
            continue
        if is_and or language.steps[slip.keyword]:
            return True
    return False


# ``*.feature.md``: keywords are headings and bullets.

_HEADING = re.compile(r"^\s*#{1,6}\s+(.*)")
_BULLET = re.compile(r"^\s*[*+-]\s+(.*)")
_RULER = re.compile(r"^[\s|:-]+$")
_FENCE = re.compile(r'^\s*(`{3,}|~{3,}|""")')


def headings_and_bullets(text: str, spec: str) -> GherkinText:
    """Return a ``*.feature.md`` as one block.

    The parser reads the first line as the feature. So the block begins at the first heading or
    tag.
    """
    lines = text.split("\n")
    begin = 0
    has_heading = any(map(_HEADING.match, lines))
    for place, line in enumerate(lines):
        is_first = _HEADING.match(line) or line.strip().startswith("`@")
        if has_heading and is_first:
            begin = place
            break
    block = "\n".join(lines[begin:])
    return GherkinText(
        spec=spec,
        text=block,
        first_line=begin + 1,
        is_markdown=True,
    )


def tagged_headings(block: GherkinText, language: Language) -> Iterator[Problem]:
    """Yield the headings in lines with a tag. The parser reads only the tags."""
    for number, line in enumerate(block.lines, block.first_line):
        heading = _HEADING.match(line)
        if heading and "`@" in line and language.title_slip(heading[1]):
            what = (
                f"{line.strip()!r} is read as a line of tags, so its heading is ignored"
            )
            hint = "put the tags on a separate line above the heading"
            yield block.problem(number, what, hint)


def unread_marks(
    block: GherkinText,
    language: Language,
    document: Node,
) -> Iterator[Problem]:
    """Yield the headings, bullets and rows that the parser does not read as Gherkin."""
    kinds = dict(_kinds_of_lines(document, ""))
    marks = _Marks(language)
    for number, line in enumerate(block.lines, block.first_line):
        fault = marks.fault_in(line, kinds.get(number, ""))
        if fault:
            what, hint, is_error = fault
            yield block.problem(number, what, hint, is_error=is_error)


def _kinds_of_lines(
    node: object,
    kind: str,
) -> Iterator[tuple[int, str]]:
    """Yield the line of each node of the parser's document, with the kind of the node."""
    if isinstance(node, list):
        for item in node:
            yield from _kinds_of_lines(item, kind)
    elif isinstance(node, dict):
        for name, value in node.items():
            if name == "location":
                yield value["line"], kind
            yield from _kinds_of_lines(value, name)


_Fault = tuple[str, str, bool]
"""The words and the hint of a problem, and whether it is an error."""


@dataclass(slots=True)
class _Marks:
    """Finds the unread marks of a block. Reads the lines from top to bottom."""

    language: Language
    fence: str = ""
    """The mark of the open fence."""
    above: str = ""
    """The kind of node of the heading or the bullet above."""
    is_prose: bool = False
    """Whether the last line since the heading is prose."""
    is_in_scenario: bool = False

    def fault_in(self, line: str, kind: str) -> _Fault | None:
        """Return the fault of a line, or None. ``kind`` is the kind of the parser's node."""
        text = line.strip()
        mark = _FENCE.match(line)
        heading = _HEADING.match(line)
        bullet = _BULLET.match(line)
        fault = None
        if mark and text.startswith(self.fence):
            fault = self._at_fence(line, mark[1], kind)
        elif self.fence or not text:
            return None
        elif heading:
            fault = self._at_heading(heading[1], kind)
        elif bullet:
            fault = self._at_bullet(bullet[1], kind)
        elif text.startswith("|"):
            fault = self._at_row(line, kind)
        else:
            self.is_prose = True
            if not line.startswith(" "):
                self.above = ""
        return fault

    def _at_fence(
        self,
        line: str,
        mark: str,
        kind: str,
    ) -> _Fault | None:
        if self.fence:
            self.fence = ""
            return None
        self.fence = mark
        if kind != "docString" or not line.startswith(mark):
            return None
        what = "this fenced block is read as the doc string of the step above"
        return what, "indent the block if it is one, or put a heading before it", False

    def _at_row(self, line: str, kind: str) -> _Fault | None:
        is_in_table = self.above in {"steps", "examples"}
        if kind or not is_in_table or _RULER.match(line):
            return None
        indent = len(line) - len(line.lstrip())
        what = f"this row of a table is not read: expected 2 to 5 blanks before it, not {indent}"
        return what, "indent the table by 2 blanks", True

    def _at_heading(self, text: str, kind: str) -> _Fault | None:
        self.above = kind
        self.is_prose = False
        self.is_in_scenario = kind in {"background", "scenario", "examples"}
        if re.match(r"language\s*:", text):
            what = "`# language:` is a heading in Markdown, so it does not set the language"
            hint = "use a .feature file, or a fence marked as gherkin in an .md file"
            return what, hint, True
        slip = self.language.title_slip(text)
        if kind or slip is None or slip.title == "feature":
            return None
        if ":" not in text or "`@" in text:
            return None
        what = f"expected {slip.keyword}, but {text!r} is read as a description"
        return what, f"write `# {slip.keyword} …`", True

    def _at_bullet(self, text: str, kind: str) -> _Fault | None:
        self.above = kind
        if kind and self.is_prose:
            what = f"a bullet after prose is read as a step: {text!r}"
            return what, "begin it with another word if it is prose", False
        slip = self.language.step_slip(text)
        if kind or not self.is_in_scenario or slip is None or slip.kind == "exact":
            return None
        what = f"expected {slip.keyword}, but {text!r} is not read as a step"
        return what, f"write `* {slip.keyword} …`", slip.kind != "letters"
