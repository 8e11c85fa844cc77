"""The promises P1 to P8 and P10 for every database, isolation, engine and runner that there is.

`make test` runs a few settings that differ in everything. Slow are those in which each two values
that go together are met together: most faults of settings need no third one.
"""

from __future__ import annotations

from importlib.util import find_spec
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from tests.conformance.setting import CAPABILITIES, Setting, every_pair
from tests.conformance.trial import ORDERS, Conformance, Trial, promises_hold

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class TestAsyncApp(Conformance):
    """An async app under pytest-asyncio, an event loop for each test."""

    setting = Setting()
    orders: ClassVar[tuple[str, ...]] = ("shuffle:1",)


class TestSyncApp(Conformance):
    """A sync app under sync tests."""

    setting = Setting(engine="pysqlite", runner="plain", journal="wal")
    orders: ClassVar[tuple[str, ...]] = ("shuffle:2",)


class TestAppOnAServer(Conformance):
    """An async app on PostgreSQL, where changes are taken back in place."""

    setting = Setting(database="postgresql")
    orders: ClassVar[tuple[str, ...]] = ("shuffle:3",)

    @pytest.mark.slow
    def test_cost_follows_the_changes(self, trial: Trial) -> None:
        """P10, which the bench measures as well."""
        verdict = trial.cheap().check()
        assert verdict.tests > 0


@pytest.mark.slow
class TestAppOnMySQL(Conformance):
    """An async app on MySQL or MariaDB, where changes are taken back in place."""

    setting = Setting(database="mysql")
    orders: ClassVar[tuple[str, ...]] = ("shuffle:3",)


@pytest.mark.slow
class TestAppOnMySQLByAiomysql(Conformance):
    """The same by another driver, under anyio."""

    setting = Setting(database="mysql", engine="aiomysql", runner="anyio")
    orders: ClassVar[tuple[str, ...]] = ("reverse",)


@pytest.mark.slow
class TestClonedOnMySQL(Conformance):
    """The same by clones."""

    setting = Setting(database="mysql", isolation="clone")
    orders: ClassVar[tuple[str, ...]] = ("forward",)


@pytest.mark.slow
class TestSyncAppOnMySQL(Conformance):
    """A sync app under sync tests."""

    setting = Setting(database="mysql", engine="pymysql", runner="plain")
    orders: ClassVar[tuple[str, ...]] = ("forward",)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("MySQLdb") is None, reason="mysqlclient is not installed")
class TestSyncAppOnMySQLByMysqlclient(Conformance):
    """The same by a driver in C, which does not show the server's status."""

    setting = Setting(database="mysql", engine="mysqldb", runner="plain")
    orders: ClassVar[tuple[str, ...]] = ("forward",)


@pytest.mark.slow
class TestCloned(Conformance):
    """The same by clones."""

    setting = Setting(database="postgresql", isolation="clone")


def on_server(**values: Any) -> Setting:
    """A setting on PostgreSQL."""
    return Setting(database="postgresql", **values)


# All that is brought back is read as well, and compared by arena itself.
VERIFIED = {"PYTEST_ADDOPTS": "--arena-verify"}

OTHERS = (
    Setting(runner="anyio", journal="wal", pool="one", env=VERIFIED),
    *(
        pytest.param(setting, marks=pytest.mark.slow)
        for setting in (
            Setting(runner="asyncio-auto", loop="session", pool="NullPool", pre_ping=True),
            Setting(runner="asyncio", engine="pysqlite", journal="wal"),  # for a sync app
            on_server(engine="psycopg", runner="plain", pool="NullPool", env=VERIFIED),
            on_server(isolation="clone", engine="psycopg_async", runner="anyio"),
            on_server(engine="psycopg_async", runner="asyncio-auto", loop="session", pool="one"),
            on_server(runner="anyio-uvloop", pre_ping=True),
            on_server(engine="psycopg2", runner="anyio"),  # coroutines test a sync app
            on_server(isolation="clone", engine="psycopg2", runner="plain", env=VERIFIED),
        )
    ),
)


@pytest.mark.parametrize("setting", OTHERS, ids=str)
def test_what_is_done_is_kept(setting: Setting, tmp_path: Path) -> None:
    """P1 to P7 where all goes well; each with another order."""
    Trial(setting, tmp_path).kept((f"shuffle:{len(str(setting))}",)).check()


def test_what_a_setting_lacks_is_told_and_left_out(tmp_path: Path) -> None:
    """A capability that is missing is named with its reason; the other stories run."""
    lacks = {"several connections": "all share one", "ddl": "it commits by itself"}
    setting = Setting(engine="pysqlite", runner="plain", lacks=lacks)
    verdict = Trial(setting, tmp_path).kept(("forward",), "test_real.py", "test_isolated.py")
    assert sorted(verdict.exceptions) == [
        "not promised: ddl: it commits by itself",
        "not promised: several connections: all share one",
    ]
    assert not verdict.broken
    assert all(text in str(verdict) for text in verdict.exceptions)


