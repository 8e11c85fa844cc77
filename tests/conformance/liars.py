"""Planted defects: each is a plugin of the inner run that wraps the product's own functions.

Every one of them looks right for a while. What the suite is worth is that it finds them all.
"""

from __future__ import annotations

__all__ = ["EVERYDAY", "HONEST", "LIARS"]

# Stands in the place of every isolation and does what the true one does, but for a lie.
_IN_ITS_PLACE = """
import sqlite3
from contextlib import closing, suppress
from pytest_arena._databases._resolver import Databases


class Honest:
    def __init__(self, true, live):
        self.true, self.live = true, live

    def __getattr__(self, name):
        return getattr(self.true, name)

    def sql(self, text, *values):
        with closing(sqlite3.connect(self.live, isolation_level=None)) as connection:
            with suppress(sqlite3.OperationalError):  # a test has dropped the table
                return connection.execute(text, values).fetchall()
        return []


_ensure = Databases.ensure


def ensure(self, database):
    isolation = _ensure(self, database)
    if isolation is not None and not isinstance(isolation, Honest):
        isolation = database.isolation = Mine(isolation, database.live)
    return isolation


Databases.ensure = ensure
Mine = Honest
"""

HONEST = _IN_ITS_PLACE

FORGETS_UPDATES = """
class Mine(Honest):
    def leave(self):
        styles = self.sql("SELECT style, id FROM dancers")
        changed = self.true.leave()
        for style, number in styles:
            self.sql("UPDATE dancers SET style = ?1 WHERE id = ?2 AND style <> ?1", style, number)
        return changed
"""

NEVER_RESETS_SEQUENCES = """
class Mine(Honest):
    def leave(self):
        moved = self.sql("SELECT seq, name FROM sqlite_sequence")
        changed = self.true.leave()
        for number, name in moved:
            update = "UPDATE sqlite_sequence SET seq = ?1 WHERE name = ?2 AND seq < ?1"
            self.sql(update, number, name)
        return changed
"""

COUNTS_ROWS_TO_SEE_A_CHANGE = """
class Mine(Honest):
    def __init__(self, true, live):
        super().__init__(true, live)
        self.counts = []

    def count(self):
        return self.sql("SELECT count(*), (SELECT count(*) FROM scores) FROM dancers")

    def enter(self):
        self.true.enter()
        self.counts.append(self.count())

    def forget(self):
        self.counts.pop()
        self.true.forget()

    def leave(self):
        if self.count() != self.counts[-1]:
            self.counts.pop()
            return self.true.leave()
        self.forget()
        return False
"""

CALLS_ALL_LEVELS_CLEAN = """
class Mine(Honest):
    def is_clean(self):
        return True
"""

RESTORES_WHAT_NOBODY_CHANGED = """
class Mine(Honest):
    def leave(self):
        self.sql("CREATE TABLE scratch (a)")
        return self.true.leave()
"""

CHANGES_ITS_TEMPLATE = """
from pytest_arena._databases._template import Store
_find = Store.ensure
templates = set()


def find(self, *args):
    found = _find(self, *args)
    templates.add(found)
    return found


Store.ensure = find


class Mine(Honest):
    def close(self):
        self.true.close()
        for file in templates:
            file.chmod(0o600)
            with closing(sqlite3.connect(file, isolation_level=None)) as connection:
                connection.execute("INSERT INTO dancers VALUES (50, 'template', '', 1)")
"""

LEAVES_A_WIDE_LEVEL_AT_ONCE = """
import pytest
from pytest_arena._fixtures import RUN


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(fixturedef, request):
    result = yield
    run = request.config.stash[RUN]
    levels = run.databases.levels
    if fixturedef.scope != "function" and levels and not levels[-1].serial:
        run.levels.leave(levels[-1])
    return result
"""

LEAVES_THE_TESTS_LEVEL_TOO_EARLY = """
import pytest
from pytest_arena._fixtures import RUN


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item):
    run = item.config.stash[RUN]
    level = run.levels.find(run.test)
    if level is not None:
        run.levels.leave(level)
    return (yield)
"""

NEVER_LEAVES_A_WIDE_LEVEL = """
from pytest_arena._run._levels import Levels
_leave = Levels.leave


def leave(self, level):
    if level.serial:
        return _leave(self, level)
    for database in self._databases.provisioned():
        self._isolation_of(database).forget()
    self._databases.levels.remove(level)
    return []


Levels.leave = leave
"""

LETS_ONE_ENGINE_THROUGH = """
from pytest_arena._gate import _listeners, _registry
_connecting = _listeners.Gate.connecting


def connecting(self, dialect, entry, cargs, cparams):
    if "link.db" in str(cargs):
        entry.info[_registry.INFO] = _registry.ConnectionRecord(None)
        return
    _connecting(self, dialect, entry, cargs, cparams)


_listeners.Gate.connecting = connecting
"""

