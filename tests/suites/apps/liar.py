"""Planted defects: a plugin of an inner run that does what a defect of pytest-arena would do.

``-o liar=sees_no_leak`` chooses one. None of them knows how pytest-arena works: they change rows
at the wrong time, write to the developer's file, or hide a report.
"""

import asyncio
import os
import subprocess
import sys
from contextlib import suppress

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, Pool

URL = os.environ["DATABASE_URL"]
for driver, sync in (("+aiosqlite", ""), ("asyncpg", "psycopg"), ("asyncmy", "pymysql")):
    URL = URL.replace(driver, sync)
engine = create_engine(URL, poolclass=NullPool)
LOOPS = []


def pytest_addoption(parser):
    parser.addini("liar", "the defect")


def pytest_configure(config):
    config.pluginmanager.register(LIARS[config.getini("liar")]())


def sql(statement):
    with suppress(DBAPIError), engine.begin() as connection:  # a test may lock the table
        connection.execute(text(statement))


class LeavesTheLevelTooEarly:
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self):
        sql("DELETE FROM orders WHERE item = 'vase'")
        return (yield)


class LeavesAWideLevelAtOnce:
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, fixturedef):
        result = yield
        if fixturedef.scope in {"class", "module"}:
            sql("DELETE FROM orders")
        return result


class NeverLeavesAWideLevel:
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_post_finalizer(self, fixturedef):
        result = yield
        if fixturedef.argname == "of_class":
            sql("INSERT INTO orders (item, status) VALUES ('left', '')")
        return result


class CommitsByItself:
    def __init__(self):
        event.listen(Engine, "engine_connect", self.commit_each_statement)

    def commit_each_statement(self, connection):
        connection.execution_options(isolation_level="AUTOCOMMIT")


class LetsOneEngineThrough:
    def pytest_sessionfinish(self):
        through = (
            "import sys, sqlite3; sqlite3.connect(sys.stdin.read()).execute('CREATE TABLE t (a)')"
        )
        subprocess.run(
            [sys.executable, "-S", "-c", through], input="shop.db", text=True, check=True
        )


class KnowsOneLoop:
    def __init__(self):
        event.listen(Pool, "checkout", self.check_the_loop)

    def check_the_loop(self, *_):
        try:
            LOOPS.append(asyncio.get_running_loop())
        except RuntimeError:
            return
        if LOOPS[-1] is not LOOPS[0]:
            raise RuntimeError("the pool waits in another event loop")


class SeesNoLeak:
    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self):
        report = yield
        if report.when == "teardown" and report.failed:
            report.outcome, report.longrepr = "passed", None
        return report


class NamesNoLine:
    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call):
        report = yield
        if report.when == "teardown" and call.excinfo is not None:
            call.excinfo.value.msg = "[A602]"
        return report


LIARS = {
    "leaves_the_level_too_early": LeavesTheLevelTooEarly,
    "leaves_a_wide_level_at_once": LeavesAWideLevelAtOnce,
    "never_leaves_a_wide_level": NeverLeavesAWideLevel,
    "commits_by_itself": CommitsByItself,
    "lets_one_engine_through": LetsOneEngineThrough,
    "knows_one_loop": KnowsOneLoop,
    "sees_no_leak": SeesNoLeak,
    "names_no_line": NamesNoLine,
}
