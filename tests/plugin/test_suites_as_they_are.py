"""Suites that were written without arena keep working unchanged: P3's second half.

Each suite is run with nothing configured, and with the app and its schema named, as on the first
day of a move to arena.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.example import Example
from tests.plugin.suites import (
    engine_per_test,
    global_factory,
    memory_engines,
    shared_session,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# One warning is let through: by its name, pytest takes a suite's `test_session_maker` for a test.
CONFIG = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings =
    error
    ignore:cannot collect 'test_session_maker'
pythonpath = .
"""


@dataclass(frozen=True, slots=True)
class Suite:
    """A project with its own conftest, how many of its tests pass, and what names its app."""

    files: Mapping[str, str]
    tests: int
    app: str
    schema: str


SUITES = {
    "overrides with one shared session": Suite(
        shared_session.FILES, shared_session.TESTS, "app.main:app", "app.db.database:Base"
    ),
    "an engine per test in tmp_path": Suite(
        engine_per_test.FILES, engine_per_test.TESTS, "api.main:app", "src.models.database:Base"
    ),
    "engines in memory": Suite(memory_engines.FILES, memory_engines.TESTS, "app:app", "app:Base"),
    "a global factory made for every test": Suite(
        global_factory.EVERY_TEST, global_factory.TESTS, "app.main:app", "app.database:Base"
    ),
}


@pytest.fixture(params=SUITES.values(), ids=[*SUITES])
def suite(request: pytest.FixtureRequest) -> Suite:
    """One suite after the other."""
    found: Suite = request.param
    return found


def in_folder(folder: Path, suite: Suite, *config: str) -> Example:
    """Return the suite as a project, with more lines of configuration."""
    lines = "\n".join((*config, ""))
    return Example(folder / "project", {**suite.files, "pytest.ini": CONFIG + lines})


def test_suite_passes_with_the_plugin_and_nothing_configured(tmp_path: Path, suite: Suite) -> None:
    """Installing arena breaks nothing, and nothing outside the suite's own files is written."""
    run = in_folder(tmp_path, suite).run()
    run.expect(passed=suite.tests).never_says("refused", "left app.dependency_overrides")
    assert databases_in(run.folder) == []


def test_suite_passes_with_its_app_and_schema_named(tmp_path: Path, suite: Suite) -> None:
    """Its own `db_session`, `client` and `test_client` win over the plugin's."""
    options = (f"arena_app = {suite.app}", f"arena_schema = {suite.schema}")
    run = in_folder(tmp_path, suite, *options).run()
    run.expect(passed=suite.tests).never_says("refused", "left app.dependency_overrides")
    assert databases_in(run.folder) == []


def databases_in(folder: Path) -> list[str]:
    """Return the database files of a project: the developer's, who has none here."""
    return [path.name for path in folder.rglob("*.db")]
