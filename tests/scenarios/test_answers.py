"""What the rule of broken answers finds, on hollow and honest tests."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from tests.plugin.shop import shop
from tests.scenarios.projects import Results, project

if TYPE_CHECKING:
    import pytest

    from tests.example import Example

_TESTS = re.compile(r"def test_(\w+)\(")
_STEPS = "    Given a dancer\n    When I GET /dancers\n    Then there are dancers\n"
# Honest tests that the rule does not find, each with its reason.
NOT_FOUND = {
    "the_type_of_its_body": "it asserts the type of the body alone",
    "all_of_a_missing_item": "all(…) of a missing list is true",
    "one_flag": "its variable is unbound, which is no failed assertion",
    "a_list_that_gets_a_part_of_its_answer": "it fails by an IndexError before its assertion",
    "a_flag_behind_swallowed_errors": "only an exception in place of an answer would fail it",
    "a_list_that_gets_no_answer_of_an_error": "only an exception would fail it",
    "a_list_of_a_fixture_of_its_module_that_it_shares": "an earlier test has filled the list",
    "a_list_of_a_fixture_of_its_module_that_another_test_shares": "it asserts that nothing happens",
    "a_list_of_its_set_up_that_the_app_does_not_fill": "it asserts that nothing happens",
    "a_part_of_its_client": "it asserts that nothing happens",
    "the_time_until_the_answer": "it asserts how long an answer takes",
    "a_list_of_its_module_that_the_app_fills": "it fails if it runs twice",
}
HOLLOW = {"HOLLOW": 15}
NOT_FOUND_ARE = {"HOLLOW": 11, "ASSERTED": 1}


def _names(example: Example, file: str) -> list[str]:
    return _TESTS.findall(example.files[file])


def test_no_hollow_test_is_proven_and_most_honest_ones_are(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Each honest test that is not found has its reason."""
    example = project("answers", tmp_path_factory.mktemp("answers"))
    hollow = _names(example, "test_hollow.py")
    honest = _names(example, "test_honest.py")
    scenarios = [f"  Scenario: {name}\n{_STEPS}" for name in (*hollow, *honest)]
    text = "\n".join(["Feature: Dancers", *scenarios])
    results = Results.of(example.with_paths({"dancers.feature": text}), "--scenarios=strict")
    assert Counter(results.statuses[name] for name in hollow) == HOLLOW, results.run.output
    not_found = {name: results.statuses[name] for name in honest}
    not_found = {name: status for name, status in not_found.items() if status != "PROVEN"}
    assert not_found.keys() == NOT_FOUND.keys(), results.run.output
    assert Counter(not_found.values()) == NOT_FOUND_ARE


_WITH_TWO_CLIENTS = """
import pytest
from app import app


@pytest.mark.scenario("Two clients")
def test_two_clients(test_client):
    assert app.test_client().post("/orders/chair").status_code == 201
    assert test_client.get("/orders").json() == ["chair"]
"""


def test_a_wrong_answer_has_the_name_of_its_request(example: Example) -> None:
    """No answer of Flask's own client is made wrong, and its requests count."""
    project = shop(example, "flask_app", test_two=_WITH_TWO_CLIENTS)
    project = project.change("pytest.ini", "[pytest]", "[pytest]\narena_specs = .")
    text = f"Feature: Orders\n  Scenario: Two clients\n{_STEPS}"
    results = Results.of(project.with_paths({"orders.feature": text}), "--scenarios=strict")
    assert results.attempt("Two clients")["sabotage"]["what"] == "GET /orders", results.run.output
