"""What a rule is, what it finds, and all rules by their codes.

A rule is a function: it is given a parsed file, and yields the nodes that are wrong, each with what
is quoted in its message. Its docstring is its page: the title; why it matters; `Instead:`, the next
step; `Fails:` and `Passes:`, its twins, in which `# file: PATH` begins a further file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from textwrap import dedent
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Iterator

    from pytest_arena._cli.doctor._code import Code

    Check = Callable[[Code], Iterator["Finding"]]

RULES: dict[str, Rule] = {}
PAGE = "docs/reference/doctor.md"


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

    node: ast.AST
    quoted: str = ""
    edits: tuple[Replacement, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """A finding with its place. Lines and columns count from 1, columns in letters."""

    file: str
    line: int
    column: int
    end_line: int
    code: str
    message: str
    edits: tuple[Replacement, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule, and the parts of its page."""

    code: str
    name: str
    words: tuple[str, ...]
    ended: bool
    page: str
    check: Check = field(compare=False)

    @property
    def title(self) -> str:
        """What is wrong, in one line."""
        return self.page.partition("\n")[0].rstrip(".")

    @property
    def why(self) -> str:
        """Why it matters."""
        return self.page.partition("\n\n")[2].partition("\n\nInstead:")[0].strip()

    @property
    def step(self) -> str:
        """What to write instead."""
        return self.page.partition("\n\nInstead:")[2].partition("\n\nFails:")[0].strip()

    def twin(self, heading: str) -> dict[str, str]:
        """The files of the example below `Fails` or `Passes`, by their paths."""
        text = re.split(r"\n\n(?:Fails|Passes):\n\n", self.page)[
            ("", "Fails", "Passes").index(heading)
        ]
        first, *others = re.split(r"^# file: (\S+)\n", dedent(text), flags=re.MULTILINE)
        files = dict(zip(others[::2], others[1::2], strict=True))
        return {"tests/test_it.py": first, **files} if first.strip() else files


def rule(
    code: str, name: str, *, words: tuple[str, ...], ended: bool = False
) -> Callable[[Check], Check]:
    """Make a function a rule.

    A file with none of `words` is not looked at. One that is `ended` is off in a project that uses
    pytest-arena: what it is about is harmless there.
    """

    def enter(check: Check) -> Check:
        RULES[code] = Rule(code, name, words, ended, dedent_page(check.__doc__ or ""), check)
        return check

    return enter


def dedent_page(text: str) -> str:
    """A docstring without the indentation of its function."""
    first, _, rest = text.partition("\n")
    return f"{first}\n{dedent(rest)}".strip()


def chosen(select: list[str], ignore: list[str]) -> list[Rule]:
    """The rules whose codes begin with a selected word and with no ignored one."""
    return [
        rule
        for code, rule in sorted(RULES.items())
        if code.startswith(tuple(select or ["ARD"])) and not code.startswith(tuple(ignore))
    ]
