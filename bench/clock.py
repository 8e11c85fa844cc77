"""A pytest plugin that writes the time of each test, from its first hook to its last."""

from __future__ import annotations

import json
import os
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

_times: list[float] = []


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Time a test."""
    started = perf_counter()
    result = yield
    _times.append(perf_counter() - started)
    return result


def pytest_sessionfinish() -> None:
    """Write the times."""
    Path(os.environ["BENCH_TIMES"]).write_text(json.dumps(_times))
