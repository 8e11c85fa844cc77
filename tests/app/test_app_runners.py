"""Does the lifespan end quietly under every runner, whoever closes the loop, and when?"""

import asyncio
import subprocess
import sys
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest

import pytest_arena
from pytest_arena._app._app_run import AppRun
from tests.app.app_samples import Diary, Life, hang, starlette_app

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
        self.run_of_app = AppRun(starlette_app(self.life), hooks=Diary())
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


INNER = '''
"""Every runner in one file; the runs are closed by a hook, when all fixtures are down."""

import asyncio, unittest
import pytest, pytest_asyncio
from tests.app.app_samples import Diary, Life, starlette_app
from pytest_arena._app._app_run import AppRun

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.fixture
def run(request):
    life = Life()
    run = AppRun(starlette_app(life), hooks=Diary())
    request.node.arena = (run, life)
    return run

@pytest_asyncio.fixture(loop_scope="module")
async def warm(run):
    await run.new_client().get("/")
    yield
    assert (await run.new_client().get("/")).status_code == 200

@pytest.mark.asyncio
async def test_asyncio(run):
    await run.new_client().get("/")

@pytest.mark.asyncio
@pytest.mark.xfail(strict=True, raises=ZeroDivisionError)
async def test_that_fails(run):
    await run.new_client().get("/")
    1 / 0

@pytest.mark.asyncio
async def test_module_fixture_function_loop(run, warm):
    assert (await run.new_client().get("/state")).json()["run"] == 1

@pytest.mark.asyncio(loop_scope="module")
async def test_module_loop(run, warm):
    await run.new_client().get("/")

@pytest.mark.anyio
async def test_anyio(run):
    await run.new_client().get("/")

@pytest.mark.asyncio
async def test_both(run):
    run.new_test_client().get("/")
    await run.new_client().get("/")

def test_sync(run):
    run.new_test_client().get("/")

def test_asyncio_run(run):
    asyncio.run(_get(run))

async def _get(run):
    await run.new_client().get("/")
'''

INNER_HOOKS = """
import gc, pytest

@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_teardown(item):
    try:
        return (yield)
    finally:
        run, life = item.arena
        run.close()
        gc.collect()
        assert life.counts == (1, 1), life.lines
"""


@pytest.mark.slow
def test_a_whole_run_of_pytest(tmp_path: Path) -> None:
    """All runners, module loops, a failure: every app ends, with errors for noise."""
    (tmp_path / "test_inner.py").write_text(INNER, encoding="utf-8")
    (tmp_path / "conftest.py").write_text(INNER_HOOKS, encoding="utf-8")
    project = Path(__file__).parents[2]
    package = Path(str(pytest_arena.__file__)).parents[1]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"),
            *("-p", "no:arena", "-c", "/dev/null", "--rootdir", str(tmp_path)),
            *("-o", "asyncio_default_fixture_loop_scope=function"),
            *("-o", f"pythonpath={project} {package} {' '.join(sys.path)}", str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "7 passed, 1 xfailed" in told
    for word in ("never", "Task was", "Exception ignored", "ResourceWarning"):
        assert word not in told


def test_the_samples_of_these_tests_do_tell(diary: Diary) -> None:
    """The negative: without a shutdown, the count shows it."""
    life = Life()
    run: Any = AppRun(starlette_app(life), hooks=diary)
    with asyncio.Runner() as runner:
        runner.run(_use(run))
        assert life.counts == (1, 0)
    assert life.counts == (1, 1)
