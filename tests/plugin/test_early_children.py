"""A program that a conftest starts before the app has an engine: what it changes is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.plugin.developer import change_of, small_example

if TYPE_CHECKING:
    from pathlib import Path

USES_THE_APP = """
from app import engine, names

def test_it():
    assert names(engine) == []
"""
DELETES = """
import sqlite3
with sqlite3.connect("dev.db") as db:
    db.execute("DELETE FROM dancers WHERE name > ''")
"""
STARTS = "import subprocess, sys\nsubprocess.run([sys.executable, 'deletes.py'], check=True)"


def test_a_changed_file_fails_the_run(tmp_path: Path) -> None:
    """The app's engine means the file only later."""
    project = small_example(tmp_path, conftest=STARTS, deletes=DELETES, test_it=USES_THE_APP)
    with change_of(project, {"dev.db": False}) as changed:
        run = project.run("test_it.py").expect(1, passed=1)
    assert changed == ["dev.db"]
    file = project.folder / "dev.db"
    run.says(f"{file} was changed during this run", f"arena_allow = {file}")