@pytest.mark.parametrize(
    "wrong, text",
    [
        ({"lacks": {"speed": "none"}}, "'several connections'"),
        ({"runner": "trio"}, "'anyio'"),
        ({"runner": "plain"}, "cannot await"),
        ({"pool": "two"}, "'NullPool'"),
        ({"rights": "none"}, "'few'"),
        ({"database": "postgresql", "engine": "aiosqlite"}, "'psycopg_async'"),
    ],
)
def test_a_setting_without_stories_is_refused(wrong: dict[str, str], text: str) -> None:
    """Nothing runs under a name that nobody understands."""
    with pytest.raises(ValueError, match=text):
        Setting(**wrong)  # type: ignore[arg-type]  # wrong on purpose


def test_a_database_without_stories_is_refused(tmp_path: Path) -> None:
    """The error names those that have them."""
    with pytest.raises(ValueError, match="they do on: sqlite, postgresql, mysql"):
        Trial(Setting(database="oracle"), tmp_path)


@pytest.mark.slow
def test_every_exception_is_asked_for_by_a_story(tmp_path: Path) -> None:
    """Each capability that a setting lacks makes a database's stories leave something out."""
    left_out: set[str] = set()
    for database in ("sqlite", "postgresql"):
        setting = Setting(database=database, lacks=dict.fromkeys(CAPABILITIES, "for once"))
        trial = Trial(setting, tmp_path / database)
        left_out.update((trial.kept(("forward",)) + trial.cheap()).exceptions)
    assert left_out == {f"not promised: {name}: for once" for name in CAPABILITIES}


RUNNERS = (
    ("asyncio", "function"),
    ("asyncio", "session"),
    ("asyncio-auto", "function"),
    ("asyncio-auto", "session"),
    ("anyio", "function"),
    ("anyio-uvloop", "function"),
)


def matrix() -> Iterator[Setting]:
    """Everything with everything: engines, runners, loops, journal modes, pools."""
    rest = list(product(("delete", "wal"), ("", "one", "NullPool"), (False, True)))
    for (runner, loop), (journal, pool, ping) in product(RUNNERS, rest):
        yield Setting(runner=runner, loop=loop, journal=journal, pool=pool, pre_ping=ping)
    for runner, (journal, pool, ping) in product(("plain", "asyncio", "anyio"), rest):
        yield Setting(engine="pysqlite", runner=runner, journal=journal, pool=pool, pre_ping=ping)
    yield Setting(env={"PYTHONASYNCIODEBUG": "1"})
    yield Setting(runner="anyio", env={"PYTHONASYNCIODEBUG": "1"}, journal="wal")


_SYNC_RUNNERS = (("plain", "function"), ("asyncio", "function"), ("anyio", "function"))
_ENGINES_AND_RUNNERS = (
    *product(("asyncpg", "psycopg_async"), RUNNERS),
    *product(("psycopg", "psycopg2"), _SYNC_RUNNERS),
)


def matrix_on_server() -> Iterator[Setting]:
    """The same with a server's drivers."""
    rest = list(product(("", "one", "NullPool"), (False, True)))
    for isolation in ("undo", "clone"):
        for engine, (runner, loop) in _ENGINES_AND_RUNNERS:
            for pool, ping in rest:
                yield on_server(
                    isolation=isolation,
                    engine=engine,
                    runner=runner,
                    loop=loop,
                    pool=pool,
                    pre_ping=ping,
                )
    yield on_server(env={"PYTHONASYNCIODEBUG": "1"})
    yield on_server(runner="anyio", engine="psycopg_async", env={"PYTHONASYNCIODEBUG": "1"})


@pytest.mark.slow
@pytest.mark.parametrize("setting", every_pair([*matrix(), *matrix_on_server()]), ids=str)
def test_every_pair_of_values(setting: Setting, tmp_path: Path) -> None:
    """All stories, each setting in one of the orders."""
    order = ORDERS[len(str(setting)) % len(ORDERS)]
    print(promises_hold(setting, tmp_path, orders=(order,)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_more_orders(seed: int, tmp_path: Path) -> None:
    """Nothing depends on the order."""
    setting = (Setting(), Setting(journal="wal"), on_server())[seed % 3]
    Trial(setting, tmp_path).kept(tuple(f"shuffle:{seed}{n}" for n in range(5))).check()


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_number_of_workers(workers: int, database: str, tmp_path: Path) -> None:
    """P2 under pytest-xdist."""
    trial = Trial(Setting(database=database, plugins=("xdist",)), tmp_path)
    trial.kept(("forward", "shuffle:5"), f"-n{workers}").check()
