"""Are the pictures of the README and the docs what pytest-arena writes today?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from tests.pictures import DOCS, DRAWN, PICTURES, drawn

if TYPE_CHECKING:
    from pathlib import Path

README = DOCS.parent / "README.md"
MOST_BYTES = 100_000


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_what_a_run_of_today_draws(name: str) -> None:
    """The example of its page is run again, and drawn again."""
    committed = (PICTURES / name).read_text(encoding="utf-8")
    assert drawn(name) == committed, "make pictures"


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_small_and_loads_nothing(name: str) -> None:
    """Code hosts show an SVG that is well-formed, and follow none of its links."""
    text = (PICTURES / name).read_text(encoding="utf-8")
    ET.fromstring(text)  # noqa: S314 - our own file
    assert len(text.encode()) < MOST_BYTES
    assert re.findall(r'<script|\bsrc=|url\((?!#)|href="(?!#)[^"]*', text) == []


def test_the_readme_and_the_site_show_each_picture() -> None:
    """And no other file is kept there."""
    assert {file.name for file in PICTURES.iterdir()} == set(DRAWN)
    image = re.compile(r"^!\[[^\]]+\]\((\S+\.svg)\)$", re.MULTILINE)
    pages = [README, *DOCS.rglob("*.md")]
    shown: dict[Path, set[Path]] = {}
    for page in pages:
        found = image.findall(page.read_text(encoding="utf-8"))
        shown[page] = {(page.parent / path).resolve() for path in found}
    expected = {PICTURES / name for name in DRAWN}
    assert shown.pop(README) == expected
    assert set().union(*shown.values()) == expected
