"""How does the official parser read tens of thousands of lines in a second?

It asks of each line, for each kind of line that may come next, whether it is one: by all keywords,
one after the other. Which kinds a line can be at all follows from its first letter.
"""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any, cast

from gherkin.errors import ParserException
from gherkin.gherkin_line import GherkinLine
from gherkin.parser import Parser
from gherkin.token import Token
from gherkin.token_matcher import TokenMatcher
from gherkin.token_matcher_markdown import GherkinInMarkdownTokenMatcher
from gherkin.token_scanner import TokenScanner

if TYPE_CHECKING:
    from collections.abc import Callable

    from gherkin.parser import ParserContext

__all__ = ["LineScanner", "MarkdownMatcher", "PatientParser", "QuickMatcher", "QuickParser"]

_TITLES = {
    "FeatureLine": ("feature",),
    "RuleLine": ("rule",),
    "BackgroundLine": ("background",),
    "ScenarioLine": ("scenario", "scenarioOutline"),
    "ExamplesLine": ("examples",),
}
_STEPS = ("given", "when", "then", "and", "but")
_SIGNS = {
    "#": {"Comment", "Language"},
    "@": {"TagLine"},
    "|": {"TableRow"},
    '"': {"DocStringSeparator"},
    "`": {"DocStringSeparator"},
    "": {"Empty"},
}
_NOTHING: frozenset[str] = frozenset()


class LineScanner(TokenScanner):
    """Hands over the lines of a text, counted from any number.

    The library's own one begins at 1, and before version 35 it opened a file if the text happened
    to be the name of one.
    """

    def __init__(self, text: str, first_line: int) -> None:
        self.io = StringIO(text)
        self.line_number = first_line - 1

    def read(self) -> Token:
        """Return the next line, or the end."""
        self.line_number += 1
        line = self.io.readline()
        held: Any = GherkinLine(line, self.line_number) if line else line
        return Token(held, {"line": self.line_number})


class _NotingMatcher(TokenMatcher):
    """Knows where the doc string begins that is open."""

    open_doc_string = 0

    def match_DocStringSeparator(self, token: Token) -> bool:  # noqa: N802 - the library's name
        """Match as the library does, and note it."""
        is_open = self._active_doc_string_separator is None
        if found := super().match_DocStringSeparator(token):
            self.open_doc_string = token.location["line"] if is_open else 0
        return found


class QuickMatcher(_NotingMatcher):
    """Knows which kinds of line a first letter can begin."""

    may_begin: dict[str, frozenset[str]]

    def _change_dialect(self, dialect_name: str, location: Any = None) -> None:
        super()._change_dialect(dialect_name, location)
        begins = {sign: set(kinds) for sign, kinds in _SIGNS.items()}
        words = cast("dict[str, list[str]]", self.dialect.spec)
        for kind, names in {**_TITLES, "StepLine": _STEPS}.items():
            for word in [word for name in names for word in words[name]]:
                begins.setdefault(word[0], set()).add(kind)
        self.may_begin = {letter: frozenset(kinds) for letter, kinds in begins.items()}


class MarkdownMatcher(_NotingMatcher, GherkinInMarkdownTokenMatcher):
    """Headings and bullets, for ``*.feature.md``."""


class PatientParser(Parser):
    """The official parser, which keeps what it has read in spite of errors."""

    def add_error(self, context: ParserContext, error: ParserException) -> None:
        """Note the error. The library gives up at the eleventh, and all is lost."""
        # The same one comes twice in a row, if at all.
        if not context.errors or str(context.errors[-1]) != str(error):
            context.errors.append(error)


class QuickParser(PatientParser):
    """The same, by first letters: for a ``QuickMatcher``. What it returns is the same."""

    def match_token(self, state: int, token: Token, context: ParserContext) -> int:
        """Go on by one line. The library makes its table of fifty states anew for each."""
        return _STATES[state](self, token, context)

    def handle_ast_error(
        self, context: ParserContext, argument: Any, action: Callable[[Any], object]
    ) -> None:
        """Go on by one part of the tree: what the library does, in one call in the place of two."""
        try:
            action(argument)
        except ParserException as error:
            self.add_error(context, error)


_STATES: dict[int, Callable[[QuickParser, Token, ParserContext], int]] = {
    int(name.rpartition("_")[2]): method
    for name, method in vars(Parser).items()
    if name.startswith("match_token_at_")
}


def _by_first_letter(kind: str) -> Callable[[QuickParser, ParserContext, Token], bool]:
    slow = getattr(Parser, f"match_{kind}")

    def quick(self: QuickParser, context: ParserContext, token: Token) -> bool:
        line: Any = token.line
        if not line:
            return False
        matcher: Any = context.token_matcher
        letter = line._trimmed_line_text[:1]  # noqa: SLF001 - any way round costs a call
        found: bool = kind in matcher.may_begin.get(letter, _NOTHING) and slow(self, context, token)
        return found

    return quick


for _kind in (*_TITLES, "StepLine", *(kind for kinds in _SIGNS.values() for kind in kinds)):
    setattr(QuickParser, f"match_{_kind}", _by_first_letter(_kind))
