"""Where options come from: the file, ``-o``, a few flags, the marker."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

# Prints what the run was told, by what it does: the seeded names, and whether a database was kept.
TESTS = """
def test_names(test_client):
    print("names:", *test_client.get("/dancers").json())
    assert False
"""

SEEDS = """
from app import Dancer

def by_file(session):
    session.add(Dancer(name="File"))

def by_override(session):
    session.add(Dancer(name="Override"))
"""

TOML = """
[tool.pytest.ini_options]
arena_app = "app:app"
arena_schema = "app:Base"
arena_seed = "seeds:by_file"
arena_env = ["SHOP_URL", "OTHER_URL"]
pythonpath = ["."]
"""

# pytest 9's own table: each value in the type of its option.
NATIVE_TOML = TOML.replace("[tool.pytest.ini_options]", "[tool.pytest]")


@pytest.fixture
def seeds(example: Example) -> Example:
    """Two seeds to choose from, and a test that fails and shows which one it was."""
    seeds = example.with_files(seeds=SEEDS, test_names=TESTS)
    return seeds.change("pytest.ini", "seed:seed", "seeds:by_file")


def test_an_override_wins_over_the_file(seeds: Example) -> None:
    seeds.run("-o", "arena_seed=seeds:by_override").says("names: Override")
    seeds.run("-o", "arena_seed=").says("names:").never_says("names: F", "names: O")


@pytest.mark.parametrize("text", [TOML, NATIVE_TOML], ids=["ini_options", "native"])
def test_pyproject_toml_in_both_of_its_tables(
    seeds: Example, text: str, request: pytest.FixtureRequest
) -> None:
    """A variable with an option's name has no effect."""
    if text is NATIVE_TOML and int(pytest.__version__.partition(".")[0]) < 9:
        pytest.skip("[tool.pytest] came with pytest 9")
    project = seeds.with_paths({"pyproject.toml": text, "app.py": seeds.files["app.py"]})
    project = project.change("app.py", "DATABASE_URL", "OTHER_URL")
    files = {name: text for name, text in project.files.items() if name != "pytest.ini"}
    env = {"OTHER_URL": "sqlite+aiosqlite:///prod.db", "ARENA_SEED": "seeds:by_override"}
    run = type(project)(project.folder, files).run(env=env)
    run.expect(status=1, failed=1).says("names: File", "in place of prod (")
    assert not (run.folder / "prod.db").exists()


def test_the_cache_is_where_arena_cache_says(seeds: Example) -> None:
    """Relative to the working folder, and never in the project by itself."""
    run = seeds.run(env={"ARENA_CACHE": "somewhere/else"})
    assert list((run.folder / "somewhere/else").rglob("*.sqlite"))
    assert not list(seeds.folder.parent.glob("cache"))


def test_help_markers_and_fixtures_stand_alone(example: Example) -> None:
    """Somebody who has read nothing learns what each option, marker and fixture is for."""
    run = example.run("--help", "--arena-keep=sometimes")  # pytest prints the rest in spite of it
    run.says("--arena-keep=VALUE", "'sometimes': none of: never, failed, always")
    example.run("--help").says(
        "pytest-arena: every test of a web app gets its own database.",
        "arena_app (string): The web app under test",
        "arena_seed (string): A function that writes the rows for all tests",
        "arena_env (linelist): The environment variables that hold the app's database URLs",
    )
    example.run("--fixtures").says("db_session --", "A session on the test's database", "client --")


def test_each_marker_of_the_list_is_an_example(example: Example) -> None:
    """A call of a marker that pytest shows can be pasted."""
    text = example.run("--markers").output
    calls = re.findall(r"@pytest\.mark\.(?:arena|scenario)\(.*?\)(?=: )", text)
    tests = [f"{call}\ndef test_{number}(): assert True\n" for number, call in enumerate(calls)]
    spec = "Feature: Feature\n  @no-request\n  Scenario: name\n    Then it works\n"
    files = {"test_marked.py": "import pytest\n" + "".join(tests), "a.feature": spec}
    example.with_paths(files).run("-oarena_specs=a.feature", "test_marked.py").expect(passed=2)


def test_a_suite_that_sets_no_option_does_not_notice_the_plugin(example: Example) -> None:
    """No section, no import of any app, no folder in the cache, the same exit status."""
    plain = type(example)(example.folder, {"test_plain.py": "def test_one():\n    assert True\n"})
    run = plain.run("-v").expect(passed=1).never_says(" arena ", "database")
    assert not (run.folder.parent / "cache").exists()
