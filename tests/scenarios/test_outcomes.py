"""Every way in which a test may end, in every way in which it may be run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.parameters import slow_except
from tests.scenarios.proving import NO_EVIDENCE, RERUNS, XDIST, Told, project, told

if TYPE_CHECKING:
    from pathlib import Path

TESTS = """
import pytest

scenario = pytest.mark.scenario

@scenario("passes")
def test_passes():
    assert True

@scenario("fails")
def test_fails():
    value = 1
    assert value == 2

@pytest.fixture
def broken():
    raise ValueError("no set-up")

@scenario("set-up error")
def test_set_up(broken):
    pass

@pytest.fixture
def broken_later():
    yield
    raise ValueError("no tear-down")

@scenario("tear-down error")
def test_tear_down(broken_later):
    pass

@scenario("skip")
@pytest.mark.skip(reason="not today")
def test_skip():
    pass

@scenario("skip in the call")
def test_skip_call():
    pytest.skip("no weather")

@scenario("one of two parameters skipped")
@pytest.mark.parametrize("x", [1, pytest.param(2, marks=pytest.mark.skipif(True, reason="two"))])
def test_params(x):
    pass

@scenario("xfail")
@pytest.mark.xfail(reason="known bug")
def test_xfail():
    assert 1 == 2

@scenario("xpass")
@pytest.mark.xfail(reason="was a bug")
def test_xpass():
    pass

@scenario("strict xpass")
@pytest.mark.xfail(reason="was a bug", strict=True)
def test_strict_xpass():
    pass

@scenario("imperative xfail")
def test_imperative():
    pytest.xfail("hatch")

@scenario("not written")
def test_stub():
    raise NotImplementedError("later")

@scenario("deselected")
def test_deselected():
    pass

count = []

@scenario("passes again")
def test_again():
    count.append(1)
    assert len(count) > 1

tries = []

@pytest.fixture
def sometimes():
    yield
    tries.append(1)
    assert len(tries) > 1, "once"

@scenario("tear-down fails once")
def test_tear_down_once(sometimes):
    pass

@scenario("one of two fails")
def test_one():
    pass

@scenario("one of two fails")
def test_two():
    assert 1 == 2
"""

SUBTESTS = """
@scenario("subtest fails")
def test_subtests(subtests):
    with subtests.test("a"):
        assert 1 == 1
    with subtests.test("b"):
        assert 1 == 2

@scenario("subtests pass")
def test_good_subtests(subtests):
    with subtests.test("a"):
        assert 1 == 1

@scenario("subtest skipped")
def test_skipped_subtest(subtests):
    with subtests.test("a"):
        pytest.skip("half of it")
"""

EXPECTED = {
    "passes": "PROVEN",
    "fails": "FAILED",
    "set-up error": "FAILED",
    "tear-down error": "FAILED",
    "skip": "SKIPPED",
    "skip in the call": "SKIPPED",
    "xfail": "XFAIL",
    "xpass": "XPASS",
    "strict xpass": "FAILED",
    "imperative xfail": "XFAIL",
    "not written": "STUB",
    "deselected": "NOT-RUN",
    "passes again": "FAILED",
    "tear-down fails once": "FAILED",
    "one of two parameters skipped": "PROVEN",
    "one of two fails": "FAILED",
    "no test": "UNMAPPED",
}
if int(pytest.version_tuple[0]) >= 9:  # before, they were a plugin of their own
    TESTS += SUBTESTS
    EXPECTED |= {
        "subtest fails": "FAILED",
        "subtests pass": "PROVEN",
        "subtest skipped": "SKIPPED",
    }
AGAIN = {"passes again": "FLAKY", "tear-down fails once": "FLAKY"}

MODES = {
    "plain": (),
    "two workers": (*XDIST, "-n", "2"),
    "reruns": (*RERUNS, "--reruns", "1"),
    "each": (*XDIST, "--tx", "2*popen", "--dist", "each"),
    "reruns in workers": (*XDIST, "-n", "2", *RERUNS, "--reruns", "1"),
}


@pytest.fixture(scope="module", params=slow_except(MODES, "plain"))
def mode(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One run in each way; all tests look at it."""
    example = project(tmp_path_factory.mktemp("outcomes"), EXPECTED, TESTS)
    options = (NO_EVIDENCE, "--deselect=test_it.py::test_deselected", "--junit-xml=junit.xml")
    found = told(example, *options, *MODES[request.param], "-q")
    found.run.says("failed")
    return found


@pytest.fixture
def has_reruns(request: pytest.FixtureRequest) -> bool:
    """Whether tests that fail are tried again."""
    return "reruns" in request.node.callspec.params["mode"]


def test_each_outcome_has_its_status(mode: Told, *, has_reruns: bool) -> None:
    """A whole try has to pass: xfail, skip, a tear-down that fails prove nothing."""
    expected = {**EXPECTED, **(AGAIN if has_reruns else {})}
    assert mode.statuses == expected


def test_reasons_are_told(mode: Told) -> None:
    """One line, with the phase where it was not the call, the same from another process."""
    assert "no set-up" in mode.reason("set-up error")
    assert "set-up" in mode.reason("set-up error")
    assert "tear-down: ValueError: no tear-down" in mode.reason("tear-down error")
    assert "not today" in mode.reason("skip")
    assert "no weather" in mode.reason("skip in the call")
    assert "known bug" in mode.reason("xfail")
    assert "hatch" in mode.reason("imperative xfail")
    assert "assert 1 == 2" in mode.reason("fails")
    assert "test_it.py:13" in mode.run.output + str(mode.scenarios["fails"])


def test_a_partial_run_is_called_so(mode: Told) -> None:
    """One of the tests with a scenario was deselected."""
    assert "--deselect" in mode.partial


def test_properties_are_in_the_xml_once(mode: Told) -> None:
    """Also of a skipped test, and after a rerun."""
    xml = (mode.run.folder / "junit.xml").read_text(encoding="utf-8")
    again = xml.split('name="test_again"')[-1].split("</testcase>")[0]
    assert again.count('"arena_scenario"') == again.count('"arena_scenario_rev"') == 1
    skipped = xml.split('name="test_skip"')[-1].split("</testcase>")[0]
    assert 'name="arena_scenario" value="Stories :: skip"' in skipped


@pytest.mark.slow
def test_a_crash_is_a_failure_and_hides_no_other_test(tmp_path: Path) -> None:
    """The worker that replaces the dead one collects the same tests."""
    tests = """
import os, pytest

@pytest.mark.scenario("crash")
def test_crash():
    os._exit(3)

@pytest.mark.scenario("fine")
def test_fine():
    pass
"""
    found = told(project(tmp_path, ["crash", "fine"], tests), NO_EVIDENCE, *XDIST, "-n", "1")
    assert found.statuses == {"crash": "FAILED", "fine": "PROVEN"}
    assert "crashed" in found.reason("crash")
