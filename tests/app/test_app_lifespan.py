"""Does the app's lifespan always end, in its own task and loop, and does it say what failed?"""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any

import anyio
import pytest

from pytest_arena._app import _lifespan
from pytest_arena._app._app_run import AppRun
from pytest_arena.errors import LifespanError, UnknownDatabaseError
from tests.app.app_samples import AppError, Diary, Life, Open, Step, fail, hang, starlette_app

Talk = Callable[[Any, Any], Any]


def app_that(talk: Talk) -> Any:
    """A bare app that answers every request, and holds this talk about its lifespan."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await talk(receive, send)
        else:
            await send({"type": "http.response.start", "status": 204})
            await send({"type": "http.response.body"})

    return app


async def _status(run: AppRun) -> int:
    return (await run.new_client().get("/")).status_code


async def refuses(receive: Any, send: Any) -> None:
    """Raise before anything was said."""
    raise AppError("what is a lifespan?")


async def ignores(receive: Any, send: Any) -> None:
    """Return at once."""


async def only_starts(receive: Any, send: Any) -> None:
    """Start, and leave it at that."""
    await receive()
    await send({"type": "lifespan.startup.complete"})


@pytest.mark.parametrize("talk", [refuses, ignores, only_starts])
@pytest.mark.asyncio
async def test_an_app_may_know_no_lifespan(talk: Talk, open_run: Open) -> None:
    """It is used without one, as ASGI wants, and nothing is said about it."""
    run = open_run(app_that(talk))
    assert await _status(run) == 204
    await run.aclose()


async def raises_at_start(receive: Any, send: Any) -> None:
    """Raise, without a message."""
    await receive()
    raise AppError("the cellar is flooded")


async def says_it_fails(receive: Any, send: Any) -> None:
    """Send a message, without raising."""
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "Traceback\n  the cellar is flooded"})


async def fails_and_stays(receive: Any, send: Any) -> None:
    """Send it and go on listening."""
    await says_it_fails(receive, send)
    while (await receive())["type"] != "lifespan.shutdown":
        """Listen on, as a loop over messages does."""


@pytest.mark.parametrize("talk", [raises_at_start, says_it_fails, fails_and_stays])
@pytest.mark.asyncio
async def test_a_failed_startup_is_raised(talk: Talk, open_run: Open) -> None:
    """The first request raises what the app raised or said, and closing does not repeat it."""
    run = open_run(app_that(talk))
    with pytest.raises(LifespanError, match=r"start-up failed: .*the cellar is flooded"):
        await _status(run)
    await run.aclose()


@pytest.mark.asyncio
async def test_a_failed_startup_names_its_cause(open_run: Open) -> None:
    """The error comes from the app's own, and points at the line that raised."""
    run = open_run(starlette_app(Life(at_start=fail)))
    with pytest.raises(LifespanError) as failed:
        await _status(run)
    assert isinstance(failed.value.__cause__, AppError)
    assert 'raise AppError("the cellar is flooded")' in failed.value.cause


async def is_refused() -> None:
    """What an app does whose start-up opens a connection by a driver."""
    refusal = UnknownDatabaseError(
        "refused: a connection by asyncpg",
        why="it may be a real one",
        cause="app.py:7  await asyncpg.connect(url)",
        fix="arena_drivers = redirect",
    )
    raise RuntimeError("no pool\nafter 3 attempts") from refusal


@pytest.mark.asyncio
async def test_a_startup_that_is_refused_keeps_the_next_step(open_run: Open) -> None:
    """It is that of the refusal, also where the app has raised another error from it."""
    run = open_run(starlette_app(Life(at_start=is_refused)))
    with pytest.raises(LifespanError) as failed:
        await _status(run)
    assert failed.value.what == (
        "the app's start-up failed: UnknownDatabaseError: refused: a connection by asyncpg"
    )
    assert failed.value.cause == "app.py:7  await asyncpg.connect(url)"
    assert failed.value.fix == "arena_drivers = redirect"


@pytest.mark.asyncio
async def test_requests_share_one_failed_startup(open_run: Open) -> None:
    """Two first requests at once: one start-up, the same error for both."""
    life = Life(at_start=fail)
    run = open_run(starlette_app(life))
    answers = await asyncio.gather(_status(run), _status(run), return_exceptions=True)
    assert [type(answer) for answer in answers] == [LifespanError, LifespanError]
    assert life.counts == (1, 0)


