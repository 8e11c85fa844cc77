"""SQLite, for the stories: a file in the project."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.conformance.setting import Setting

__all__ = ["SQLite"]

_SQLITE = """
import sqlite3
from contextlib import closing
from pathlib import Path
from sqlalchemy import event

JOURNAL = {journal!r}

TAKES_A_NUMBER = "UPDATE sqlite_sequence SET seq = seq + 1"


def prepare(engine):
    @event.listens_for(engine, "connect")
    def pragmas(connection, _record):
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA journal_mode = " + JOURNAL)
        cursor.close()


def dump(url):
    file = url.partition(":///")[2]
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        schema = sorted(connection.execute("SELECT type, name, sql FROM sqlite_master"), key=repr)
        tables = [name for kind, name, _ in schema if kind == "table"]
        rows = {{
            name: sorted(connection.execute('SELECT * FROM "' + name + '"'), key=repr)
            for name in tables
        }}
        return {{"schema": schema, **rows}}


def moved():
    io = Path("/proc/self/io")
    if not io.exists():  # Linux alone counts
        return 0, 0
    lines = io.read_text().splitlines()
    numbers = dict(line.split(": ") for line in lines)
    return int(numbers["rchar"]), int(numbers["wchar"])


def go_around():
    return sqlite3.connect("dev.db")
"""


# The developer's own may well have the app's tables: what reaches it would go well, and show.
_DANCERS = sqlalchemy.Table(
    "dancers",
    sqlalchemy.MetaData(),
    sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True),
    *(sqlalchemy.Column(name, sqlalchemy.String) for name in ("name", "style")),
    sqlalchemy.Column("version", sqlalchemy.Integer),
)


class SQLite:
    """A file ``dev.db`` in the project, and its names: relative, absolute, by a link."""

    gives_numbers_back = True
    keeps_url = True

    def options(self, setting: Setting) -> Mapping[str, str]:
        """None."""
        del setting
        return {}

    def urls(self, setting: Setting, folder: Path) -> dict[str, str]:
        """Return the URLs."""
        scheme = "sqlite+aiosqlite" if setting.is_async else "sqlite"
        others = ["sqlite:///./dev.db", f"sqlite:///{folder}/dev.db", "sqlite:///link.db"]
        return {
            "URL": repr(f"{scheme}:///dev.db"),
            "SYNC_URL": repr("sqlite:///dev.db"),
            "OTHER_URLS": repr(others),
        }

    def files(self, setting: Setting) -> dict[str, str]:
        """Return ``product.py``."""
        return {"product.py": _SQLITE.format(journal=setting.journal)}

    def stories(self, _: Setting) -> Mapping[str, str]:
        """None: what it can do, others can."""
        return {}

    def lacks(self, _: Setting) -> Mapping[str, str]:
        """Return what ``copy`` costs."""
        changes = ("reading by changes", "writing by changes")
        return dict.fromkeys(changes, "SQLite's backup copies the whole file")

    def version(self, setting: Setting) -> str:
        """That of the library."""
        del setting
        return f"SQLite {sqlite3.sqlite_version}"

    def make_developers(self, setting: Setting, folder: Path) -> None:
        """Make the file, with a table of the app's, and a link to it."""
        del setting
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("dev.db", "link.db"):
            (folder / name).unlink(missing_ok=True)
        engine = sqlalchemy.create_engine(f"sqlite:///{folder}/dev.db")
        with engine.begin() as connection:
            _DANCERS.metadata.create_all(connection)
            connection.execute(_DANCERS.insert().values(name="The developer", style="", version=1))
        engine.dispose()
        (folder / "link.db").symlink_to("dev.db")

    def developers(self, setting: Setting, folder: Path) -> object:
        """Return bytes, time and neighbours of the file."""
        del setting
        file = folder / "dev.db"
        beside = sorted(path.name for path in folder.glob("*.db*"))
        return file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino, beside

    def secrets(self, setting: Setting) -> Sequence[str]:
        """None: whoever may read a file may read it."""
        del setting
        return ()

    def is_gone(self, setting: Setting, url: str) -> bool:
        """Whether the folder that the file was in, and its lock, are gone."""
        del setting
        folder = Path(url.partition(":///")[2]).parent
        return not folder.exists() and not folder.with_suffix(".lock").exists()
