"""Does Markdown's own syntax in a specification stay text, and does a summary fit?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from markdown_it import MarkdownIt

from pytest_arena.scenarios.evidence._document import Document, Status
from pytest_arena.scenarios.outputs._ci import workflow_commands
from pytest_arena.scenarios.specs._specification import Problem
from tests.outputs.documents import a_scenario, every_status, judged, proven, summary

if TYPE_CHECKING:
    from pathlib import Path

NASTY = "a|b `c` <script>alert(1)</script> **d** [e](f) ~~g~~ &amp; \\ $x$\n| --- |"


def rendered(text: str) -> str:
    """As GitHub would: tables are on."""
    html: str = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    return html


def test_the_matrix_has_a_row_for_each_scenario() -> None:
    """With five cells; the rule's name stands in its first row."""
    html = rendered(summary(every_status()))
    assert html.count("<tr>") == 1 + len(Status)
    assert html.count("<td>") == 5 * len(Status)
    assert html.count("BR-BTL-001 Battles") == 1
    assert "<strong>HOLLOW</strong>" in html
    assert "<td>PROVEN</td>" in html


def test_whatever_a_name_holds_it_is_shown_as_text() -> None:
    """Pipes, HTML, links, line ends: a row has its five cells."""
    one = judged(Status.HOLLOW, NASTY, scenario=a_scenario(NASTY, requirement=NASTY))
    tests = tuple(replace(test, test=f"tests/t.py::test[{NASTY}]") for test in one.tests)
    document = Document(
        scenarios=(replace(one, tests=tests),),
        problems=(Problem(spec="a|b.md", line=1, what=NASTY),),
        partial=NASTY,
    )
    html = rendered(summary(document))
    assert html.count("<td>") == 5
    assert html.count("<tr>") == 2
    for tag in ("<script", "<a ", "<s>", "<em>"):
        assert tag not in html
    assert html.count("&lt;script&gt;") >= 4


@pytest.mark.slow
def test_a_summary_is_never_larger_than_github_shows() -> None:
    """Proven ones are left out first, and it says how many are."""
    fine = [proven(a_scenario(f"fine {number} {'x' * 700}")) for number in range(2000)]
    wrong = [judged(Status.HOLLOW, scenario=a_scenario(f"bad {number}")) for number in range(9)]
    text = summary(Document(scenarios=(*fine, *wrong)))
    assert len(text.encode()) < 1024 * 1024
    assert text.count("**HOLLOW**") == 9
    assert "2000 more scenarios are left out" in text
    many = [judged(Status.HOLLOW, "y" * 900, scenario=a_scenario("x" * 900))] * 2000
    text = summary(Document(scenarios=tuple(many)))
    assert len(text.encode()) < 1024 * 1024
    assert "more scenarios are left out" in text


def test_workflow_commands_stand_at_the_specifications_lines() -> None:
    """The worst first; agreed gaps are left out."""
    document = every_status()
    told = workflow_commands(document)
    assert told[0] == "::error file=docs/battles.md,line=7::no keyword: 'Givn x' (Given x)"
    assert told[1].startswith(
        "::error file=docs/battles.md,line=10,title=MALFORMED%3A One that is MALFORMED::"
    )
    assert told[10:] == ["::warning file=tests/test_x.py,line=3::no such scenario"]
    assert len(told) == 11
    known = tuple(replace(one, is_excused=True) for one in document.scenarios)
    assert len(workflow_commands(replace(document, scenarios=known))) == 2
    lenient = workflow_commands(document, is_strict=False)
    assert len(lenient) == 10
    assert not any("::error" in line for line in lenient)


def test_a_workflow_command_is_one_line_and_cannot_hold_another() -> None:
    """Percent signs, line ends, colons and commas mean something there."""
    name = "50%, a: b\n::error::gone"
    document = Document(
        scenarios=(judged(Status.UNMAPPED, "x\n::warning::y", scenario=a_scenario(name)),)
    )
    (told,) = workflow_commands(document)
    assert told == (
        "::error file=docs/battles.md,line=10,"
        "title=UNMAPPED%3A 50%25%2C a%3A b %3A%3Aerror%3A%3Agone::x ::warning::y"
    )


def test_paths_are_seen_from_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the project is a folder in it."""
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    document = every_status()
    inside = workflow_commands(document, root=tmp_path / "examples" / "shop")
    assert inside[0].startswith("::error file=examples/shop/docs/battles.md,")
    assert workflow_commands(document, root=tmp_path)[0].startswith("::error file=docs/")
    assert workflow_commands(document, root=tmp_path.parent)[0].startswith("::error file=docs/")
