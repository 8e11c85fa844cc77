"""What does an error of the official parser say, in words?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena.scenarios.specs.gherkin._languages import nearest_language

if TYPE_CHECKING:
    from pytest_arena.scenarios.specs.gherkin._languages import Language

__all__ = ["Fault", "in_words"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong in a line."""

    line: int
    what: str
    hint: str = ""


# Such as: (4:2): expected: #EOF, #TableRow, got 'Whan y'
_POSITION = re.compile(r"^\(\d+:\d+\): ")
_EXPECTED = re.compile(r"expected: ((?:#\w+(?:, )?)+)")
_LANGUAGE = re.compile(r"Language not supported: (.*)")
_SHOWN = 120


def in_words(
    message: str, *, line: int, text: str, language: Language, open_doc_string: int
) -> Fault:
    """Return an error as a sentence that names the line, and what was expected there."""
    message = _POSITION.sub("", message)
    shown = repr(_shortened(text.strip()))
    if unknown := _LANGUAGE.search(message):
        return _unknown_language(line, unknown.group(1))
    if open_doc_string and "unexpected end of file" in message:
        return Fault(
            line=open_doc_string,
            what="the doc string that begins here is never closed, and takes in all that follows",
            hint='end it with a line of the same marks, """',
        )
    expected = _EXPECTED.search(message)
    if expected is None:
        return Fault(line=line, what=f"{_plain(message)}, in {shown}")
    awaited = _awaited(expected.group(1).split(", "), language)
    if "unexpected end of file" in message and (text.strip().startswith("@") or "`@" in text):
        told = f"{shown} is read as tags that belong to nothing; expected {_scenario(language)}"
        return Fault(line=line, what=told)
    if "unexpected end of file" in message:
        return Fault(line=line, what=f"the text ends after {shown}; expected {awaited}")
    return Fault(line=line, what=f"expected {awaited}; found {shown}")


def _scenario(language: Language) -> str:
    return f"{language.title('scenario')} after them"


def _unknown_language(line: int, code: str) -> Fault:
    near = nearest_language(code)
    return Fault(
        line=line,
        what=f"{code!r} is no language that Gherkin knows; expected a code such as en, fr, zh-CN",
        hint=f"did you mean `# language: {near}`?" if near else "",
    )


def _plain(message: str) -> str:
    if message.startswith("inconsistent cell count"):
        return "a row has another number of cells than the first of its table"
    return message[:1].lower() + message[1:]


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + " …"


def _awaited(tokens: list[str], language: Language) -> str:
    words = {
        "#StepLine": f"a step ({language.named('given', 'when', 'then', 'and', 'but')})",
        "#FeatureLine": language.title("feature"),
        "#BackgroundLine": language.title("background"),
        "#ScenarioLine": language.title("scenario"),
        "#ExamplesLine": language.title("examples"),
        "#RuleLine": language.title("rule"),
        "#TableRow": "a row of a table (| … |)",
        "#DocStringSeparator": 'a doc string (""")',
        "#TagLine": "a tag (@…)",
        "#Language": "a comment `# language: …`",
        "#Other": "text",
    }
    found = [told for token, told in words.items() if token in tokens]
    return " or ".join(filter(None, [", ".join(found[:-1]), *found[-1:]])) or "the end of the text"
