"""Clients that wide fixtures have created. They act for the test that sends a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_arena.testing import Example

ENDPOINTS = """
from app import Dancer, app, get_db
from fastapi import Depends, Request, Response


@app.post("/lost/{name}", status_code=201)
async def lose(name: str, db=Depends(get_db)):
    db.add(Dancer(name=name))
    await db.flush()


@app.post("/login/{name}")
async def login(name: str, response: Response):
    response.set_cookie("user", name)


@app.get("/me")
async def me(request: Request):
    return [request.cookies.get("user"), request.headers.get("authorization")]
"""

SYNC = """
import pytest
from app import Dancer
from pytest_arena import inserted


@pytest.fixture(scope="{scope}")
def wide(arena):
    with arena.test_client() as client:
        client.post("/login/fixture")
        yield client


class TestIt:
    @pytest.mark.parametrize("turn", [1, 2])
    def test_lost(self, wide, turn):
        assert wide.post("/lost/Ada").status_code == 201

    def test_requests(self, wide, arena):
        with arena.session() as session:
            session.add(Dancer(name="Pending"))
            assert wide.get("/dancers").json() == ["Sand", "Pending"]
        with arena.expect_changes(dancers=inserted(1)), arena.max_statements(5):
            wide.post("/dancers/Ada")
        assert [request.path for request in arena.requests] == ["/dancers", "/dancers/Ada"]
        assert arena.changes(-1).tables == ("dancers",)

    def test_story(self, wide):
        wide.post("/dancers/Ada")
        assert wide.get("/dancers").json() == []
"""

ASYNC = """
import pytest
import pytest_asyncio
from app import Dancer
from pytest_arena import inserted
{marker}


@{fixture}
async def wide(arena):
    async with arena.client() as client:
        await client.post("/login/fixture")
        yield client


class TestIt:
    @pytest.mark.parametrize("turn", [1, 2])
    async def test_lost(self, wide, turn):
        assert (await wide.post("/lost/Ada")).status_code == 201

    async def test_requests(self, wide, arena):
        async with arena.session() as session:
            session.add(Dancer(name="Pending"))
            assert (await wide.get("/dancers")).json() == ["Sand", "Pending"]
        async with arena.expect_changes(dancers=inserted(1)):
            with arena.max_statements(5):
                await wide.post("/dancers/Ada")
        assert [request.path for request in arena.requests] == ["/dancers", "/dancers/Ada"]
        assert arena.changes(-1).tables == ("dancers",)

    async def test_story(self, wide):
        await wide.post("/dancers/Ada")
        assert (await wide.get("/dancers")).json() == []
"""

OF_ANYIO = """
pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"
"""

MODULE_LOOP = 'pytest_asyncio.fixture(scope="module", loop_scope="module")'
KINDS = {
    "sync-module": SYNC.format(scope="module"),
    "sync-class": SYNC.format(scope="class"),
    "sync-session": SYNC.format(scope="session"),
    "asyncio": ASYNC.format(marker="", fixture=MODULE_LOOP),
    "asyncio-module-loop": ASYNC.format(
        marker='pytestmark = pytest.mark.asyncio(loop_scope="module")', fixture=MODULE_LOOP
    ),
    "anyio": ASYNC.format(marker=OF_ANYIO, fixture='pytest.fixture(scope="module")'),
}
EACH = pytest.mark.parametrize("kind", KINDS)


def app_with_endpoints(example: Example, test: str) -> Example:
    """The app of the examples with more endpoints."""
    project = example.with_files(endpoints=ENDPOINTS, test_it=test)
    return project.change("pytest.ini", "app:app", "endpoints:app")


def options(kind: str) -> tuple[str, ...]:
    """The tests run in their order, under the runner of this kind."""
    if kind == "anyio":
        return "-p", "no:randomly", "-p", "anyio", "-o", "asyncio_mode=strict"
    return "-p", "no:randomly"


@EACH
def test_a_request_belongs_to_the_running_test(example: Example, kind: str) -> None:
    """Each test has its lost writes, its requests, its changes and its story."""
    project = app_with_endpoints(example, KINDS[kind])
    run = project.run("--arena-lost-writes=fail", *options(kind))
    run.expect(1, passed=3, failed=1, errors=2)
    run.says(
        "ERROR test_it.py::TestIt::test_lost[1] - Failed: LostWriteError: POST /lost/Ada",
        "ERROR test_it.py::TestIt::test_lost[2] - Failed: LostWriteError: POST /lost/Ada",
        "POST /dancers/Ada 201 dancers +1",
    )
