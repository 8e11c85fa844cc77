"""Hypothesis: all examples of a test share its database and its app."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

APP = """

from contextlib import asynccontextmanager

starts = []


@asynccontextmanager
async def lifespan(app):
    starts.append("up")
    yield
    starts.append("down")


app.router.lifespan_context = lifespan
"""

TESTS = """
from uuid import uuid4

from hypothesis import HealthCheck, given, settings, strategies as st
from app import Dancer, starts

settings.register_profile(
    "few",
    deadline=None,
    max_examples=5,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("few")


@given(st.integers())
async def test_async(client, db_session, number):
    before = (await client.get("/dancers")).json()
    assert starts == ["up"]
    row, dune = str(uuid4()), str(uuid4())
    db_session.add(Dancer(name=row))
    assert (await client.post(f"/dancers/{dune}")).status_code == 201
    assert (await client.get("/dancers")).json() == [*before, row, dune]


@given(st.integers())
def test_sync(test_client, db_session, number):
    before = test_client.get("/dancers").json()
    assert starts == ["up", "down", "up"]
    row, dune = str(uuid4()), str(uuid4())
    db_session.add(Dancer(name=row))
    assert test_client.post(f"/dancers/{dune}").status_code == 201
    assert test_client.get("/dancers").json() == [*before, row, dune]


def test_after(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
    assert starts == ["up", "down"] * 2 + ["up"]
"""


@pytest.mark.parametrize("scope", ["function", "session"])
def test_the_examples_of_a_test_share_its_database(example: Example, scope: str) -> None:
    """The lifespan runs once for each test, in each loop scope."""
    app = example.files["app.py"] + APP
    project = example.with_files(app=app, test_it=TESTS)
    options = f"asyncio_default_test_loop_scope={scope}"
    run = project.run("-p", "_hypothesis_pytestplugin", "-o", options).expect(passed=3)
    run.never_says("left a task", "cut off")
