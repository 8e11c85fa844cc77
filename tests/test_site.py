"""Is each page of the docs in the navigation of the site, which is built without a warning?"""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SITE = runpy.run_path(str(DOCS / "conf.py"))
PAGES = {page.relative_to(DOCS).with_suffix("").as_posix() for page in DOCS.rglob("*.md")}


def entries() -> Iterator[tuple[str, str]]:
    """What the navigation names: a page, and below it another one, or a pattern."""
    for parent, parts in SITE["NAVIGATION"].items():
        for entry in chain.from_iterable(parts.values()):
            yield parent, entry


def found(entry: str) -> set[str]:
    """The pages of that name or pattern."""
    return {page.relative_to(DOCS).with_suffix("").as_posix() for page in DOCS.glob(f"{entry}.md")}


def as_on_the_site(page: str, text: str) -> str:
    """A page as Sphinx is given it."""
    source = [text]
    SITE["as_a_page_of_the_site"](None, page, source)
    return source[0]


def test_the_navigation_names_each_page_once() -> None:
    """But for the start page, which holds it."""
    named = Counter(page for parent, entry in entries() for page in found(entry) - {parent})
    assert named == Counter(PAGES - {"index"})


def test_no_entry_of_the_navigation_leads_nowhere() -> None:
    """Each one is a page, or a pattern that finds some."""
    assert [entry for _, entry in entries() if not found(entry)] == []


def test_the_start_page_shows_the_readmes_example() -> None:
    """Its sentence about the README is the place for that."""
    text = (DOCS / "index.md").read_text(encoding="utf-8")
    shown = as_on_the_site("index", text)
    assert "caption: test_dancers.py" in shown
    assert "smallest complete test" not in shown
    assert "## Use it" not in shown


def test_a_link_out_of_the_docs_leads_to_the_code_host_and_others_stay() -> None:
    """Anchors too."""
    text = "[a](../../bench) [b](../../README.md#use-it) [c](xdist.md#x) [d](#e) [f](https://g)"
    host = re.escape(SITE["SOURCE"])
    assert re.fullmatch(
        rf"\[a\]\({host}/blob/main/bench\) \[b\]\({host}/blob/main/README.md#use-it\) "
        r"\[c\]\(xdist.md#x\) \[d\]\(#e\) \[f\]\(https://g\)",
        as_on_the_site("how-to/ci", text),
    )


def test_llms_txt_names_each_page() -> None:
    """With its address and a sentence."""
    text = SITE["llms_txt"]()
    named = re.findall(
        rf"^- \[.+\]\({re.escape(SITE['html_baseurl'])}(\S+)\.html\): .", text, re.MULTILINE
    )
    assert set(named) == PAGES - {"index"}


@pytest.mark.slow
def test_the_site_is_built_without_a_warning() -> None:
    """By the target that its readers call; an anchor that is nowhere would be a warning."""
    make = shutil.which("make")
    assert make, "all of the project's checks begin with it"
    done = subprocess.run([make, "docs"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    site = ROOT / "build/docs"
    assert [page for page in PAGES if not (site / f"{page}.html").is_file()] == []
    assert (site / "searchindex.js").is_file()
    assert (site / "llms.txt").is_file()
