"""Whoever makes the loops: one suite under pytest-asyncio, anyio, unittest and test clients."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from tests.gate.moving_setting import Cell, Setting, control

ROOT = Path(__file__).parents[2]

ENVIRONMENT = {
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
}
PLUGINS = ("-p", "pytest_asyncio.plugin", "-p", "anyio.pytest_plugin")
INI = """
[pytest]
filterwarnings = error
asyncio_default_fixture_loop_scope = function
"""
CONFTEST = """
import logging
import pytest
from tests.gate.moving_setting import Cell, Setting, listening

setting = Setting(Cell({way!r}, {loop!r}, {pool!r}), name={name!r})
gate = listening(setting.notes)
gate.__enter__()
engine = setting.engine()


@pytest.fixture(scope="session", autouse=True)
def end():
    yield
    setting.cell.run(engine.dispose())
    gate.__exit__(None, None, None)
    assert not setting.notes


@pytest.fixture(autouse=True)
def silence(caplog):
    yield
    loud = [r for when in ("setup", "call") for r in caplog.get_records(when) if r.levelno >= 30]
    loud = [r for r in loud if r.msg != "Executing %s took %.3f seconds"]  # the machine is busy
    assert not loud


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio", {{"loop_factory": setting.cell.new_loop}}


def pytest_asyncio_loop_factories(config, item):
    return {{"ours": setting.cell.new_loop}}
"""
SUITE = """
import asyncio
import unittest

import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from conftest import engine
from tests.gate.moving_setting import pid_of


async def pid(request):
    return PlainTextResponse(str(await pid_of(engine)))


app = Starlette(routes=[Route("/", pid)])
asyncio_test = pytest.mark.asyncio
session_test = pytest.mark.asyncio(loop_scope="session")


@asyncio_test
@pytest.mark.parametrize("number", range(10))
async def test_function_loops(number):
    await asyncio.gather(*(pid_of(engine) for _ in range(6)))


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def wide():
    await pid_of(engine)
    yield
    await pid_of(engine)


@session_test
async def test_session_loop(wide):
    await pid_of(engine)


@asyncio_test
async def test_function_loop_after_a_session_loop(wide):
    await pid_of(engine)


@session_test
async def test_session_loop_again(wide):
    await pid_of(engine)


@pytest.mark.anyio
@pytest.mark.parametrize("number", range(3))
async def test_anyio(number):
    await pid_of(engine)


def test_bare_client():
    client = TestClient(app)
    for _ in range(50):
        assert client.get("/").status_code == 200


def test_client_with_a_lifespan():
    with TestClient(app) as client:
        for _ in range(5):
            assert client.get("/").status_code == 200


@asyncio_test
async def test_client_inside_of_an_async_test():
    for _ in range(3):
        await pid_of(engine)
        with TestClient(app) as client:
            client.get("/")
        TestClient(app).get("/")


def test_asyncio_run():
    for _ in range(20):
        asyncio.run(pid_of(engine))


class TestCase(unittest.IsolatedAsyncioTestCase):
    async def test_unittest(self):
        await pid_of(engine)


@asyncio_test
async def test_in_threads_too():
    work = [asyncio.to_thread(asyncio.run, pid_of(engine)) for _ in range(5)]
    await asyncio.gather(pid_of(engine), *work)
"""
CELLS = [
    Cell("asyncpg moves", "asyncio", "ping"),
    *(
        pytest.param(cell, marks=pytest.mark.slow)
        for cell in (
            Cell("asyncpg stays", "asyncio", "ping"),
            Cell("asyncpg moves", "uvloop", "no ping"),
            Cell("asyncpg moves", "asyncio", "one"),
            Cell("asyncpg stays", "uvloop", "no ping"),
            Cell("psycopg", "uvloop", "one"),
        )
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_pitfalls_003_to_010_one_engine_for_all(tmp_path: Path, cell: Cell) -> None:
    """A global engine passes everywhere, under ``-W error``; nothing is logged, nobody is left."""
    pytest.importorskip("starlette")
    with control():
        pass  # there is a server
    name = f"moving {uuid4().hex[:12]}"
    conftest = CONFTEST.format(way=cell.way, loop=cell.loop, pool=cell.pool, name=name)
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text(INI)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *PLUGINS],
        cwd=tmp_path,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert Setting(cell, name=name).is_left_clean()
