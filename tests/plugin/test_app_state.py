"""What a test changes in an app ends with the test: overrides, and attributes of app.state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

# Each app has a route that answers with its overridden name and with its state.
APP = """

from fastapi import FastAPI


def name() -> str:
    return "app"


def add_route(app):
    @app.get("/state")
    async def show(name: str = Depends(name)):
        return [name, sorted(app.state._state)]


inner, other = FastAPI(), FastAPI()
for each in (app, inner, other):
    add_route(each)
app.mount("/inner", inner)
"""

TESTS = """
import pytest
from starlette.testclient import TestClient
from app import app, inner, name, other

APPS = (app, inner, other)


@pytest.fixture(scope="module")
def wide():
    inner.dependency_overrides[name] = lambda: "module"
    inner.state.wide = 1


@pytest.mark.parametrize("turn", range(2))
def test_changes(wide, test_client, turn):
    assert test_client.get("/state").json() == ["app", []]
    assert test_client.get("/inner/state").json() == ["module", ["wide"]]
    with TestClient(other) as client:
        assert client.get("/state").json() == ["app", []]
    for each in APPS:
        each.dependency_overrides[name] = lambda: "test"
        each.state.test = 1
    assert test_client.get("/state").json() == ["test", ["test"]]
    assert test_client.get("/inner/state").json() == ["test", ["test", "wide"]]
    del inner.state.wide


def test_replaces(test_client):
    app.dependency_overrides = {name: lambda: "replaced"}
    assert test_client.get("/state").json() == ["replaced", []]


def test_has_its_own(test_client):
    assert test_client.get("/state").json() == ["app", []]


@pytest.fixture(scope="module")
def late():
    app.dependency_overrides[name] = lambda: "late"


def test_requests_a_wide_fixture(test_client, request):
    request.getfixturevalue("late")
    assert test_client.get("/state").json() == ["late", []]


def test_has_the_override_of_the_fixture(test_client):
    assert test_client.get("/state").json() == ["late", []]
"""


def test_overrides_and_app_state_end_with_the_test(example: Example) -> None:
    """Of the app, of a mounted app and of another app. Those of a wide fixture stay."""
    app = example.files["app.py"] + APP
    example.with_files(app=app, test_it=TESTS).run("-p", "no:randomly").expect(passed=6)


LITESTAR = """
from litestar import Litestar, get
from litestar.datastructures import State


@get("/state")
async def state(state: State) -> list[str]:
    return sorted(state._state)


app = Litestar([state])
"""

LITESTAR_TESTS = """
import pytest
from app import app


@pytest.mark.parametrize("turn", range(2))
async def test_it(client, turn):
    assert (await client.get("/state")).json() == []
    app.state.test = 1
    assert (await client.get("/state")).json() == ["test"]
"""


@pytest.mark.slow
def test_the_state_of_litestar_ends_with_the_test(example: Example) -> None:
    """Its class is not Starlette's."""
    project = example.with_files(app=LITESTAR, test_it=LITESTAR_TESTS)
    for line in ("arena_schema = app:Base\n", "arena_seed = seed:seed\n"):
        project = project.change("pytest.ini", line, "")
    project.run().expect(passed=2)
