"""What a run makes of its scenarios: exit status, partial runs, what it prints, what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scenarios.proving import NO_EVIDENCE, XDIST, feature, project, told

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example

TESTS = """
import pytest

@pytest.mark.scenario("one")
def test_one():
    pass

@pytest.mark.scenario("two")
@pytest.mark.other
def test_two():
    pass

def test_no_scenario():
    pass
"""
IN_A_WORKER_TOO = [(), pytest.param((*XDIST, "-n", "1"), marks=pytest.mark.slow)]
MARKERS = "markers = other\n"
# Not `-m pytest`: its runs are forked from a process that has imported the readers.
ACCEPT = "from pytest_arena._cli import main; main(['scenarios', 'accept', '--all'])"
PYTEST = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"


def small(folder: Path, *names: str) -> Example:
    """Three tests, two of them with a scenario."""
    return project(folder, names or ("one", "two"), TESTS, more=MARKERS)


@pytest.mark.slow
def test_without_specifications_nothing_is_read_and_the_marker_does_nothing(
    tmp_path: Path,
) -> None:
    """Not even the libraries that would read them are imported."""
    conftest = """
import sys

def pytest_sessionfinish():
    names = ("gherkin", "markdown_it", "pytest_arena.scenarios")
    assert not [name for name in names if name in sys.modules]
"""
    example = small(tmp_path).change("pytest.ini", "arena_specs = specs\n", "")
    started = ("-c", PYTEST, "-p", "pytest_asyncio.plugin", "-p", "pytest_arena.plugin")
    example.with_files(conftest=conftest).python(*started, "--strict-markers").expect(passed=3)
    example = small(tmp_path).with_files(conftest=conftest)
    run = example.python(*started, "--scenarios=off").expect(passed=3)
    run.never_says("scenario", "PROVEN", "HOLLOW")


@pytest.mark.parametrize(
    "how,more",
    [
        ("report", ()),
        pytest.param("strict", (*XDIST, "-n", "2"), marks=pytest.mark.slow),
        ("strict", ("--collect-only",)),
    ],
)
def test_zero_is_an_error(tmp_path: Path, how: str, more: tuple[str, ...]) -> None:
    """No file, or files without a scenario: exit status 4, before any test."""
    example = small(tmp_path)
    args = (f"--scenarios={how}", *more)
    run = example.run("-oarena_specs=specs/none*.feature", *args)
    assert run.status == 4, run.output
    run.says("ERROR", "specs/none*.feature").never_says("Traceback", "INTERNALERROR", "passed")
    empty = example.with_paths({"specs/stories.feature": "Feature: a\n"}).run(*args)
    assert empty.status == 4, empty.output
    empty.says("ERROR").never_says("Traceback", "INTERNALERROR", "passed")


def test_a_report_never_changes_the_exit_status_and_a_strict_run_does(tmp_path: Path) -> None:
    """From 0 alone: what pytest finds wrong keeps its own status."""
    gap = small(tmp_path, "one", "two", "three")
    run = gap.run(NO_EVIDENCE).expect(passed=3)
    run.says("UNMAPPED", "three")
    run = gap.run(NO_EVIDENCE, "--scenarios=strict").expect(status=1, passed=3)
    run.says("UNMAPPED", "three")


@pytest.mark.parametrize("last_day, status", [("2999-12-31", 0), ("2020-12-31", 1)])
def test_a_strict_run_accepts_a_gap_until_its_day(
    tmp_path: Path, last_day: str, status: int
) -> None:
    """The scenario keeps its status, and the line of the lock file is shown."""
    example = small(tmp_path, "one", "two", "three")
    gap = f"gap until {last_day}: by hand"
    lock = f"Stories :: three  1:17e61c43  {gap}\n"
    example = example.with_paths({"scenarios.lock": lock})
    run = example.run(NO_EVIDENCE, "--scenarios=strict").expect(status=status, passed=3)
    run.says("UNMAPPED", gap)


@pytest.mark.parametrize("quiet", ["-q", "-qq"])
def test_a_strict_run_says_why_it_fails_however_quiet_it_is(tmp_path: Path, quiet: str) -> None:
    """Which scenarios are gaps, and that this is the reason."""
    run = small(tmp_path, "one", "two", "three").run(NO_EVIDENCE, "--scenarios=strict", quiet)
    assert run.status == 1, run.output
    run.says("UNMAPPED", "three", "this run fails (--scenarios=strict)")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["strict", "report"])
def test_a_removed_scenario_is_told_with_q_too(tmp_path: Path, how: str) -> None:
    """It was agreed to, and nothing proves it any more: a green run must say so."""
    example = small(tmp_path, "one", "two", "three")
    tests = TESTS + '\n@pytest.mark.scenario("three")\ndef test_three():\n    pass\n'
    example = example.with_files(test_it=tests)
    plugins = {"PYTEST_ADDOPTS": "-p pytest_asyncio.plugin -p pytest_arena.plugin"}
    example.python("-c", ACCEPT, env=plugins).says("scenarios.lock written")
    removed = example.with_paths({"specs/stories.feature": feature("one", "two")})
    removed = removed.with_files(test_it=TESTS)
    run = removed.run(NO_EVIDENCE, f"--scenarios={how}", "-q").expect(passed=3)
    run.says("scenarios.lock: warning: 'Stories :: three' was accepted, but no specification")
    run = removed.run(NO_EVIDENCE, f"--scenarios={how}", "-qq")
    run.says("scenarios: 2 of 2 proven", "; 1 problem (shown without -qq)")


def test_without_specifications_a_marker_is_said_to_mean_nothing(tmp_path: Path) -> None:
    """In one line, with ``-q`` too: its name may be anything."""
    bare = small(tmp_path, "one").change("pytest.ini", "arena_specs = specs\n", "")
    run = bare.run("-q").expect(passed=3)
    run.says("arena: 2 tests with pytest.mark.scenario prove nothing: arena_specs is not set")
    bare.run("-q", "--scenarios=off").expect(passed=3)


OUTLINE = """Feature: Dancers
  Scenario Outline: A dancer is listed
    Given a dancer "<name>" exists
    When I GET /dancers
    Then the list has <name>

    Examples:
      | name  |
      | Storm |
      | Ray   |
