"""The page of the rules, as their docstrings say it; ``python -m tests.doctor.page`` writes it."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

from pytest_arena._cli.doctor import _examine
from pytest_arena._cli.doctor._rule import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._cli.doctor._rule import Rule

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "doctor.md"
BEGIN = "<!-- the rules: written by python -m tests.doctor.page -->\n"
GROUPS = {
    "0": "Files that cannot be examined",
    "1": "The wrong database",
    "2": "Overrides, clients and the lifespan",
    "3": "Event loops",
    "4": "Tables, engines and sessions",
    "5": "Tests that cannot fail",
    "6": "Order and time",
}
RULE_MODULES = _examine.RULE_MODULES  # imported, so that all rules are known


def rules_of_the_page() -> str:
    """Return the rules that pytest-arena ends, and a section for each rule, by groups."""
    ended = (
        f"[{rule.code}](#{_anchor(rule)})"
        for _, rule in sorted(RULES.items())
        if rule.solved_by_arena
    )
    groups = "".join(_group(number, title) for number, title in GROUPS.items())
    return (
        "\npytest-arena prevents the faults of some rules. If the suite has an `arena_…` option, "
        f"`arena doctor` does not check these rules:\n{', '.join(ended)}.\n{groups}"
    )


def _anchor(rule: Rule) -> str:
    return f"{rule.code.lower()}-{rule.name}"


def _group(number: str, title: str) -> str:
    rules = [rule for code, rule in sorted(RULES.items()) if code[3] == number]
    return f"\n## {title}\n{''.join(map(_section, rules))}"


def twin(rule: Rule, heading: str) -> dict[str, str]:
    """The files of the example below `Fails` or `Passes`, by their paths."""
    _, fails, passes = re.split(r"\n\n(?:Fails|Passes):\n\n", rule.page)
    text = dedent({"Fails": fails, "Passes": passes}[heading])
    first, *others = re.split(r"^# file: (\S+)\n", text, flags=re.MULTILINE)
    files = dict(zip(others[::2], others[1::2], strict=True))
    return {"tests/test_it.py": first, **files} if first.strip() else files


def _section(rule: Rule) -> str:
    """Return the fault, the repair and the examples; ``arena doctor --explain`` says why, too."""
    about = rule.page.partition("\n\nFails:")[0].split("\n\n")
    short = "\n\n".join([about[0], *(part for part in about if part.startswith("Instead:"))])
    fails, passes = ("".join(_blocks(twin(rule, each))) for each in ("Fails", "Passes"))
    return f"\n### {rule.code} {rule.name}\n\n{short}\n\nFails:\n{fails}\nPasses:\n{passes}"


def _blocks(files: dict[str, str]) -> Iterator[str]:
    for path, text in files.items():
        shown = "" if path == "tests/test_it.py" else f"\n`{path}`:\n"
        yield f"{shown}\n```{_language(path, text)}\n{text.strip()}\n```\n"


def _language(path: str, text: str) -> str:
    try:
        compile(text, path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError:
        return "text"
    return "python"


def written(text: str) -> str:
    """The page with the rules of today."""
    return text.partition(BEGIN)[0] + BEGIN + rules_of_the_page()


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
