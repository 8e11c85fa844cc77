"""Is what is written a test of the scenario, in code that a formatter leaves as it is?"""

from __future__ import annotations

import ast
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_arena._values import Route
from pytest_arena.scenarios.specs import Index, Row, Scenario, Specification, Step, parse
from pytest_arena.scenarios.stubs import StubFile, stubs

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUTES = (
    Route("/battles/{battle_id}/start", "POST", "start_battle"),
    Route("/battles", "POST", "add_battle"),
    Route("/live", "WEBSOCKET", "live"),
)

BATTLES = """\
Feature: Battles of an evening
  Scenario: Test can start a battle
    Given a battle "Summer Battle 2024" exists with status PENDING
    And I am authenticated as MC
    When I POST to /battles/{battle_id}/start
    Then the response status should be 303
    And the battle status should change to ACTIVE
    And the page should contain "It is on"
    And the page should not contain "Rust"

  @B-2
  Scenario: Many are added at once
    Given these dancers exist:
      | name | style   |
      | Ruby | hip hop |
      | Kite | popping |
    When I POST to /battle
      \"\"\"json
      {"name": "It's on"}
      \"\"\"
    Then there is 1 battle
"""

BATTLES_CODE = '''\
"""Scenarios of the feature Battles of an evening."""

import pytest


@pytest.mark.scenario("Test can start a battle")
async def test_can_start_a_battle(client_as, db_session, scenario):
    """specs/battles.feature:2"""
    with scenario.given('a battle "Summer Battle 2024" exists with status PENDING'):
        # db_session.add(...)  with "Summer Battle 2024", PENDING
        scenario.todo()
    with scenario.given("I am authenticated as MC"):
        # mc = client_as("mc")
        scenario.todo()
    with scenario.when("I POST to /battles/{battle_id}/start"):
        # POST /battles/{battle_id}/start -> start_battle
        # response = await mc.post(f"/battles/{battle_id}/start")
        scenario.todo()
    with scenario.then("the response status should be 303"):
        # assert response.status_code == 303
        scenario.todo()
    with scenario.then("the battle status should change to ACTIVE"):
        # assert ...  with ACTIVE
        scenario.todo()
    with scenario.then('the page should contain "It is on"'):
        # assert "It is on" in response.text
        scenario.todo()
    with scenario.then('the page should not contain "Rust"'):
        # assert "Rust" not in response.text
        scenario.todo()


MANY_ARE_ADDED_AT_ONCE_TEXT = """\\
{"name": "It's on"}"""


@pytest.mark.scenario("@B-2")
async def test_many_are_added_at_once(client, db_session, scenario):
    """specs/battles.feature:12"""
    table = [
        {"name": "Ruby", "style": "hip hop"},
        {"name": "Kite", "style": "popping"},
    ]
    with scenario.given("these dancers exist:"):
        for row in table:
            # db_session.add(...)
            scenario.todo()
    with scenario.when("I POST to /battle"):
        # text: MANY_ARE_ADDED_AT_ONCE_TEXT
        # POST /battle: the app has no such route
        # the nearest: POST /battles -> add_battle
        # response = await client.post("/battle")
        scenario.todo()
    with scenario.then("there is 1 battle"):
        # assert ...  with 1
        scenario.todo()
'''

OUTLINE = """\
Feature: Prices
  Scenario Outline: <percent> % of <Total amount>
    Given an order:
      | Total amount   | note            |
      | <Total amount> | <percent> % off |
    When I GET /price/<percent>
    Then it is <price>

    Examples:
      | percent | Total amount | price |
      | 10      | 100          | 90    |
      | 10      | 100          | 90    |

    Examples: odd ones
      | percent | Total amount | price |
      | 0       |              | "0"   |
"""

OUTLINE_CODE = '''\
@pytest.mark.scenario("<percent> % of <Total amount>")
@pytest.mark.parametrize(
    ("total_amount", "percent", "price"),
    [
        pytest.param("100", "10", "90", id="100-10-90"),
        pytest.param("", "0", '"0"', id='-0-"0"'),
    ],
)
async def test_percent_of_total_amount(
    client,
    db_session,
    scenario,
    total_amount,
    percent,
    price,
):
    """specs/prices.feature:2"""
    table = [
        {
            "Total amount": total_amount,
            "note": "<percent> % off".replace("<percent>", percent),
        },
    ]
'''


