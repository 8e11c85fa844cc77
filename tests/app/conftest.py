"""Every test of the package leaves nothing behind and prints no warning."""

import gc
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_arena._app._app_run import AppRun
from tests.app.app_samples import Diary, Life, Open, starlette_app


@pytest.fixture(autouse=True, scope="module")
def older_objects() -> Iterator[None]:
    """The collections below leave out the objects of earlier tests: each took 30 ms with them."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_left(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No thread survives a test, and asyncio complains of no task, future or exception."""
    before = set(threading.enumerate())
    yield
    gc.collect()
    said = [
        record.getMessage()
        for phase in ("setup", "call", "teardown")
        for record in caplog.get_records(phase)
        if record.levelno >= logging.WARNING and record.name.startswith(("asyncio", "concurrent"))
    ]
    assert said == []
    left = set(threading.enumerate()) - before
    for thread in left:  # one that was told to end may still be at it
        thread.join(timeout=5)
    assert [thread for thread in left if thread.is_alive()] == []


@pytest.fixture
def diary() -> Diary:
    """Hooks that note each call."""
    return Diary()


@pytest.fixture
def life() -> Life:
    """The sample app's lifespan."""
    return Life()


@pytest.fixture
def app(life: Life) -> object:
    """The sample app."""
    return starlette_app(life)


@pytest.fixture
def open_run(app: object, diary: Diary) -> Iterator[Open]:
    """Open runs of the sample app, closed after the test."""
    runs = []

    def open_one(app: Any = app, **options: Any) -> AppRun:
        runs.append(AppRun(app, find_hooks=lambda: diary, **options))
        return runs[-1]

    yield open_one
    for run in runs:
        run.close()


@pytest.fixture
def run(open_run: Open) -> AppRun:
    """A run of the sample app."""
    return open_run()


@pytest.fixture
def anyio_backend() -> str:
    """Trio is not supported."""
    return "asyncio"
