"""Are all languages of Gherkin read, by the kinds of their steps?"""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest
from gherkin.dialect import DIALECTS

from tests.specs.samples import FEATURE, SCENARIO, STEPS, gherkin, listed, only

Words = Mapping[str, list[str]]
LANGUAGES = cast("Mapping[str, Words]", DIALECTS)
KINDS = ("given", "when", "then")
# Those that most are written in, without blanks between words, in other letters, from the right.
USUAL = {"en", "de", "fr", "es", "pt", "ja", "zh-CN", "ru", "ar", "en-lol"}
EVERYDAY = [
    pytest.param(code, marks=() if code in USUAL else pytest.mark.slow) for code in LANGUAGES
]


def usual(words: Words, name: str) -> str:
    """The usual keyword of a kind of step, with its blank."""
    return next(word for word in words[name] if word != "* ")


def written(code: str, words: Words) -> str:
    """A text with each kind of line."""
    given, when, then = (usual(words, name) for name in KINDS)
    also, but = (usual(words, name) for name in ("and", "but"))
    same = "* " if "* " in words["given"] else also
    return (
        f"# language: {code}\n{words['feature'][0]}: f\n  Tell 1.\n\n"
        f"  {words['background'][0]}:\n    {given}0\n"
        f"  {words['scenario'][-1]}: s\n    Tell 2.\n\n"
        f"    {given}1\n    {also}2\n    {when}3\n    {but}4\n"
        f"    {then}5\n    {also}6\n    {same}7\n"
        f"  {words['rule'][0]}: r\n"
        f"    {words['scenarioOutline'][0]}: o\n      {given}<x>\n"
        f"      {words['examples'][0]}:\n        | x |\n        | 1 |\n"
    )


def test_there_are_eighty() -> None:
    """A parser that has lost some would read their files as descriptions."""
    assert len(LANGUAGES) >= 80


@pytest.mark.parametrize("code", EVERYDAY)
def test_a_language_is_read_by_its_kinds(code: str) -> None:
    """Whatever the keywords, steps are what they are, and nothing looks misspelt."""
    said = gherkin(written(code, LANGUAGES[code]))
    assert said.problems == ()
    kinds = ["given", "given", "given", "when", "when", "then", "then", "then"]
    assert [step.kind for step in said.scenarios[0].steps] == kinds
    assert [step.line for step in said.scenarios[0].steps] == [6, 10, 11, 12, 13, 14, 15, 16]
    assert (said.scenarios[1].gherkin_rule, len(said.scenarios[1].rows)) == ("r", 1)
    assert said.features[0].document["feature"]["language"] == code


@pytest.mark.parametrize("code", EVERYDAY)
def test_every_keyword_says_its_kind(code: str) -> None:
    """Each of them, not the usual ones alone: some begin as others do."""
    words = LANGUAGES[code]
    title, given = words["scenario"][-1], usual(words, "given")
    keywords = [(word, kind) for kind in KINDS for word in words[kind]]
    scenarios = "".join(
        f"  {title}: s{number}\n    {given}x\n    {word}y\n"
        for number, (word, _) in enumerate(keywords)
    )
    said = gherkin(f"# language: {code}\n{words['feature'][0]}: f\n{scenarios}")
    assert [(one.steps[1].keyword, one.steps[1].kind) for one in said.scenarios] == [
        (word.strip(), "given" if word == "* " else kind) for word, kind in keywords
    ]


def test_versions_do_not_know_the_language(tmp_path: Path) -> None:
    """The same steps have one version in all of them."""
    for code, words in LANGUAGES.items():
        (tmp_path / f"{code}.feature").write_text(written(code, words), encoding="utf-8")
    scenarios = [one for one in listed(tmp_path, ".").scenarios if one.name == "s"]
    assert len(scenarios) == len(LANGUAGES)
    assert len({one.rev for one in scenarios}) == 1


PARTS = (
    *("Feature: f", "Rule: r", "Background:", "Scenario: s", "Scenario Outline: o", "Examples:"),
    *("Given a", "When b", "Then c", "And d", "* e", "| x | y |", "| 1 |", '"""', "```", "@tag"),
    *("# comment", "# language: fr", "", "   ", "text", "Givn x", "@a b", '\\"""', "\u00a0Given x"),
)


@pytest.mark.parametrize("ending", [".feature", ".feature.md", ".md"])
@pytest.mark.slow
def test_no_text_breaks_the_reading(tmp_path: Path, ending: str) -> None:
    """Whatever is thrown together: what cannot be read is told, and nothing is raised."""
    order = random.Random(1)  # noqa: S311 - the same texts each time
    for number in range(500):
        lines = [order.choice(PARTS) for _ in range(order.randrange(14))]
        text = "Feature: f\n" * order.randrange(2) + "\n".join(lines)
        fenced = f"# T\n\n```gherkin\n{text}\n```\n" if ending == ".md" else text
        (tmp_path / f"{number}{ending}").write_text(fenced, encoding="utf-8")
    said = listed(tmp_path, ".")
    assert len(said.files) == 500
    assert {one.spec for one in said.problems} <= {"", *said.files}
    assert len(said.problems) > 100


@pytest.mark.parametrize(
    "text, kinds",
    [
        (STEPS, ["given", "when", "then"]),
        ("    * a\n    * b\n", ["given", "given"]),
        ("    When a\n    And b\n    * c\n", ["when"] * 3),
        ("    But a\n", ["given"]),
    ],
)
def test_kinds_go_on_from_the_step_before(text: str, kinds: list[str]) -> None:
    """At the beginning of a scenario from a Given."""
    assert [step.kind for step in only(gherkin(FEATURE + SCENARIO + text)).steps] == kinds
