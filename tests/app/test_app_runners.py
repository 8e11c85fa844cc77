"""Does the lifespan end quietly under every runner, whoever closes the loop, and when?"""

import asyncio
import unittest
from collections.abc import Callable

import anyio
import anyio.from_thread
import pytest

from pytest_arena._app._app_run import AppRun
from tests.app.app_samples import Life, hang, starlette_app

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def loop_of(name: str) -> LoopFactory:
    """The factory of a kind of loop."""
    if name == "asyncio":
        return asyncio.new_event_loop
    factory: LoopFactory = pytest.importorskip(name).new_event_loop
    return factory


kinds = pytest.mark.parametrize("kind", ["asyncio", "uvloop"])


async def _use(run: AppRun) -> None:
    for _ in range(2):
        assert (await run.new_client().get("/")).status_code == 200


@kinds
def test_a_runner(kind: str, run: AppRun, life: Life) -> None:
    """With `aclose`, without it, and with a test that leaves tasks behind."""

    async def untidy() -> None:
        await _use(run)
        run.mess = asyncio.create_task(hang())  # type: ignore[attr-defined] # kept from collection

    with asyncio.Runner(loop_factory=loop_of(kind)) as runner:
        runner.run(_use(run))
        runner.run(run.aclose())
        runner.run(untidy())
    run.close()
    assert life.lines == ["start", "stop", "start", "stop"]


@kinds
def test_a_loop_closed_without_a_word(kind: str, run: AppRun, life: Life) -> None:
    """Nothing is said, on either kind of loop."""
    loop = loop_of(kind)()
    loop.run_until_complete(_use(run))
    loop.close()
    run.close()
    assert life.lines[0] == "start"


@kinds
def test_an_idle_loop(kind: str, run: AppRun, life: Life) -> None:
    """`close` runs the shutdown in it."""
    with asyncio.Runner(loop_factory=loop_of(kind)) as runner:
        runner.run(_use(run))
        run.close()
        assert life.counts == (1, 1)


@kinds
def test_a_debugging_loop(kind: str, run: AppRun, life: Life) -> None:
    """The debug mode finds nothing to complain of, threads included."""
    with asyncio.Runner(debug=True, loop_factory=loop_of(kind)) as runner:
        runner.run(_use(run))
        run.new_test_client().get("/")
    run.close()
    assert life.counts == (1, 1)


def test_anyio_run(run: AppRun, life: Life) -> None:
    """Its runner closes its loop in the same way."""
    anyio.run(_use, run)
    run.close()
    assert life.counts == (1, 1)


def test_a_foreign_portal(run: AppRun, life: Life) -> None:
    """An async client used in a portal's loop: the portal's end is the app's."""
    with anyio.from_thread.start_blocking_portal() as portal:
        portal.call(_use, run)
    run.close()
    assert life.counts == (1, 1)


@pytest.mark.anyio
async def test_anyios_plugin(run: AppRun, life: Life) -> None:
    """A test that anyio runs."""
    await _use(run)
    await run.aclose()
    assert life.counts == (1, 1)


@pytest.mark.anyio
async def test_inside_a_task_group(run: AppRun, life: Life) -> None:
    """The first request is made in a task that ends long before the lifespan does."""
    async with anyio.create_task_group() as group:
        group.start_soon(_use, run)
    await _use(run)
    await run.aclose()
    assert life.counts == (1, 1)


@pytest.mark.anyio
async def test_inside_a_cancelled_scope(run: AppRun, life: Life) -> None:
    """A scope that times out around the first request does not reach the lifespan."""
    with anyio.CancelScope() as scope:
        await _use(run)
        scope.cancel()
        await anyio.sleep_forever()
    await _use(run)
    await run.aclose()
    assert life.counts == (1, 1)


class TestUnittest(unittest.IsolatedAsyncioTestCase):
    """unittest's own runner: closed after each test, by cancelling all tasks."""

    def setUp(self) -> None:
        """Give each test an app."""
        self.life = Life()
        self.run_of_app = AppRun(starlette_app(self.life), find_hooks=lambda: None)
        self.addCleanup(self._check)

    async def test_nobody_awaits_aclose(self) -> None:
        """Then the loop's end is the app's, and `close` comes after it or before."""
        await _use(self.run_of_app)

    async def test_aclose_as_a_cleanup(self) -> None:
        """As a plugin does it around the test's coroutine."""
        self.addAsyncCleanup(self.run_of_app.aclose)
        await _use(self.run_of_app)

    def _check(self) -> None:
        self.run_of_app.close()
        assert self.life.lines[0] == "start"
