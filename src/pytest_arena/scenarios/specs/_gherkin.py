"""Parses Gherkin, and describes its errors.

Only this module imports ``gherkin-official``. This library has frequent major versions, which
change its results.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Literal, cast

from gherkin.dialect import DIALECTS
from gherkin.errors import CompositeParserException, ParserException
from gherkin.gherkin_line import GherkinLine
from gherkin.parser import Parser, ParserContext
from gherkin.token import Token
from gherkin.token_matcher import TokenMatcher
from gherkin.token_matcher_markdown import GherkinInMarkdownTokenMatcher
from gherkin.token_scanner import TokenScanner

from pytest_arena.scenarios.specs._specification import GherkinText, Kind, Problem

Node = dict[str, Any]
"""A node of the parser: a feature, a rule, a scenario, a step."""

SlipKind = Literal["exact", "case", "blank", "letters"]

_TITLES = ("feature", "rule", "background", "scenario", "scenarioOutline", "examples")
_KINDS: tuple[Kind, ...] = ("given", "when", "then")
# Marks of lists and quotes, emphasis, numbers, and invisible characters: a byte order mark, blanks
# without width.
_MARKS = re.compile(r"^[\s\-*+_>#\u200b\u200c\u200d\u2060\ufeff]*(?:\d+[.)]\s+)?[*_`]*")
_ENDS = ":*_`,"
_BLANKS = " \t\u00a0"
_WIDE_COLON = "\uff1a"
_LONGEST_QUOTE = 120
_MIN_SIMILARITY = 0.75  # one letter of four differs
_MIN_SIMILARITY_OF_TITLE = 0.8
_LONG = 5  # letters: shorter words have too many neighbours


@dataclass(frozen=True, slots=True, kw_only=True)
class Slip:
    """A keyword that a line probably means."""

    keyword: str
    """The right spelling, with the colon of a title."""
    kind: SlipKind
    """The mistake. "exact": a correct keyword in a line where the parser expects no keyword."""
    title: str = ""
    """The kind of a title: scenario, scenarioOutline, background, examples, feature, rule."""
    text: str = ""
    """The spelling in the line."""


@dataclass(frozen=True, eq=False)
class Language:
    """The keywords of one language."""

    code: str
    words: Mapping[str, list[str]]
    """The parser's keywords. A step keyword ends with a blank if a blank must follow it."""

    @cached_property
    def kinds(self) -> dict[str, Kind | None]:
        """The kind of each step keyword except ``*``. None for And and But."""
        kinds: dict[str, Kind | None] = {}
        kinds |= dict.fromkeys(self.words["and"])
        kinds |= dict.fromkeys(self.words["but"])
        # If a language has one word for two kinds, the first kind counts.
        for kind in reversed(_KINDS):
            kinds |= dict.fromkeys(self.words[kind], kind)
        kinds.pop("* ", None)
        return kinds

    @cached_property
    def titles(self) -> dict[str, str]:
        """The title of each word before a colon."""
        return {
            word: title for title in reversed(_TITLES) for word in self.words[title]
        }

    @cached_property
    def steps(self) -> dict[str, Kind | None]:
        """The ``kinds`` of keywords without blanks, the longest keyword first."""
        steps = {word.strip(): kind for word, kind in self.kinds.items()}
        return {word: steps[word] for word in sorted(steps, key=len, reverse=True)}

    def title(self, title: str) -> str:
        """Return the usual word for a title, with its colon: ``Scenario:``."""
        # Each language has its words for Example and Scenario in this order.
        place = 0
        if title == "scenario":
            place = -1
        return f"{self.words[title][place]}:"

    def step_slip(self, line: str) -> Slip | None:
        """Return the step keyword that a line probably begins with, or None."""
        body = _MARKS.sub("", line)
        folded = body.casefold()
        for keyword in self.steps:
            if not folded.startswith(keyword.casefold()):
                continue
            follower = body[len(keyword) :][:1]
            needs_blank = f"{keyword} " in self.kinds
            if needs_blank and follower.strip().strip(_ENDS):
                continue
            if not body.startswith(keyword):
                return Slip(keyword=keyword, kind="case")
            if needs_blank and follower != " ":
                return Slip(keyword=keyword, kind="blank")
            return Slip(keyword=keyword, kind="exact")
        return self._misspelt_step(folded)

    def _misspelt_step(self, line: str) -> Slip | None:
        words = line.split()
        if not words:
            return None
        first = words[0].rstrip(_ENDS)
        if not first.isalpha():
            return None
        # The end of a keyword is only known where a blank must follow.
        keywords = {
            word.casefold(): word for word in self.steps if f"{word} " in self.kinds
        }
        for near in get_close_matches(first, keywords, n=1, cutoff=_MIN_SIMILARITY):
            return Slip(keyword=keywords[near], kind="letters")
        return None

    def title_slip(self, line: str) -> Slip | None:
        """Return the title keyword, such as ``Scenario:``, that a line probably begins with.

        None if the line begins with no such keyword.
        """
        body = _MARKS.sub("", line)
        head, colon, _ = body.replace(_WIDE_COLON, ":").partition(":")
        if not colon:
            return self._title_without_colon(body)
        head = head.strip(_BLANKS + _ENDS)
        if head in self.titles:
            return self._title(head, "exact", head)
        folded = " ".join(head.casefold().split())
        words = {word.casefold(): word for word in self.titles}
        if folded in words:
            return self._title(words[folded], "case", head)
        matches = get_close_matches(folded, words, n=1, cutoff=_MIN_SIMILARITY_OF_TITLE)
        # A keyword in the plural is a heading in prose, such as "Backgrounds:".
        if not matches or folded == f"{matches[0]}s":
            return None
        word = words[matches[0]]
        is_short = len(word) < _LONG or len(folded) < _LONG
        if is_short or self.titles[word] in {"feature", "rule"}:
            return None
        return self._title(word, "letters", head)

    def _title_without_colon(self, body: str) -> Slip | None:
        folded = body.casefold()
        for word in self.titles:
            follower = body[len(word) :][:1]
            if follower.strip(_BLANKS) or not folded.startswith(word.casefold()):
                continue
            if body.startswith(word):
                return self._title(word, "blank", word)
            return self._title(word, "case", word)
        return None

    def _title(
        self,
        word: str,
        kind: SlipKind,
        text: str,
    ) -> Slip:
        return Slip(
            keyword=f"{word}:",
            kind=kind,
            title=self.titles[word],
            text=text,
        )


