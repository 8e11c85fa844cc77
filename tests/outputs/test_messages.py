"""Do Cucumber's own readers take the messages, and is no step said to have passed unseen?"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cucumber_messages import Envelope, message_converter

from pytest_arena.scenarios.evidence._document import Document, JudgedScenario, Status
from pytest_arena.scenarios.specs._reader import parse
from tests.outputs.documents import (
    a_scenario,
    a_step,
    a_test,
    every_status,
    judged,
    messages,
    outline,
    proven,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Message = dict[str, Any]

FRENCH = """\
# language: fr
@salle
Fonctionnalité: Batailles
  Des batailles.

  Contexte:
    Soit une salle

  Plan du scénario: <who> reçoit <number>
    Quand <who> demande <number>
    Alors <who> a <number>

    Exemples:
      | who | number |
      | ann | 1      |
      | bob | 2      |

  Règle: Justice
    Contexte:
      Soit un juge

    @deux
    Scénario: Une bataille
      Étant donné des noms
        | a | b |
      Quand elle commence
        ```json
        {"a": 1}
        ```
      Alors elle est finie
"""
TWO = """\
# Words

```gherkin
Feature: One
Scenario: a
  Given x
```

```gherkin
Feature: Two
Scenario: b
  Given y
```
"""


def told(document: Document, sources: Mapping[str, str] | None = None) -> list[Message]:
    """The messages, each of which Cucumber's own types have taken and given back."""
    found = [json.loads(line) for line in messages(document, sources or {}).splitlines()]
    for message in found:
        assert message_converter.to_dict(message_converter.from_dict(message, Envelope)) == message
    return found


def of(found: list[Message], name: str) -> list[Any]:
    """Those of one kind."""
    return [message[name] for message in found if name in message]


def results(found: list[Message]) -> list[list[str]]:
    """The status of each step of each case; the last is that of the evidence."""
    cases: dict[str, list[str]] = {}
    for step in of(found, "testStepFinished"):
        cases.setdefault(step["testCaseStartedId"], []).append(step["testStepResult"]["status"])
    return list(cases.values())


def document_of(text: str, spec: str, status: Status = Status.UNMAPPED) -> Document:
    """A document of all the scenarios of a text."""
    specification = parse(text, spec)
    assert not [problem for problem in specification.problems if problem.is_error]
    return Document(
        scenarios=tuple(
            JudgedScenario(scenario=scenario, status=status) for scenario in specification.scenarios
        )
    )


def test_they_come_in_cucumbers_order_and_refer_to_each_other() -> None:
    """Each id is given once, and whatever is referred to has been told before."""
    found = told(every_status(), {"docs/battles.md": "# Battles\n"})
    names = [next(iter(message)) for message in found]
    assert names[:3] == ["meta", "source", "gherkinDocument"]
    assert names[-1] == "testRunFinished"
    assert names.index("testRunStarted") > names.index("pickle")
    given: set[str] = set()
    for message in found:
        for name, value in walked(message):
            if name.endswith(("Id", "Ids")):
                assert set([value] if isinstance(value, str) else value) <= given, (name, value)
            elif name == "id":
                assert value not in given
                given.add(value)


def walked(value: Any) -> list[tuple[str, Any]]:
    """All names in a message with their values; its own ids first."""
    if isinstance(value, list):
        return [pair for one in value for pair in walked(one)]
    if not isinstance(value, dict):
        return []
    inner = [pair for one in value.values() for pair in walked(one)]
    return sorted([*value.items(), *inner], key=lambda pair: pair[0] != "id")


def test_no_step_has_passed_that_has_no_block() -> None:
    """Such a step is UNKNOWN; the case has the scenario's result, by its evidence."""
    scenario = a_scenario("Fine")
    without = told(Document(scenarios=(proven(scenario),)))
    assert results(without) == [["UNKNOWN", "UNKNOWN", "UNKNOWN", "PASSED"]]
    blocks = told(Document(scenarios=(proven(scenario, 0, 2),)))
    assert results(blocks) == [["PASSED", "UNKNOWN", "PASSED", "PASSED"]]


