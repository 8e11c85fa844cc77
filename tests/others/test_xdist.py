"""pytest-xdist: workers that start together, die, and are replaced."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.example import WIDE
from tests.plugin.test_summary_sections import OUTSIDE

if TYPE_CHECKING:
    from tests.example import Example, Run

PLUGINS = ("-p", "xdist.plugin")

TESTS = """
import os
import pathlib
import signal
import pytest

@pytest.mark.parametrize("turn", range(6))
async def test_turn(client, turn):
    assert (await client.get("/dancers")).json() == ["Sand"]
    assert (await client.post("/dancers/Dune")).status_code == 201
"""

# In a module of its own: what a module's fixture wrote is there until the module ends.
OF_MODULE = (
    WIDE
    + """
@pytest.mark.xdist_group("one")
async def test_wide(wide, client):
    assert (await client.get("/dancers")).json() == ["Sand", "Wide"]
    assert (await client.post("/dancers/Dune")).status_code == 201

@pytest.mark.xdist_group("one")
def test_wide_again(wide, test_client):
    assert test_client.get("/dancers").json() == ["Sand", "Wide"]
"""
)

DYING = """
async def test_exit(client, arena):
    await client.post("/dancers/Dead")
    pathlib.Path(f"home-{os.getpid()}").write_text(arena.url)
    os._exit(3)

async def test_kill(client, arena):
    await client.post("/dancers/Dead")
    pathlib.Path(f"home-{os.getpid()}").write_text(arena.url)
    os.kill(os.getpid(), signal.SIGKILL)

@pytest.mark.parametrize("turn", range(6))
async def test_after(client, turn):
    assert (await client.get("/dancers")).json()[:1] == ["Sand"]
    assert "Dead" not in (await client.get("/dancers")).json()
"""

LEAKING = """
import sqlite3
import pytest
from app import Dancer, maker

@pytest.mark.parametrize("turn", range(2))
async def test_leak(turn):
    session = test_leak.session = maker()
    session.add(Dancer(name="x"))
    await session.flush()

def test_refused():
    try:
        sqlite3.connect("dev.db")
    except Exception:
        pass
"""

ALONE = """
from dataclasses import replace
from pathlib import Path
from pytest_arena._sqlite import _product

_product._MEMORY = Path(__file__).parent.parent
"""


def alone(example: Example) -> Example:
    return replace(example.with_files(alone=ALONE), options=(*example.options, "-p", "alone"))


def homes(run: Run) -> list[bool]:
    """Whether the databases of the workers that died are still there."""
    urls = [file.read_text().strip() for file in run.folder.glob("home-*")]
    return [Path(url.partition("///")[2]).exists() for url in urls]


def test_a_worker_that_dies_is_replaced(example: Example) -> None:
    """The next tests are whole, its files are gone at the end."""
    project = alone(example).with_files(test_it=TESTS + DYING, test_wide=OF_MODULE)
    run = project.run(*PLUGINS, "-n2")
    run.expect(status=1, passed=14, failed=2).says("replacing crashed worker")
    run.says("crashed while running")
    assert homes(run) == [False, False]


def test_what_workers_find_reaches_the_controller(example: Example) -> None:
    """Leaks, refusals that the app swallowed, and those outside of any test; told in full."""
    run = example.with_files(test_it=LEAKING, conftest=OUTSIDE).run(*PLUGINS, "-n2", "-q")
    run.expect(status=1, passed=2, failed=1, errors=2)
    run.says("ConnectionLeak: the test ended with an open transaction", "test_it.py:10")
    run.says("arena: outside of any test: refused: a connection to", "conftest.py:6")
    assert run.output.count("outside of any test") == 1


FAILING = """
import socket
from contextlib import suppress

async def test_that_fails(client):
    await client.post("/dancers/Dune")
    assert (await client.get("/dancers")).json() == ["Sand"]

async def test_whose_refusal_is_caught(client):
    await client.post("/dancers/Dune")
    with suppress(OSError):
        socket.getaddrinfo("api.example.invalid", 443)
"""


def test_the_story_of_a_failed_test_is_in_the_xml_of_junit(example: Example) -> None:
    """GitLab, Jenkins and GitHub show this file."""
    project = example.with_files(test_it=FAILING)
    options = (*PLUGINS, "-oarena_network=refuse", "--junitxml=junit.xml")
    for workers in ((), ("-n1",)):
        run = project.run(*options, *workers).expect(status=1, failed=2)
        text = (run.folder / "junit.xml").read_text(encoding="utf-8")
        failures = re.findall("(?s)<failure.*?</failure>", text)
        assert len(failures) == 2
        assert all("dancers +1" in failure for failure in failures)