LANGUAGES = {
    code: Language(code, words)
    for code, words in sorted(cast("dict[str, Any]", DIALECTS).items())
}
"""All languages by their codes, ``fr`` or ``zh-CN``."""

ENGLISH = LANGUAGES["en"]


def nearest(code: str) -> str:
    """Return the code of the most similar language, or "" if no code is similar."""
    codes = {known.casefold(): known for known in LANGUAGES}
    wanted = code.casefold().replace("_", "-")
    for near in get_close_matches(wanted, codes, n=1):
        return codes[near]
    return codes.get(wanted.split("-")[0], "")


def cells(text: str) -> list[str]:
    r"""Return the cells of a table's line, without escapes.

    >>> cells(r"  | a | b\|c |")
    ['a', 'b|c']
    """
    return [cell["text"] for cell in GherkinLine(text, 0).table_cells]


def line_of(node: Node) -> int:
    """Return the number of the line in which a node begins."""
    line: int = node["location"]["line"]
    return line


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The nodes and the errors of a text."""

    document: Node
    """The parser's ``GherkinDocument``, with the lines of the file."""
    language: Language
    faults: tuple[Problem, ...]

    @property
    def feature(self) -> Node | None:
        """The feature. None if the text has no feature, or cannot be read."""
        return self.document.get("feature")


def tree(block: GherkinText) -> Tree:
    """Parse a text. The tree has the scenarios without errors."""
    parser = _Parser()
    matcher = _Matcher(block.language)
    if block.is_markdown:
        matcher = _MarkdownMatcher(block.language)
    errors = _parse(parser, matcher, block, block.text)
    open_doc_string = matcher.open_doc_string
    document = parser.get_result()
    if errors and not document:
        # The parser returns nothing for a text that ends too early. With an end it can be read.
        _parse(parser, matcher, block, _ended(block, open_doc_string))
        document = parser.get_result()
    if not isinstance(document, dict):
        document = {}
    feature = document.get("feature") or {}
    code = feature.get("language") or matcher.dialect_name
    language = LANGUAGES.get(code, ENGLISH)
    faults = [_fault(error, block, language, open_doc_string) for error in errors]
    return Tree(
        document=document,
        language=language,
        faults=tuple(faults),
    )


class _Matcher(TokenMatcher):
    """Records the line in which the open doc string begins."""

    open_doc_string = 0

    def match_DocStringSeparator(self, token: Token) -> bool:  # noqa: N802 - the library's name
        is_opening = self._active_doc_string_separator is None
        is_matched = super().match_DocStringSeparator(token)
        if is_matched:
            self.open_doc_string = token.location["line"] if is_opening else 0
        return is_matched


class _MarkdownMatcher(_Matcher, GherkinInMarkdownTokenMatcher):
    """Matches headings and bullets, for ``*.feature.md``."""