@pytest.mark.parametrize("status", [one for one in Status if one is not Status.PROVEN])
def test_nothing_but_a_proof_has_passed(status: Status) -> None:
    """A test that is green and proves nothing is PENDING; the reason is there."""
    found = told(Document(scenarios=(judged(status, "because"),), gaps=("one",)))
    assert "PASSED" not in results(found)[0]
    last = of(found, "testStepFinished")[-1]["testStepResult"]
    assert last["message"] == f"{status.value}: because"
    assert of(found, "testRunFinished")[0]["success"] is False


def test_the_evidence_is_attached_as_json() -> None:
    """Requests, rows and assertions of each test."""
    (attached,) = of(told(Document(scenarios=(proven(a_scenario("Fine")),))), "attachment")
    body = json.loads(attached["body"])
    assert body["status"] == "PROVEN"
    assert body["tests"][0]["facts"]["requests"][0]["path"] == "/battles/7/start"


def test_each_row_has_a_case_of_its_own() -> None:
    """A row that no test names is UNDEFINED, whatever another one proves."""
    scenario = outline()
    tests = (a_test(Status.PROVEN, row=scenario.rows[1].values),)
    one = judged(Status.PARTIAL, "1 of 2", scenario=scenario, tests=tests)
    found = told(Document(scenarios=(one,)))
    assert [pickle["name"] for pickle in of(found, "pickle")] == ["ann gets 1", "bob gets 2"]
    assert results(found) == [["UNDEFINED"] * 3 + ["PENDING"], ["UNKNOWN"] * 3 + ["PASSED"]]
    whole = judged(Status.PARTIAL, "whole", scenario=scenario, tests=(a_test(Status.PROVEN),))
    assert all(row[-1] == "PENDING" for row in results(told(Document(scenarios=(whole,)))))


def test_a_step_of_a_row_has_passed_only_where_its_own_test_has_the_block() -> None:
    """The scenario's steps are of all rows together; one row's test may have none."""
    scenario = outline()
    both = proven(scenario, 0, 1, 2)
    (with_blocks,) = both.tests
    tests = (
        replace(with_blocks, row=scenario.rows[0].values),
        a_test(Status.PROVEN, row=scenario.rows[1].values),
    )
    found = told(Document(scenarios=(replace(both, tests=tests),)))
    assert results(found) == [["PASSED"] * 4, ["UNKNOWN"] * 3 + ["PASSED"]]


def test_a_failed_row_has_failed_alone() -> None:
    """The scenario has failed as a whole, but not in each row."""
    scenario = outline()
    tests = (
        a_test(Status.FAILED, row=scenario.rows[0].values, reason="assert 0"),
        a_test(Status.PROVEN, row=scenario.rows[1].values),
    )
    one = judged(Status.FAILED, "assert 0", scenario=scenario, tests=tests)
    assert [row[-1] for row in results(told(Document(scenarios=(one,))))] == ["FAILED", "PASSED"]


def test_the_tree_is_that_of_the_file() -> None:
    """Language, Background, Rule, Outline, table, doc string: as Gherkin's own parser has it."""
    document = document_of(FRENCH, "batailles.feature")
    found = told(document, {"batailles.feature": FRENCH})
    (tree,) = of(found, "gherkinDocument")
    feature = tree["feature"]
    assert (feature["language"], feature["keyword"]) == ("fr", "Fonctionnalité")
    assert feature["location"]["line"] == 3
    assert [next(iter(child)) for child in feature["children"]] == [
        "background",
        "scenario",
        "rule",
    ]
    plan = feature["children"][1]["scenario"]
    assert plan["keyword"] == "Plan du scénario"
    header = [cell["value"] for cell in plan["examples"][0]["tableHeader"]["cells"]]
    assert header == ["who", "number"]
    assert len(plan["examples"][0]["tableBody"]) == 2
    rule = feature["children"][2]["rule"]["children"]
    assert [next(iter(child)) for child in rule] == ["background", "scenario"]
    names, start, _ = rule[1]["scenario"]["steps"]
    assert [cell["value"] for cell in names["dataTable"]["rows"][0]["cells"]] == ["a", "b"]
    assert start["docString"]["content"] == '{"a": 1}'
    *_, battle = of(found, "pickle")
    assert [step["text"] for step in battle["steps"]][:2] == ["une salle", "un juge"]
    assert [tag["name"] for tag in battle["tags"]] == ["@salle", "@deux"]
    assert [tag["name"] for tag in feature["tags"]] == ["@salle"]
    assert [tag["name"] for tag in rule[1]["scenario"]["tags"]] == ["@deux"]


