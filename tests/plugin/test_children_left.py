"""Child processes that a test or its request has begun, and that go on after the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_late_work import isolation
from tests.plugin.test_own_queues import EACH
from tests.plugin.test_postgresql_story import on_postgresql

if TYPE_CHECKING:
    from tests.example import Example

WRITER = """
import sys
import time
from pathlib import Path

from sqlalchemy import create_engine, text


def write(url, name):
    while not Path(f"{name}.gate").exists():
        time.sleep(0.001)
    try:
        with create_engine(url).begin() as connection:
            connection.execute(text("INSERT INTO dancers (name) VALUES (:name)"), {"name": name})
        end = "committed"
    except Exception as error:
        end = repr(error)
    Path(f"{name}.tmp").write_text(end)
    Path(f"{name}.tmp").rename(f"{name}.end")


if __name__ == "__main__":
    write(*sys.argv[1:])
"""

APP = """
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

from sqlalchemy import create_engine

import writer
from app import app

KEPT = []
engine = create_engine("SYNC_URL")


def sync_url():
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1 FROM dancers")
    return "SYNC_URL"


def fork(name, url):
    child = os.fork()
    if not child:
        try:
            writer.write(url, name)
        finally:
            os._exit(0)
    return lambda: os.waitpid(child, 0)


def popen(name, url):
    KEPT.append(subprocess.Popen([sys.executable, "writer.py", url, name]))
    return KEPT[-1].wait


def process(name, url):
    context = multiprocessing.get_context("fork")
    KEPT.append(context.Process(target=writer.write, args=(url, name), daemon=True))
    KEPT[-1].start()
    return KEPT[-1].join


def pool(name, url):
    KEPT.append(ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")))
    return KEPT[-1].submit(writer.write, url, name).result


def variable(name, url):
    code = "import os, sys, writer; writer.write(os.environ['DATABASE_URL'], sys.argv[1])"
    variables = {**os.environ, "DATABASE_URL": url}
    KEPT.append(subprocess.Popen([sys.executable, "-c", code, name], env=variables))
    return KEPT[-1].wait


def stranger(name, url):
    KEPT.append(subprocess.Popen(["sleep", "600"], env={"PATH": os.environ["PATH"]}))


@app.post("/children/{kind}/{name}", status_code=202)
async def child(kind: str, name: str, url: str):
    globals()[kind](name, url)
"""

TESTS = """
import time
from pathlib import Path

import pytest

import children

KINDS = ("fork", "popen", "process", "pool", "variable")
NAMES = [f"{who}_{kind}" for who in ("Request", "Test", "Fixture") for kind in KINDS]


def url_of(arena, kind):
    sync = arena.url.replace("+aiosqlite", "").replace("+asyncpg", "+psycopg")
    return sync if kind in ("popen", "variable") else "SYNC_URL"


@pytest.mark.parametrize("kind", KINDS)
async def test_of_a_request(arena, client, kind):
    children.sync_url()
    url = url_of(arena, kind)
    await client.post(f"/children/{kind}/Request_{kind}", params={"url": url})


@pytest.mark.parametrize("kind", KINDS)
def test_of_the_test(arena, kind):
    children.sync_url()
    getattr(children, kind)(f"Test_{kind}", url_of(arena, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_waits(arena, test_client, kind):
    children.sync_url()
    name = f"Joined_{kind}"
    Path(f"{name}.gate").touch()
    getattr(children, kind)(name, url_of(arena, kind))()
    assert test_client.get("/dancers").json() == ["Sand", name]


class TestFixture:
    @pytest.fixture(scope="class", params=KINDS)
    def child(self, arena, request):
        children.sync_url()
        getattr(children, request.param)(f"Fixture_{request.param}", url_of(arena, request.param))

    def test_it(self, child):
        pass


def test_a_stranger(test_client):
    children.sync_url()
    children.stranger("", "")


def test_all_end():
    for name in NAMES:
        Path(f"{name}.gate").touch()
    for name in NAMES:
        while not Path(f"{name}.end").exists():
            time.sleep(0.001)
    children.KEPT[-1].kill()
    children.KEPT[-1].wait()
"""


@pytest.mark.slow
@EACH
def test_a_child_that_goes_on_after_its_test_is_named(example: Example, how: str) -> None:
    """A fork, a program, a process of multiprocessing, a job of a pool of processes."""
    url, project = "sqlite:///dev.db", example
    if how != "copy":
        url, project = "postgresql+psycopg://me@db.example.org/shop", on_postgresql(example)
    project = project.change("pytest.ini", "app:app", "children:app")
    project = project.with_files(
        children=APP.replace("SYNC_URL", url), test_it=TESTS.replace("SYNC_URL", url), writer=WRITER
    )
    run = project.run("-q", "--arena-settle=0.1", "-W", "ignore", *isolation(how))
    run.expect(passed=22)
    assert run.output.count("has ended, and a process that it has begun still runs: ") == 10
    for kind in ("fork", "popen", "process", "pool", "variable"):
        run.says(f"arena: test_it.py::test_of_a_request[{kind}] has ended, and a process ")
    run.says("arena: class fixture child has ended, and a process that it has begun still runs: ")
    assert run.output.count(", also in 1 more") == 5
    run.says("children.py:").never_says("test_waits", "test_a_stranger")


@pytest.mark.slow
def test_a_child_that_still_runs_fails_its_test_with_arena_late_fail(example: Example) -> None:
    """The tests that wait for their children pass."""
    url = "sqlite:///dev.db"
    project = example.change("pytest.ini", "app:app", "children:app").with_files(
        children=APP.replace("SYNC_URL", url), test_it=TESTS.replace("SYNC_URL", url), writer=WRITER
    )
    run = project.run("-q", "--arena-settle=0.1", "-W", "ignore", "-o", "arena_late=fail")
    run.expect(passed=22, errors=10, status=1)
    run.says("LateWorkError: test_it.py::test_of_a_request[fork] has ended, and a process that")
    run.says("[A604]").never_says("ERROR test_it.py::test_waits", "ERROR test_it.py::test_a_str")
