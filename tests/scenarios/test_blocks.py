"""Step blocks: is each step of a scenario told with what was done in it?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.scenarios.proving import told

if TYPE_CHECKING:
    from tests.scenarios.proving import Told

from tests.example import fastapi_example

SPEC = """
Feature: Dancers

  Scenario: Dancers are listed
    Given a dancer "Storm"   exists
    And I am logged in
    When I GET /dancers
    Then there are dancers
    And there are dancers

  Scenario: A dancer is found
    Given nothing in particular
    When I GET /dancers
    Then it is found

  Scenario Outline: A dancer is added
    Given nothing in particular
    When I POST to /dancers/<name>
    Then there is <name>

    Examples:
      | name   |
      | Storm  |
      | Crumbs |

  Scenario: A dancer leaves
    Givn a dancer
    When I DELETE /dancers/{id}
    Then it is gone

  Scenario Outline: A dancer is renamed
    Given a dancer
    When I PUT /dancers/<nam>
    Then it has that name

    Examples:
      | name  | id |
      | Storm | 1  |
"""

TESTS = """
import pytest
from app import Dancer

listed = pytest.mark.scenario("Dancers are listed")
added = pytest.mark.scenario("A dancer is added")


@listed
@pytest.mark.scenario("A dancer is found")
async def test_all(client_as, db_session, scenario):
    with scenario.given('a dancer "Storm" exists'):
        db_session.add(Dancer(name="Storm"))
    with scenario.given("I am logged in"):
        client = client_as("staff")
    with scenario.when("I  GET /dancers"):
        answer = await client.get("/dancers")
    with scenario.then("there are dancers"):
        assert True
    for one in answer.json():
        with scenario.then("there are dancers"):
            assert one


@listed
def test_flushed(db_session, test_client, scenario):
    with scenario.given('a dancer "Storm" exists'):
        db_session.add(Dancer(name="Storm"))
        db_session.flush()
        db_session.commit()
    with scenario.when("I GET /dancers"):
        assert test_client.get("/dancers").status_code == 200


@listed
async def test_unknown(scenario):
    with scenario.given('a dancer "Strom" exists'):
        pass


@listed
async def test_other_kind(scenario):
    with scenario.then("I GET /dancers"):
        pass


@listed
async def test_out_of_order(scenario):
    with scenario.when("I GET /dancers"):
        pass
    with scenario.given("I am logged in"):
        pass


@listed
async def test_own_error(client, scenario):
    with scenario.when("I GET /dancers"):
        raise LookupError("the test's own")


@listed
async def test_todo(scenario):
    scenario.todo("ask Ata")


@added
@pytest.mark.parametrize("name", ["Storm", "Crumbs"])
async def test_rows(client, scenario, name):
    with scenario.when(f"I POST to /dancers/{name}"):
        await client.post(f"/dancers/{name}")
    with scenario.then("there is <name>"):
        assert name in (await client.get("/dancers")).json()


@pytest.mark.scenario("A dancer leaves")
async def test_misread(scenario):
    with scenario.given("a dancer"):
        pass


@pytest.mark.scenario("A dancer is renamed")
async def test_no_column(scenario):
    with scenario.given("a dancer"):
        pass
    with scenario.when("I PUT /dancers/Storm"):
        pass


@listed
async def test_nothing_like_it(scenario):
    with scenario.given("xyzzy"):
        pass


async def test_without_a_scenario(client, scenario):
    with scenario.given("whatever"):
        assert (await client.get("/dancers")).status_code == 200


async def test_unnamed(client, scenario):
    with scenario.when("I GET /dancers"):
        pass
    with scenario.then("it is found"):
        pass
"""
LOGIN = "async def login(client, role):\n    client.headers['role'] = role\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One run of all of them."""
    example = fastapi_example(tmp_path_factory.mktemp("blocks"))
    example = example.with_files(test_it=TESTS, who=LOGIN).with_paths({"dancers.feature": SPEC})
    options = "[pytest]\narena_specs = dancers.feature\narena_login = who:login\n"
    return told(example.change("pytest.ini", "[pytest]\n", options))


def steps(run: Told, scenario: str, test: str) -> list[dict[str, Any]]:
    """The blocks of a test in one of its scenarios."""
    tests = run.scenarios[scenario]["tests"]
    [one] = [one for one in tests if one["test"].endswith(f"test_{test}")]
    return [step for step in one["facts"]["steps"] if step["scenario"].endswith(scenario)]


