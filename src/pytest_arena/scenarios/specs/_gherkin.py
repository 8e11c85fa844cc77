"""How is Gherkin read by the official parser, and what has it to say, in words?

The only module that reads by the package ``gherkin-official``: its majors come often, and change
what they return.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property
from typing import Any, Literal, cast

from gherkin.dialect import DIALECTS
from gherkin.errors import CompositeParserException, ParserException
from gherkin.gherkin_line import GherkinLine
from gherkin.parser import Parser, ParserContext
from gherkin.token_matcher import TokenMatcher
from gherkin.token_matcher_markdown import GherkinInMarkdownTokenMatcher
from gherkin.token_scanner import TokenScanner

from pytest_arena.scenarios.specs._specification import GherkinText, Kind, Problem

Node = dict[str, Any]
"""What the parser returns for a feature, a rule, a scenario, a step."""

SlipKind = Literal["exact", "case", "blank", "letters"]

_TITLES = ("feature", "rule", "background", "scenario", "scenarioOutline", "examples")
_KINDS: tuple[Kind, ...] = ("given", "when", "then")
# Marks of lists and quotes, emphasis, numbers, and what cannot be seen: a byte order mark, blanks
# without width.
_MARKS = re.compile(r"^[\s\-*+_>#\u200b\u200c\u200d\u2060\ufeff]*(?:\d+[.)]\s+)?[*_`]*")
_ENDS = ":*_`,"
_SHOWN = 120
_LIKE = 0.75  # one letter of four
_LIKE_TITLE, _LONG = 0.8, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Slip:
    """A keyword that a line seems to have been meant for."""

    keyword: str
    """As it is written right, with the colon of a title."""
    kind: SlipKind
    """What is not right with it: "exact" is a keyword where the parser does not look for one."""
    title: str = ""
    """Of a title: scenario, scenarioOutline, background, examples, feature, rule."""
    text: str = ""
    """How it is written."""


@dataclass(frozen=True, eq=False)
class Language:
    """The keywords of one language."""

    code: str
    words: Mapping[str, list[str]]
    """As the parser has them: those of steps with the blank that follows, if one has to."""

    @cached_property
    def kinds(self) -> dict[str, Kind | None]:
        """What each step keyword says that the step is; None: what the step before it is."""
        kinds: dict[str, Kind | None] = {
            word: None for name in ("and", "but") for word in self.words[name]
        }
        # No language has a word for two of them; where one had, it would be what comes first.
        for kind in reversed(_KINDS):
            kinds.update((word, kind) for word in self.words[kind] if word != "* ")
        return kinds

    @cached_property
    def titles(self) -> dict[str, str]:
        """What each word before a colon begins."""
        return {
            word: title for title in reversed(_TITLES) for word in self.words[title]
        }

    @cached_property
    def steps(self) -> dict[str, Kind | None]:
        """As ``kinds``, without blanks and without ``*``; the longest first."""
        steps = {
            word.strip(): kind for word, kind in self.kinds.items() if word != "* "
        }
        return dict(sorted(steps.items(), key=lambda step: -len(step[0])))

    def title(self, title: str) -> str:
        """Return the usual word for one title, with its colon: ``Scenario:``."""
        # Of Example and Scenario, in whatever language, it is the second.
        return self.words[title][-1 if title == "scenario" else 0] + ":"

    def step_slip(self, line: str) -> Slip | None:
        """Return the step keyword that a line seems to begin with, or None."""
        body = _MARKS.sub("", line)
        for keyword in self.steps:
            rest, is_spaced = body[len(keyword) :], f"{keyword} " in self.kinds
            if not body.casefold().startswith(keyword.casefold()):
                continue
            if is_spaced and rest[:1] and not (rest[0].isspace() or rest[0] in _ENDS):
                continue
            if not body.startswith(keyword):
                return Slip(keyword=keyword, kind="case")
            is_exact = not is_spaced or rest.startswith(" ")
            return Slip(keyword=keyword, kind="exact" if is_exact else "blank")
        # Where no blank follows a keyword, nobody knows where it would have ended.
        spaced = {
            word.casefold(): word for word in self.steps if f"{word} " in self.kinds
        }
        begin = (
            body.split(maxsplit=1)[0].rstrip(_ENDS).casefold() if body.strip() else ""
        )
        near = (
            get_close_matches(begin, spaced, n=1, cutoff=_LIKE)
            if begin.isalpha()
            else []
        )
        return Slip(keyword=spaced[near[0]], kind="letters") if near else None

    def title_slip(self, line: str) -> Slip | None:
        """Return the title that a line seems to begin with, ``Scenario:``, or None."""
        body = _MARKS.sub("", line)
        head, colon, _ = body.replace("\uff1a", ":").partition(":")
        if not colon:
            for word in self.titles:
                is_whole = not body[len(word) : len(word) + 1].strip(" \t\u00a0")
                if is_whole and body.casefold().startswith(word.casefold()):
                    return self._title(
                        word, "blank" if body.startswith(word) else "case", word
                    )
            return None
        head = head.strip(" \t\u00a0" + _ENDS)
        if head in self.titles:
            return self._title(head, "exact", head)
        folded = " ".join(head.casefold().split())
        words = {word.casefold(): word for word in self.titles}
        if folded in words:
            return self._title(words[folded], "case", head)
        # The plural is a word of its own, and prose: "Backgrounds: …"
        close = get_close_matches(folded, words, n=1, cutoff=_LIKE_TITLE)
        word = words[close[0]] if close and folded != f"{close[0]}s" else ""
        if min(len(word), len(folded)) < _LONG or self.titles[word] in {
            "feature",
            "rule",
        }:
            return None
        return self._title(word, "letters", head)

    def _title(self, word: str, kind: SlipKind, text: str) -> Slip:
        return Slip(keyword=f"{word}:", kind=kind, title=self.titles[word], text=text)


@cache
def language(code: str) -> Language | None:
    """Return the language of this code, ``fr`` or ``zh-CN``; None if there is none."""
    words = cast("dict[str, Mapping[str, list[str]]]", DIALECTS).get(code)
    return None if words is None else Language(code, words)


@cache
def languages() -> tuple[Language, ...]:
    """Return all languages, in the order of their codes."""
    return tuple(known for code in sorted(DIALECTS) if (known := language(code)))


def nearest(code: str) -> str:
    """Return the code of the language that was probably meant, or nothing."""
    lower = {known.casefold(): known for known in DIALECTS}
    wanted = code.casefold().replace("_", "-")
    return lower.get(
        next(iter(get_close_matches(wanted, lower, n=1)), wanted.split("-")[0]), ""
    )


def cells(text: str) -> list[str]:
    r"""Return the cells of a table's line, as they are meant.

    >>> cells(r"  | a | b\|c |")
    ['a', 'b|c']
    """
    return [cell["text"] for cell in GherkinLine(text, 0).table_cells]


def line_of(node: Node) -> int:
    """Return the line in the file that a node begins in."""
    line: int = node["location"]["line"]
    return line


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """What could be read of a text, and what could not."""

    document: Node
    """The parser's own ``GherkinDocument``, with the lines of the file."""
    language: Language
    faults: tuple[Problem, ...]

    @property
    def feature(self) -> Node | None:
        """None where there is none, or nothing of it could be read."""
        return self.document.get("feature")


