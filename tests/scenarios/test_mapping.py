"""Which scenario a test proves: its markers, its parameters, and markers that mean nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.command import arena
from tests.scenarios.proving import NO_EVIDENCE, XDIST, Told, project, told

if TYPE_CHECKING:
    from pathlib import Path

SPEC = """
@shop
Feature: Shop
  @SHP-1
  Scenario: With an id
    When it is bought

  Scenario: Of a class
    When it is sold

  Scenario: Of a module
    When it is kept

  Scenario: By two tests
    When it is given

  Scenario Outline: It costs <price>
    When it is worth <price> <unit>

    Examples:
      | price | unit |
      | 1     | euro |
      | 2     | euro |
      | 3     | euro |

  Scenario Outline: By parameters of their own <n>
    When <n> are counted

    Examples:
      | n |
      | 1 |
      | 2 |
"""

TESTS = """
import pytest

pytestmark = pytest.mark.scenario("Of a module")
scenario = pytest.mark.scenario

@scenario("@SHP-1")
async def test_id():
    pass

@scenario("Shop :: Of a class")
class TestClass:
    def test_method(self):
        pass

@scenario("By two tests")
def test_one_of_two():
    pass

@scenario("By two tests", spec="specs/shop.feature")
@scenario("With   an id")
def test_two_of_two():
    pass

@scenario("It costs <price>")
@pytest.mark.parametrize("unit", ["euro"])
@pytest.mark.parametrize("price", [3, 1])
def test_rows(price, unit):
    pass

@pytest.mark.parametrize("x", [
    pytest.param(1, marks=scenario("By parameters of their own <n>", row={"n": "1"})),
    pytest.param(2, marks=scenario("By parameters of their own <n>", row={"n": 2})),
    3,
])
def test_param(x):
    pass
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One run; all tests look at it."""
    example = project(tmp_path_factory.mktemp("mapping"), [], TESTS)
    example = example.with_paths({"specs/stories.feature": SPEC})
    example = example.with_paths({"specs/shop.feature": SPEC})
    del example.files["specs/stories.feature"]  # type: ignore[attr-defined]  # a dict of our own
    return told(example, NO_EVIDENCE)


def proved_by(found: Told, name: str) -> set[str]:
    """The tests of a scenario, by their short names."""
    return {one["test"].partition("::")[2] for one in found.scenarios[name]["tests"]}


def test_markers_of_functions_classes_modules_and_parameters(shop: Told) -> None:
    """Each of them counts, whichever way the scenario is named; several may."""
    shop.run.expect(passed=9)
    assert proved_by(shop, "With an id") == {"test_id", "test_two_of_two"}
    assert proved_by(shop, "Of a class") == {"TestClass::test_method"}
    assert len(proved_by(shop, "Of a module")) == 9
    assert proved_by(shop, "By two tests") == {"test_one_of_two", "test_two_of_two"}
    names = {"test_param[1]", "test_param[2]"}
    assert proved_by(shop, "By parameters of their own <n>") == names


def test_rows_are_known_by_their_values(shop: Told) -> None:
    """Rows in another order are the same rows; one that no test has leaves it PARTIAL."""
    assert shop.statuses["It costs <price>"] == "PARTIAL"
    assert "2" in shop.reason("It costs <price>")
    assert shop.statuses["By parameters of their own <n>"] == "PROVEN"


WRONG = """
import pytest

@pytest.fixture
def loud():
    print("the set-up has run")

@pytest.mark.scenario("Tset can start")
def test_misspelt(loud):
    print("the test has run")

@pytest.mark.scenario()
def test_empty():
    pass

@pytest.mark.scenario(["a", "b"])
def test_list():
    pass

@pytest.mark.scenario("Test can start")
def test_right():
    pass
"""


@pytest.mark.parametrize(
    "args",
    [(), pytest.param((*XDIST, "-n", "1"), marks=pytest.mark.slow)],
    ids=["plain", "a worker"],
)
def test_a_wrong_marker_fails_its_own_test_alone(tmp_path: Path, args: tuple[str, ...]) -> None:
    """In its set-up, before anything of it runs; with the nearest name and the test's line."""
    example = project(tmp_path, ["Test can start"], WRONG)
    found = told(example, NO_EVIDENCE, *args)
    found.run.expect(status=1, passed=1, errors=3)
    found.run.says("Tset can start", "Test can start", "[A801]", "test_it.py:8")
    found.run.says("ERROR test_it.py::test_misspelt - ScenarioError: no scenario is")
    found.run.never_says("the set-up has run", "the test has run", "Traceback", "--full-trace")
    assert found.statuses == {"Test can start": "PROVEN"}
    assert found.problems.count("test_it.py") >= 3


