"""What holds for every test of this suite."""

from __future__ import annotations

import gc
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests import forks
from tests.example import Example, fastapi_example
from tests.servers.crowded import ServerBeside

if TYPE_CHECKING:
    from pathlib import Path

# What a developer's shell may hold and a test must not see: it would change what arena is told.
FOREIGN = ("ARENA_", "DATABASE_URL", "PG", "PYTEST_ADDOPTS", "PYTEST_PLUGINS")


Example.execute = staticmethod(forks.run)  # type: ignore[method-assign]  # for the whole suite
# Their tests take seconds each: at the end, a worker would be alone with one of them.
LONG = (
    "tests/scenarios/test_answers.py",
    "tests/test_examples.py",
    "tests/test_docs.py",
    "tests/others/",
    "tests/plugin/",
)

_server = ServerBeside()
_URL = "TESTS_POSTGRESQL"


def pytest_configure(config: pytest.Config) -> None:
    """Start a server for the tests of this process: nobody else writes on it meanwhile."""
    # A shell has what it begins in the background ignore Ctrl-C, and whatever that begins.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    runs_tests = hasattr(config, "workerinput") or not config.getoption("numprocesses", None)
    if runs_tests:
        gc.disable()
    if runs_tests and _URL not in os.environ:
        _server.start()
        os.environ[_URL] = _server.url
        config.add_cleanup(_server.stop)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


def pytest_collection_finish() -> None:
    """Keep the collector from the thousands of tests and all that they import, which stay."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def clean_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each test starts without options from outside, and with an empty cache of its own."""
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ARENA_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def whole_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this test start an interpreter of their own, and see it taken down."""
    monkeypatch.setattr(Example, "execute", staticmethod(forks.whole_process))


@pytest.fixture
def example(tmp_path: Path) -> Example:
    """A FastAPI app on the developer's file, with a schema and one seeded row."""
    return replace(fastapi_example(tmp_path), options=("--arena-verify",))
