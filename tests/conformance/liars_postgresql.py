"""Planted defects of `clone`: the twins of those in `liars`, and some that only copies can have."""

from __future__ import annotations

from tests.conformance.liars import (
    GIVES_EACH_ENGINE_ITS_OWN,
    KEEPS_THE_WAITERS_OF_THE_OLD_LOOP,
    LEAVES_A_WIDE_LEVEL_AT_ONCE,
    LEAVES_THE_TESTS_LEVEL_TOO_EARLY,
    NAMES_NO_LINE,
    NEVER_LEAVES_A_WIDE_LEVEL,
    SEES_NO_LEAK,
)

__all__ = ["EVERYDAY", "HONEST", "LIARS"]

# Does what the true one does, but for a lie.
_CLONE = """
from contextlib import closing, suppress
from pytest_arena._postgresql._control import Failed, open_control
from pytest_arena._postgresql.isolation import ServerIsolation as Clone
from pytest_arena._postgresql.isolation._levels import Snapshot
from pytest_arena._postgresql.isolation._live import PlainDatabase
from pytest_arena._postgresql.registry import ServerRegistry

enter, leave, forget, close = Clone.enter, Clone.leave, Clone.forget, Clone.close


def sql(address, text):
    with closing(open_control(address)) as control, suppress(Failed):  # a test dropped the table
        return control.rows(text)
    return []
"""

HONEST = (
    _CLONE
    + """
def honest(self):
    sql(self.address, "SELECT count(*) FROM dancers")
    return leave(self)


Clone.leave = honest
"""
)

FORGETS_UPDATES = """
def lie(self):
    styles = sql(self.address, "SELECT style, id FROM dancers")
    changed = leave(self)
    for style, number in styles:
        sql(self.address, f"UPDATE dancers SET style = '{style}' "
                          f"WHERE id = {number} AND style <> '{style}' RETURNING 1")
    return changed


Clone.leave = lie
"""

NEVER_RESETS_SEQUENCES = """
NUMBER = "SELECT last_value FROM dancers_id_seq"


def lie(self):
    moved = sql(self.address, NUMBER)
    changed = leave(self)
    if moved and moved != sql(self.address, NUMBER):
        sql(self.address, f"SELECT setval('dancers_id_seq', {moved[0][0]})")
    return changed


Clone.leave = lie
"""

COUNTS_ROWS_TO_SEE_A_CHANGE = """
COUNTS = []


def count(self):
    return sql(self.address, "SELECT count(*), (SELECT count(*) FROM scores) FROM dancers")


def begin(self):
    enter(self)
    COUNTS.append(count(self))


def give_up(self):
    COUNTS.pop()
    forget(self)


def lie(self):
    if count(self) != COUNTS.pop():
        return leave(self)
    forget(self)
    return False


Clone.enter, Clone.forget, Clone.leave = begin, give_up, lie
"""

BELIEVES_THAT_NOTHING_WAS_WRITTEN = """
PlainDatabase._is_as_marked = lambda self, facts: True
"""

CALLS_ALL_LEVELS_CLEAN = """
Clone.is_clean = lambda self: True
"""

HANDS_OUT_A_USED_COPY = """
USED = []
take = Snapshot.take


def again(self):
    return USED.pop() if len(USED) > 2 else take(self)


Snapshot.take = again
PlainDatabase.give_up = lambda self: USED.append(self.name)
"""

COPIES_WHAT_IS_LIVE = """
made = ServerRegistry.create


# Each level above the first begins as the one below it began.
def lie(self, kind, *, template=None):
    if template is not None and template.startswith("arena_live"):
        template = FIRST[0]
    elif template is not None and not FIRST:
        FIRST.append(template)
    return made(self, kind, template=template)


FIRST = []
ServerRegistry.create = lie
"""

CHANGES_ITS_TEMPLATE = """
WORD = "ALTER DATABASE {} ALLOW_CONNECTIONS {}"
NEW = "INSERT INTO dancers VALUES (50, 'template', '', 1) RETURNING 1"


def lie(self):
    close(self)
    for name in [snapshot.name for snapshot in self._templates.values() if snapshot.name]:
        self._own.control.run(WORD.format(name, "true"))
        sql(self._own.address_of(name), NEW)
        self._own.control.run(WORD.format(name, "false"))


Clone.close = lie
"""

