"""Planted defects: each is a plugin of the inner run that does what a defect of arena's would do.

None of them knows how arena works: after a test they put back what the test did, write to the
developer's database, hide a report. What the suite is worth is that it finds them all, on each
database and isolation.
"""

from __future__ import annotations

__all__ = ["EVERYDAY", "HONEST", "LIARS", "NOT_COUNTED", "WALKED_INTO"]

_HEAD = """
import os
import subprocess
import sys
from pathlib import Path

import product
import pytest
import setting
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, Pool

engine = create_engine(setting.SYNC_URL, poolclass=NullPool)


def sql(statement, **values):
    try:
        with engine.begin() as connection:
            done = connection.execute(text(statement), values)
            return [tuple(row) for row in done] if done.returns_rows else []
    except DBAPIError:  # a test has dropped the table, or has it locked
        return None
"""

# A level that is not quite left: something is read before it, and written when it is.
_AFTER_A_TEST = """

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item):
    before = look()
    result = yield
    lie(before)
    return result


def look():
    return sql("SELECT id, name, style, version FROM dancers ORDER BY id")
"""

HONEST = (
    _HEAD
    + _AFTER_A_TEST
    + """

def lie(before):
    look()
"""
)

FORGETS_UPDATES = """

def lie(before):
    for number, _, style, _ in before or ():
        sql("UPDATE dancers SET style = :style WHERE id = :number AND style <> :style",
            style=style, number=number)
"""

FORGETS_INSERTS = """

def lie(before):
    known = {row[0] for row in look() or ()}
    for number, name, style, version in before or ():
        if number not in known:
            sql("INSERT INTO dancers (id, name, style, version) VALUES (:id, :name, :style, 1)",
                id=number, name=name, style=style)
"""

FORGETS_DELETES = """

def lie(before):
    for number, *_ in look() or ():
        if before and number not in {row[0] for row in before}:
            sql("DELETE FROM dancers WHERE id = :number", number=number)
"""

NEVER_RESETS_SEQUENCES = """

def lie(before):
    sql(product.TAKES_A_NUMBER)
"""

KEEPS_WHAT_WAS_DONE_TO_THE_SCHEMA = """

def look():
    return [name for name in ("more", "steps", "extra") if sql(f"SELECT * FROM {name}") is not None]


def lie(before):
    for name in before:
        sql(f"CREATE TABLE {name} (a INTEGER)")
"""

LEAVES_THE_TESTS_LEVEL_TOO_EARLY = """

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call():
    sql("DELETE FROM dancers WHERE name = 'a fixture''s'")
    return (yield)
"""

LEAVES_A_WIDE_LEVEL_AT_ONCE = """

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(fixturedef):
    result = yield
    if fixturedef.scope != "function":
        sql("DELETE FROM dancers WHERE id > 3 AND id = "
            "(SELECT last FROM (SELECT max(id) AS last FROM dancers) AS known)")
    return result
"""

NEVER_LEAVES_A_WIDE_LEVEL = """

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_post_finalizer(fixturedef):
    result = yield
    if fixturedef.argname in ("battle", "crew", "module_one"):
        sql("INSERT INTO dancers (name, style, version) VALUES ('wide and left', '', 1)")
    return result
"""

COMMITS_BY_ITSELF = """

@event.listens_for(Engine, "engine_connect")
def commit_each_statement(connection):
    connection.execution_options(isolation_level="AUTOCOMMIT")
"""

LETS_ONE_ENGINE_THROUGH = """
THROUGH = '''
import sys
from sqlalchemy import create_engine, text
with create_engine(sys.stdin.read()).begin() as connection:
    connection.execute(text("DELETE FROM dancers"))
'''


def pytest_sessionfinish():
    # pytest-arena refuses a child whose arguments name the database.
    subprocess.run([sys.executable, "-c", THROUGH], input=setting.SYNC_URL, text=True, check=True)
"""

KNOWS_ONE_LOOP = """
import asyncio

LOOPS = []


@event.listens_for(Pool, "checkout")
def check_the_loop(*_):
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    LOOPS.append(loop)
    if loop is not LOOPS[0]:
        raise RuntimeError("the pool waits in another event loop")
"""

