"""Is an app that is started once for the session up for all, and down at the end?"""

import asyncio
import threading

import pytest

from pytest_arena._app._lifespan import session_lifespan
from pytest_arena.errors import LifespanError
from tests.app.app_samples import AppError, Life, Open, fail, starlette_app


def test_one_lifespan_serves_all_runs(open_run: Open, life: Life) -> None:
    """Two tests, async and sync: one start, one stop, in a loop of its own."""
    app = starlette_app(life)
    with session_lifespan(app) as state:
        for _ in range(2):
            run = open_run(app, state=state)
            client, test_client = run.new_client(), run.new_test_client()
            assert asyncio.run(_run_of(client)) == 1
            assert test_client.get("/state").json() == {"run": 1, "mark": 0}
            run.close()
        assert life.counts == (1, 0)
    assert life.counts == (1, 1)
    assert life.loops[0] is life.loops[1]
    assert life.loops[0].is_closed()


async def _run_of(client: object) -> int:
    response = await client.get("/state")  # type: ignore[attr-defined] # any async client
    return int(response.json()["run"])


def test_a_failed_startup_leaves_nothing() -> None:
    """It is raised from its cause, and the thread is gone."""
    threads = threading.active_count()
    with (
        pytest.raises(LifespanError) as failed,
        session_lifespan(starlette_app(Life(at_start=fail))),
    ):
        pass
    assert isinstance(failed.value.__cause__, AppError)
    assert threading.active_count() == threads


def test_a_failed_shutdown_ends_the_thread() -> None:
    """And is raised, once."""
    threads = threading.active_count()
    app = starlette_app(Life(at_stop=fail))
    with pytest.raises(LifespanError, match="shutdown failed"), session_lifespan(app):
        pass
    assert threading.active_count() == threads


@pytest.mark.asyncio
async def test_it_works_inside_a_loop() -> None:
    """Start and stop are sync, and do not need that loop."""
    life = Life()
    with session_lifespan(starlette_app(life)) as state:
        assert state["run"] == 1
    assert asyncio.get_running_loop() not in life.loops
    assert life.counts == (1, 1)
