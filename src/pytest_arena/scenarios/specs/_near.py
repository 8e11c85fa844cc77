"""Was a line of text meant to be a keyword? The parser takes such a line for a description."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pytest_arena.scenarios.specs.gherkin import Language

__all__ = ["Near", "begins_like_a_step", "edits", "near_step", "near_title"]

Slip = Literal["exact", "case", "blank", "letter", "letters"]

# Marks of lists and quotes, emphasis, numbers, and what cannot be seen: a byte order mark, blanks
# without width.
_MARKS = re.compile(r"^[\s\-*+_>#\u200b\u200c\u200d\u2060\ufeff]*(?:\d+[.)]\s+)?[*_`]*")
_ENDS = ":*_`,"
# What an English sentence may begin with, and is but a letter or two away from a keyword.
_ENGLISH = frozenset(
    re.findall(
        r"\w+",
        "ad add ads age aid air all an ant any are arm art as ask at bad bag bet bid big bit boy "
        "bug bus buy by cut end even gain gave gets give gives giver givers going golden gone "
        "gravel great green grid guest guide hen her here his hut land men nut one out per pen "
        "put seven she shut sign site siren ten than that the thee their them themes theme there "
        "these they thin thing this those tie tied tier unit us user went were what where "
        "wheel while who whom whose why wine with",
    )
)
_SHORT = 4
_LONG = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """A keyword that a line seems to have been meant for."""

    keyword: str
    """As it is written right, with the colon of a title."""
    slip: Slip
    """What is not right with it: "exact" is a keyword where the parser does not look for one."""
    title: str = ""
    """Of a title: scenario, scenarioOutline, background, examples, feature, rule."""
    wrong: str = ""
    """How it is written."""


def near_step(line: str, language: Language) -> Near | None:
    """Return the step keyword that a line seems to begin with, or None."""
    body = _MARKS.sub("", line)
    found = _same_step(body, language)
    return found or _misspelt_step(body, language)


def _same_step(body: str, language: Language) -> Near | None:
    folded = body.casefold()
    for keyword in _by_length(language):
        if folded.startswith(keyword.casefold()):
            rest = body[len(keyword) :]
            is_spaced = keyword + " " in language.kinds
            if not is_spaced and keyword not in language.kinds:
                continue
            if is_spaced and rest[:1] and not (rest[0].isspace() or rest[0] in _ENDS):
                continue
            if not body.startswith(keyword):
                return Near(keyword=keyword, slip="case", wrong=body[: len(keyword)])
            slip: Slip = "exact" if not is_spaced or rest.startswith(" ") else "blank"
            return Near(keyword=keyword, slip=slip, wrong=body[: len(keyword) + 1].rstrip("\n"))
    return None


@cache
def _by_length(language: Language) -> tuple[str, ...]:
    return tuple(sorted(language.steps, key=len, reverse=True))


def _misspelt_step(body: str, language: Language) -> Near | None:
    words = body.split()
    if not words or words[0].rstrip(_ENDS).casefold() in _ENGLISH:
        return None
    for keyword in language.steps:
        if keyword + " " not in language.kinds:
            continue  # no blank follows it: nobody knows where it would have ended
        begin = " ".join(words[: len(keyword.split())]).rstrip(_ENDS)
        folded, wanted = begin.casefold(), keyword.casefold()
        is_worth_it = folded.replace(" ", "").isalpha() and folded != wanted
        if is_worth_it and (slip := _slip(folded, wanted)):
            return Near(keyword=keyword, slip=slip, wrong=begin)
    return None


def _slip(word: str, wanted: str) -> Slip | None:
    if len(wanted) < _SHORT or abs(len(word) - len(wanted)) > 2:  # noqa: PLR2004 - two letters
        return None
    distance = edits(word, wanted)
    if distance == 1:
        return "letter"
    is_near = distance == 2 and len(wanted) >= _LONG and word[0] == wanted[0]  # noqa: PLR2004 - two letters
    return "letters" if is_near else None


def near_title(line: str, language: Language) -> Near | None:
    """Return the title that a line seems to begin with, ``Scenario:``, or None."""
    body = _MARKS.sub("", line)
    head, colon, _ = body.replace("\uff1a", ":").partition(":")
    if colon:
        return _titled(head.strip(" \t\u00a0" + _ENDS), language)
    for word in language.titles:
        is_whole = body[len(word) : len(word) + 1].strip(" \t\u00a0") == ""
        if is_whole and body.casefold().startswith(word.casefold()):
            return _title(word, "blank" if body.startswith(word) else "case", language, word)
    return None


def _titled(head: str, language: Language) -> Near | None:
    if head in language.titles:
        return _title(head, "exact", language, head)
    folded = " ".join(head.casefold().split())
    for word in language.titles:
        if folded == word.casefold():
            return _title(word, "case", language, head)
    near = [
        (edits(folded, word.casefold()), word)
        for word, title in language.titles.items()
        if title not in {"feature", "rule"} and len(word) >= _LONG
        # The plural is a word of its own: "Backgrounds: …"
        if folded != word.casefold() + "s"
    ]
    distance, word = min(near, default=(3, ""))
    if len(folded) >= _LONG and distance <= 2:  # noqa: PLR2004 - two letters
        return _title(word, "letters", language, head)
    return None


def _title(word: str, slip: Slip, language: Language, wrong: str) -> Near:
    return Near(keyword=word + ":", slip=slip, title=language.titles[word], wrong=wrong)


def begins_like_a_step(line: str, language: Language) -> bool:
    """Whether a line begins with a step keyword, in whatever case and behind whatever marks."""
    found = _same_step(_MARKS.sub("", line), language)
    return found is not None or line.lstrip().startswith("* ")


def edits(one: str, other: str) -> int:
    """Return how many letters have to be changed, added, left out or swapped; 3 means many.

    >>> edits("givne", "given"), edits("whan", "when"), edits("seven", "whatever")
    (1, 1, 3)
    """
    if abs(len(one) - len(other)) > 2:  # noqa: PLR2004 - more than two is many
        return 3
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, last, row = row, before, [i]
        for j, wanted in enumerate(other, 1):
            cost = min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return min(row[-1], 3)
