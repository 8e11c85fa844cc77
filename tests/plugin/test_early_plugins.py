"""Plugins that pytest imports before the gate exists: what they change is named."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.plugin.developer import CONFIG, change_of, small_example, untouched
from tests.plugin.test_early_children import USES_THE_APP

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example

# A fork of a process that has imported pytest long ago has another start.
pytestmark = pytest.mark.usefixtures("whole_process")

BY_DRIVER = """
import sqlite3
from contextlib import closing
with closing(sqlite3.connect("dev.db")) as connection:
    connection.execute("DELETE FROM dancers")
    connection.commit()
"""

BY_ENGINE = """
from sqlalchemy import text
from app import engine
with engine.begin() as connection:
    connection.execute(text("DELETE FROM dancers"))
engine.dispose()
"""

ONLY_READS = """
from app import engine, names
assert names(engine) == ["The developer"]
engine.dispose()
"""

RUNS_PYTEST = """
import sys, pytest, early
plugins = ["-p", "pytest_asyncio.plugin", "-p", "pytest_arena.plugin"]
sys.exit(pytest.main([*plugins, "test_it.py"]))
"""


def _project(tmp_path: Path, early: str, config: str = "") -> Example:
    project = small_example(tmp_path, early=early, test_it=USES_THE_APP)
    return project.with_paths({"pytest.ini": f"{CONFIG}{config}\n"})


def _names_the_file(project: Example) -> tuple[str, ...]:
    file = project.folder / "dev.db"
    return (
        f"{file} was changed after this process began, and before pytest-arena guarded it",
        'pytest_plugins = ["…"]',
        f"arena_allow = {file}",
    )


@pytest.mark.parametrize("early", [pytest.param(BY_DRIVER, marks=pytest.mark.slow), BY_ENGINE])
def test_a_plugin_that_writes_before_the_gate_fails_the_run(tmp_path: Path, early: str) -> None:
    """The option -p is read before all other plugins are imported."""
    project = _project(tmp_path, early, "addopts = -p early")
    with change_of(project, {"dev.db": False}) as changed:
        run = project.run("test_it.py", "-q").expect(1, passed=1)
    assert changed == ["dev.db"]
    run.says(*_names_the_file(project)).never_says("was changed during")


@pytest.mark.slow
def test_so_does_a_plugin_of_the_environment(tmp_path: Path) -> None:
    """It is imported after pytest-arena, and before the gate is installed."""
    project = _project(tmp_path, BY_DRIVER)
    with change_of(project, {"dev.db": False}):
        run = project.run("test_it.py", env={"PYTEST_PLUGINS": "early"}).expect(1, passed=1)
    run.says(*_names_the_file(project))


@pytest.mark.slow
def test_so_does_one_that_writes_once_in_a_run_with_workers(tmp_path: Path) -> None:
    """The workers change nothing more, and the controller imports no app."""
    once = BY_DRIVER.replace("FROM dancers", "FROM dancers WHERE name > ''")
    project = _project(tmp_path, once, "addopts = -p early")
    with change_of(project, {"dev.db": False}):
        run = project.run("-p", "xdist.plugin", "-n", "1", "test_it.py").expect(1, passed=1)
    run.says(*_names_the_file(project))


@pytest.mark.slow
def test_a_plugin_that_a_conftest_names_does_not_reach_the_file(tmp_path: Path) -> None:
    """So the message proposes it."""
    project = _project(tmp_path, BY_ENGINE).with_files(conftest='pytest_plugins = ["early"]\n')
    with untouched(project):
        project.run("test_it.py").expect(passed=1).never_says("before pytest-arena guarded")


@pytest.mark.slow
def test_a_plugin_that_only_reads_is_not_named(tmp_path: Path) -> None:
    """Nor is a change just before pytest starts, or by a script that calls pytest."""
    project = _project(tmp_path, ONLY_READS, "addopts = -p early")
    with untouched(project):
        project.run("test_it.py").expect(passed=1).never_says("before pytest-arena guarded it")
    script = small_example(tmp_path / "script", early=BY_DRIVER, runs=RUNS_PYTEST)
    script = script.with_files(test_it=USES_THE_APP)
    with change_of(script, {"dev.db": False}) as changed:
        with closing(sqlite3.connect(script.folder / "dev.db")) as connection:
            connection.execute("UPDATE dancers SET name = 'Just before'")
            connection.commit()
        script.run("test_it.py").expect(passed=1)
        script.python("runs.py").expect(passed=1)
    assert changed == ["dev.db"]


EMPTIES = "from app import Base, engine\nBase.metadata.drop_all(engine)\n"


@pytest.mark.slow
def test_a_required_plugin_ends_a_run_that_does_not_load_it(tmp_path: Path) -> None:
    """Its conftest would reach the developer's file. Not every way to load the plugin counts."""
    project = _project(tmp_path, "", "required_plugins = pytest-arena").with_files(conftest=EMPTIES)
    with untouched(project):
        run = project.run("test_it.py", plugin=False)
        assert run.status == pytest.ExitCode.USAGE_ERROR, run.output
        run.says("Missing required plugins: pytest-arena")
        loaded = project.run("-p", "arena", "test_it.py", plugin=False)
    loaded.never_says("Missing required plugins").says("1 of 1 tests had a separate database")