def tree(block: GherkinText) -> Tree:
    """Return what the parser reads; scenarios without an error are in it in any case."""
    parser = _Parser()
    matcher = (_MarkdownMatcher if block.is_markdown else _Matcher)(block.language)
    errors = _errors(parser, matcher, block, block.text)
    opened = matcher.open_doc_string
    document: Any = parser.get_result()
    if errors and not document:
        # A text that ends too early is lost as a whole; with an end, its scenarios can be read.
        _errors(parser, matcher, block, _ended(block, opened))
        document = parser.get_result()
    document = document if isinstance(document, dict) else {}
    code = (document.get("feature") or {}).get("language") or matcher.dialect_name
    spoken = next(known for code in (code, "en") if (known := language(code)))
    faults = tuple(_fault(error, block, spoken, opened) for error in errors)
    return Tree(document=document, language=spoken, faults=faults)


class _Matcher(TokenMatcher):
    """Knows where the doc string begins that is open."""

    open_doc_string = 0

    def match_DocStringSeparator(self, token: Any) -> bool:  # noqa: N802 - the library's name
        is_open = self._active_doc_string_separator is None
        if matches := super().match_DocStringSeparator(token):
            self.open_doc_string = token.location["line"] if is_open else 0
        return matches


class _MarkdownMatcher(_Matcher, GherkinInMarkdownTokenMatcher):
    """Headings and bullets, for ``*.feature.md``."""


