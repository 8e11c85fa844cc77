"""What holds for every test of the room: nothing is left, and nothing is said about it."""

import gc
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest
from app_samples import Diary, Life, starlette_app

from pytest_arena._app import AppRun

Open: TypeAlias = Callable[..., AppRun]


@pytest.fixture(autouse=True)
def nothing_left(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No thread survives a test, and asyncio complains of no task, future or exception."""
    before = set(threading.enumerate())
    yield
    gc.collect()
    said = [
        record.getMessage()
        for phase in ("setup", "call")
        for record in caplog.get_records(phase)  # type: ignore[arg-type] # both are phases
        if record.levelno >= logging.WARNING and record.name.startswith(("asyncio", "concurrent"))
    ]
    assert said == []
    assert set(threading.enumerate()) - before == set()


@pytest.fixture
def diary() -> Diary:
    return Diary()


@pytest.fixture
def life() -> Life:
    return Life()


@pytest.fixture
def app(life: Life) -> object:
    return starlette_app(life)


@pytest.fixture
def open_run(app: object, diary: Diary) -> Iterator[Open]:
    """Open runs of the sample app, closed after the test."""
    runs = []

    def open_one(app: Any = app, **options: Any) -> AppRun:
        runs.append(AppRun(app, hooks=diary, **options))
        return runs[-1]

    yield open_one
    for run in runs:
        run.close()


@pytest.fixture
def run(open_run: Open) -> AppRun:
    return open_run()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
