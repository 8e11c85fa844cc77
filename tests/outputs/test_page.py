"""Is the page whole, safe and the same each time? Looked at as text; in a browser: test_browser."""

from __future__ import annotations

import re
from base64 import b64encode
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_arena.scenarios.evidence._document import Document, Status
from pytest_arena.scenarios.evidence._judge import listed
from pytest_arena.scenarios.specs._reader import parse
from pytest_arena.scenarios.specs._specification import Problem
from tests.outputs.documents import a_scenario, a_test, page, proven
from tests.outputs.pages import (
    FEATURE,
    MARKDOWN,
    SOURCES,
    document,
    large,
    place,
    scenarios,
    unread,
)

VOID = {"br", "hr", "input", "meta"}

Attributes = dict[str, str | None]


@dataclass
class Element:
    """One element, with all text in it."""

    name: str
    attributes: Attributes
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Its text, and that of all elements in it, with single blanks."""
        return " ".join("".join(self.pieces).split())

    def has(self, class_: str) -> bool:
        """Whether it is of a class."""
        return class_ in (self.attributes.get("class") or "").split()


class Page(HTMLParser):
    """The elements of a page in their order; fails at once where tags are not in balance."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element."""
        assert len(attrs) == len(dict(attrs)), f"an attribute of <{tag}> stands twice"
        self.elements.append(Element(tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(self.elements[-1])

    def handle_endtag(self, tag: str) -> None:
        """Close it."""
        assert self._open.pop().name == tag

    def handle_data(self, data: str) -> None:
        """Add text to all that are open."""
        for element in self._open:
            element.pieces.append(data)

    def named(self, *names: str) -> list[Element]:
        """All elements with one of these names."""
        return [one for one in self.elements if one.name in names]

    def of(self, class_: str) -> list[Element]:
        """All elements of a class."""
        return [one for one in self.elements if one.has(class_)]

    def values(self, attribute: str) -> list[str]:
        """What an attribute is, wherever it is set."""
        return [value for one in self.elements if (value := one.attributes.get(attribute))]


@cache
def shown() -> Page:
    """The page of all statuses."""
    return Page(page(document(), SOURCES))


def read(sources: dict[str, str], *problems: Problem) -> Page:
    """The page of files that nothing was run for."""
    parsed = [parse(text, path) for path, text in sources.items()]
    found = Document(
        scenarios=tuple(one for each in parsed for one in listed(each).scenarios),
        problems=tuple(one for each in parsed for one in each.problems) + problems,
    )
    return Page(page(found, sources))


def test_every_scenario_stands_on_the_page_once_with_its_status() -> None:
    """Each article says its status as data for the filter and in words in its title."""
    articles = shown().of("scenario")
    assert len(articles) == len(scenarios())
    assert {one.attributes["data-status"] for one in articles} == {one.value for one in Status}
    for article, title in zip(articles, shown().of("title"), strict=True):
        assert title.text.startswith(f"{article.attributes['data-status']} Scenario")


def test_ids_are_unique_and_every_link_inside_leads_somewhere() -> None:
    """No id stands twice, though two headings are the same; labels and links find theirs."""
    ids = Counter(shown().values("id"))
    assert [one for one, count in ids.items() if count > 1] == []
    inside = [href for href in shown().values("href") if href.startswith("#")]
    assert len(inside) > 20
    assert {href.removeprefix("#") for href in inside} <= set(ids)
    assert set(shown().values("for")) <= set(ids)


@pytest.mark.parametrize("found", [document(), unread(), Document()], ids=["as read", "moved", "-"])
def test_headings_begin_with_one_h1_and_leave_out_no_level(found: Document) -> None:
    """Nor where the Markdown leaves one out: it has an h5 below an h3."""
    names = [one.name for one in Page(page(found, SOURCES)).named(*(f"h{n}" for n in range(1, 7)))]
    levels = [int(name[1]) for name in names]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_the_page_asks_for_nothing_and_its_policy_forbids_it() -> None:
    """No address but those of links for people; the policy lets its own sheet and script run."""
    elements = shown().elements
    assert not shown().named("link", "img", "iframe", "object", "base")
    assert not shown().values("src")
    assert not [one for one in elements if one.attributes.get("style") is not None]
    assert not [name for one in elements for name in one.attributes if name.startswith("on")]
    assert [one.name for one in elements if "http" in str(one.attributes.get("href"))] == ["a"]
    policy = next(value for value in shown().values("content") if "default-src" in value)
    assert policy.startswith("default-src 'none'; ")
    for name in ("style", "script"):
        (only,) = shown().named(name)
        digest = b64encode(sha256("".join(only.pieces).encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
        assert not re.search(r"https?:|@import|url\(", "".join(only.pieces))


def test_what_a_specification_says_never_becomes_markup() -> None:
    """Tags in names, cells, reasons, test names and in Markdown are shown as they are written."""
    text = shown().named("main")[0].text
    for written in (
        'A round with a "tie" <b>is</b> decided & closed',
        "<script>alert(1)</script>",
        '<b onclick="alert(1)">html</b>',
        '<div onmouseover="alert(1)">a block</div>',
        "[<a>]",
        "GET /<b>",
        "1 < 2 & True",
    ):
        assert written in text
    assert "javascript:" not in "".join(shown().values("href"))


def test_prose_is_part_of_the_page_and_comments_are_not() -> None:
    """Headings, quotes, tables and other code are there; what is in a comment is hidden."""
    text = shown().named("main")[0].text
    assert "Nobody stands twice in one list." in text
    assert "def code(): return" in text
    assert "No heading, no Gherkin." in text
    assert "No double entries" in [
        one.text.removeprefix("BR-REG-001 ") for one in shown().named("h4")
    ]
    assert "hidden" not in text
    assert "front matter" not in text


def test_lines_have_the_numbers_that_they_have_in_their_files() -> None:
    """Of every step, table and text the first line: in front matter and lists too."""
    lines = {"feature": FEATURE.split("\n"), "md": MARKDOWN.split("\n")}
    assert len(shown().of("feature")) == 3, "each stands where it was found, and only there"
    steps = [one for one in shown().of("step") if not one.has("background")]
    assert len(steps) > 40
    for step in steps:
        numbered = {
            text[int(str(step.attributes["data-n"])) - 1].strip()
            for text in lines.values()
            if len(text) >= int(str(step.attributes["data-n"]))
        }
        assert any(step.text.startswith(line) for line in numbered if line)


def test_links_lead_from_one_file_to_another_and_to_headings() -> None:
    """What is not on the page is no link; two headings of one name have an id each."""
    links = {one.text: one.attributes.get("href") for one in shown().named("a")}
    assert links["the judging"] == "#docs-judging-feature"
    assert links["the rules"] == "#docs-registration-md--business-rules"
    assert links["elsewhere"] == "https://example.org/?a=1&b=2"
    assert links["nowhere"] is None
    assert "docs-registration-md--business-rules-1" in shown().values("id")


def test_steps_have_a_badge_where_a_test_has_a_block_for_them() -> None:
    """Those of the Background too, in the scenario that they belong to; none elsewhere."""
    steps = shown().of("step")
    assert [one.text for one in steps if one.has("background")] == [
        'Given a tournament "Winter Cup" exists PROVEN',
        "And it has 3 judges PROVEN",
    ]
    hollow = [one.text for one in steps if one.text.endswith("HOLLOW")]
    assert hollow == ["Then the answer is 409 no assertion in this block HOLLOW"]
    assert len([one for one in steps if one.text.endswith("PROVEN")]) == 5


def test_the_reason_of_a_scenario_is_not_said_again_at_its_step() -> None:
    """It stands right above; the badge says which step it is about."""
    one = next(one for one in document().scenarios if one.status is Status.HOLLOW)
    why = "no assertion at all"
    steps = tuple(replace(step, reason=why) if step.reason else step for step in one.steps)
    assert steps != one.steps
    text = page(replace(document(), scenarios=(replace(one, reason=why, steps=steps),)), SOURCES)
    assert text.count(why) == 1


def test_only_an_outline_has_placeholders() -> None:
    """What stands between < and > is a word like any other elsewhere."""
    assert {one.text for one in shown().named("var")} == {"<points>", "<answer>"}


def test_rows_of_examples_have_a_status_each() -> None:
    """The first is proven by a test of its own, the second has none."""
    (table,) = [one for one in shown().named("table") if "points" in one.text]
    assert table.text == "pointsanswerStatus10acceptedPROVEN11refusedUNMAPPED"


def test_evidence_says_what_the_test_did() -> None:
    """Rows, requests, assertions, steps, what was never seen, warnings, and each sabotage."""
    text = shown().of("evidence")[0].text
    for told in (
        "1 test, 4 rows seeded, 2 requests, 14 assertions, 1 warning",
        "POST /battles/7/close changed no rows",
        "tests/test_judging.py::test_12[<a>] tests/test_judging.py:9",
        "Seededbattles 1 row, users 3 rows",
        "POST /battles/7/close → 303 · as mc · route /battles/{battle_id}/close · changed",
        "changed battles 1 row · read seeded rows of battles · preparation",
        "GET /<b> → no answer · the test did not look at the answer",
        "response.status_code == 303 after 1 request · tests/test_judging.py:31",
        "12 times",
        "constant: it could not have failed",
        "StepsAnd it has 3 judges · 2 seeded, 1 request, 3 assertions",
        "Never seenWinter Cup",
        "its seed removed: noticed · assert 404 == 303",
        "the app's commit rolled back: survived",
        "the answer emptied: not applicable · a redirect has no body",
        "the answer turned into a 500: unknown · it did not end",
    ):
        assert told in text
    off = next(one.text for one in shown().of("evidence") if "python -O" in one.text)
    assert "Seedednot known: no journal" in off
    assert "Assertionsnot known: python -O" in off


def test_the_top_says_how_the_run_went() -> None:
    """How much is proven, that it was not all, what a strict run fails for, what is wrong where."""
    (top,) = shown().named("header")
    assert top.text.startswith("1 of 15 scenarios proven")
    assert "Partial run (-k start): all tests of 13 of 15 scenarios ran." in top.text
    assert "A strict run fails, for 14 reasons" in top.text
    assert 'tests/test_x.py:3 no scenario is called "Lat"' in top.text
    links = {one.text: one.attributes.get("href") for one in shown().named("a")}
    written, anchor = place("One entry only")
    assert links[written] == f"#{anchor}"
    assert links["docs/judging.feature:12"] == "#docs-judging-feature-L12"


def test_a_run_without_a_gap_says_so_and_a_list_says_nothing_of_it() -> None:
    """Where nothing was run, nothing can pass."""
    passed = replace(document(), gaps=(), scenarios=document().scenarios[:1])
    assert "Nothing that was judged fails a strict run." in page(passed, SOURCES)
    assert "A strict run passes." in page(replace(passed, partial=""), SOURCES)
    (top,) = Page(page(replace(passed, partial="", is_list=True), SOURCES)).named("header")
    assert top.text.startswith("1 of 1 scenario with a test")
    assert "strict run" not in top.text


def test_the_same_run_gives_the_same_page() -> None:
    """Whatever the order of the files, and how often it was made."""
    backwards = dict(reversed(SOURCES.items()))
    assert page(document(), SOURCES) == page(document(), backwards)


@pytest.mark.parametrize("sources", [{}, SOURCES], ids=["missing", "changed"])
def test_scenarios_are_shown_as_they_were_read_where_the_text_is_another(
    sources: dict[str, str],
) -> None:
    """All of them, with tables and doc strings, below their features and rules, and it is said."""
    found = Page(page(unread(), sources))
    assert len(found.of("scenario")) == len(scenarios())
    said = [one.text for one in found.of("notice")]
    why = "has changed since the run" if sources else "is missing"
    assert f"The text of this file {why}. Its scenarios are shown as they were read." in said
    text = found.named("main")[0].text
    for told in ("Judging a battle", "Rule: Scores stay within their range", "a | b", '"winner"'):
        assert told in text


def test_any_file_can_be_written_as_utf_8() -> None:
    """Half of a character and a NUL are replaced, not an error at the end of a long run."""
    found = page(Document(partial="half \ud800"), {"odd.md": "a \0 text"})
    assert "half ?" in found
    assert "a \ufffd text" in found


def test_headings_and_bullets_that_are_gherkin_are_read_as_such() -> None:
    """A *.feature.md: its prose is Markdown, its scenarios end where the next heading begins."""
    text = """# Feature: Staying *overnight*

Some **prose**.

## Rule: Quiet

### Scenario Outline: A bed of <size>
* Given a bed
  | size   |
  | ------ |
  | <size> |
* When I sleep

#### Examples: some
  | size |
  | ---- |
  | 2    |

## What else

* a bullet
"""
    found = read({"stay.feature.md": text})
    assert [one.text for one in found.named("h1", "h2", "h3", "h4")] == [
        "0 of 1 scenario proven",
        "Feature: Staying overnight",
        "Rule: Quiet",
        "NOT-RUN Scenario Outline: A bed of <size>",
        "What else",
    ]
    assert [one.text for one in found.named("table")] == ["size<size>", "size2"]
    assert "a bullet" not in found.of("scenario")[0].text


def test_a_scenario_takes_its_examples_along_and_leaves_other_headings() -> None:
    """Of whichever depth they are: in headings and bullets it says nothing."""
    text = """# Feature: A

### Scenario Outline: B <n>
* Given <n>

## Examples:
  | n |
  | --- |
  | 2 |

#### Notes

* a bullet

## Scenario: C
* Given d
"""
    found = read({"a.feature.md": text})
    assert [one.text.split("line ")[0] for one in found.of("scenario")] == [
        "NOT-RUN Scenario Outline: B <n>",
        "NOT-RUN Scenario: C",
    ]
    assert "n2" in found.of("scenario")[0].text
    assert [one.text for one in found.named("li")] == ["a bullet"]
    assert "Notes" in [one.text for one in found.named("h3", "h4")]


def test_gherkin_of_any_language_is_known_by_what_was_read_in_it() -> None:
    """Keywords are told apart, and the language is named for those who hear the page."""
    text = """# language: fr
Fonctionnalité: Les paniers
  Contexte:
    Soit un magasin
  Règle: Un panier se vide
    Plan du scénario: Le panier <n>
      Étant donné que j'ai <n> articles
      Quand je le vide
      Alors il est vide

      Exemples:
        | n |
        | 1 |
"""
    found = read({"paniers.feature": text})
    assert [one.text for one in found.of("keyword")] == [
        "Fonctionnalité:",
        "Contexte:",
        "Règle:",
        "Plan du scénario:",
        "Exemples:",
    ]
    assert found.of("gherkin")[0].attributes["lang"] == "fr"


def test_a_scenario_without_a_feature_stands_below_its_heading() -> None:
    """No feature is made up that the file does not have."""
    found = read({"a.md": "# A\n\n## B\n\n```gherkin\nScenario: C\n  Given d\n```\n"})
    assert [one.text for one in found.named("h2", "h3", "h4")] == [
        "A",
        "B",
        "NOT-RUN Scenario: C",
    ]


def test_what_could_not_be_read_is_shown_with_what_is_wrong_at_its_line() -> None:
    """The lines as they stand, and below the one in question what was expected."""
    text = "Feature: x\n  Scenario: y\n    Given a\n    Whan b\n"
    found = read({"x.feature": text})
    note = next(one for one in found.of("note") if "expected" in one.text)
    assert note.text.startswith("error")
    assert "Whan b" in found.named("main")[0].text
    lost = read({"y.feature": "Feture: x\n  Scenrio: y\n"})
    assert "Scenrio: y" in lost.named("main")[0].text


def test_a_problem_of_a_line_in_a_scenario_leads_to_the_scenario() -> None:
    """Of any other line to the file."""
    wrong = [Problem(spec="b.feature", line=line, what=f"at {line}") for line in (1, 3)]
    found = read({"b.feature": "Feature: x\nScenario: y\nGiven z\n"}, *wrong)
    links = {one.text: one.attributes.get("href") for one in found.named("a")}
    assert links["b.feature:1"] == "#b-feature"
    assert links["b.feature:3"] == "#b-feature-L2"


def test_files_whose_names_look_alike_have_ids_of_their_own() -> None:
    """And so have their scenarios."""
    text = "Feature: x\nScenario: y\nGiven z\n"
    ids = read(dict.fromkeys(("a-b.feature", "a_b.feature", "a/b.feature"), text)).values("id")
    assert len(ids) == len(set(ids))


@pytest.mark.slow
def test_ten_times_as_many_scenarios_make_a_page_ten_times_as_large() -> None:
    """A scenario with its evidence takes less than 2.5 kB; its lists are folded."""
    few, many = (page(*large(count)) for count in (40, 400))
    assert (len(many) - len(few)) / 360 < 2500
    assert 'class="large"' not in many
    assert Page(page(*large(520))).named("main")[0].attributes["class"] == "large"


# What a line may be that was put where nobody expected it.
ODD = r"""| a | b
||
| \| |
Scenario: Two lists
Feature: Late entries
    code
===
-->
```
~~~
- ```gherkin
> ```gherkin
[a]: <javascript:x>
![a](b "c")
Given <x>
# language: fr
٣ العربية
## Scenario: z
`@t`"""
LINES = [*FEATURE.split("\n"), *MARKDOWN.split("\n"), *ODD.split("\n"), "\x00", "\x0c", "x" * 300]
FILES = ["a.feature", "b.md", "c.feature.md", 'd "<x>&.txt']


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(FILES), st.lists(st.sampled_from(LINES), max_size=25)))
@pytest.mark.slow
def test_no_text_breaks_the_page(files: dict[str, list[str]]) -> None:
    """Lines in any order: each scenario stands there once, tags are in balance, ids unique."""
    sources = {path: "\n".join(lines) for path, lines in files.items()}
    found = read(sources)
    count = sum(len(parse(text, path).scenarios) for path, text in sources.items())
    assert len(found.of("scenario")) == count
    ids = found.values("id")
    assert len(ids) == len(set(ids))
    assert len(found.named("script")) == 1
    assert not any("has changed since" in one.text for one in found.of("notice"))


def test_the_specimen_has_every_status() -> None:
    """Else the others would prove less than they say."""
    assert set(document().counts()) == set(Status)


def test_a_proven_scenario_with_a_hollow_test_says_how_many() -> None:
    """Its badge is the scenario's status alone; a line counts the tests that prove nothing."""
    tests = (a_test(Status.PROVEN), a_test(Status.HOLLOW, "test_other"))
    judged = replace(proven(a_scenario("Two tests")), tests=tests, also=(Status.HOLLOW,))
    found = Page(page(Document(scenarios=(judged,)), {}))
    [title] = [title for title in found.of("title") if "Two tests" in title.text]
    assert "HOLLOW" not in title.text
    assert [line.text for line in found.of("also")] == ["1 of 2 tests is hollow"]


def test_a_step_without_a_block_looks_like_the_others() -> None:
    """It only lacks the badge."""
    scenario = a_scenario("Some blocks")
    found = Page(page(Document(scenarios=(proven(scenario, 1, 2),)), {}))
    assert str(scenario.steps[0]) in [step.text for step in found.of("step")]