GIVES_EACH_ENGINE_ITS_OWN = """
from pytest_arena._databases._registry import KnownDatabases
from pytest_arena._postgresql._product import PostgreSQL
from pytest_arena._sqlite._product import SQLite
from pytest_arena._product import Key
_find = KnownDatabases.find


def find(self, asked):
    return _find(self, asked) if asked.dialect.is_async else self.used_by(asked.dialect)


def lying(key):
    def lie(self, asked):
        own = Key("engine", str(id(asked.dialect)))
        return key(self, asked) if asked.dialect.is_async else own
    return lie


KnownDatabases.find = find
for product in (PostgreSQL, SQLite):
    product.key = lying(product.key)
"""

KEEPS_THE_WAITERS_OF_THE_OLD_LOOP = """
from pytest_arena._gate import _listeners, _loops
_loops.install = lambda: None
_loops.adopt = lambda pool: None
_loops.free_locks = lambda connection: None
import pytest_arena._gate as gate
gate.adopt = lambda pool: None
"""

COMMITS_BY_ITSELF = """
from pytest_arena._gate import _listeners
_connecting = _listeners.Gate.connecting


def connecting(self, dialect, entry, cargs, cparams):
    cparams["isolation_level"] = None
    _connecting(self, dialect, entry, cargs, cparams)


_listeners.Gate.connecting = connecting
"""

SEES_NO_LEAK = """
from pytest_arena import _leaks
_leaks.connection_leaks = lambda *args: []
"""

NAMES_NO_LINE = """
from pytest_arena._gate import _driver_messages, _drivers, _listeners, _messages
for module in (_driver_messages, _drivers, _listeners, _messages):
    if hasattr(module, "user_line"):
        module.user_line = lambda *args, **kwargs: None
"""

# The next two in a place of their own: every other run of this machine sweeps, too.
_OWN_PLACE = """
import os
from pathlib import Path
from pytest_arena._sqlite import _home

os.environ["ARENA_FILES"] = str(Path("homes").absolute())
"""

LEAVES_ITS_FOLDER = (
    _OWN_PLACE
    + """
_home.Home.close = lambda self: None
"""
)

NEVER_SWEEPS = (
    _OWN_PLACE
    + """
_home._sweep = lambda parent: None
"""
)

# The defect; the stories that find it; the promise that they find broken.
LIARS: dict[str, tuple[str, str, str]] = {
    "forgets updates": (_IN_ITS_PLACE + FORGETS_UPDATES, "once", "P2"),
    "never resets sequences": (_IN_ITS_PLACE + NEVER_RESETS_SEQUENCES, "once", "P2"),
    "counts rows to see a change": (_IN_ITS_PLACE + COUNTS_ROWS_TO_SEE_A_CHANGE, "once", "P2"),
    "calls all levels clean": (_IN_ITS_PLACE + CALLS_ALL_LEVELS_CLEAN, "once", "P6"),
    "changes its template": (_IN_ITS_PLACE + CHANGES_ITS_TEMPLATE, "twice", "P2"),
    "leaves a wide level at once": (LEAVES_A_WIDE_LEVEL_AT_ONCE, "once", "P6"),
    "leaves the test's level too early": (LEAVES_THE_TESTS_LEVEL_TOO_EARLY, "once", "P1"),
    "never leaves a wide level": (NEVER_LEAVES_A_WIDE_LEVEL, "once", "P6"),
    "lets one engine through": (LETS_ONE_ENGINE_THROUGH, "once", "P4"),
    "gives each engine its own": (GIVES_EACH_ENGINE_ITS_OWN, "once", "P1"),
    "keeps the waiters of the old loop": (KEEPS_THE_WAITERS_OF_THE_OLD_LOOP, "once", "P5"),
    "commits by itself": (COMMITS_BY_ITSELF, "once", "P3"),
    "sees no leak": (SEES_NO_LEAK, "told", "P7"),
    "names no line": (NAMES_NO_LINE, "told", "P8"),
    "leaves its folder": (LEAVES_ITS_FOLDER, "killed", "P7"),
    "never sweeps": (NEVER_SWEEPS, "killed", "P7"),
    "restores what nobody changed": (
        _IN_ITS_PLACE + RESTORES_WHAT_NOBODY_CHANGED,
        "cheap",
        "P10",
    ),
}

# Those that `make test` plants: one for each way in which a promise is kept.
EVERYDAY = (
    "forgets updates",
    "never resets sequences",
    "counts rows to see a change",
    "changes its template",
    "leaves a wide level at once",
    "never leaves a wide level",
    "lets one engine through",
    "keeps the waiters of the old loop",
)
