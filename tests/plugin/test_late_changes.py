"""Code that changes the app's file after the summary: pytest-arena refuses or names it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.parameters import slow_except
from tests.plugin.developer import change_of, small_example, untouched
from tests.plugin.test_early_children import DELETES, USES_THE_APP
from tests.servers.postgresql import URL

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example

RUNS_PROGRAM = "subprocess.run([sys.executable, 'deletes.py'], check=True)"
PROGRAM = "def {}:\n    import subprocess, sys\n    " + RUNS_PROGRAM

# Each begins after pytest-arena has compared the files for its summary.
LATE = {
    "unconfigure": PROGRAM.format("pytest_unconfigure()"),
    "summary": PROGRAM.format("pytest_terminal_summary()"),
    "finish": "import pytest, subprocess, sys\n@pytest.hookimpl(wrapper=True)\n"
    f"def pytest_sessionfinish():\n    yield\n    {RUNS_PROGRAM}",
}

REMOVES = "import subprocess\ndef pytest_unconfigure(): subprocess.run(['rm', 'dev.db'])"

IN_THE_CONTROLLER = """
import sqlite3
def {}(config):
    if not hasattr(config, "workerinput"):
        with sqlite3.connect("dev.db") as db:
            db.execute("DELETE FROM dancers")
"""


def _project(tmp_path: Path, conftest: str) -> Example:
    return small_example(tmp_path, conftest=conftest, deletes=DELETES, test_it=USES_THE_APP)


@pytest.mark.parametrize("way", slow_except(LATE, "unconfigure"))
def test_a_program_after_the_summary_fails_the_run(tmp_path: Path, way: str) -> None:
    """The program's arguments do not name the file."""
    project = _project(tmp_path, LATE[way])
    with change_of(project, {"dev.db": False}) as changed:
        run = project.run("test_it.py").expect(1, passed=1)
    assert changed == ["dev.db"]
    run.says(f"arena: {project.folder / 'dev.db'} was changed during this run")
    assert run.output.count("was changed during") == 1


@pytest.mark.slow
def test_a_program_at_the_end_of_the_process_is_named(tmp_path: Path) -> None:
    """The exit status is decided before."""
    project = _project(tmp_path, f"import atexit\n@atexit.register\n{PROGRAM}".format("end()"))
    with change_of(project, {"dev.db": False}) as changed:
        run = project.run("test_it.py").expect(0, passed=1)
    assert changed == ["dev.db"]
    run.says(f"arena: {project.folder / 'dev.db'} was changed during this run")


@pytest.mark.slow
def test_a_program_whose_arguments_name_the_file_is_refused(tmp_path: Path) -> None:
    """As before the end of the session."""
    project = _project(tmp_path, REMOVES)
    with untouched(project):
        run = project.run("test_it.py").expect(1, passed=1)
    run.says("ProductionDatabaseError")


TWICE_AT_THE_END = """
import atexit

def pytest_unconfigure():
    import app
    for _ in range(2):  # by a connection of the pool, and by a new one
        try:
            app.add(app.engine, "Ghost")
        except Exception as error:
            print(error)
        app.engine.dispose()
"""


@pytest.mark.slow
@pytest.mark.parametrize("product", ["sqlite", pytest.param("server", marks=pytest.mark.slow)])
def test_a_refusal_after_the_session_is_told_once(tmp_path: Path, product: str) -> None:
    """A connection of the pool and a new one have the same words."""
    project = _project(tmp_path, TWICE_AT_THE_END)
    name = f"{project.folder}/dev.db"
    env = {}
    if product == "server":
        url = URL.set(drivername="postgresql+psycopg", database="shop")
        shown = url.render_as_string(hide_password=False)
        project = project.change("app.py", "sqlite:///dev.db", shown)
        env["ARENA_DATABASE"] = URL.render_as_string(hide_password=False)
        name = f"postgresql://{URL.host}:{URL.port}/shop"
    run = project.run("test_it.py", env=env).expect(passed=1)
    run.says(f"arena: refused: a connection to {name} after the test session")
    assert run.output.count("arena: refused: ") == 1, run.output


REMOVES_ITS_OWN = """
import os, shutil, subprocess, tempfile
folder = tempfile.mkdtemp()
shutil.copy("backup.db", f"{folder}/own.db")
os.environ["DATABASE_URL"] = f"sqlite:///{folder}/own.db"
def pytest_unconfigure():
    subprocess.run(["rm", "-r", folder], check=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("args", [(), ("-p", "xdist.plugin", "-n", "1")])
def test_a_file_of_this_run_may_be_removed(tmp_path: Path, args: tuple[str, ...]) -> None:
    """Its data is of this run."""
    project = _project(tmp_path, REMOVES_ITS_OWN)
    app = "import os\n" + project.files["app.py"].replace(
        '"sqlite:///dev.db"', 'os.environ["DATABASE_URL"]'
    )
    with untouched(project, "backup.db"):
        run = project.with_files(app=app).run(*args, "test_it.py").expect(passed=1)
    run.never_says("was changed")


@pytest.mark.slow
@pytest.mark.parametrize("hook", ["pytest_sessionfinish", "pytest_unconfigure"])
def test_the_controller_of_workers_refuses_the_apps_file(tmp_path: Path, hook: str) -> None:
    """Only its workers import the app."""
    conftest = IN_THE_CONTROLLER.format(hook)
    if hook == "pytest_sessionfinish":
        conftest = conftest.replace("config", "session", 1).replace("config,", "session.config,")
    project = _project(tmp_path, conftest)
    with untouched(project):
        run = project.run("-p", "xdist.plugin", "-n", "1", "test_it.py")
    assert run.status == 1, run.output
    run.says("ProductionDatabaseError")


@pytest.mark.slow
def test_the_controller_of_workers_names_a_program(tmp_path: Path) -> None:
    """The program runs when the worker has ended."""
    project = _project(tmp_path, PROGRAM.format("pytest_testnodedown()"))
    with change_of(project, {"dev.db": False}) as changed:
        run = project.run("-p", "xdist.plugin", "-n", "1", "test_it.py").expect(1, passed=1)
    assert changed == ["dev.db"]
    run.says(f"{project.folder / 'dev.db'} was changed during this run")
    assert run.output.count("was changed during") == 1
