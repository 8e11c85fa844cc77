"""A test that only sees a 500 is shown what the app has raised."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_arena.testing import Example

BREAKS = """

@app.get("/breaks")
async def breaks():
    return {}["nothing of that name"]
"""
TESTS = """
async def test_async(arena):
    client = arena.client(raise_app_exceptions=False)
    assert (await client.get("/breaks")).status_code == 200


def test_sync(arena):
    client = arena.test_client(raise_app_exceptions=False)
    assert client.get("/breaks").status_code == 200


async def test_that_raises(client):
    await client.get("/breaks")


async def test_that_expects_it(arena):
    client = arena.client(raise_app_exceptions=False)
    assert (await client.get("/breaks")).status_code == 500
"""


@pytest.mark.parametrize("handled", [False, True])
def test_a_failed_test_shows_the_servers_traceback(example: Example, *, handled: bool) -> None:
    """Once, with the app's own lines; also where the app answers its errors by a handler."""
    more = (
        "\n\n@app.exception_handler(Exception)\nasync def oh(request, error):\n"
        "    from fastapi.responses import JSONResponse\n    return JSONResponse({}, 500)\n"
    )
    app = example.files["app.py"] + BREAKS + more * handled
    run = example.with_files(app=app, test_it=TESTS).run().expect(1, failed=3, passed=1)
    assert run.output.count("arena: the server's traceback, GET /breaks") == 2
    run.says("in breaks", "KeyError: 'nothing of that name'")


UNABLE = """
async def test_async(client_as):
    await client_as("staff").get("/dancers")  # the user's line


def test_sync(test_client_as):
    test_client_as("staff").get("/dancers")  # the user's line
"""
CRASHES = """
def pytest_runtest_logreport(report):
    if report.failed:
        print("crash in", report.longrepr.reprcrash.path)
"""


def test_an_error_of_a_client_is_shown_at_the_line_that_called_it(example: Example) -> None:
    """Neither the way through the HTTP library nor ours; tools that mark lines mark this one."""
    logs_in = example.change("pytest.ini", "[pytest]", "[pytest]\narena_login = users:login")
    login = "def login(client, role):\n    raise ValueError('wrong password')\n"
    files = logs_in.with_files(users=login, test_it=UNABLE, conftest=CRASHES)
    run = files.run("-s").expect(1, failed=2)
    assert run.output.count("# the user's line") == 2
    assert run.output.count(f"crash in {files.folder / 'test_it.py'}") == 2
    run.says("the login as 'staff' failed: ValueError: wrong password")
    run.never_says("site-packages", "src/pytest_arena")


TWICE = """
import pytest
from sqlalchemy import text
from app import app, engine


@app.post("/same")
async def same():
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO dancers (id, name) VALUES (1, 'same')"))


@pytest.fixture
async def twice(client):
    await client.post("/same")


async def test_async(client):
    await client.post("/same")


def test_sync(test_client):
    test_client.post("/same")


def test_own():
    from starlette.testclient import TestClient

    TestClient(app).post("/same")


async def test_in_a_fixture(twice):
    pass


async def test_of_its_own(client):
    await client.get("/dancers")
    raise ValueError("no request") from LookupError("nor this")
"""
FOLDED = r" +\d+ frames of httpx2?, .*: `--full-trace` shows them"


def test_frames_between_the_test_and_the_app_are_folded(example: Example) -> None:
    """The test's line and the app's are shown, with one line for the libraries between them."""
    files = example.with_files(test_it=TWICE)
    run = files.run("--tb=short").expect(1, failed=4, errors=1)
    run.never_says("site-packages", "src/pytest_arena")
    assert len(re.findall(f"(?m)^{FOLDED}$", run.output)) == 4
    assert len(re.findall(r"(?m)^E {3}sqlite3.IntegrityError: UNIQUE", run.output)) == 4
    assert len(re.findall(r"(?m)^E {3}sqlalchemy.exc.IntegrityError: ", run.output)) == 4
    line = next(n for n, text in enumerate(TWICE.splitlines(), 1) if "INSERT" in text)
    told = r"raised IntegrityError: \(sqlite3.IntegrityError\) UNIQUE constraint failed: dancers.id"
    assert len(re.findall(rf"{told} \(test_it.py:{line}\)", run.output)) == 4
    run.says("ValueError: no request")


def test_all_frames_are_shown_where_that_is_wanted(example: Example) -> None:
    """Frames are shown as pytest shows them."""
    files = example.with_files(test_it=TWICE)
    for option in ("--full-trace", "--tb=native"):
        run = files.run(option, "-k", "test_async").expect(1, failed=1)
        run.says("/fastapi/routing.py").never_says("shows them")