"""
ROWS = """
import pytest
from app import Dancer

@pytest.mark.scenario("A dancer is listed")
@pytest.mark.parametrize("name", ["Storm", "Ray"])
async def test_listed(client, db_session, name):
    db_session.add_all([Dancer(name=one) for one in ("Storm", "Ray")])
    assert (await client.get("/dancers")).status_code == 200
"""


@pytest.mark.slow
def test_of_a_row_its_own_values_are_looked_for(tmp_path: Path) -> None:
    """Else each would miss those of all other rows, though it proves its own."""
    example = project(tmp_path, (), ROWS).with_paths({"specs/stories.feature": OUTLINE})
    found = told(example)
    assert found.statuses == {"A dancer is listed": "PROVEN"}, found.run.output
    tests = found.scenarios["A dancer is listed"]["tests"]
    assert [(test["row"], test["facts"]["seen"]) for test in tests] == [
        ({"name": "Ray"}, ["Ray"]),
        ({"name": "Storm"}, ["Storm"]),
    ]
    warnings = [warning for test in tests for warning in test["warnings"]]
    assert warnings == [
        "the test never uses <name> of the row name=Ray",
        "the test never uses <name> of the row name=Storm",
    ]


@pytest.mark.slow
def test_the_gate_of_workers_and_of_those_who_ran_nothing(tmp_path: Path) -> None:
    """The controller decides; what pytest finds wrong keeps its own status."""
    gap = small(tmp_path, "one", "two", "three")
    gap.run(NO_EVIDENCE, "--scenarios=strict", *XDIST, "-n", "2").expect(status=1, passed=3)
    small(tmp_path / "b").run(NO_EVIDENCE, "--scenarios=strict").expect(passed=3)
    nothing = gap.run("--scenarios=strict", "-k", "nothing_like_it")
    assert nothing.status == 5, nothing.output


@pytest.mark.parametrize(
    "args,reason",
    [
        (("-k", "one"), "-k one"),
        pytest.param(("-m", "not other"), "-m not other", marks=pytest.mark.slow),
        pytest.param(("test_it.py::test_one",), "test_it.py::test_one", marks=pytest.mark.slow),
        pytest.param(("--deselect=test_it.py::test_two",), "--deselect", marks=pytest.mark.slow),
        pytest.param(("-k", "one", *XDIST, "-n", "1"), "-k one", marks=pytest.mark.slow),
    ],
)
def test_a_partial_run_is_judged_as_one(tmp_path: Path, args: tuple[str, ...], reason: str) -> None:
    """What did not run is no gap, nor what has no test: it is not known."""
    example = small(tmp_path, "one", "two", "three")
    found = told(example, NO_EVIDENCE, "--scenarios=strict", *args)
    assert found.run.status == 0, found.run.output
    assert reason in found.partial
    assert found.statuses["one"] == "PROVEN"


IN_A_FOLDER = """
import os, sys, pytest
os.chdir("more")
sys.exit(pytest.main(["-p", "pytest_asyncio.plugin", "-p", "pytest_arena.plugin", *sys.argv[1:]]))
"""


@pytest.mark.slow
def test_a_run_from_a_folder_below_or_without_one_is_partial(tmp_path: Path) -> None:
    """Pytest collects what is below the folder of the call, and nothing that it is to ignore."""
    more = small(tmp_path).files["test_it.py"].replace("one", "three")
    example = small(tmp_path, "one", "two", "three").with_paths({"more/test_more.py": more})
    ignored = told(example, NO_EVIDENCE, "--scenarios=strict", "--ignore=more")
    assert (ignored.run.status, ignored.partial) == (0, "--ignore=more"), ignored.run.output
    run = example.python("-c", IN_A_FOLDER, NO_EVIDENCE, "--scenarios=strict")
    assert run.status == 0, run.output
    all_tests = "If these are all tests, set testpaths = more in pytest's configuration"
    run.says(f"partial run (more. {all_tests}): all tests of")
    one = example.run(NO_EVIDENCE, "--scenarios=strict", "test_it.py::test_one")
    one.expect(passed=1).says("partial run (test_it.py::test_one): all tests of")
    whole = example.change("pytest.ini", "[pytest]\n", "[pytest]\ntestpaths = test_it.py\n")
    left = told(whole, NO_EVIDENCE, "--scenarios=strict", "--ignore=more")
    assert (left.run.status, left.partial) == (1, ""), left.run.output


@pytest.mark.slow
def test_a_choice_that_leaves_out_no_scenario_changes_nothing(tmp_path: Path) -> None:
    """``-m`` in the configuration must not open the gate."""
    example = small(tmp_path, "one", "two", "three")
    for args in (("-k", "one or two"), (".",), ("-m", "not slower")):
        found = told(example, NO_EVIDENCE, "--scenarios=strict", *args)
        assert (found.run.status, found.partial) == (1, ""), found.run.output


@pytest.mark.slow
def test_paths_that_cover_testpaths_are_all(tmp_path: Path) -> None:
    """Else they are a part, and the run says how to make them the whole."""
    example = small(tmp_path, "one", "two", "three").with_paths({"tests/test_a.py": "\n"})
    found = told(example, NO_EVIDENCE, "--scenarios=strict", "tests", "test_it.py")
    assert found.run.status == 0
    assert "testpaths" in found.partial
    example = example.change("pytest.ini", "[pytest]\n", "[pytest]\ntestpaths = tests test_it.py\n")
    found = told(example, NO_EVIDENCE, "--scenarios=strict", "tests", "test_it.py")
    assert (found.run.status, found.partial) == (1, ""), found.run.output


FAILING = """
import pytest

