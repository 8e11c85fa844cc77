"""A pytest plugin: what does a run hold while it goes on? Ten looks, in equal distances."""

from __future__ import annotations

import json
import os
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_arena._fixtures import RUNS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._databases._resolver import Databases
    from pytest_arena._product import Database

OUTPUT = Path(os.environ["BENCH_GAUGES"])
LOOKS = 10
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Gauges:
    """Looks from within the process, between two tests."""

    def __init__(self, databases: Databases | None, tests: int) -> None:
        self._databases, self._distance = databases, tests // LOOKS
        self._ran = 0
        self._looks: list[dict[str, float]] = []

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        """Look after each so many tests."""
        result = yield
        self._ran += 1
        if self._ran % self._distance == 0:
            self._looks.append(self._look())
        return result

    def pytest_sessionfinish(self) -> None:
        """Hand the looks over."""
        OUTPUT.write_text(json.dumps(self._looks))

    def _look(self) -> dict[str, float]:
        size, journal = self._sizes()
        return {
            "memory": int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE,
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "threads": threading.active_count(),
            "database": size,
            "journal": journal,
        }

    def _sizes(self) -> tuple[float, float]:
        databases = self._databases.provisioned() if self._databases else []
        sizes = [_beside(one) if one.file else _on_server(one) for one in databases]
        return sum(size for size, _ in sizes), sum(beside for _, beside in sizes)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin, now that it is known how many tests there are."""
    run = RUNS.get(session.config)  # None: without the plugin
    gauges = Gauges(run.databases if run else None, len(session.items))
    session.config.pluginmanager.register(gauges)


def _beside(database: Database) -> tuple[float, float]:
    """The size of a file, and of all that stands beside it."""
    sizes = [file.stat().st_size for file in Path(database.file).parent.iterdir()]
    own = Path(database.file).stat().st_size
    return own, sum(sizes) - own


def _on_server(database: Database) -> tuple[float, float]:
    """The size of a database, and of the change journal in it, if there is one."""
    from pytest_arena._postgresql._control import open_control  # noqa: PLC0415 - SQLite has none
    from pytest_arena._postgresql.journal._tables import HIDDEN_SCHEMA  # noqa: PLC0415 - SQLite has none

    address = database.target.address
    assert address is not None, "a database on a server has one"
    sizes = (
        "SELECT pg_database_size(current_database()), coalesce(sum(pg_total_relation_size(oid)), 0)"
        f" FROM pg_class WHERE relkind = 'r' AND relnamespace = to_regnamespace('{HIDDEN_SCHEMA}')"
    )
    with closing(open_control(address)) as control:
        [(size, journal)] = control.rows(sizes)
    return float(str(size)), float(str(journal))
