"""Can the page be used: on a phone, in the dark, by the keyboard alone, without a script?

In a real browser: the first that is found of Chromium, Chrome and Playwright's own.
"""

from __future__ import annotations

import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena.scenarios.evidence._document import Status
from tests.outputs.documents import page as made
from tests.outputs.pages import SOURCES, document, large, place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ALL = len(Status)

# Each pair of colours that letters on the page have, with the first text that has it.
COLOURS = """() => {
  const found = {};
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    const text = walk.currentNode.data.trim();
    if (!text || !element.checkVisibility() || element.closest("script, .skip")) continue;
    let below = element;
    const clear = "rgba(0, 0, 0, 0)";
    while (getComputedStyle(below).backgroundColor === clear) below = below.parentElement;
    const pair = [getComputedStyle(element).color, getComputedStyle(below).backgroundColor];
    found[pair.join(" on ")] ??= text;
  }
  return found;
}"""


@dataclass
class Opened:
    """A page in the browser, and all that it has complained of or asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def counts(self) -> tuple[int, str]:
        """How many scenarios can be seen, and how many the page says there are."""
        seen = self.page.locator("article.scenario:visible").count()
        return seen, self.page.locator("#shown").inner_text()

    def tab_to(self, selector: str) -> None:
        """Press Tab until something has the focus; each stop on the way shows that it has it."""
        for _ in range(80):
            self.page.keyboard.press("Tab")
            assert self.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != (
                "none"
            )
            if self.page.evaluate("_ => document.activeElement.matches(_)", selector):
                return
        pytest.fail(f"no way to {selector} by the keyboard")


@dataclass
class Opener:
    """Opens the page, and closes all that it has opened."""

    browser: Browser
    url: str
    opened: list[Opened] = field(default_factory=list)

    def __call__(self, fragment: str = "", *, url: str = "", **context: Any) -> Opened:
        """Return the page at a fragment, in a context of its own, once it has been loaded."""
        opened = Opened(self.browser.new_context(**context).new_page())
        self.opened.append(opened)
        opened.page.set_default_timeout(10_000)
        opened.page.on("console", lambda message: opened.complaints.append(message.text))
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.page.on("request", lambda request: opened.asked.append(request.url))
        opened.page.goto((url or self.url) + fragment)
        return opened

    def close(self) -> None:
        """Close all pages."""
        for opened in self.opened:
            opened.page.context.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser, if there is one."""
    with opened_browser() as browser:
        yield browser


