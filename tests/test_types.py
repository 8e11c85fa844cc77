"""Do type checkers and editors know what a test asks for?

What stands in the functions named ``typed_…`` is asserted by the type checkers, which read this
file; it never runs.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_type

import pytest
from sqlalchemy.orm import Session

import pytest_arena
from pytest_arena import _fixtures

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx2
    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
    from starlette.testclient import WebSocketTestSession

    from pytest_arena import (
        Arena,
        AsyncClient,
        Changes,
        ClientAs,
        LiveServer,
        Process,
        Request,
        Scenario,
        TestClient,
    )

ROOT = Path(__file__).parent.parent


async def typed_in_async_tests(
    arena: Arena, db_session: AsyncSession, client: AsyncClient, client_as: ClientAs
) -> None:
    """An async test of an async app: nothing has to be cast."""
    assert_type(arena.session(), AsyncSession)
    async with arena.session(database="analytics") as session:
        assert_type(session, AsyncSession)
    assert_type(db_session, AsyncSession)
    assert_type(await client.get("/orders"), httpx2.Response)
    assert_type(client_as("staff"), AsyncClient)
    assert_type(await client_as("staff", follow_redirects=True), AsyncClient)
    assert_type(arena.client(), AsyncClient)
    assert_type(arena.client_as("staff"), AsyncClient)
    assert_type(arena.engine, Engine | AsyncEngine)
    assert_type(arena.changes(), Changes)
    assert_type(arena.requests, tuple[Request, ...])
    await arena.settled()
    async with arena.expect_changes(orders=pytest_arena.inserted(1)):
        pass


def typed_in_sync_tests(
    arena: Arena[Session],
    test_client: TestClient,
    test_client_as: ClientAs[TestClient],
    live_server: LiveServer,
    client_options: dict[str, Any],
) -> None:
    """A plain test: `with`, and no await."""
    with arena.session() as session:
        assert_type(session, Session)
    assert_type(test_client.get("/orders"), httpx2.Response)
    with test_client.websocket_connect("/chat") as websocket:
        assert_type(websocket, WebSocketTestSession)
    assert_type(test_client_as("staff"), TestClient)
    assert_type(arena.test_client(**client_options), TestClient)
    assert_type(arena.test_client_as("staff"), TestClient)
    assert_type(live_server.url, str)
    assert_type(arena.live_server().url, str)
    with arena.process(["arq", "app.jobs.Worker"]) as process:
        assert_type(process, Process)
        assert_type(process.output, str)


def typed_scenarios(scenario: Scenario) -> None:
    """The wing's one fixture."""
    with scenario.given("a battle exists"):
        pass


TYPED: tuple[Callable[..., object], ...] = (
    typed_in_async_tests,
    typed_in_sync_tests,
    typed_scenarios,
)
OF_THE_READER = {"arena_app", "arena_lifespan"}  # an app of the reader's own; nothing at all


def test_each_fixture_has_a_type_that_is_asserted_here() -> None:
    """One that came later, and was forgotten, would be `Any` to an editor."""
    asserted = {name for function in TYPED for name in inspect.signature(function).parameters}
    assert {*_fixtures.__all__} - {"RUNS", *OF_THE_READER} == asserted - {"scenario"}


def test_public_names_are_there_when_they_are_asked_for() -> None:
    """A type to annotate with is a class when annotations are evaluated, too."""
    for name in pytest_arena.__all__:
        assert getattr(pytest_arena, name) is not None
    assert pytest_arena.Arena[Session] != pytest_arena.Arena
    assert pytest_arena.ClientAs[pytest_arena.TestClient] is not None
    with pytest.raises(AttributeError, match="no attribute 'Arenas'"):
        _ = pytest_arena.Arenas


def test_pyright_reads_the_types_that_mypy_reads(tmp_path: Path) -> None:
    """What is asserted above, and what is planted below it."""
    pytest.importorskip("basedpyright", reason="the group lint of pyproject.toml has it")
    planted = tmp_path / "test_planted.py"
    wrong = "def typed_wrong(arena: Arena) -> None:\n    assert_type(arena.session(), Session)\n"
    planted.write_text(f"{Path(__file__).read_text('utf-8')}\n\n{wrong}", encoding="utf-8")
    scripts = Path(sys.executable).parent
    done = subprocess.run(
        [str(scripts / "basedpyright"), "--outputjson", str(planted)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"},
    )
    lines = [
        one["range"]["start"]["line"]
        for one in json.loads(done.stdout)["generalDiagnostics"]
        if one.get("rule") == "reportAssertTypeFailure"
    ]
    assert lines == [len(planted.read_text("utf-8").splitlines()) - 1]
