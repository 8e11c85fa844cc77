"""Which values and paths do a scenario's steps name?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from pytest_arena.scenarios.specs._specification import ScenarioSpec

__all__ = ["literals", "paths"]

_VERBS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_VERB = re.compile(rf"\b({'|'.join(_VERBS)})\b")
_HOST = re.compile(r"\bhttps?://[^\s/\"'?#]+")
# A path begins a word: not the slash of and/or, of 1/2, of a closing tag.
_PATH = re.compile(r"(?<![\w/<.}\]])/(?:[\w{}<>\-.:%~@+*]+/?)*")
_LONE = re.compile(r"(?:\b(?:to|at|on|visit|open|request)|" + "|".join(_VERBS) + r")\s+[\"'`]?$")
_QUOTED = re.compile(r"\"([^\"\n]+)\"|“([^”\n]+)”|(?<!\w)'([^'\n]+)'(?!\w)|`([^`\n]+)`")
_MARKS = "\"“'`"
_BARE = re.compile(r"(?<![\w.,-])(-?\d+(?:\.\d+)?)(?!\w|\.\d)|\b([A-Z][A-Z0-9_]+)\b")
_PLACEHOLDER = re.compile(r"<(\w[\w .-]*)>")
_HOLES = re.compile(r"[{<][^{}<>\n]*[}>]")
# They say how, not what.
_PLAIN = frozenset({*_VERBS, "HTTP", "HTTPS", "URL", "URI", "API", "JSON", "XML", "HTML", "ID"})


def literals(scenario: ScenarioSpec, rows: Collection[object] = ()) -> tuple[str, ...]:
    """Return the quoted texts, numbers and words in capitals of the steps, each once.

    Of an Outline those of the rows with these values; of all rows where it has none of them. Paths
    are no literals, nor is what they are made of.

    >>> literals(scenario)  # doctest: +SKIP
    ('Summer Battle 2024', 'PRESELECTION', '8')
    """
    mine = [row for row in scenario.rows if row.values in rows] or scenario.rows
    steps = [step for row in mine for step in row.steps] or scenario.steps
    # All at once: what is found ends with its line.
    return tuple(dict.fromkeys(_literals("\n".join(step.text for step in steps))))


def _literals(text: str) -> Iterator[str]:
    values: list[tuple[int, str]] = []
    bare = text
    if any(mark in text for mark in _MARKS):
        quoted = ((hit.start(), next(filter(None, hit.groups()))) for hit in _QUOTED.finditer(text))
        values = [(place, value) for place, value in quoted if not _PATH.fullmatch(value)]
        bare = _QUOTED.sub(_blanked, text)
    if "/" in bare:
        bare = _PATH.sub(_blanked, _HOST.sub(_blanked, bare))
    if "{" in bare or "<" in bare:
        bare = _HOLES.sub(_blanked, bare)
    values += [(hit.start(), hit.group()) for hit in _BARE.finditer(bare)]
    yield from (value for _, value in sorted(values) if value not in _PLAIN)


def _blanked(match: re.Match[str]) -> str:
    return " " * len(match.group())


def paths(scenario: ScenarioSpec) -> tuple[tuple[str, str], ...]:
    """Return the paths of the steps, each with its verb in capitals or ``""``, each pair once.

    Placeholders are written as a route has them: ``/battles/{battle_id}/start``.
    """
    return tuple(dict.fromkeys(path for step in scenario.steps for path in _paths(step.text)))


def _paths(text: str) -> Iterator[tuple[str, str]]:
    text = _PLACEHOLDER.sub(_as_in_a_route, _HOST.sub("", text))
    begin = 0
    for match in _PATH.finditer(text):
        path = match.group().rstrip(".,:;")
        if path == "/" and not _LONE.search(text[: match.start()]):
            continue
        verbs = _VERB.findall(text, begin, match.start())
        begin = match.end()
        yield (verbs[-1] if verbs else "", path)


def _as_in_a_route(placeholder: re.Match[str]) -> str:
    return "{" + re.sub(r"\W+", "_", placeholder.group(1)) + "}"
