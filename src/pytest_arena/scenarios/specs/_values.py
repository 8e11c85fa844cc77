"""What stands in a specification: features, scenarios, steps, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Feature", "Kind", "Problem", "Row", "Scenario", "Specification", "Step"]

Kind = Literal["given", "when", "then"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step. ``kind`` is what it is in any language, whatever it is begun with."""

    keyword: str
    """As it is written, without blanks: ``Given``, ``And``, ``*``, ``Soit``."""
    kind: Kind
    """And, But and ``*`` are what the step before is; at a scenario's beginning a Given."""
    text: str
    line: int
    """In the file, from 1."""
    doc_string: str | None = None
    media_type: str = ""
    table: tuple[tuple[str, ...], ...] = ()
    is_background: bool = False

    def __str__(self) -> str:
        return f"{self.keyword} {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a Scenario Outline's Examples."""

    values: tuple[tuple[str, str], ...]
    """Pairs of column and value, sorted: what a row is known by, wherever it stands."""
    line: int
    name: str
    """The scenario's name with the placeholders filled in."""
    steps: tuple[Step, ...]
    tags: tuple[str, ...] = ()
    rev: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One scenario, or one Scenario Outline with its rows."""

    name: str
    feature: str
    rule: str
    """The name of the Gherkin ``Rule:`` that it stands in, else empty."""
    requirement: str
    """The business rule's id, from the nearest heading or quote: ``BR-TEST-001``, else empty."""
    spec: str
    """The file, from the root folder, with ``/``."""
    line: int
    key: str
    """What it is known by, wherever it stands: its own id tag (``@BTL-3``), else the names of
    feature, rule and scenario, joined by `` :: ``."""
    rev: str
    """The hash of its steps, ``1:3265ea09``: blind to looks, names and tags."""
    steps: tuple[Step, ...]
    """Those of the Backgrounds first. Of an Outline: with the placeholders in them."""
    tags: tuple[str, ...] = ()
    """With ``@``; those of the feature and the rule too."""
    rows: tuple[Row, ...] = ()
    is_outline: bool = False
    description: str = ""

    @property
    def place(self) -> str:
        """Where it stands: ``docs/spec.md:180``."""
        return f"{self.spec}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something in a specification, or about one, that is not as it should be."""

    spec: str
    """The file, from the root folder; empty where it concerns none."""
    line: int
    """0 where it concerns a whole file."""
    what: str
    """One sentence, with what was found and what was expected."""
    hint: str = ""
    """What to do about it."""
    is_error: bool = True
    """Whether the scenario is MALFORMED by it (the file, where there is none); else a warning."""
    scenario: str = ""
    """The key of the scenario that it is about, where there is one."""

    def __str__(self) -> str:
        where = f"{self.spec}:{self.line}" if self.line else self.spec
        return ": ".join(filter(None, [where, self.what])) + (f" ({self.hint})" * bool(self.hint))


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One feature: what is said of it before its scenarios."""

    name: str
    spec: str
    line: int
    language: str = "en"
    requirement: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Specification:
    """All that the files say, in the order of their paths and lines."""

    files: tuple[str, ...] = ()
    features: tuple[Feature, ...] = ()
    scenarios: tuple[Scenario, ...] = ()
    problems: tuple[Problem, ...] = ()
