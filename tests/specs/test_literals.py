"""Which values and paths do steps name?"""

import pytest

from pytest_arena.scenarios.specs._reader import parse
from pytest_arena.scenarios.specs._specification import ScenarioSpec, literals, paths
from tests.specs.samples import FEATURE


def only(text: str) -> ScenarioSpec:
    """The one scenario of a text."""
    (scenario,) = parse(text, "a.feature").scenarios
    return scenario


@pytest.mark.parametrize(
    "step, found",
    [
        (
            'a tournament "Summer Battle 2024" in PRESELECTION phase',
            ("Summer Battle 2024", "PRESELECTION"),
        ),
        ("the tournament has 2 categories with 8 performers each", ("2", "8")),
        ("I POST to /battles/7/start", ()),
        ("page loads (200 status), or 404.", ("200", "404")),
        ("I am authenticated as MC", ("MC",)),
        ("it's the user's 'own name' of “Ann”", ("own name", "Ann")),
        ("a price of -1.50 and v2 and 1.2.3", ("-1.50",)),
        ("the Given/When/Then conditions of {TOURNAMENT_ID}", ()),
        ('a GET request to "/api/v1" as JSON', ()),
        ("ONE and ONE", ("ONE",)),
        ("STATUS_CODE of https://example.org/x/9", ("STATUS_CODE",)),
    ],
)
def test_literals(step: str, found: tuple[str, ...]) -> None:
    """Quoted texts, numbers, words in capitals; verbs and paths are none."""
    assert literals(only(f"{FEATURE}  Scenario: s\n    Given {step}\n")) == found


@pytest.mark.parametrize(
    "step, found",
    [
        ("I POST to /battles/{battle_id}/start", (("POST", "/battles/{battle_id}/start"),)),
        ("I make an HTTP GET request to /tournaments/{id}", (("GET", "/tournaments/{id}"),)),
        ("I navigate to /event/{id}/queue via HTTP", (("", "/event/{id}/queue"),)),
        ("the Given/When/Then conditions and/or 1/2", ()),
        ('I visit "/" twice', (("", "/"),)),
        ("a / b", ()),
        ("I POST /a, then GET /b/c.", (("POST", "/a"), ("GET", "/b/c"))),
        ("I POST /a and see /b", (("POST", "/a"), ("", "/b"))),
        ("I open https://example.org:80/x/y?z=1", (("", "/x/y"),)),
        (
            "I DELETE /battles/<battle id> or /battles/<id>",
            (("DELETE", "/battles/{battle_id}"), ("", "/battles/{id}")),
        ),
        ("it says <b>x</b>", ()),
    ],
)
def test_paths(step: str, found: tuple[tuple[str, str], ...]) -> None:
    """With the verb before them, and placeholders as a route has them."""
    assert paths(only(f"{FEATURE}  Scenario: s\n    Given {step}\n")) == found


def test_literals_of_an_outline_are_those_of_its_rows() -> None:
    """Placeholders are filled in; a path stays as it is written."""
    text = (
        f"{FEATURE}  Scenario Outline: o\n    Given <n> at /battles/<n>\n"
        "    Examples:\n      | n |\n      | 7 |\n      | 8 |\n"
    )
    assert literals(only(text)) == ("7", "8")
    assert paths(only(text)) == (("", "/battles/{n}"),)