@contextmanager
def opened_browser() -> Iterator[Browser]:
    """Open the first browser that is found, or skip the test."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, PROGRAMS)), None)
        program = found or playwright.chromium.executable_path
        if not Path(program).exists():
            pytest.skip(f"no browser: none of {', '.join(PROGRAMS)}, nor {program}")
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the page of all statuses lies."""
    path = tmp_path_factory.mktemp("page") / "scenarios.html"
    path.write_text(made(document(), SOURCES), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def opens(browser: Browser, url: str) -> Iterator[Opener]:
    """Opens the page."""
    opener = Opener(browser, url)
    yield opener
    opener.close()
    assert [complaint for one in opener.opened for complaint in one.complaints] == []
    asked = [address for one in opener.opened for address in one.asked]
    assert [address for address in asked if not address.startswith("file:")] == []


@pytest.mark.slow
def test_a_status_is_chosen_by_the_keyboard_alone(opens: Opener) -> None:
    """Only its scenarios stay, with the headings above them; the address says so; and back."""
    opened = opens()
    assert opened.counts() == (ALL, f"{ALL} scenarios")
    opened.tab_to("input[value=HOLLOW]")
    opened.page.keyboard.press("Space")
    assert opened.counts() == (1, f"1 of {ALL} scenarios shown")
    assert opened.page.url.endswith("#status=HOLLOW")
    visible = opened.page.locator("main :is(h2, h3, h4, h5, h6):visible").all_inner_texts()
    assert [re.sub(r"\s+", " ", one) for one in visible] == [
        "Registration, and what follows",
        "Business rules",
        "BR-REG-001 No double entries",
        "Feature: Entries",
        "HOLLOW Scenario: One entry only",
    ]
    assert not opened.page.get_by_text("Nobody stands twice").is_visible()
    opened.tab_to("#around")
    opened.page.keyboard.press("Space")
    assert opened.page.get_by_text("Nobody stands twice").is_visible()
    opened.tab_to("button[type=reset]")
    opened.page.keyboard.press("Enter")
    assert opened.counts() == (ALL, f"{ALL} scenarios")


@pytest.mark.slow
def test_a_rule_is_chosen_by_the_keyboard_alone(opens: Opener) -> None:
    """A business rule, a Gherkin rule, or none."""
    opened = opens()
    opened.tab_to("#rule")
    shown = {}
    for _ in range(opened.page.locator("#rule option").count() - 1):
        opened.page.keyboard.press("ArrowDown")
        shown[opened.page.locator("#rule").input_value()] = opened.counts()[0]
    assert shown == {
        "BR-REG-001": 1,
        "BR-REG-002": 11,
        "Scores stay within their range": 2,
        "": 1,
    }


@pytest.mark.slow
def test_words_are_searched_for_in_scenarios_and_their_evidence(opens: Opener) -> None:
    """In whatever case, all of them; what is found nowhere leaves nothing, and says so."""
    opened = opens()
    for words, count in (("TELEPHONE jury", 1), ("python -o", 1), ("nowhere at all", 0)):
        opened.page.locator("#search").fill(words)
        opened.page.locator("#search").dispatch_event("change")
        assert opened.counts() == (count, f"{count} of {ALL} scenarios shown")


@pytest.mark.slow
def test_details_open_by_the_keyboard(opens: Opener) -> None:
    """One by itself, and all by a button that says whether it is pressed."""
    opened = opens("#at=docs-judging-feature-L12")
    assert not opened.page.get_by_text("the app's commit rolled back").is_visible()
    opened.tab_to("details.evidence > summary")
    opened.page.keyboard.press("Enter")
    assert opened.page.get_by_text("the app's commit rolled back").is_visible()
    opened.page.locator("#expand").focus()
    opened.page.keyboard.press("Enter")
    assert opened.page.locator("#expand").get_attribute("aria-pressed") == "true"
    assert opened.page.locator("details.evidence:not([open])").count() == 0


@pytest.mark.slow
def test_the_address_restores_filters_and_place(opens: Opener) -> None:
    """As it was sent to somebody else, and after a link inside of the page too."""
    opened = opens("#status=HOLLOW%2CFAILED&rule=BR-REG-002&q=withdrawn")
    assert opened.counts() == (1, f"1 of {ALL} scenarios shown")
    assert opened.page.locator("input[value=HOLLOW]").is_checked()
    assert opened.page.locator("#rule").input_value() == "BR-REG-002"
    opened.page.locator("article:visible a.place").click()
    address = opened.page.url
    _, anchor = place("Withdrawn in time")
    assert address.endswith(f"#status=FAILED%2CHOLLOW&rule=BR-REG-002&q=withdrawn&at={anchor}")
    again = opens(url=address)
    assert again.counts() == (1, f"1 of {ALL} scenarios shown")
    assert again.page.evaluate("document.activeElement.id") == anchor


@pytest.mark.slow
def test_a_link_to_what_is_filtered_out_shows_it(opens: Opener) -> None:
    """A reason at the top leads to its scenario, whatever was chosen before."""
    opened = opens("#status=PROVEN")
    opened.page.get_by_text("A strict run fails").click()
    written, anchor = place("One entry only")
    opened.page.get_by_role("link", name=written, exact=True).click()
    assert opened.page.evaluate("document.activeElement.id") == anchor
    assert opened.counts() == (ALL, f"{ALL} scenarios")


@pytest.mark.slow
def test_the_first_stop_skips_to_the_scenarios(opens: Opener) -> None:
    """A link that appears when it has the focus."""
    opened = opens()
    opened.tab_to("a.skip")
    box = opened.page.locator("a.skip").bounding_box()
    assert box
    assert box["x"] >= 0
    opened.page.keyboard.press("Enter")
    assert opened.page.evaluate("document.activeElement.id") == "main"


@pytest.mark.slow
def test_without_a_script_all_is_shown_and_no_filter(opens: Opener) -> None:
    """The evidence opens all the same."""
    opened = opens(java_script_enabled=False)
    assert opened.page.locator("article.scenario:visible").count() == ALL
    assert opened.page.locator("input:visible, select:visible, button:visible").count() == 0
    assert opened.page.locator("#filters .badge:visible").count() == ALL
    opened.page.locator("details.evidence > summary").first.click()
    assert opened.page.get_by_text("the app's commit rolled back").is_visible()


@pytest.mark.parametrize("width", [320, pytest.param(390, marks=pytest.mark.slow)])
def test_a_phone_never_scrolls_sideways(opens: Opener, width: int) -> None:
    """With all evidence open; what is wide scrolls by itself."""
    opened = opens(viewport={"width": width, "height": 700})
    opened.page.locator("#expand").click()
    for one in opened.page.locator("header details").all():
        one.evaluate("it => it.open = true")
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    beyond = opened.page.evaluate(
        """width => [...document.querySelectorAll("body *")]
        .filter(one => !one.closest(".wide, .skip") && one.getBoundingClientRect().right > width)
        .map(one => one.outerHTML.slice(0, 80))""",
        width,
    )
    assert beyond == []


@pytest.mark.slow
def test_on_a_phone_the_scenarios_come_first(opens: Opener) -> None:
    """Then the filters, then the reasons; links at the top lead to both."""
    opened = opens(viewport={"width": 390, "height": 700})
    names = ("h1", ".jump", "article.scenario", "#filters", "#reasons")
    boxes = [opened.page.locator(name).first.bounding_box() for name in names]
    tops = [box["y"] for box in boxes if box]
    assert len(tops) == len(names)
    assert tops == sorted(tops)
    opened.page.get_by_role("link", name="Reasons").click()
    opened.page.wait_for_function(
        "document.getElementById('reasons').getBoundingClientRect().top < innerHeight"
    )


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_letters_stand_out_in_both_schemes(opens: Opener, scheme: Any) -> None:
    """4.5 to 1 at least (https://www.w3.org/TR/WCAG22/#contrast-minimum), badges included."""
    opened = opens(color_scheme=scheme)
    opened.page.locator("#expand").click()
    found: dict[str, str] = opened.page.evaluate(COLOURS)
    assert {one.value for one in Status} & set(found.values()), "the badges have been looked at"
    weak = {pair: text for pair, text in found.items() if contrast(*pair.split(" on ")) < 4.5}
    assert weak == {}
    paper = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(paper) < 0.1) is (scheme == "dark")


@pytest.mark.slow
def test_a_large_page_leads_where_it_should(opens: Opener, tmp_path: Path) -> None:
    """Though most of it has not been laid out yet."""
    path = tmp_path / "large.html"
    path.write_text(made(*large(600)), encoding="utf-8")
    opened = opens(url=path.as_uri())
    opened.page.locator("#expand").click()
    opened.page.get_by_role("link", name="File 25").click()
    top = "document.getElementById('specs-0025-md').getBoundingClientRect().top"
    opened.page.wait_for_function(f"Math.abs({top}) < 40")
    opened.page.locator("input[value=STUB]").check()
    assert opened.counts() == (40, "40 of 600 scenarios shown")


def contrast(one: str, other: str) -> float:
    """How much one colour stands out from another, from 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    """How light a colour is, from 0 to 1: https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    shares = [int(one) / 255 for one in re.findall(r"\d+", colour)[:3]]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in shares]
    return sum(share * one for share, one in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