RESTORES_WHAT_NOBODY_CHANGED = """
def lie(self):
    PlainDatabase._is_as_marked = lambda self, facts: False
    return leave(self)


Clone.leave = lie
"""

LETS_ONE_ENGINE_THROUGH = """
from pytest_arena._gate import _listeners, _registry
from pytest_arena._postgresql.drivers import _guard as _drivers
_connecting, _admit = _listeners.Gate.connecting, _drivers._Guard.admit


def connecting(self, dialect, entry, cargs, cparams):
    if cparams.get("application_name") == "elsewhere":
        entry.info[_registry.INFO] = _registry.ConnectionRecord(None)
        return
    _connecting(self, dialect, entry, cargs, cparams)


def admit(self, dialect, args, kwargs):
    lets = kwargs.get("application_name") == "elsewhere"
    return None if lets else _admit(self, dialect, args, kwargs)


_listeners.Gate.connecting = connecting
_drivers._Guard.admit = admit
"""

COMMITS_BY_ITSELF = """
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection as Connection


async def start(self):
    pass


Connection._start_transaction = start
"""

LEAVES_ITS_DATABASES = """
ServerRegistry._drop = lambda self, names, line: []
"""

NEVER_SWEEPS = """
ServerRegistry._sweep = lambda self, line, *, everything: []
"""

# As in `liars`: the defect; the stories that find it, and in which files; the broken promise.
LIARS: dict[str, tuple[str, str, str]] = {
    "forgets updates": (_CLONE + FORGETS_UPDATES, "once test_isolated.py", "P2"),
    "never resets sequences": (_CLONE + NEVER_RESETS_SEQUENCES, "once test_isolated.py", "P2"),
    "counts rows to see a change": (
        _CLONE + COUNTS_ROWS_TO_SEE_A_CHANGE,
        "once test_isolated.py",
        "P2",
    ),
    "believes that nothing was written": (
        _CLONE + BELIEVES_THAT_NOTHING_WAS_WRITTEN,
        "once test_isolated.py",
        "P2",
    ),
    "calls all levels clean": (_CLONE + CALLS_ALL_LEVELS_CLEAN, "once test_wide.py", "P6"),
    "hands out a used copy": (_CLONE + HANDS_OUT_A_USED_COPY, "once test_isolated.py", "P2"),
    "copies what was there at first": (_CLONE + COPIES_WHAT_IS_LIVE, "once test_wide.py", "P6"),
    "changes its template": (_CLONE + CHANGES_ITS_TEMPLATE, "twice test_isolated.py", "P2"),
    "leaves a wide level at once": (LEAVES_A_WIDE_LEVEL_AT_ONCE, "once test_wide.py", "P6"),
    "leaves the test's level too early": (
        LEAVES_THE_TESTS_LEVEL_TOO_EARLY,
        "once test_visible.py",
        "P1",
    ),
    "never leaves a wide level": (NEVER_LEAVES_A_WIDE_LEVEL, "once test_wide.py", "P6"),
    "lets one engine through": (LETS_ONE_ENGINE_THROUGH, "once test_guarded.py", "P4"),
    "gives each engine its own": (GIVES_EACH_ENGINE_ITS_OWN, "once test_visible.py", "P1"),
    "keeps the waiters of the old loop": (
        KEEPS_THE_WAITERS_OF_THE_OLD_LOOP,
        "once test_loops.py test_visible.py",
        "P5",
    ),
    "commits by itself": (COMMITS_BY_ITSELF, "once test_real.py", "P3"),
    "sees no leak": (SEES_NO_LEAK, "told", "P7"),
    "names no line": (NAMES_NO_LINE, "told", "P8"),
    "leaves its databases": (_CLONE + LEAVES_ITS_DATABASES, "once test_isolated.py", "P7"),
    "never sweeps": (_CLONE + NEVER_SWEEPS, "killed", "P7"),
    "restores what nobody changed": (_CLONE + RESTORES_WHAT_NOBODY_CHANGED, "cheap", "P10"),
}

# Those that `make test` plants: what only copies can do wrong.
EVERYDAY = (
    "believes that nothing was written",
    "hands out a used copy",
    "lets one engine through",
    "never sweeps",
)
