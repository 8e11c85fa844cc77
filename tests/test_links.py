"""Does every link between pages of the project lead somewhere, to its very heading?"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "skills/**/*.md", "tests/*.md")
    for page in ROOT.glob(pattern)
    if "node_modules" not in page.parts
)
FENCED = re.compile(r"^(\s*)(`{3,}|~{3,}).*?^\1\2`*\s*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\]\((?!\w+:)([^)\s#]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#{1,6} (.+?)\s*$", re.MULTILINE)


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


@cache
def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    found: dict[str, int] = {}
    names = set()
    for heading in HEADING.findall(prose(page)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number = found[name] = found.get(name, -1) + 1
        names.add(f"{name}-{number}" if number else name)
    return names


def dead_links(page: Path) -> list[str]:
    """Those that lead nowhere."""
    dead = []
    for path, anchor in LINK.findall(CODE.sub("", prose(page))):
        target = (page.parent / path).resolve() if path else page
        is_there = target.is_relative_to(ROOT) and target.exists()
        if not is_there or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            dead.append(f"{path}#{anchor}" if anchor else path)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_link_is_dead(page: Path) -> None:
    """Not to a page, nor to a place on it."""
    assert dead_links(page) == []


def test_a_dead_link_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its file, and by its heading."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "b.md").write_text("# A `word`, and [more](a.md)\n\n## Again\n\n## Again\n")
    page = tmp_path / "a.md"
    right = "[x](b.md) [x](b.md#a-word-and-more) [x](b.md#again-1) [x](https://nowhere) `[x](c)`\n"
    page.write_text(f"{right}```text\n[x](c.md)\n```\n")
    assert dead_links(page) == []
    page.write_text("[x](c.md) [x](b.md#c) [x](#c) [x](../b.md)")
    assert dead_links(page) == ["c.md", "b.md#c", "#c", "../b.md"]