def test_each_feature_of_a_markdown_file_has_an_address() -> None:
    """Cucumber knows one feature for each; the source is the whole file."""
    found = told(document_of(TWO, "docs/two.md"), {"docs/two.md": TWO})
    uris = ["docs/two.md#L4", "docs/two.md#L10"]
    assert [tree["uri"] for tree in of(found, "gherkinDocument")] == uris
    assert [source["uri"] for source in of(found, "source")] == uris
    assert {source["mediaType"] for source in of(found, "source")} == {
        "text/x.cucumber.gherkin+markdown"
    }


def test_without_the_files_there_are_messages_all_the_same() -> None:
    """As where documents of other machines are put together."""
    document = document_of(FRENCH, "batailles.feature")
    found = told(document)
    assert not of(found, "source")
    assert len(of(found, "pickle")) == 3


def test_without_the_files_a_doc_string_keeps_its_quotes() -> None:
    """A doc string between ``` may have the other mark in a line of its own."""
    text = 'Feature: f\n  Scenario: s\n    Given a text\n    ```\n    x\n    """\n    y\n    ```\n'
    [pickle] = of(told(document_of(text, "texts.feature")), "pickle")
    assert pickle["steps"][0]["argument"]["docString"]["content"] == 'x\n"""\ny'


def test_a_scenario_without_steps_is_a_case() -> None:
    """It is malformed, and is not lost."""
    one = judged(Status.MALFORMED, "no steps", scenario=a_scenario("empty", steps=()))
    assert results(told(Document(scenarios=(one,)))) == [["FAILED"]]


def test_the_time_may_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a build that is to give the same bytes."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    document = every_status()
    (run,) = of(told(document), "testRunStarted")
    assert run["timestamp"] == {"seconds": 1700000000, "nanos": 0}
    assert messages(document, {}) == messages(document, {})


RENDER = """\
import fs from 'node:fs'
import { CucumberHtmlStream } from '@cucumber/html-formatter'
const [source, page] = process.argv.slice(2)
const stream = new CucumberHtmlStream()
stream.pipe(fs.createWriteStream(page))
for (const line of fs.readFileSync(source, 'utf8').split('\\n').filter(Boolean))
  stream.write(JSON.parse(line))
stream.end()
"""


@pytest.mark.slow
def test_the_official_formatter_shows_them(tmp_path: Path) -> None:
    """In a browser, without an error; each scenario and its reason are there."""
    page = formatted(tmp_path)
    shown = in_browser(page)
    for one in every_status().scenarios:
        assert one.scenario.name in shown
    assert "HOLLOW: no assertion after POST /battles/7/start" in shown
    assert "Une bataille" in shown


def formatted(folder: Path) -> Path:
    """The page that @cucumber/html-formatter makes of them."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if not npm or not node:
        pytest.skip("npm and node are not here")
    rows = (a_step("Given", "names", 500, table=(("a", "b"), ("1", "2"))),)
    more = judged(Status.HOLLOW, scenario=a_scenario("table", line=499, steps=rows))
    of_french = document_of(FRENCH, "batailles.feature").scenarios
    whole = every_status()
    document = Document(scenarios=(*of_french, *whole.scenarios, more), gaps=whole.gaps)
    source, script, page = (folder / name for name in ("all.ndjson", "render.mjs", "all.html"))
    source.write_text(messages(document, {"batailles.feature": FRENCH}), encoding="utf-8")
    script.write_text(RENDER, encoding="utf-8")
    packages = [npm, "install", "--no-audit", "--no-fund", "@cucumber/html-formatter@24"]
    installed = subprocess.run(packages, cwd=folder, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"no package from npm: {installed.stderr[-200:]}")
    subprocess.run([node, str(script), str(source), str(page)], cwd=folder, check=True)
    return page


def in_browser(page: Path) -> str:
    """The text that a browser shows, all that can be unfolded unfolded."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no browser is here")
    errors: list[str] = []
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(page.as_uri())
        for folded in tab.query_selector_all("[aria-expanded=false]"):
            folded.click()
        shown: str = tab.inner_text("body")
        browser.close()
    assert not errors
    return shown
