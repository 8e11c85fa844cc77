"""Are all languages of Gherkin read, and by first letters as well as the long way?"""

import random

import pytest

from pytest_arena._specs._gherkin import Language, grown, languages
from tests.specs.samples import FEATURE, GOOD, SCENARIO, STEPS, gherkin, only

LANGUAGES = {one.code: one for one in languages()}


def usual(language: Language, name: str) -> str:
    """The usual keyword of a kind of step, with its blank."""
    return next(word for word in language.words[name] if word != "* ")


def written(language: Language) -> str:
    """A text with each kind of line."""
    given, when, then = (usual(language, name) for name in ("given", "when", "then"))
    also, but = (usual(language, name) for name in ("and", "but"))
    same = "* " if "* " in language.words["given"] else also
    return (
        f"# language: {language.code}\n{language.words['feature'][0]}: f\n  Tell 1.\n\n"
        f"  {language.words['background'][0]}:\n    {given}0\n"
        f"  {language.words['scenario'][-1]}: s\n    Tell 2.\n\n"
        f"    {given}1\n    {also}2\n    {when}3\n    {but}4\n"
        f"    {then}5\n    {also}6\n    {same}7\n"
        f"  {language.words['rule'][0]}: r\n"
        f"    {language.words['scenarioOutline'][0]}: o\n      {given}<x>\n"
        f"      {language.words['examples'][0]}:\n        | x |\n        | 1 |\n"
    )


def test_there_are_eighty() -> None:
    """A parser that has lost some would read their files as descriptions."""
    assert len(LANGUAGES) >= 80


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_language_is_read_by_its_kinds(code: str) -> None:
    """Whatever the keywords, steps are what they are, and nothing looks misspelt."""
    said = gherkin(written(LANGUAGES[code]))
    assert said.problems == ()
    kinds = ["given", "given", "given", "when", "when", "then", "then", "then"]
    assert [step.kind for step in said.scenarios[0].steps] == kinds
    assert [step.line for step in said.scenarios[0].steps] == [6, 10, 11, 12, 13, 14, 15, 16]
    assert (said.scenarios[1].rule, len(said.scenarios[1].rows)) == ("r", 1)
    assert said.features[0].language == code


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_keyword_says_its_kind(code: str) -> None:
    """Each of them, not the usual ones alone: some begin as others do."""
    language = LANGUAGES[code]
    head = f"# language: {code}\n{language.words['feature'][0]}: f\n"
    title = language.words["scenario"][-1]
    for name in ("given", "when", "then"):
        for word in language.words[name]:
            text = f"{head}  {title}: s\n    {usual(language, 'given')}x\n    {word}y\n"
            step = only(gherkin(text)).steps[1]
            assert (step.keyword, step.kind) == (word.strip(), "given" if word == "* " else name)


def test_versions_do_not_know_the_language() -> None:
    """The same steps have one version in all of them."""
    versions = {gherkin(written(one)).scenarios[0].rev for one in LANGUAGES.values()}
    assert len(versions) == 1


@pytest.mark.parametrize("code", LANGUAGES)
def test_first_letters_find_what_the_long_way_finds(code: str) -> None:
    """In each language, with another one as the default."""
    text = written(LANGUAGES[code])
    quick, slow = (
        grown(text, first_line=7, language_code="en", quick=one) for one in (True, False)
    )
    assert quick.feature == slow.feature
    assert quick.faults == slow.faults == ()


PARTS = (
    *("Feature: f", "Rule: r", "Background:", "Scenario: s", "Scenario Outline: o", "Examples:"),
    *("Given a", "When b", "Then c", "And d", "* e", "| x | y |", "| 1 |", '"""', "```", "@tag"),
    *("# comment", "# language: fr", "", "   ", "text", "Givn x", "@a b", '\\"""', "\u00a0Given x"),
)


def test_first_letters_find_what_the_long_way_finds_in_any_text() -> None:
    """Faults, too, and nothing that is thrown together makes it raise."""
    order = random.Random(1)  # noqa: S311 - the same texts each time
    for _ in range(1500):
        lines = [order.choice(PARTS) for _ in range(order.randrange(14))]
        text = "Feature: f\n" * order.randrange(2) + "\n".join(lines)
        both = [grown(text, first_line=3, language_code="en", quick=one) for one in (True, False)]
        assert both[0].feature == both[1].feature, text
        assert both[0].faults == both[1].faults, text
        gherkin(text)


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


def test_a_given_language_is_for_texts_that_name_none() -> None:
    """A comment in the text goes before it."""
    assert only(gherkin(f"# language: en\n{GOOD}")).steps[0].kind == "given"