@pytest.mark.scenario("one")
def test_one():
    assert 1 == 2

@pytest.mark.scenario("two")
def test_two():
    pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("more", IN_A_WORKER_TOO, ids=["plain", "a worker"])
def test_a_run_that_was_stopped_is_partial(tmp_path: Path, more: tuple[str, ...]) -> None:
    """-x: what was not reached is NOT-RUN, and that is no gap; then --lf runs a part."""
    example = project(tmp_path, ["one", "two"], FAILING)
    found = told(example, NO_EVIDENCE, "-x", *more)
    assert found.statuses["one"] == "FAILED"
    assert "stopping after 1 failures" in found.partial
    if not more:
        assert found.statuses["two"] == "NOT-RUN"
        found = told(example, NO_EVIDENCE, "--lf", "--scenarios=strict")
        assert "--lf" in found.partial
        assert found.statuses["one"] == "FAILED"
        assert found.run.outcomes == {"failed": 1}


@pytest.mark.slow
def test_what_ctrl_c_left_is_partial(tmp_path: Path) -> None:
    """Nothing is claimed of it."""
    tests = FAILING.replace("assert 1 == 2", "raise KeyboardInterrupt")
    found = told(project(tmp_path, ["one", "two"], tests), NO_EVIDENCE)
    assert found.run.status == 2
    assert found.statuses == {"one": "NOT-RUN", "two": "NOT-RUN"}
    assert found.partial


