"""Schemas are cached across runs. Seeds and functions end with their run."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.example import Example

COUNT = "with open('builds.log', 'a') as log:\n        log.write('{}')"
SEED = f"""
from app import Dancer

async def seed(session):
    {COUNT.format("s")}
    session.add(Dancer(name="Sand"))
"""
TABLES = f"""
from pathlib import Path
from sqlalchemy import text

def create(connection):
    {COUNT.format("f")}
    for script in sorted(Path("tables").rglob("*.sql")):
        connection.execute(text(script.read_text()))
"""
DANCERS = "create table dancers (id integer primary key, name text unique)"
TEST = """
def test_names(test_client):
    print("the names:", test_client.get("/dancers").json())
"""
BUILT = "template built in"
CACHED = "template from the cache"
SCHEMA = "arena_schema = app:Base\n"
BOTH = SCHEMA + "arena_seed = seed:seed\n"


def _builds(example: Example) -> str:
    return (example.folder / "builds.log").read_text()


def _with_schema(example: Example, value: str) -> Example:
    project = example.change("pytest.ini", BOTH, f"arena_schema = {value}\n")
    return project.with_files(test_names=TEST)


def test_a_seed_runs_once_for_each_run_and_its_schema_is_kept(example: Example) -> None:
    """Two workers of a run share its rows. After an hour a later run removes them."""
    project = example.with_files(seed=SEED, test_names=TEST, test_more=TEST)
    folder = project.folder.parent / "cache/templates"
    project.run("-s").expect(passed=2).says("['Sand']", BUILT)
    before = {*folder.glob("*.sqlite")}
    foreign = folder / "welcome.json"  # of the project, whose folder is the cache
    foreign.touch()
    for file in folder.iterdir():
        os.utime(file, (0, time.time() - 2 * 3600))
    os.utime(foreign, (0, 0))
    project.run("-s").expect(passed=2).says("['Sand']", BUILT)
    gone = [file.name for file in before - {*folder.iterdir()}]
    assert len(before) == 2
    assert [name.startswith("of-run-") for name in gone] == [True]
    assert foreign.exists()
    assert _builds(project) == "ss"
    project.run("-p", "xdist.plugin", "-n", "2").expect(passed=2)
    assert _builds(project) == "sss"


def test_a_function_runs_in_each_run(example: Example) -> None:
    """pytest-arena does not know which files decide its result."""
    project = _with_schema(example, "tables:create").with_files(tables=TABLES)
    project = project.with_paths({"tables/dancers.sql": DANCERS})
    for _ in range(2):
        project.run().expect(passed=1).says(BUILT)
    assert _builds(project) == "ff"


LISTENER = """
@event.listens_for(Base.metadata, "after_create")
def fill(target, connection, **_):
    connection.execute(text("insert into dancers (name) values ('Rock')"))
"""
DDL = (
    "event.listen(Base.metadata, 'after_create', DDL(\"insert into dancers (name) values ('{}')\"))"
)


REQUEST = """
from app import app
from starlette.testclient import TestClient

def test_it(request):
    TestClient(app).get("/dancers")
    [asked] = request.getfixturevalue("arena").requests
    assert len(asked.statements) == 1
"""


def test_a_build_is_no_part_of_the_request_that_waits_for_it(example: Example) -> None:
    """Nor are its statements."""
    example.with_files(test_it=REQUEST).run("test_it.py").expect(passed=1)


def test_a_listener_runs_in_each_run_and_a_ddl_if_its_text_changes(example: Example) -> None:
    """A function may read anything. The text of a DDL decides its result."""
    project = _with_schema(example, "app:Base")
    app = project.files["app.py"] + "\nfrom sqlalchemy import DDL, event, text\n"
    for target in ("Base.metadata", "Dancer.__table__") * 2:
        listener = LISTENER.replace("Base.metadata", target)
        project.with_files(app=app + listener).run("-s").expect(passed=1).says("['Rock']", BUILT)
    for name in ("Wave", "Tide"):
        with_ddl = project.with_files(app=app + DDL.format(name))
        with_ddl.run("-s").expect(passed=1).says(f"['{name}']", BUILT)
    with_ddl.run("-s").expect(passed=1).says("['Tide']", CACHED)
