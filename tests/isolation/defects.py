"""Defects that a maintainer might make. Random work must find each."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_arena._mysql._refill import _restoring
from pytest_arena._postgresql._isolation import ClonedDatabase, JournaledDatabase
from pytest_arena._product._level_stack import Look
from pytest_arena._product._statements import Reach, _written, classify
from pytest_arena._sqlite._copy import Copy
from tests.servers.postgresql import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

    from pytest_arena._mysql._clone import Table


@dataclass
class Defect:
    """A defect, the isolation that has it, and the first seed with which it is found."""

    name: str
    kind: str
    seed: int = 0
    number: int = 0  # how often it was planted

    def plant(self, patch: pytest.MonkeyPatch) -> dict[str, Any]:
        """Plant it. Return options for the maker of the world."""
        raise NotImplementedError


@dataclass
class InPython(Defect):
    """A function that is replaced."""

    owner: Any = ""
    function: str = ""
    replacement: Any = None

    def plant(self, patch: pytest.MonkeyPatch) -> dict[str, Any]:
        """Replace the function."""
        classify.cache_clear()  # it has results of the function that is replaced
        if isinstance(self.owner, str):
            patch.setattr(f"pytest_arena.{self.owner}.{self.function}", self.replacement)
        else:
            patch.setattr(self.owner, self.function, self.replacement)
        self.number += 1
        return {}


@dataclass
class InJournal(Defect):
    """A text in a function of the journal that is replaced."""

    kind: str = "undo on postgresql"
    function: str = ""
    pattern: str = ""
    replacement: str = ""

    def plant(self, patch: pytest.MonkeyPatch) -> dict[str, Any]:
        """Change the journal of each new copy."""
        begin = JournaledDatabase.__init__

        def begin_with_defect(live: JournaledDatabase, *args: Any) -> None:
            begin(live, *args)
            with closing(connect(live.name)) as connection:
                connection.execute("SET arena.undo = 1")
                self.change(connection)

        patch.setattr(JournaledDatabase, "__init__", begin_with_defect)
        return {}

    def change(self, connection: Any) -> None:
        """Replace the text."""
        functions = connection.execute(
            "SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE proname = %s "
            "AND pronamespace = 'pg_arena'::regnamespace",
            [self.function],
        )
        for (text,) in functions.fetchall():
            wrong, times = re.subn(self.pattern, self.replacement, text)
            if times:
                connection.execute(wrong.encode())
            self.number += times


@dataclass
class InTables(InJournal):
    """A statement for each trigger of the journal, or for some of them."""

    statement: str = ""
    which: str = "true"

    def change(self, connection: Any) -> None:
        """Execute the statements."""
        connection.execute(
            "DO $do$ DECLARE t record; BEGIN FOR t IN "
            "SELECT tgrelid::regclass AS c, tgname AS n FROM pg_trigger "
            f"WHERE tgname ~ '^!arena_' AND {self.which} "
            f"LOOP EXECUTE format('{self.statement}', t.c, t.n); END LOOP; END $do$"
        )
        self.number += 1


@dataclass
class InCopy(Defect):
    """A class in the place of ``Copy``."""

    kind: str = "copy on sqlite in wal"
    make: type[Copy] = field(default=Copy)

    def plant(self, patch: pytest.MonkeyPatch) -> dict[str, Any]:
        """Return the class."""
        del patch
        self.number += 1
        return {"make": self.make}


class RestoresInsertsOnly(Copy):
    """Deletes the rows that are new."""

    def leave(self) -> bool:
        """Delete them, and forget the level."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            for rows in self.rows_changed():
                if rows.table == "the schema":
                    continue
                match = " AND ".join(f'"{column}" IS ?' for column in rows.columns)
                with suppress(sqlite3.Error):  # a virtual table
                    connection.executemany(f'DELETE FROM "{rows.table}" WHERE {match}', rows.added)
        self.forget()
        return True


class TrustsTheDataVersion(Copy):
    """Does not ask whether a transaction is open."""

    def leave(self) -> bool:
        """Do nothing if nothing was committed."""
        if not self.live.look(self._stack[-1].start).is_changed:
            self.forget()
            return False
        return super().leave()


class LosesLevels(Copy):
    """Keeps the oldest state for all levels."""

    entered = 0

    def enter(self, isolation: str = "") -> str:
        """Enter only the lowest level."""
        if not self.entered:
            super().enter(isolation)
        self.entered += 1
        return ""

    def leave(self) -> bool:
        """Return to the lowest level each time."""
        changed = super().leave()
        self.entered -= 1
        if self.entered:
            super().enter()
        return changed