@pytest.mark.asyncio
async def test_a_failed_startup_is_tried_again(open_run: Open) -> None:
    """The next request may find what was missing."""
    life = Life(at_start=fail)
    run = open_run(starlette_app(life))
    with pytest.raises(LifespanError):
        await _status(run)
    life.at_start = None
    assert await _status(run) == 200
    assert life.lines == ["start", "start"]


@pytest.mark.asyncio
async def test_the_app_starts_once_and_stops_once(run: AppRun, life: Life) -> None:
    """Many requests of many clients at once: one start, one stop, in one task of this loop."""
    first, second = run.new_client(), run.new_client()
    assert life.counts == (0, 0)
    await asyncio.gather(*(client.get("/") for client in (first, second, first, second)))
    assert life.counts == (1, 0)
    await run.aclose()
    await run.aclose()
    assert life.counts == (1, 1)
    assert life.loops == [asyncio.get_running_loop()] * 2
    assert life.tasks[0] is life.tasks[1]
    assert life.tasks[0] is not asyncio.current_task()


@pytest.mark.asyncio
async def test_a_later_request_starts_the_app_again(run: AppRun, life: Life) -> None:
    """As in a fixture's tear-down, after the test's coroutine."""
    client = run.new_client()
    await client.get("/")
    await run.aclose()
    assert (await client.get("/state")).json()["run"] == 2
    await run.aclose()
    assert life.lines == ["start", "stop", "start", "stop"]


@pytest.mark.asyncio
async def test_every_request_gets_a_copy_of_the_state(run: AppRun) -> None:
    """What a request puts into its state, no other sees."""
    client = run.new_client()
    for _ in range(2):
        assert (await client.get("/state")).json() == {"run": 1, "mark": 0}


@pytest.mark.asyncio
async def test_without_lifespan_the_app_is_not_started(open_run: Open, life: Life) -> None:
    """`lifespan=False`: requests only."""
    run = open_run(lifespan=False)
    assert (await run.new_client().get("/state")).json()["run"] is None
    assert life.counts == (0, 0)


async def raises_at_stop(receive: Any, send: Any) -> None:
    """Raise, without a message."""
    await only_starts(receive, send)
    await receive()
    raise AppError("the door is stuck")


async def says_it_fails_at_stop(receive: Any, send: Any) -> None:
    """Send a message, without raising."""
    await only_starts(receive, send)
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "the door is stuck"})


@pytest.mark.parametrize("talk", [raises_at_stop, says_it_fails_at_stop])
@pytest.mark.asyncio
async def test_a_failed_shutdown_is_raised_once(talk: Talk, open_run: Open) -> None:
    """By the first who closes."""
    run = open_run(app_that(talk))
    await _status(run)
    with pytest.raises(LifespanError, match=r"shutdown failed: .*the door is stuck"):
        await run.aclose()
    await run.aclose()
    run.close()


@pytest.mark.asyncio
async def test_a_lifespan_that_breaks_off_is_told(open_run: Open) -> None:
    """An app whose lifespan dies during the test goes on answering; closing tells."""
    dies = asyncio.Event()

    async def breaks_off(receive: Any, send: Any) -> None:
        await only_starts(receive, send)
        await dies.wait()
        raise AppError("lightning")

    run = open_run(app_that(breaks_off))
    await _status(run)
    dies.set()
    await asyncio.sleep(0)
    assert await _status(run) == 204
    with pytest.raises(LifespanError, match="ended during the test: AppError: lightning"):
        await run.aclose()


def _runs_and_fails(run: AppRun) -> Callable[[], Any]:
    async def main() -> None:
        await run.new_client().get("/")
        raise ZeroDivisionError

    return main


def test_the_owner_of_the_loop_shuts_the_app_down(run: AppRun, life: Life) -> None:
    """Nobody awaited `aclose`, the test failed: closing the loop ends the app, inside it."""
    with pytest.raises(ZeroDivisionError):
        asyncio.run(_runs_and_fails(run)())
    assert life.lines == ["start", "stop"]
    assert life.loops[0] is life.loops[1]
    assert life.tasks[0] is life.tasks[1]
    run.close()
    assert life.counts == (1, 1)