class _Parser(Parser):
    """Keeps what it has read in spite of errors: the library gives up at the eleventh."""

    def add_error(self, context: ParserContext, error: ParserException) -> None:
        # The same one comes twice in a row, if at all.
        if not context.errors or str(context.errors[-1]) != str(error):
            context.errors.append(error)


def _errors(
    parser: Parser, matcher: TokenMatcher, block: GherkinText, text: str
) -> list[Exception]:
    scanner = TokenScanner(text)
    scanner.line_number = block.first_line - 1
    try:
        parser.parse(scanner, matcher)
    except CompositeParserException as composite:
        return list(composite.errors)
    except Exception as error:  # noqa: BLE001 - a text that the library cannot bear is a fault of the text
        return [error]
    return []


def _ended(block: GherkinText, opened: int) -> str:
    """The text with an end for its doc string, or without the tags that nothing follows."""
    lines = block.text.rstrip().split("\n")
    if opened:
        return "\n".join([*lines, block.line(opened).strip()[:3]])
    while lines and lines[-1].lstrip(" \t`")[:1] in {"@", "#", ""}:
        lines.pop()
    return "\n".join(lines)


# Such as: (4:2): expected: #EOF, #TableRow, got 'Whan y'
_POSITION = re.compile(r"^\(\d+:\d+\): ")
_EXPECTED = re.compile(r"expected: ((?:#\w+(?:, )?)+)")
_LANGUAGE = re.compile(r"Language not supported: (.*)")


def shown(text: str) -> str:
    """Return a line as a message quotes it."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …")


def _fault(
    error: Exception, block: GherkinText, spoken: Language, opened: int
) -> Problem:
    """An error as a sentence that names the line, and what was expected there."""
    message = _POSITION.sub("", str(error))
    place = (getattr(error, "location", None) or {}).get("line") or block.last_line
    line = min(place, block.last_line)
    text = block.line(line).strip()
    is_ended = "unexpected end of file" in message
    expected = _EXPECTED.search(message)
    if unknown := _LANGUAGE.search(message):
        meant = nearest(unknown.group(1))
        return block.problem(
            line,
            f"{unknown.group(1)!r} is no language that Gherkin knows; "
            "expected a code such as en, fr, zh-CN",
            f"did you mean `# language: {meant}`?" if meant else "",
        )
    if opened and is_ended:
        what = "the doc string that begins here is never closed, and takes in all that follows"
        return block.problem(opened, what, 'end it with a line of the same marks, """')
    if message.startswith("inconsistent cell count"):
        message = "a row has another number of cells than the first of its table"
    if expected is None:
        return block.problem(
            line, f"{message[:1].lower()}{message[1:]}, in {shown(text)}"
        )
    if is_ended and (text.startswith("@") or "`@" in text):
        scenario = spoken.title("scenario")
        what = f"{shown(text)} is read as tags that belong to nothing"
        return block.problem(line, f"{what}; expected {scenario} after them")
    awaited = _awaited(expected.group(1).split(", "), spoken)
    sentence = f"the text ends after {shown(text)}; expected {awaited}"
    return block.problem(
        line, sentence if is_ended else f"expected {awaited}; found {shown(text)}"
    )


_LINES = ("feature", "background", "scenario", "examples", "rule")


def _awaited(tokens: list[str], spoken: Language) -> str:
    steps = (spoken.words[kind] for kind in (*_KINDS, "and", "but"))
    keywords = [next(word.strip() for word in words if word != "* ") for words in steps]
    words = {
        "#StepLine": f"a step ({', '.join(keywords)})",
        **{f"#{title.title()}Line": spoken.title(title) for title in _LINES},
        "#TableRow": "a row of a table (| … |)",
        "#DocStringSeparator": 'a doc string (""")',
        "#TagLine": "a tag (@…)",
        "#Language": "a comment `# language: …`",
        "#Other": "text",
    }
    sentence = [word for token, word in words.items() if token in tokens]
    return (
        " or ".join(filter(None, [", ".join(sentence[:-1]), *sentence[-1:]]))
        or "the end of the text"
    )
