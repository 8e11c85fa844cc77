"""Planted defects of `undo`: each forgets something, and believes itself."""

from __future__ import annotations

from tests.conformance.liars import (
    GIVES_EACH_ENGINE_ITS_OWN,
    LEAVES_A_WIDE_LEVEL_AT_ONCE,
    LEAVES_THE_TESTS_LEVEL_TOO_EARLY,
    NEVER_LEAVES_A_WIDE_LEVEL,
)
from tests.conformance.liars_postgresql import LEAVES_ITS_DATABASES, LETS_ONE_ENGINE_THROUGH

__all__ = ["EVERYDAY", "HONEST", "LIARS"]

# The journal's own connection: what it does is not journaled, and no mark is made of it.
_UNDO = """
from contextlib import suppress
from pytest_arena._postgresql._control import Failed
from pytest_arena._postgresql.isolation import ServerIsolation
from pytest_arena._postgresql.isolation._journaled import JournaledDatabase
from pytest_arena._postgresql.journal._server import Look
from pytest_arena._postgresql.journal._server import ServerJournal
from pytest_arena._postgresql.registry import ServerRegistry

begin, enter, leave = ServerJournal._begin, ServerJournal.enter, ServerJournal.leave
IDS = "SELECT (r::public.dancers).id FROM {s}.j WHERE rel = 'public.dancers'::regclass AND op = "
OF_DANCERS = "DELETE FROM {s}.j WHERE rel = 'public.dancers'::regclass AND "


def tell(self, text):
    with suppress(Failed):  # a test has dropped the table
        self._control.run(text.replace("{s}", self._schema))


def before_leaving(*texts):
    def lie(self, level):
        for text in texts:
            tell(self, text)
        return leave(self, level)
    ServerJournal.leave = lie


def from_the_beginning(text):
    def lie(self):
        begin(self)
        tell(self, text)
    ServerJournal._begin = lie
"""

HONEST = (
    _UNDO
    + """
before_leaving("SELECT count(*) FROM public.dancers")
"""
)

# Only where one kind of entry is there alone: an update has both, and half of it would be noticed.
FORGETS_INSERTS = """
before_leaving(OF_DANCERS + "op = 1 AND (r::public.dancers).id NOT IN (" + IDS + "-1)")
"""

FORGETS_DELETES = """
before_leaving(OF_DANCERS + "op = -1 AND (r::public.dancers).id NOT IN (" + IDS + "1)")
"""

FORGETS_UPDATES = """
before_leaving(
    "CREATE TEMPORARY TABLE IF NOT EXISTS both_kinds (id int); DELETE FROM pg_temp.both_kinds; "
    "INSERT INTO pg_temp.both_kinds (" + IDS + "1) INTERSECT (" + IDS + "-1); "
    + OF_DANCERS + "(r::public.dancers).id IN (SELECT id FROM pg_temp.both_kinds)"
)
"""

_WITHOUT = 'ALTER TABLE {} DISABLE TRIGGER "!arena_{}";'

FORGETS_TRUNCATE = f"""
from_the_beginning({"".join(_WITHOUT.format(f"public.{t}", "t") for t in ("scores", "moves"))!r})
"""

FORGETS_ONE_TABLE = f"""
from_the_beginning({"".join(_WITHOUT.format("public.scores", letter) for letter in "iudt")!r})
"""

# As an ORM's listener would, that is told of the partitioned table alone.
FORGETS_PARTITIONS = f"""
from_the_beginning({"".join(_WITHOUT.format("public.tours_early", letter) for letter in "iudt")!r})
"""

NEVER_RESETS_SEQUENCES = """
NUMBER = "SELECT last_value, is_called FROM public.dancers_id_seq"


def lie(self, level):
    moved = self._control.rows(NUMBER)
    left = leave(self, level)
    if moved != self._control.rows(NUMBER):
        tell(self, f"SELECT setval('public.dancers_id_seq', {moved[0][0]}, {moved[0][1]})")
    return left


ServerJournal.leave = lie
"""

UNDOES_THE_LAST_TRANSACTION_ALONE = """
before_leaving(OF_DANCERS + "op = 1 AND x < (SELECT max(x) FROM {s}.j)")
"""

KEEPS_WHAT_WAS_DONE_TO_THE_SCHEMA = """
before_leaving("DELETE FROM {s}.ddl")
"""

FORGETS_THE_WIDE_LEVEL = """
def lie(self, level):
    if level > 1:
        tell(self, "DELETE FROM {s}.j")
    return enter(self, level)


ServerJournal.enter = lie
"""