def test_a_shutdown_that_failed_with_its_loop_is_told_by_close(open_run: Open) -> None:
    """Nobody else hears nothing of it; `close` raises it, once."""
    run = open_run(starlette_app(Life(at_stop=fail)))
    asyncio.run(_status_only(run))
    with pytest.raises(LifespanError, match="shutdown failed: AppError: the cellar is flooded"):
        run.close()
    run.close()


async def _status_only(run: AppRun) -> None:
    assert await _status(run) == 200


def test_the_shutdown_may_use_timeouts_and_task_groups(open_run: Open) -> None:
    """The cancellation that was taken as a request to shut down is forgotten afterwards."""

    async def structured() -> None:
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))

    life = Life(at_stop=structured)
    asyncio.run(_status_only(open_run(starlette_app(life))))
    assert life.counts == (1, 1)


def test_a_lifespan_may_hold_cancel_scopes_and_task_groups_pitfall_118(open_run: Open) -> None:
    """They are left in the task that entered them, whoever ends it."""
    lines: list[str] = []

    @asynccontextmanager
    async def span(_: object) -> AsyncIterator[None]:
        async with anyio.create_task_group() as group, asyncio.TaskGroup() as other:
            group.start_soon(hang)
            worker = other.create_task(hang())
            yield
            worker.cancel()
            group.cancel_scope.cancel()
            lines.append("stop")

    app = starlette_app(Life())
    app.router.lifespan_context = span
    run = open_run(app)
    with asyncio.Runner() as runner:
        for _ in range(2):
            runner.run(_status_only(run))
            runner.run(run.aclose())
        runner.run(_status_only(run))
    run.close()
    assert lines == ["stop"] * 3


def test_close_uses_a_loop_that_is_idle(run: AppRun, life: Life) -> None:
    """A wider fixture's loop is open and does not run: the shutdown is run in it."""
    with asyncio.Runner() as runner:
        runner.run(_status_only(run))
        run.close()
        assert life.counts == (1, 1)
        assert life.loops == [runner.get_loop()] * 2


@pytest.mark.parametrize("fault", [None, fail])
def test_close_reaches_a_loop_of_another_thread(
    fault: Step | None, open_run: Open, life: Life
) -> None:
    """It asks there, waits, and hears of a failure."""
    life.at_stop = fault
    run, is_up, may_end = open_run(), threading.Event(), threading.Event()

    async def main() -> None:
        await _status_only(run)
        is_up.set()
        await asyncio.to_thread(may_end.wait)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    is_up.wait()
    with pytest.raises(LifespanError) if fault else nullcontext():
        run.close()
    assert life.counts == (1, 0 if fault else 1)
    assert len(set(life.loops)) == 1
    may_end.set()
    thread.join()


@pytest.mark.asyncio
async def test_close_inside_the_loop_only_asks(run: AppRun, life: Life) -> None:
    """It cannot wait there; the app ends as the loop goes on."""
    await run.new_client().get("/")
    run.close()
    assert life.counts == (1, 0)
    await asyncio.wait({task for task in life.tasks if isinstance(task, asyncio.Task)})
    assert life.counts == (1, 1)


def test_a_loop_closed_without_a_word_leaves_no_noise(run: AppRun, life: Life) -> None:
    """Nothing can be done for that app, and nothing is said about it."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(_status_only(run))
    loop.close()
    run.close()
    run.close()
    assert life.lines[0] == "start"


def test_a_loop_closed_without_a_word_leaves_nothing_to_the_garbage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each `await` at the app's end is cancelled; no task is destroyed while pending."""
    lines: list[str] = []

    async def awaits_at_its_end(receive: Any, send: Any) -> None:
        await only_starts(receive, send)
        try:
            await receive()
        except asyncio.CancelledError:
            await send({"type": "lifespan.shutdown.failed", "message": "cancelled"})
            lines.append("cancelled")
        finally:
            for _ in range(3):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)
            lines.append("done")

    def use_and_forget() -> None:
        run = AppRun(app_that(awaits_at_its_end), find_hooks=lambda: None)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(_status(run))
        loop.close()
        run.close()

    use_and_forget()
    assert lines == ["cancelled", "done"]
    gc.collect()
    assert [record for record in caplog.records if record.levelname != "INFO"] == []


def test_a_closed_loops_app_is_started_anew(run: AppRun, life: Life) -> None:
    """Each new loop gets an app that runs in it."""
    for _ in range(2):
        asyncio.run(_status_only(run))
    assert life.lines == ["start", "stop", "start", "stop"]
    assert life.loops[0] is not life.loops[2]


