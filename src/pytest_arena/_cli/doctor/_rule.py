"""What a rule is, what it finds, and all rules by their codes.

A rule is a function: it is given a parsed file, and yields the nodes that are wrong, each with what
is quoted in its message. Its docstring is its page: the title; why it matters; `Instead:`, the next
step; `Fails:` and `Passes:`, its twins, in which `# file: PATH` begins a further file.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ast

    from pytest_arena._cli.doctor._code import Code

RULES: dict[str, Rule] = {}


@dataclass(frozen=True, slots=True)
class Replacement:
    """A replacement: where it begins, as (line, column in bytes), what stands there, what shall."""

    line: int
    column: int
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule has found: the node, the words to quote, and the repair where it is safe."""

    node: ast.expr | ast.stmt
    quoted: str = ""
    edits: tuple[Replacement, ...] = ()


Findings = Iterator[Finding]
Check = Callable[["Code"], Findings]


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """A finding with its place. Lines and columns count from 1, columns in letters."""

    file: str
    line: int
    column: int
    code: str
    message: str
    end_line: int
    edits: tuple[Replacement, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule, and the parts of its page: the title, why it matters, what to write instead."""

    code: str
    name: str
    words: tuple[str, ...]
    ended: bool
    check: Check
    page: str
    title: str
    why: str
    step: str


def rule(
    code: str, name: str, *words: str, ended: bool = False
) -> Callable[[Check], Check]:
    """Make a function a rule.

    A file with none of `words` is not looked at. One that is `ended` is off in a project that uses
    pytest-arena: what it is about is harmless there.
    """

    def enter(check: Check) -> Check:
        page = inspect.cleandoc(check.__doc__ or "")
        about, _, step = page.partition("\n\nFails:")[0].partition("\n\nInstead:")
        title, _, why = about.partition("\n\n")
        parts = (title.rstrip("."), why.strip(), " ".join(step.split()))
        RULES[code] = Rule(code, name, words, ended, check, page, *parts)
        return check

    return enter


def chosen(select: list[str], ignore: list[str]) -> list[Rule]:
    """The rules whose codes begin with a selected word and with no ignored one."""
    return [
        rule
        for code, rule in sorted(RULES.items())
        if code.startswith(tuple(select or ["ARD"]))
        and not code.startswith(tuple(ignore))
    ]
