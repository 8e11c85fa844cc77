"""The private Redis server: which program it is, and what happens when something kills it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_engines_used_before import RUN

if TYPE_CHECKING:
    from tests.example import Example

TESTS = """
import os
import pathlib
import pytest
import redis

@pytest.mark.parametrize("time", range(3))
def test_a_counter(time):
    client = redis.Redis(port=1)  # the developer's, which no test reaches
    assert client.incr("visits") == 1
    pathlib.Path(f"folder-{os.getpid()}").write_text(client.config_get("dir")["dir"])
"""
WITHOUT_FAKE = "import sys\nsys.modules['fakeredis'] = None\n"
needs_program = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="redis-server is not installed"
)


def folders(project: Path) -> list[Path]:
    return [Path(file.read_text()) for file in project.glob("folder-*")]


@needs_program
@pytest.mark.parametrize("workers", [(), ("-p", "xdist.plugin", "-n2")])
def test_each_process_has_a_server_that_ends_with_it(
    example: Example, workers: tuple[str, ...]
) -> None:
    run = example.with_files(test_it=TESTS).run(*workers).expect(passed=3)
    assert len(folders(run.folder)) == max(len(workers) - 1, 1)
    assert not any(folder.exists() for folder in folders(run.folder))


@needs_program
@pytest.mark.usefixtures("whole_process")
def test_the_workers_of_a_script_are_no_programs_of_a_test(example: Example) -> None:
    """Its line is on the stack, as that of a link to pytest."""
    project = example.with_files(test_it=TESTS, run=RUN.replace("USES_IT", ""))
    project.python("run.py", "-p", "xdist.plugin", "-n1").expect(passed=3)


CELERY = """
import subprocess, sys
import celery

def test_a_worker_is_the_first_that_uses_redis(arena):
    code = "import redis; redis.Redis(port=1).set('by', 'worker')"
    assert arena.process([sys.executable, "-c", code]).wait() == 0
    import redis
    assert redis.Redis().get("by") == b"worker"
"""


@needs_program
@pytest.mark.usefixtures("whole_process")
def test_a_worker_of_celery_uses_the_server(example: Example) -> None:
    """Celery imports redis-py when it connects, so the test has not done so."""
    example.with_files(test_it=CELERY, celery="").run().expect(passed=1)


@needs_program
def test_the_server_ends_with_a_killed_process(example: Example) -> None:
    """At once, without a later run."""
    run = example.with_files(test_it=TESTS + "    os.kill(os.getpid(), 9)\n").run()
    [folder] = folders(run.folder)
    deadline = time.monotonic() + 60
    while folder.exists():
        assert time.monotonic() < deadline


def test_fakeredis_serves_a_machine_without_a_program(example: Example) -> None:
    pytest.importorskip("fakeredis")
    project = example.with_files(test_it=TESTS.partition("    pathlib")[0])
    project.run(env={"PATH": ""}).expect(passed=3).never_says("Redis")


def test_a_machine_without_a_server_gets_one_error(example: Example) -> None:
    """It names all that was tried, and never falls back to the developer's server."""
    tests = f"{TESTS}\ndef test_a_program():\n    assert os.system('') == 0\n"
    project = example.with_files(test_it=tests, conftest=WITHOUT_FAKE)
    run = project.run(env={"PATH": ""}).expect(status=1, passed=1, failed=3)
    run.says("there is no Redis server for the tests: redis-server, valkey-server", "[A301]")


def test_an_allowed_server_is_reached(example: Example) -> None:
    """Nothing listens at this port, so that the connection fails."""
    project = example.with_files(test_it=TESTS)
    run = project.run("-o", "arena_allow=redis://localhost:1/*").expect(status=1, failed=3)
    run.says("Error 111 connecting to localhost:1")


def test_the_variable_of_an_allowed_server_stays(example: Example) -> None:
    """Its URL may leave out the host, the port and the number of the database."""
    tests = "import os\n\ndef test_it():\n    assert os.environ['REDIS_URL'] == 'redis://'\n"
    options = ("-o", "arena_allow=redis://localhost:6379/*", "-o", "arena_env=REDIS_URL")
    env = {"REDIS_URL": "redis://"}
    example.with_files(test_it=tests).run("test_it.py", *options, env=env).expect(passed=1)