def test_a_wrong_marker_is_told_where_nothing_runs(tmp_path: Path) -> None:
    """Under --collect-only; a strict run fails by it."""
    example = project(tmp_path, ["Test can start"], WRONG)
    run = example.run("--collect-only", "-q", "--scenarios=strict")
    assert run.status == 1, run.output
    run.says("Tset can start", "test_it.py:8")


@pytest.mark.slow
def test_a_report_of_what_does_not_run_fails_nothing(tmp_path: Path) -> None:
    """Nor is a wrong marker hidden in it."""
    run = project(tmp_path, ["Test can start"], WRONG).run("--collect-only")
    run.says("Tset can start", "test_it.py:8")
    assert run.status == 0, run.output


@pytest.mark.slow
def test_a_list_that_is_right_passes_where_nothing_runs(tmp_path: Path) -> None:
    """What was not run is no gap of a list."""
    tests = "import pytest\n@pytest.mark.scenario('one')\ndef test_one(): pass"
    example = project(tmp_path, ["one"], tests)
    run = example.run("--collect-only", "-q", "--scenarios=strict")
    assert run.status == 0, run.output
    run = project(tmp_path, ["one", "two"], tests).run("--co", "-q", "--scenarios=strict")
    assert run.status == 1, run.output
    run.says("UNMAPPED", "two")


ADDED = """
import pytest

@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.scenario("one"))
"""


@pytest.mark.slow
def test_a_marker_may_be_added_at_collection(tmp_path: Path) -> None:
    """By a hook that comes after ours: the test is the scenario's all the same."""
    example = project(tmp_path, ["one"], "def test_a(): assert object() == 1")
    found = told(example.with_files(conftest=ADDED), NO_EVIDENCE)
    assert found.statuses == {"one": "FAILED"}
    assert "<object object at 0x…>" in found.reason("one")


LATE = """
import pytest

@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.name == "test_two_markers":
            item.add_marker(pytest.mark.scenario("two"))

@pytest.fixture
def marked(request):
    request.node.add_marker(pytest.mark.scenario("three"))
"""
LATE_TESTS = """
import pytest

@pytest.mark.scenario("one")
def test_two_markers():
    assert object() == 1 or True

def test_late(marked):
    pass
"""


@pytest.mark.slow
def test_a_hook_may_add_a_second_marker(tmp_path: Path) -> None:
    """The markers are read when all hooks of the collection are done."""
    example = project(tmp_path, ["one", "two", "three"], LATE_TESTS)
    example = example.with_files(conftest=LATE)
    found = told(example, NO_EVIDENCE)
    assert found.statuses["two"] == "PROVEN"


@pytest.mark.slow
@pytest.mark.parametrize("args", [(), (*XDIST, "-n1")], ids=["one process", "a worker"])
def test_a_marker_that_a_fixture_adds_is_told_as_too_late(
    tmp_path: Path, args: tuple[str, ...]
) -> None:
    """It is not known before the set-up, whose rows have to be counted."""
    example = project(tmp_path, ["one", "two", "three"], LATE_TESTS)
    found = told(example.with_files(conftest=LATE), NO_EVIDENCE, *args)
    assert found.statuses["three"] == "UNMAPPED"
    assert "scenario('three') was added too late, while test_late ran" in found.run.output


OF_NO_ROW = """
import pytest

@pytest.mark.scenario("It costs <price>")
@pytest.mark.parametrize("price", [4])
def test_row(price):
    pass
"""


@pytest.mark.slow
def test_a_value_that_fits_no_row_is_told_with_the_rows(tmp_path: Path) -> None:
    """Another marker would not help: the advice is about the value."""
    example = project(tmp_path, [], OF_NO_ROW).with_paths({"specs/shop.feature": SPEC})
    found = told(example, NO_EVIDENCE)
    name = "It costs <price>"
    assert found.statuses[name] == "UNMAPPED"
    reason = found.reason(name)
    assert "test_it.py:4: no row of 'It costs <price>' (specs/shop.feature:" in reason
    assert "has price=4. The rows are: " in reason
    assert "The rows are: price=1, unit=euro | price=2, unit=euro | price=3, unit=euro" in reason
    explained = arena("scenarios", "explain", name, folder=found.run.folder).output
    assert "next: give that test the values of a row" in explained
    assert "@pytest.mark.scenario" not in explained
