"""Which words are keywords, in each of the languages of Gherkin?"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property
from typing import TYPE_CHECKING, Literal, cast

from gherkin.dialect import DIALECTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_arena.scenarios.specs._values import Kind

__all__ = ["Language", "Title", "language", "languages", "nearest_language"]

Title = Literal["feature", "rule", "background", "scenario", "scenarioOutline", "examples"]
_TITLES: tuple[Title, ...] = (
    "feature",
    "rule",
    "background",
    "scenario",
    "scenarioOutline",
    "examples",
)
_KINDS: tuple[Kind, ...] = ("given", "when", "then")


@dataclass(frozen=True, eq=False)
class Language:
    """The keywords of one language."""

    code: str
    words: Mapping[str, list[str]]
    """As the parser has them: those of steps with the blank that follows, if one has to."""

    @cached_property
    def kinds(self) -> dict[str, Kind | None]:
        """What each step keyword says that the step is; None: what the step before it is."""
        found: dict[str, Kind | None] = {
            word: None for name in ("and", "but") for word in self.words[name]
        }
        # No language has a word for two of them; where one had, it would be what comes first.
        for kind in reversed(_KINDS):
            found.update((word, kind) for word in self.words[kind] if word != "* ")
        return found

    @cached_property
    def titles(self) -> dict[str, Title]:
        """What each word before a colon begins."""
        return {word: title for title in reversed(_TITLES) for word in self.words[title]}

    @cached_property
    def steps(self) -> dict[str, Kind | None]:
        """As ``kinds``, without blanks and without ``*``."""
        return {word.strip(): kind for word, kind in self.kinds.items() if word != "* "}

    @cached_property
    def outlines(self) -> frozenset[str]:
        """The words that begin a Scenario Outline."""
        return frozenset(self.words["scenarioOutline"])

    def title(self, title: Title) -> str:
        """Return the usual word for one title, with its colon: ``Scenario:``."""
        # Of Example and Scenario, in whatever language, it is the second.
        return self.words[title][-1 if title == "scenario" else 0] + ":"

    def named(self, *names: str) -> str:
        """Return the usual step keywords of these kinds: ``Given, When``."""
        usual = (next(word for word in self.words[name] if word != "* ") for name in names)
        return ", ".join(word.strip() for word in usual)


@cache
def language(code: str) -> Language | None:
    """Return the language of this code, ``fr`` or ``zh-CN``; None if there is none."""
    words = cast("dict[str, Mapping[str, list[str]]]", DIALECTS).get(code)
    return None if words is None else Language(code, words)


@cache
def languages() -> tuple[Language, ...]:
    """Return all languages, in the order of their codes."""
    return tuple(one for code in sorted(DIALECTS) if (one := language(code)))


def nearest_language(code: str) -> str:
    """Return the code that was probably meant, or nothing."""
    lower = {known.casefold(): known for known in DIALECTS}
    wanted = code.casefold().replace("_", "-")
    found = get_close_matches(wanted, lower, n=1) or [wanted.split("-")[0]]
    return lower.get(found[0], "")
