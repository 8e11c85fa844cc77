"""The page for readers who do not write code."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from tests.scenarios.test_statuses import battles

if TYPE_CHECKING:
    from pathlib import Path

TESTS = ("tests/test_proven.py", "tests/test_weak.py", "tests/test_wide.py")


class Reader(HTMLParser):
    """Collects the elements of a page, and checks that each is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.addresses: list[str | None] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.addresses += [value for name, value in attrs if name in {"src", "href"}]
        self.names |= {name for name, _ in attrs if name.startswith("on")}
        if tag not in {"meta", "br", "hr", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    example = battles(tmp_path_factory.mktemp("page"))
    place = example.write()
    run = example.run("--scenarios=strict", "--scenarios-out=html:build/page.html", *TESTS)
    run.says("scenarios written to build/page.html")
    return place


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "build/page.html").read_text(encoding="utf-8")


def test_the_page_is_one_file_without_scripts(page: str) -> None:
    """HTML of the specification is text, and nothing is loaded."""
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert not reader.names & {"script", "link", "iframe", "object"}
    assert not any(name.startswith("on") for name in reader.names)
    assert reader.addresses
    for address in reader.addresses:
        assert f'id="{str(address).removeprefix("#")}"' in page
    assert '<script>alert("tag")</script> stays text' in reader.text


def test_the_top_says_which_project_and_when(page: str) -> None:
    top = page[: page.index("</header>")]
    assert "<h1>battles</h1>" in top
    assert re.search(r"Page written \d{4}-\d\d-\d\d \d\d:\d\d UTC", top)
    assert "Only a part of the tests was run: tests/test_proven.py" in top
    assert "Proven: 9</span> a test passes, and fails when the app is made" in top
    assert "No test yet: 8</span> a developer writes it" in top
    assert ">It cannot run twice</a>" in top
    assert "App loses a write: 1</span>" in top


def test_the_page_is_the_specification_with_badges(page: str) -> None:
    """Its prose stays, and each scenario has words that need no glossary."""
    assert "<strong>BR-BTL-001: a battle is started once</strong>" in page
    assert page.count("<article") == 30
    for word in ("HOLLOW", "UNMAPPED", "DRIFTED", "NOT-RUN", "```"):
        assert word not in page
    [proven] = re.findall(
        r"<article[^>]*>.{0,60}\n?.*?A pending battle.*?</article>", page, re.DOTALL
    )
    assert 'class="badge proven">Proven</span>' in proven
    assert '<span class="line">  And the answer says so</span></pre>' in proven
    for text in (
        "so: response.json() == {&#x27;status&#x27;: &#x27;ACTIVE&#x27;} (tests/test_proven.py:",
        "Data: rows of battles, written by the test or its fixtures",
        "Request: POST /battles/1/start, answered 200, changed battles",
        "Wrong answer: Then the battle is ACTIVE: it fails if the app wrote nothing for POST /",
    ):
        assert text in " ".join(proven.split())
    assert "The team has agreed to this gap until 2999-12-31: tried by hand" in page
    assert "Why: 2 Then steps, 1 check after the answer" in page


def test_the_evidence_of_a_test_is_in_words(page: str) -> None:
    """Each test of a scenario has a list. A check that no answer was needed for says so."""
    assert page.count('<ul class="facts">') == page.count("<li>Test: ") > page.count("<details>")
    assert "<li>Wrong answer: it fails if the app answered other values for GET /battles: " in page
    assert "<li>Check: before the answer: 1 + 1 == 2 (tests/test_weak.py:" in page
    assert page.count("<li>Check: not recorded (such as a unittest method)") == 1