def written(text: str, spec: str, *, routes: Sequence[Route] | None = ROUTES) -> list[StubFile]:
    """The files for what a specification says, with readable revisions."""
    specification = parse(text, spec)
    assert not any(problem.is_error for problem in specification.problems)
    return list(stubs(specification, index=Index(specification), routes=routes))


def code_of(text: str, spec: str, *, routes: Sequence[Route] | None = ROUTES) -> str:
    """The code of the only file."""
    [file] = written(text, spec, routes=routes)
    return file.text


def test_a_feature_is_a_file_and_a_scenario_a_test_with_a_block_for_each_step() -> None:
    """With fixtures, routes, tables, texts and what may be asserted."""
    assert code_of(BATTLES, "specs/battles.feature") == BATTLES_CODE


def test_an_outline_is_parametrised_by_its_rows() -> None:
    """Each row once; its values stand wherever a placeholder stood."""
    code = code_of(OUTLINE, "specs/prices.feature", routes=None)
    assert OUTLINE_CODE in code
    assert '# response = await client.get(f"/price/{percent}")\n' in code
    assert "# assert ...  with price\n" in code
    assert "with scenario.then(" in code
    assert '"it is <price>"' in code
    contains = OUTLINE.replace("it is <price>", 'it contains "<price>" and "at <price>"')
    code = code_of(contains, "specs/prices.feature")
    assert "        # assert price in response.text\n" in code
    assert '        # assert "at <price>".replace("<price>", price) in response.text\n' in code


def test_a_row_is_one_parameter_where_a_column_cannot_be_one() -> None:
    """Python has other plans for `class`."""
    text = OUTLINE.replace("percent", "class").replace(
        "      | <Total amount> |", "      | <class> |"
    )
    code = code_of(text, "specs/prices.feature")
    assert '@pytest.mark.parametrize(\n    "example",\n' in code
    assert 'pytest.param({"Total amount": "", "class": "0", "price": \'"0"\'}, id=' in code
    assert "(client, db_session, scenario, example):" in code
    assert '"Total amount": example["class"],' in code
    assert "client.get(f\"/price/{example['class']}\")" in code


@pytest.mark.parametrize(
    "step, expected",
    [
        ("Given Kim is logged in as an admin", 'admin = client_as("admin")'),
        ("Given I sign in as the judge", 'judge = client_as("judge")'),
        ('Given I log in as "Head Judge"', 'head_judge = client_as("head judge")'),
        ("When I look at it as an admin", 'admin = client_as("admin")'),
        ("As a class, I do", 'class_ = client_as("class")'),
        ("When it runs as usual", None),
        ("When I upload it as a file of mine", None),
    ],
)
def test_who_logs_in_is_a_client_of_that_role(step: str, expected: str | None) -> None:
    """By the words with which people say so."""
    step = step if step[:2] != "As" else f"When {step}"
    code = code_of(f"Feature: f\n  Scenario: s\n    {step}\n    Then it is\n", "f.feature")
    assert ("client_as" in code) == bool(expected)
    assert expected is None or f"        # {expected}\n" in code


def test_tags_say_what_a_scenario_does_without() -> None:
    """Neither a session where nothing is seeded, nor a client where nothing is requested."""
    text = (
        "Feature: f\n  @no-seed @no-request\n  Scenario: s\n    Given a\n    When b\n    Then c\n"
    )
    assert "async def test_s(scenario):" in code_of(text, "f.feature")
    with_both = text.replace("@no-seed @no-request", "@other")
    assert "async def test_s(client, db_session, scenario):" in code_of(with_both, "f.feature")


def test_a_scenario_in_another_language_has_the_same_blocks() -> None:
    """Kinds of steps are known in all of them; names in other letters are told apart by a hash."""
    text = """\
# language: ru
Функция: Битвы
  Сценарий: Начать битву
    Допустим есть битва
    Когда я шлю POST на /battles/{battle_id}/start
    Затем бой идёт
  Сценарий: Кончить битву
    Допустим есть битва
    Когда она кончается
    Затем боя нет
"""
    [file] = written(text, "f.feature")
    names = [node.name for node in ast.parse(file.text).body if hasattr(node, "name")]
    assert len(set(names)) == 2
    assert 'with scenario.given("есть битва"):' in file.text
    assert "# POST /battles/{battle_id}/start -> start_battle" in file.text


