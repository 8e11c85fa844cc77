"""Is an app that is started once for the session up for all, and down at the end?"""

import asyncio
import threading

import pytest

from pytest_arena._app import SessionLifespan
from pytest_arena.errors import LifespanError
from tests.app.app_samples import AppError, Life, Open, fail, starlette_app


def test_one_lifespan_serves_all_runs(open_run: Open, life: Life) -> None:
    """Two tests, async and sync: one start, one stop, in a loop of its own."""
    app = starlette_app(life)
    session = SessionLifespan()
    state = session.start(app)
    assert session.start(app) is state
    for _ in range(2):
        run = open_run(app, state=state)
        client, test_client = run.new_client(), run.new_test_client()
        assert asyncio.run(_run_of(client)) == 1
        assert test_client.get("/state").json() == {"run": 1, "mark": 0}
        run.close()
    assert life.counts == (1, 0)
    session.stop()
    session.stop()
    assert life.counts == (1, 1)
    assert life.loops[0] is life.loops[1]
    assert life.loops[0].is_closed()


async def _run_of(client: object) -> int:
    response = await client.get("/state")  # type: ignore[attr-defined] # any async client
    return int(response.json()["run"])


def test_a_failed_startup_leaves_nothing() -> None:
    """It is raised from its cause, the thread is gone, and it may be tried again."""
    life, session = Life(at_start=fail), SessionLifespan()
    threads = threading.active_count()
    with pytest.raises(LifespanError) as failed:
        session.start(starlette_app(life))
    assert isinstance(failed.value.__cause__, AppError)
    assert threading.active_count() == threads
    life.at_start = None
    session.start(starlette_app(life))
    session.stop()
    assert life.counts == (2, 1)


def test_a_failed_shutdown_ends_the_thread() -> None:
    """And is raised, once."""
    session = SessionLifespan()
    threads = threading.active_count()
    session.start(starlette_app(Life(at_stop=fail)))
    with pytest.raises(LifespanError, match="shutdown failed"):
        session.stop()
    assert threading.active_count() == threads
    session.stop()


@pytest.mark.asyncio
async def test_it_works_inside_a_loop() -> None:
    """Start and stop are sync, and do not need that loop."""
    life, session = Life(), SessionLifespan()
    assert session.start(starlette_app(life))["run"] == 1
    session.stop()
    assert asyncio.get_running_loop() not in life.loops
    assert life.counts == (1, 1)
