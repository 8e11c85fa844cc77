"""Programs that a conftest starts before the app has an engine: what they change is named."""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.parameters import slow_except
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

JOBS = """
def delete():
    import deletes
"""

WAYS = {
    "program": "import subprocess, sys\nsubprocess.run([sys.executable, 'deletes.py'], check=True)",
    "shell": "import os\nassert os.system('cp backup.db dev.db') == 0",
    "spawn": "import multiprocessing, jobs\n"
    "context = multiprocessing.get_context('spawn')\n"
    "def pytest_configure():\n"
    "    child = context.Process(target=jobs.delete)\n"
    "    child.start()\n"
    "    child.join()",
}


@pytest.mark.parametrize("way", slow_except(WAYS, "program"))
def test_a_changed_file_fails_the_run(tmp_path: Path, way: str) -> None:
    """The app's engine means the file only later."""
    project = small_example(
        tmp_path, conftest=WAYS[way], deletes=DELETES, jobs=JOBS, test_it=USES_THE_APP
    )
    with change_of(project, {"dev.db": False}) as changed:
        (project.folder / "backup.db").write_bytes(b"")
        run = project.run("test_it.py").expect(1, passed=1)
    assert changed == ["dev.db"]
    file = project.folder / "dev.db"
    run.says(f"{file} was changed during this run", "arena_schema", f"arena_allow = {file}")


@pytest.mark.slow
def test_also_if_the_controller_of_workers_starts_it(tmp_path: Path) -> None:
    """In the workers the same program changes nothing more."""
    files = {"conftest": WAYS["program"], "deletes": DELETES, "test_it": USES_THE_APP}
    project = small_example(tmp_path, **files)
    with change_of(project, {"dev.db": False}) as changed:
        run = project.run("-p", "xdist.plugin", "-n", "2", "test_it.py").expect(1, passed=1)
    assert changed == ["dev.db"]
    run.says(f"{project.folder / 'dev.db'} was changed during this run")


@pytest.mark.slow
def test_a_program_that_changes_no_file_of_the_app_is_not_named(tmp_path: Path) -> None:
    """It changes another database of the project."""
    other = DELETES.replace("dev.db", "other.db")
    files = {"conftest": WAYS["program"], "deletes": other, "test_it": USES_THE_APP}
    project = small_example(tmp_path, **files)
    with change_of(project, {"dev.db": False, "other.db": False}) as changed:
        run = project.run("test_it.py").expect(passed=1)
    assert changed == ["other.db"]
    run.never_says("was changed")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse the name")
def test_a_worker_starts_beside_a_file_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    """The controller sends the workers the states of files before."""
    example = small_example(tmp_path, test_it=USES_THE_APP)
    folder = example.write()
    with closing(sqlite3.connect(folder / "other.db")) as connection:
        connection.execute("CREATE TABLE dancers (name)")
    (folder / "other.db").rename(folder / os.fsdecode(b"caf\xe9.db"))
    example.run("-p", "xdist.plugin", "-n1").expect(passed=1)