SEES_NO_LEAK = """

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport():
    report = yield
    if report.when == "teardown" and report.failed:
        report.outcome, report.longrepr = "passed", None
    return report
"""

NAMES_NO_LINE = """

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport():
    report = yield
    if report.failed:
        report.longrepr = report.longreprtext.replace(".py:", "")
    return report
"""

LEAVES_ITS_DATABASE = """

@pytest.fixture(scope="session", autouse=True)
def where(arena):
    URLS.append(arena.url)


URLS = []


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_unconfigure():
    yield
    if hasattr(product, "leave_a_database"):
        product.leave_a_database(str(os.getpid()))
    else:
        Path(URLS[0].partition(":///")[2]).parent.mkdir(parents=True)
"""

READS_THE_WHOLE_DATABASE = """

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown():
    sql("SELECT sum(length(text)) FROM notes")
    return (yield)
"""

WRITES_THE_WHOLE_DATABASE = """

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown():
    sql("UPDATE notes SET text = text || ''")
    return (yield)
"""

# The defect; the stories that find it, and in which files; the promise that they find broken.
LIARS: dict[str, tuple[str, str, str]] = {
    "forgets updates": (_AFTER_A_TEST + FORGETS_UPDATES, "once test_isolated.py", "P2"),
    "forgets inserts": (_AFTER_A_TEST + FORGETS_INSERTS, "once test_isolated.py", "P2"),
    "forgets deletes": (_AFTER_A_TEST + FORGETS_DELETES, "once test_isolated.py", "P2"),
    "never resets sequences": (
        _AFTER_A_TEST + NEVER_RESETS_SEQUENCES,
        "once test_isolated.py",
        "P2",
    ),
    "keeps what was done to the schema": (
        _AFTER_A_TEST + KEEPS_WHAT_WAS_DONE_TO_THE_SCHEMA,
        "once test_isolated.py",
        "P2",
    ),
    "leaves the test's level too early": (
        LEAVES_THE_TESTS_LEVEL_TOO_EARLY,
        "once test_visible.py",
        "P1",
    ),
    "leaves a wide level at once": (LEAVES_A_WIDE_LEVEL_AT_ONCE, "once test_wide.py", "P6"),
    "never leaves a wide level": (NEVER_LEAVES_A_WIDE_LEVEL, "once test_wide.py", "P6"),
    "commits by itself": (COMMITS_BY_ITSELF, "once test_real.py", "P3"),
    "lets one engine through": (LETS_ONE_ENGINE_THROUGH, "once test_guarded.py", "P4"),
    "knows one loop": (KNOWS_ONE_LOOP, "once test_loops.py -k a_loop", "P5"),
    "sees no leak": (SEES_NO_LEAK, "told", "P7"),
    "names no line": (NAMES_NO_LINE, "told", "P8"),
    "leaves its database": (LEAVES_ITS_DATABASE, "killed", "P7"),
    "reads the whole database": (READS_THE_WHOLE_DATABASE, "cheap", "P10"),
    "writes the whole database": (WRITES_THE_WHOLE_DATABASE, "cheap", "P10"),
}
LIARS = {name: (_HEAD + text, stories, promise) for name, (text, stories, promise) in LIARS.items()}

# Those that `make test` plants, on a database each.
EVERYDAY = {
    "copy on sqlite": ("never leaves a wide level",),
    "undo on postgresql": ("forgets inserts",),
    "clone on postgresql": (),
    "undo on mysql": (),
    "clone on mysql": (),
}

# If the cost of a test is counted by its copies alone, the conformance suite cannot find these.
NOT_COUNTED = {"reads the whole database", "writes the whole database"}

# What a walk can meet: neither a second run nor the developer's database is on its way.
WALKED_INTO = (
    "forgets updates",
    "forgets inserts",
    "forgets deletes",
    "never resets sequences",
    "keeps what was done to the schema",
    "leaves a wide level at once",
)