TAKES_BACK_THE_WIDE_LEVEL_TOO = """
ServerJournal.enter = lambda self, level: () if level > 1 else enter(self, level)
"""

LOSES_THE_ARCHIVE_WITH_THE_DATABASE = """
ServerJournal.restore = lambda self, archived, level: None
"""

BELIEVES_THAT_NOTHING_WAS_WRITTEN = """
JournaledDatabase.may_have_changed = False
"""

CALLS_ALL_LEVELS_CLEAN = """
ServerIsolation.is_clean = lambda self: True
"""

READS_THE_WHOLE_DATABASE = """
before_leaving("SELECT sum(length(text)) FROM public.notes")
"""

WRITES_THE_WHOLE_DATABASE = """
before_leaving("UPDATE public.notes SET text = text || ''")
"""

REPLACES_THE_DATABASE_EACH_TIME = """
from pytest_arena._postgresql.journal._server import Left
ServerJournal.leave = lambda self, level: Left(was_changed=True, marks=("to be sure",))
"""

# As in `liars`: the defect; the stories that find it, and in which files; the broken promise.
LIARS: dict[str, tuple[str, str, str]] = {
    "forgets inserts": (_UNDO + FORGETS_INSERTS, "once test_isolated.py", "P2"),
    "forgets deletes": (_UNDO + FORGETS_DELETES, "once test_isolated.py", "P2"),
    "forgets updates": (_UNDO + FORGETS_UPDATES, "once test_isolated.py", "P2"),
    "forgets truncate": (_UNDO + FORGETS_TRUNCATE, "once test_stored.py", "P2"),
    "forgets one table": (_UNDO + FORGETS_ONE_TABLE, "once test_isolated.py", "P2"),
    "forgets partitions": (_UNDO + FORGETS_PARTITIONS, "once test_stored.py", "P2"),
    "never resets sequences": (_UNDO + NEVER_RESETS_SEQUENCES, "once test_isolated.py", "P2"),
    "undoes the last transaction alone": (
        _UNDO + UNDOES_THE_LAST_TRANSACTION_ALONE,
        "once test_visible.py",
        "P2",
    ),
    "keeps what was done to the schema": (
        _UNDO + KEEPS_WHAT_WAS_DONE_TO_THE_SCHEMA,
        "once test_isolated.py",
        "P2",
    ),
    "forgets the wide level": (_UNDO + FORGETS_THE_WIDE_LEVEL, "once test_wide.py", "P6"),
    "takes back the wide level too": (
        _UNDO + TAKES_BACK_THE_WIDE_LEVEL_TOO,
        "once test_wide.py",
        "P6",
    ),
    "loses the archive with the database": (
        _UNDO + LOSES_THE_ARCHIVE_WITH_THE_DATABASE,
        "once test_stored.py",
        "P6",
    ),
    "believes that nothing was written": (
        _UNDO + BELIEVES_THAT_NOTHING_WAS_WRITTEN,
        "once test_isolated.py",
        "P2",
    ),
    "calls all levels clean": (_UNDO + CALLS_ALL_LEVELS_CLEAN, "once test_wide.py", "P6"),
    "leaves a wide level at once": (LEAVES_A_WIDE_LEVEL_AT_ONCE, "once test_wide.py", "P6"),
    "leaves the test's level too early": (
        LEAVES_THE_TESTS_LEVEL_TOO_EARLY,
        "once test_visible.py",
        "P1",
    ),
    "never leaves a wide level": (NEVER_LEAVES_A_WIDE_LEVEL, "once test_wide.py", "P6"),
    "lets one engine through": (LETS_ONE_ENGINE_THROUGH, "once test_guarded.py", "P4"),
    "gives each engine its own": (GIVES_EACH_ENGINE_ITS_OWN, "once test_visible.py", "P1"),
    "leaves its databases": (_UNDO + LEAVES_ITS_DATABASES, "once test_isolated.py", "P7"),
    "reads the whole database": (_UNDO + READS_THE_WHOLE_DATABASE, "cheap", "P10"),
    "writes the whole database": (_UNDO + WRITES_THE_WHOLE_DATABASE, "cheap", "P10"),
    "replaces the database each time": (_UNDO + REPLACES_THE_DATABASE_EACH_TIME, "cheap", "P10"),
}

# Those that `make test` plants: one for each part of the journal.
EVERYDAY = (
    "forgets inserts",
    "forgets truncate",
    "keeps what was done to the schema",
    "forgets the wide level",
)