def test_features_of_like_names_have_files_of_their_own() -> None:
    """And scenarios of one name tests of their own."""
    one = "Feature: {}\n  Scenario: s\n    Given a\n    When b\n    Then {}\n"
    first = parse(one.format("Battles!", "c"), "a.feature")
    second = parse(one.format("Battles", "d"), "b.feature")
    both = Specification(scenarios=(*first.scenarios, *second.scenarios))
    files = stubs(both, index=Index(both))
    assert [file.path.name for file in files] == ["test_battles.py", "test_battles_9b431c78.py"]
    only_second = stubs(both, index=Index(both), mapped={first.scenarios[0].key})
    assert only_second[0].path == files[1].path


def test_a_scenario_that_has_a_test_is_left_out() -> None:
    """And so is one that is malformed."""
    text = "Feature: f\n  Scenario: {}\n    When a\n    Then b\n  Scenario: none\n"
    specification = parse(text.format("s"), "f.feature")
    assert [problem.is_error for problem in specification.problems] == [True]
    index = Index(specification)
    [file] = stubs(specification, index=index)
    assert file.tests == 1
    assert stubs(specification, index=index, mapped={specification.scenarios[0].key}) == ()


def test_a_runner_that_needs_a_marker_gets_it() -> None:
    """Without it an async test would not be run."""
    specification = parse(BATTLES, "f.feature")
    [file] = stubs(specification, index=Index(specification), runner="asyncio")
    assert file.text.count("@pytest.mark.asyncio\n@pytest.mark.scenario(") == 2


# Anything that a specification may hold, and above all what means something to Python.
ODD = st.text(st.sampled_from(list("ab <>{}\"'\\\t/#%戦é1_")) | st.characters(codec="utf-8"))
TEXT = ODD.map(lambda text: " ".join(text.split()))
STEP = st.builds(
    Step,
    keyword=st.just("*"),
    kind=st.sampled_from(["given", "when", "then"]),
    text=TEXT | st.sampled_from(["I am logged in as x", "I GET /a/<a>", "/b/{b}", "x" * 90]),
    line=st.just(1),
    doc_string=st.none() | ODD | st.just("# noqa\nfmt: off\n"),
    table=st.integers(1, 3).flatmap(
        lambda width: st.lists(
            st.lists(ODD, min_size=width, max_size=width).map(tuple), max_size=3
        ).map(tuple)
    ),
)


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """A scenario with any names, steps and rows."""
    name, feature = draw(TEXT), draw(TEXT)
    columns = draw(st.lists(TEXT | st.sampled_from(["a", "class", "b c"]), unique=True, max_size=3))
    cells = draw(st.lists(st.tuples(*[ODD] * len(columns)), max_size=3 * bool(columns)))
    rows = [
        Row(values=tuple(zip(columns, row, strict=True)), line=1, name="", steps=())
        for row in cells
    ]
    return Scenario(
        name=name,
        feature=feature,
        rule="",
        requirement="",
        spec=draw(st.sampled_from(["a.feature", 'specs/"b".md', "c\\d e.txt"])),
        line=1,
        key=f"{feature} :: {name} {draw(st.uuids())}",
        rev="1:3265ea09",
        steps=tuple(draw(st.lists(STEP, min_size=1, max_size=4))),
        rows=tuple(rows),
        is_outline=bool(rows),
    )


def ruff(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ruff with its own defaults."""
    command = [sys.executable, "-m", "ruff", *arguments, "--isolated", "--no-cache"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(found=st.lists(scenarios(), min_size=8, max_size=20))
def test_whatever_is_written_is_code_that_ruff_leaves_as_it_is(
    found: list[Scenario], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It compiles, no two names are the same, and neither formatter nor linter has a word."""
    pytest.importorskip("ruff", reason="this environment has none")
    specification = Specification(scenarios=tuple(found))
    folder = tmp_path_factory.mktemp("written")
    for file in stubs(specification, index=Index(specification), folder=folder, routes=ROUTES):
        file.write()
        tree = ast.parse(file.path.read_bytes())
        compile(tree, file.path, "exec")
        defined = [node.name for node in tree.body if isinstance(node, ast.AsyncFunctionDef)]
        assert len(defined) == len(set(defined)) == file.tests
    for width in ("88", "100"):
        formatted = ruff("format", "--diff", "--line-length", width, str(folder))
        assert formatted.returncode == 0, formatted.stdout + formatted.stderr
    checked = ruff("check", str(folder))
    assert checked.returncode == 0, checked.stdout + checked.stderr
