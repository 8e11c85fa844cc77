"""The registry of the rules, and the faults that they find.

A rule is a function. It gets a parsed file and yields a `Finding` for each wrong node. Its
docstring documents the rule. It has a title, the reason, and three headings. `Instead:` has the
next step. `Fails:` and `Passes:` have an example each. In an example, `# file: PATH` begins another
file.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ast
    from pathlib import Path

    from pytest_arena._cli.doctor._code import Code

RULES: dict[str, Rule] = {}


@dataclass(frozen=True, slots=True)
class Replacement:
    """A text to replace in one line. The column counts bytes."""

    line: int
    column: int
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A wrong node, the text that the message quotes, and the repair if it is safe.

    Attributes:
        quoted: the code that the message shows, "" for the whole node.
        file: the file of the node, None for the checked file.
    """

    node: ast.expr | ast.stmt
    quoted: str = ""
    edits: tuple[Replacement, ...] = ()
    file: Path | None = None


Findings = Iterator[Finding]
Check = Callable[["Code"], Findings]


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """A finding with its place. Lines and columns count from 1, columns count characters."""

    file: str
    line: int
    column: int
    code: str
    message: str
    end_line: int
    edits: tuple[Replacement, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule, and the parts of its documentation.

    Attributes:
        words: a file with none of these words is not checked.
        solved_by_arena: whether the rule is off in a project that uses pytest-arena.
        page: the whole docstring.
        title: the first paragraph of the docstring.
        why: the second paragraph.
        step: the text after ``Instead:``.
    """

    code: str
    name: str
    words: tuple[str, ...]
    solved_by_arena: bool
    check: Check
    page: str
    title: str
    why: str
    step: str


def rule(
    code: str, name: str, *words: str, solved_by_arena: bool = False
) -> Callable[[Check], Check]:
    """Register a function as a rule."""

    def register(check: Check) -> Check:
        page = inspect.cleandoc(check.__doc__ or "")
        about = page.partition("\n\nFails:")[0]
        about, _, step = about.partition("\n\nInstead:")
        title, _, why = about.partition("\n\n")
        RULES[code] = Rule(
            code,
            name,
            words,
            solved_by_arena,
            check,
            page,
            title=title.rstrip("."),
            why=why.strip(),
            step=" ".join(step.split()),
        )
        return check

    return register


def selected_rules(select: list[str], ignore: list[str]) -> list[Rule]:
    """Return the rules whose codes begin with a selected prefix and with no ignored prefix."""
    rules = []
    selected = tuple(select or [""])  # "" is a prefix of each code
    ignored = tuple(ignore)
    for code, rule in sorted(RULES.items()):
        if code.startswith(selected) and not code.startswith(ignored):
            rules.append(rule)
    return rules