class _Parser(Parser):
    """Continues after any number of errors. The library itself stops at the eleventh."""

    def add_error(self, context: ParserContext, error: ParserException) -> None:
        # The parser may report an error twice in a row.
        if not context.errors or str(context.errors[-1]) != str(error):
            context.errors.append(error)


def _parse(
    parser: Parser,
    matcher: TokenMatcher,
    block: GherkinText,
    text: str,
) -> list[Exception]:
    """Parse a text, and return the errors."""
    scanner = TokenScanner(text)
    scanner.line_number = block.first_line - 1
    try:
        parser.parse(scanner, matcher)
    except CompositeParserException as composite:
        return list(composite.errors)
    except Exception as error:  # noqa: BLE001 - whatever the library raises is an error of the text
        return [error]
    return []


def _ended(block: GherkinText, open_doc_string: int) -> str:
    """Return the text with an end for its doc string, or without the tags at its end."""
    lines = block.text.rstrip().split("\n")
    if open_doc_string:
        mark = block.line(open_doc_string).strip()[:3]
        return "\n".join([*lines, mark])
    while lines:
        first_letter = lines[-1].lstrip(" \t`")[:1]
        if first_letter not in {"@", "#", ""}:
            break
        lines.pop()
    return "\n".join(lines)


# Such as: (4:2): expected: #EOF, #TableRow, got 'Whan y'
_POSITION = re.compile(r"^\(\d+:\d+\): ")
_EXPECTED = re.compile(r"expected: ((?:#\w+(?:, )?)+)")
_LANGUAGE = re.compile(r"Language not supported: (.*)")


def shown(text: str) -> str:
    """Return a line as a message quotes it."""
    if len(text) > _LONGEST_QUOTE:
        text = f"{text[:_LONGEST_QUOTE]} …"
    return repr(text)


def _fault(
    error: Exception,
    block: GherkinText,
    language: Language,
    open_doc_string: int,
) -> Problem:
    """Return an error as a sentence that names the line and the expected text."""
    message = _POSITION.sub("", str(error))
    location = getattr(error, "location", None) or {}
    line = min(location.get("line") or block.last_line, block.last_line)
    unknown = _LANGUAGE.search(message)
    if unknown:
        code = unknown[1]
        similar = nearest(code)
        hint = ""
        if similar:
            hint = f"did you mean `# language: {similar}`?"
        what = f"Gherkin does not know the language {code!r}. Use a code such as en, fr or zh-CN"
        return block.problem(line, what, hint)
    is_ended = "unexpected end of file" in message
    if open_doc_string and is_ended:
        what = "the doc string that begins here is never closed, so it contains all lines below"
        fix = 'close it with a line of the same marks, such as """'
        return block.problem(open_doc_string, what, fix)
    text = block.line(line).strip()
    expected = _EXPECTED.search(message)
    if expected is None:
        if message.startswith("inconsistent cell count"):
            message = (
                "this row does not have as many cells as the first row of its table"
            )
        first_letter = message[:1].lower()
        what = f"{first_letter}{message[1:]}: {shown(text)}"
    elif is_ended and (text.startswith("@") or "`@" in text):
        scenario = language.title("scenario")
        what = f"{shown(text)} is read as tags, but no {scenario} follows"
    else:
        tokens = _describe_tokens(expected[1].split(", "), language)
        what = f"expected {tokens}, but found {shown(text)}"
        if is_ended:
            what = f"expected {tokens}, but the text ends after {shown(text)}"
    return block.problem(line, what)


_SECTIONS = ("feature", "background", "scenario", "examples", "rule")


def _describe_tokens(tokens: list[str], language: Language) -> str:
    """Describe the tokens that the parser expected: ``Scenario: or a tag (@…)``.

    Comments and empty lines are left out. Without other tokens, the end of the text was expected.
    """
    keywords = []
    for kind in (*_KINDS, "and", "but"):
        words = [word.strip() for word in language.words[kind] if word != "* "]
        keywords.append(words[0])  # the usual word
    phrase_of = {
        "#StepLine": f"a step ({', '.join(keywords)})",
        **{f"#{name.title()}Line": language.title(name) for name in _SECTIONS},
        "#TableRow": "a row of a table (| … |)",
        "#DocStringSeparator": 'a doc string (""")',
        "#TagLine": "a tag (@…)",
        "#Language": "a comment `# language: …`",
        "#Other": "text",
    }
    phrases = [phrase for token, phrase in phrase_of.items() if token in tokens]
    if not phrases:
        return "the end of the text"
    if len(phrases) == 1:
        return phrases[0]
    return f"{', '.join(phrases[:-1])} or {phrases[-1]}"
