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

from pytest_arena._config._options import OPTIONS
from tests.outputs.test_browser import opened_browser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

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
    assert "shows a complete test" not in shown
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
def test_the_site_is_built_without_a_warning_and_is_read_in_a_browser() -> None:
    """By the target that its readers call; an anchor that is nowhere would be a warning.

    In one test, because two would build the site at the same time.
    """
    make = shutil.which("make")
    assert make, "all of the project's checks begin with it"
    done = subprocess.run([make, "docs"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    site = ROOT / "build/docs"
    assert [page for page in PAGES if not (site / f"{page}.html").is_file()] == []
    assert (site / "llms.txt").is_file()
    with opened_browser() as browser:
        phone = browser.new_page(viewport={"width": PHONE, "height": 740})
        assert [page for page in sorted(PAGES) if width_of(phone, site, page) > PHONE] == []
        phone.goto((site / "search.html").as_uri())
        missing = [words for words, page in searched() if page not in phone.evaluate(SEARCH, words)]
        assert missing == []


PHONE = 360  # pixels
# Sphinx's search as its page calls it: the names of the pages that have all words.
SEARCH = "words => Search._performSearch(...Search._parseQuery(words)).map(found => found[0])"


def width_of(phone: Page, site: Path, page: str) -> int:
    """Return the width to which a page can be scrolled."""
    phone.goto((site / f"{page}.html").as_uri(), wait_until="domcontentloaded")
    width: int = phone.evaluate("document.documentElement.scrollWidth")
    return width


def searched() -> Iterator[tuple[str, str]]:
    """Yield what readers search for, and the page that has to be found."""
    for option in OPTIONS:
        for name in (option.ini, option.ini.upper(), f"--{option.ini.replace('_', '-')}"):
            yield name, "reference/options"
    for page in sorted(DOCS.glob("reference/errors/A*.md")):
        name = f"reference/errors/{page.stem}"
        yield page.stem, name
        for block in re.findall(r"^```text\n(.+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            yield block.replace("…", " "), name
    for page in sorted(DOCS.glob("problems/[a-z]*.md")):
        for block in re.findall(r"^```text\n(.+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            yield re.sub(r"<[^>]*>|…", " ", block), f"problems/{page.stem}"