def test_a_loop_that_is_alive_lends_its_app(run: AppRun, life: Life) -> None:
    """A module loop's fixture, then a function loop's test: one lifespan, used by both."""
    client = run.new_client()
    with asyncio.Runner() as module:
        module.run(_status_only(run))
        with asyncio.Runner() as function:
            assert function.run(client.get("/state")).json()["run"] == 1
            function.run(run.aclose())
        assert life.counts == (1, 0)
        module.run(run.aclose())
        assert life.counts == (1, 1)


def test_a_failure_of_an_earlier_loop_is_not_forgotten(open_run: Open, life: Life) -> None:
    """Though the app was started again since."""
    life.at_stop = fail
    run = open_run()
    asyncio.run(_status_only(run))
    life.at_stop = None
    asyncio.run(_status_only(run))
    with pytest.raises(LifespanError):
        run.close()


@pytest.mark.asyncio
async def test_a_cancelled_request_leaves_the_startup_to_others(open_run: Open) -> None:
    """The start-up is nobody's own: who waits for it may go, and the others are served."""
    may_start = asyncio.Event()

    async def wait() -> None:
        await may_start.wait()

    life = Life(at_start=wait)
    run = open_run(starlette_app(life))
    impatient, patient = (asyncio.create_task(_status(run)) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.wait({impatient})
    may_start.set()
    assert await patient == 200
    assert life.counts == (1, 0)
    await run.aclose()


@pytest.mark.asyncio
async def test_a_startup_that_hangs_is_cancelled_at_the_end(open_run: Open) -> None:
    """The test has given up waiting for it; so does `aclose`, and says nothing more."""
    life = Life(at_start=hang)
    run = open_run(starlette_app(life))
    request = asyncio.create_task(_status(run))
    await life.begun.wait()
    request.cancel()
    await run.aclose()
    assert await asyncio.gather(request, return_exceptions=True)
    assert [task.done() for task in life.tasks if isinstance(task, asyncio.Task)] == [True]


@pytest.mark.asyncio
async def test_waiting_for_a_startup_that_is_stopped_ends(open_run: Open) -> None:
    """Whoever still waits is told."""
    life = Life(at_start=hang)
    run = open_run(starlette_app(life))
    request = asyncio.create_task(_status(run))
    await life.begun.wait()
    await run.aclose()
    with pytest.raises(LifespanError, match="start-up failed: CancelledError"):
        await request


def test_a_startup_in_a_loop_that_stands_still_is_not_waited_for(open_run: Open) -> None:
    """It could not finish: a clear word instead of a deadlock."""
    life = Life(at_start=hang)
    run = open_run(starlette_app(life))

    async def give_up() -> None:
        request = asyncio.create_task(_status(run))
        await life.begun.wait()
        request.cancel()

    with asyncio.Runner() as module:
        module.run(give_up())
        with pytest.raises(LifespanError, match="an event loop that does not run now"):
            asyncio.run(_status_only(run))
        run.close()
    assert life.lines == ["start"]


def test_a_loop_closed_before_the_app_took_a_step(open_run: Open) -> None:
    """The request and the app are cancelled together, and nobody waits for ever."""
    life = Life()
    run = open_run(starlette_app(life))

    async def main() -> None:
        task = asyncio.create_task(_status(run))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(main())
    assert life.counts[0] == life.counts[1]


@pytest.mark.asyncio
async def test_a_shutdown_that_hangs_is_cancelled(
    open_run: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends after our patience has, and the error says so."""
    monkeypatch.setattr(_lifespan, "PATIENCE", 0.01)
    life = Life(at_stop=hang)
    run = open_run(starlette_app(life))
    await _status(run)
    with pytest.raises(LifespanError, match="did not end within"):
        await run.aclose()
    assert all(task.done() for task in life.tasks if isinstance(task, asyncio.Task))


@pytest.mark.asyncio
async def test_a_run_that_is_over_serves_no_one(run: AppRun, diary: Diary) -> None:
    """A client kept for too long is told so, before anything happens."""
    client, test_client = run.new_client(), run.new_test_client()
    run.close()
    with pytest.raises(LifespanError, match="whose test is over"):
        await client.get("/")
    with pytest.raises(LifespanError, match="whose test is over"):
        test_client.get("/")
    assert diary.lines == []