def told_of(run: Told, test: str, scenario: str = "Dancers are listed") -> list[tuple[Any, ...]]:
    """Of each block the step, what was written, requests, assertions."""
    found = steps(run, scenario, test)
    return [(one["step"], one["wrote"], one["requests"], one["assertions"]) for one in found]


def test_each_block_tells_of_its_own_part(run: Told) -> None:
    """Rows that wait to be written, clients that log in, requests; constants are no assertions."""
    assert told_of(run, "all") == [
        (0, 1, [], 0),
        (1, 1, [], 0),
        (2, 0, [0], 0),
        (3, 0, [], 0),
        (4, 0, [], 1),
        (4, 0, [], 1),
    ]


def test_a_step_that_two_scenarios_have_is_told_of_both(run: Told) -> None:
    """By its place in each."""
    assert told_of(run, "all", "A dancer is found") == [(1, 0, [0], 0)]


def test_what_is_flushed_and_committed_counts_once(run: Told) -> None:
    """It has waited, was written, and is committed: one row."""
    assert told_of(run, "flushed") == [(0, 1, [], 0), (2, 0, [0], 1)]


def test_a_text_that_no_step_has_is_an_error_that_names_the_nearest(run: Told) -> None:
    """With its place, and the line to write."""
    run.run.says(
        "no Given step of the scenario reads 'a dancer \"Strom\" exists'",
        'The nearest step is Given a dancer "Storm"',
        "dancers.feature:5",
        'with scenario.given(\'a dancer "Storm"',
    )


def test_where_the_specification_is_wrong_no_block_is_told_to_be(run: Told) -> None:
    """A keyword that is none, a placeholder without a column: no other step is to be pasted."""
    run.run.says(
        "expected Given, but 'Givn a dancer' is read as a description",
        "next: dancers.feature:27: write `Given …`",
        "no When step of the scenario reads 'I PUT /dancers/Storm'",
        "<nam> is not replaced: the columns of the Examples are id, name",
        "next: dancers.feature:33: write `<name>`",
    )


def test_a_text_that_no_step_is_like_names_none(run: Told) -> None:
    """The place of the scenario has to do."""
    run.run.says("No step is like it", "next: see dancers.feature:4")


def test_a_step_of_another_kind_is_an_error(run: Told) -> None:
    """What it is instead is said."""
    run.run.says("no Then step of the scenario reads 'I GET /dancers'", "This is a When step")


def test_a_step_out_of_its_order_is_an_error_that_names_both(run: Told) -> None:
    """Both with their lines."""
    run.run.says(
        "the test does 'I am logged in' after 'I GET /dancers'",
        "dancers.feature:6",
        "dancers.feature:7",
    )


def test_an_error_of_the_tests_own_passes_through_a_block(run: Told) -> None:
    """Nothing is put in its place."""
    run.run.says("LookupError: the test's own")


def test_a_test_that_is_not_written_says_so_and_fails(run: Told) -> None:
    """With what is to be done, and for which scenario."""
    run.run.says(
        "E   NotWritten: this test is not written yet: ask Ata",
        "next: write the steps of dancers.feature:4, then delete scenario.todo()",
        "::test_todo - NotWritten: this test is not",
    ).never_says("pytest_arena.NotWritten")
    [one] = [
        one
        for one in run.scenarios["Dancers are listed"]["tests"]
        if one["test"].endswith("test_todo")
    ]
    assert one["status"] == "STUB"


@pytest.mark.parametrize("name", ["Storm", "Crumbs"])
def test_an_outlines_step_is_known_by_its_template_and_by_a_row(run: Told, name: str) -> None:
    """Both mean the same step."""
    assert [one[0] for one in told_of(run, f"rows[{name}]", "A dancer is added")] == [1, 2]


def test_a_block_in_a_test_that_names_no_scenario_is_an_error(run: Told) -> None:
    """With the marker to paste, where a scenario has its steps."""
    run.run.says(
        "FAILED test_it.py::test_without_a_scenario",
        "a block for a step, but names no scenario",
        "next: mark the test with its scenario (arena scenarios list)",
        '@pytest.mark.scenario("A dancer is found")',
    )


@pytest.mark.slow
def test_without_a_specification_blocks_do_nothing(run: Told) -> None:
    """A test is the same test where none is configured. It is told."""
    example = fastapi_example(run.run.folder.parent / "off").with_files(test_it=TESTS)
    options = "[pytest]\narena_login = conftest:login\nmarkers = scenario\n"
    example = example.with_files(conftest=LOGIN).change("pytest.ini", "[pytest]\n", options)
    unread = example.run("-k", "all or without or unknown or rows").expect(passed=5)
    unread.says("tests with pytest.mark.scenario prove nothing: arena_specs is not set")