@pytest.mark.slow
@pytest.mark.parametrize("more", IN_A_WORKER_TOO, ids=["plain", "a worker"])
def test_a_file_that_does_not_import_makes_the_mapping_incomplete(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    """Its scenarios are not called unmapped, and pytest's own exit status stands."""
    example = small(tmp_path).with_files(test_broken="import no_such_module_of_mine")
    found = told(example, NO_EVIDENCE, "--scenarios=strict", *more)
    assert found.run.status in {1, 2}
    assert "test_broken.py" in found.problems
    assert "test_broken.py could not be collected" in found.partial


@pytest.mark.slow
def test_what_is_printed(tmp_path: Path) -> None:
    """A section of its own, a few words with -q, and nothing where there is no terminal."""
    example = small(tmp_path, "one", "two", "three")
    run = example.run(NO_EVIDENCE).says("= scenarios =", "UNMAPPED")
    run.says("specs/stories.feature:8")
    quiet = example.run(NO_EVIDENCE, "-q").never_says("= scenarios =")
    assert len(quiet.output.splitlines()) < len(run.output.splitlines())
    silent = example.run(NO_EVIDENCE, "-p", "no:terminal", "--scenarios=strict")
    assert silent.status == 1, silent.output
    github = {"GITHUB_ACTIONS": "true"}
    example.run(NO_EVIDENCE, "--scenarios=strict", env=github).says(
        "::error file=specs/stories.feature,line=8"
    )
    run.never_says("::error")


@pytest.mark.slow
def test_the_same_run_writes_the_same_document(tmp_path: Path) -> None:
    """In one process or in three."""
    example = small(tmp_path, "one", "two", "three")
    texts = []
    for args in ((), (*XDIST, "-n", "2"), ("-p", "no:cacheprovider")):
        found = told(example, NO_EVIDENCE, *args)
        texts.append((found.run.folder / "out.json").read_text(encoding="utf-8"))
    assert texts[0] == texts[1] == texts[2]
    assert str(tmp_path) not in texts[0]


@pytest.mark.slow
def test_mistakes_end_the_run_before_the_first_test(tmp_path: Path) -> None:
    """Each with a message, and never with a traceback."""
    example = small(tmp_path)
    conflict = "<<<<<<< HEAD\n=======\n>>>>>>> other\n"
    for files, args, words in (
        ({}, ("--scenarios-out=yaml:x",), ("yaml", "json")),
        ({}, ("--scenarios=srict",), ("srict", "strict")),
        ({"scenarios.lock": conflict}, (), ("scenarios.lock",)),
    ):
        run = example.with_paths(files).run(*args)
        assert run.status == 4, run.output
        run.says("ERROR", *words).never_says("Traceback", "INTERNALERROR", "passed")


@pytest.mark.slow
def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """At the end of the run, with an exit status of its own."""
    run = small(tmp_path).run(NO_EVIDENCE, "--scenarios-out=json:app.py/out.json")
    assert run.status == 4, run.output
    run.says("app.py").never_says("Traceback", "INTERNALERROR")


@pytest.mark.slow
def test_a_misspelt_scenario_is_malformed_and_no_usage_error(tmp_path: Path) -> None:
    """A gap of the strict run, with the line."""
    text = feature("three") + "\n  Scenario: broken\n    When a\n    Whan b\n"
    example = small(tmp_path).with_paths({"specs/b.feature": text.replace("Stories", "B")})
    run = example.run(NO_EVIDENCE, "--scenarios=strict").expect(status=1, passed=3)
    run.says("specs/b.feature")


@pytest.mark.slow
def test_workers_of_groups_have_the_same_tests(tmp_path: Path) -> None:
    """--dist=loadgroup changes the node ids of tests behind everybody's back."""
    tests = TESTS.replace("@pytest.mark.other", "@pytest.mark.xdist_group('g')")
    example = project(tmp_path, ["one", "two"], tests)
    found = told(example, NO_EVIDENCE, *XDIST, "-n", "2", "--dist=loadgroup")
    assert found.statuses == {"one": "PROVEN", "two": "PROVEN"}
    assert "@g" not in found.problems + str(found.scenarios)


@pytest.mark.slow
def test_repeated_tests_are_tests_of_their_own(tmp_path: Path) -> None:
    """pytest-repeat: the worst of them counts."""
    tests = FAILING.replace("assert 1 == 2", "tries.append(1)\n    assert len(tries) > 1")
    example = project(tmp_path, ["one", "two"], "tries = []\n" + tests)
    found = told(example, NO_EVIDENCE, "-p", "pytest_repeat", "--count=2")
    assert found.statuses == {"one": "FAILED", "two": "PROVEN"}


@pytest.mark.slow
def test_a_file_that_skips_itself_is_told_of(tmp_path: Path) -> None:
    """Its scenarios look as if nobody had a test for them. In workers too."""
    skipping = "import pytest\npytest.importorskip('no_such_module_of_mine')\n" + TESTS
    example = small(tmp_path).with_files(test_it=skipping)
    for more in ((), (*XDIST, "-n", "1")):
        found = told(example, NO_EVIDENCE, *more)
        assert "test_it.py" in found.problems
        assert "no_such_module_of_mine" in found.problems


@pytest.mark.slow
@pytest.mark.parametrize("what", ["--fixtures", "--setup-only", "--cache-show"])
def test_what_runs_no_test_proves_nothing_and_fails_nothing(tmp_path: Path, what: str) -> None:
    """Set up and torn down alone, a test would have passed."""
    run = small(tmp_path).run(NO_EVIDENCE, what, "--scenarios=strict")
    assert run.status == 0, run.output
    run.never_says("2 of 2 proven")