def _restoring_keyed(table: Table, frozen: str, live: str) -> Iterator[str]:
    if table.key:
        yield from _restoring(table, frozen, live)


def _without_schema(text: str) -> object:
    table, reach = _written(text)
    return table, Reach.ROWS if reach is Reach.SCHEMA else reach


_SETTINGS = r"SET \"?(?!search)\w+\"? TO [^\n]*"
_MYSQL: dict[str, tuple[int, str, str, Callable[..., object]]] = {
    "cascades are not followed": (
        22,
        "_mysql._isolation",
        "with_cascades",
        lambda names, _cascades: set(names),
    ),
    "counters stay": (0, "_mysql._refill", "_restore_counters", lambda *_: None),
    "texts are compared by a collation": (
        1,
        "_mysql._clone",
        "_exact",
        lambda alias, name, _kind: f"{alias}.`{name}`",
    ),
    "a table without a key is not restored": (0, "_mysql._refill", "_restoring", _restoring_keyed),
    "a change of the schema is not noticed": (
        2,
        "_product._statements",
        "_written",
        _without_schema,
    ),
    "a view is taken for a table": (
        2,
        "_mysql._refill.Written",
        "names_in",
        lambda written, known: {name for name in known if name in written.tables},
    ),
}
DEFECTS: tuple[Defect, ...] = (
    InCopy("restores inserts only", make=RestoresInsertsOnly),
    InCopy("trusts the data version", seed=8, make=TrustsTheDataVersion),
    InCopy("loses levels", seed=1, make=LosesLevels),
    InJournal("sequences stay", seed=1, function="rewind", pattern=r"PERFORM setval\([^;]*;"),
    InJournal(
        "equal rows count once",
        function="apply",
        pattern=r"generate_series\(1, abs\(m.c\)\)",
        replacement="generate_series(1, 1)",
    ),
    InJournal(
        "inserted rows stay",
        seed=1,
        function="apply",
        pattern="IF d.surplus IS NOT NULL",
        replacement="IF false",
    ),
    InJournal(
        "deleted rows stay away",
        seed=2,
        function="apply",
        pattern="IF d.missing IS NOT NULL",
        replacement="IF false",
    ),
    InJournal(
        "open transactions belong below",
        seed=7,
        function="since",
        pattern=r"NOT pg_visible_in_snapshot\(j.x, start\)",
        replacement="j.x >= pg_snapshot_xmax(start)",
    ),
    InJournal(
        "settings of the session, by statement", seed=5, function="by_statement", pattern=_SETTINGS
    ),
    InJournal("settings of the session, by row", seed=10, function="by_row", pattern=_SETTINGS),
    InJournal(
        "updates lose the old row",
        seed=2,
        function="by_statement",
        pattern="TG_OP <> 'INSERT'",
        replacement="TG_OP = 'DELETE'",
    ),
    InJournal(
        "TRUNCATE takes children",
        seed=10,
        function="by_truncate",
        pattern="FROM ONLY",
        replacement="FROM",
    ),
    InJournal("entries stay", seed=1, function="leave", pattern=r"DELETE FROM pg_arena.j\s[^;]*;"),
    InTables(
        "triggers are not always on", seed=8, statement="ALTER TABLE ONLY %1$s ENABLE TRIGGER %2$I"
    ),
    InTables(
        "TRUNCATE is not seen",
        statement="DROP TRIGGER %2$I ON %1$s",
        which="tgname = '!arena_TRUNCATE'",
    ),
    InTables(
        "partitions have no triggers",
        statement="DROP TRIGGER %2$I ON %1$s",
        which="EXISTS (SELECT FROM pg_inherits WHERE inhrelid = tgrelid)",
    ),
    InTables(
        "children are taken",
        seed=1,
        statement="UPDATE pg_arena.t SET take = replace(take, ''ONLY '', '''') "
        "WHERE rel = %1$L::regclass",
    ),
    InPython(
        "changes of wide levels are not carried",
        "undo on postgresql",
        owner=JournaledDatabase,
        function="carried",
        replacement=lambda *_: None,
    ),
    InPython(
        "a used clone is clean",
        "clone on postgresql",
        seed=1,
        owner=ClonedDatabase,
        function="look",
        replacement=lambda *_: Look(),
    ),
    *(
        InPython(name, "undo on mysql", seed, owner=owner, function=what, replacement=new)
        for name, (seed, owner, what, new) in _MYSQL.items()
    ),
)
