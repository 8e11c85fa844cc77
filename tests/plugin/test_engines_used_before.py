"""An app that has used its engine before pytest begins, as ``flask test`` and ``run.py`` do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.developer import small_example, untouched

if TYPE_CHECKING:
    from pathlib import Path

RUN = """
import sys
import pytest
import app
from sqlalchemy import select
from sqlalchemy.orm import Session

USES_IT
sys.exit(pytest.main(["-p", "pytest_asyncio.plugin", "-p", "pytest_arena.plugin", *sys.argv[1:]]))
"""
TEST = """
import app

def test_it():
    app.add(app.engine, "Ghost")

def test_held():
    if hasattr(app, "held"):
        app.held.execute(app.insert(app.Dancer).values(name="Held"))
        app.held.commit()
"""
USES = {
    "disposed": ("print(app.names(app.engine)); app.engine.dispose()", {"passed": 2}),
    "idle": ("print(app.names(app.engine))", {"passed": 1, "failed": 1}),
    "held": ("app.held = app.engine.connect()", {"passed": 1, "failed": 1}),
    "session": (
        "app.held = Session(app.engine); app.held.scalars(select(app.Dancer)).all()",
        {"passed": 1, "failed": 1},
    ),
}


@pytest.mark.parametrize("use", USES)
def test_a_connection_from_before_pytest_is_refused(tmp_path: Path, use: str) -> None:
    """In use or idle. A disposed engine connects to the test's database."""
    code, outcomes = USES[use]
    project = small_example(tmp_path, test_it=TEST)
    example = project.with_paths({"run.py": RUN.replace("USES_IT", code)})
    with untouched(example):
        run = example.python("run.py").expect(int("failed" in outcomes), **outcomes)
    if "failed" in outcomes:
        run.says("refused: an engine's connection to", "engine.dispose() before pytest")


def test_a_second_run_in_a_process_is_refused(tmp_path: Path) -> None:
    """pytest-arena guards the process by the options of the first run."""
    first = 'pytest.main(["-p", "pytest_asyncio.plugin", "-p", "pytest_arena.plugin"])'
    project = small_example(tmp_path, test_it=TEST)
    example = project.with_paths({"run.py": RUN.replace("USES_IT", first)})
    example.python("run.py").expect(4, passed=2).says("for a second time in this process")
