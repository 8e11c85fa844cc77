"""What SQLite is told and asked: the only place with its SQL, pragmas and file names."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "Busy",
    "attached_file",
    "begin_writing",
    "configure_like",
    "copy_into",
    "copy_to_file",
    "data_version",
    "describe_session",
    "file_of",
    "finish_file",
    "has_tables",
    "main_file",
    "open_control",
    "open_picture",
    "quoted",
    "run_script",
    "stop_writing",
    "version",
]

MEMORY = ":memory:"


class Busy(Exception):
    """Another connection holds a lock on the file."""


def version() -> str:
    """The version of the SQLite library in this process."""
    return sqlite3.sqlite_version


def open_control(path: Path) -> sqlite3.Connection:
    """Open the connection by which a live file is restored.

    It never waits for a lock, since whoever holds one after a test is a leak to be named. It
    does not sync: no test database has to survive a power cut.
    """
    control = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
    control.execute("PRAGMA synchronous = OFF")
    return control


def open_picture(path: Path) -> sqlite3.Connection:
    """Open a file that nobody changes any more: without locks, and without side files."""
    uri = f"file:{quoted(path)}?mode=ro&immutable=1"
    return sqlite3.connect(uri, uri=True, check_same_thread=False)


def quoted(path: Path | str) -> str:
    """Return a path as it stands in a ``file:`` URI."""
    return quote(str(path))


def data_version(control: sqlite3.Connection) -> int:
    """Return a number that moves whenever *another* connection, of any process, has committed.

    Costs 2-5 µs. Own writes do not move it. https://sqlite.org/pragma.html#pragma_data_version

    Raises:
        Busy: a writer is in the middle of a commit.
    """
    try:
        number: int = control.execute("PRAGMA data_version").fetchone()[0]
    except sqlite3.OperationalError as error:
        raise Busy(str(error)) from error
    return number


def begin_writing(control: sqlite3.Connection) -> None:
    """Take the write lock: from here on no other connection has an open write transaction.

    Raises:
        Busy: another connection has one.
    """
    try:
        control.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        raise Busy(str(error)) from error


def stop_writing(control: sqlite3.Connection) -> None:
    """Give the write lock back. COMMIT and not ROLLBACK, which forgets the page cache."""
    control.execute("COMMIT")


def copy_into(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Make the target's file equal to the source's, in place, for every open connection.

    SQLite's online backup raises the change counter and the schema cookie beyond all that were
    seen, so that other connections drop what they have cached.

    Raises:
        Busy: a reader or a writer holds a lock on the target.
    """

    def give_up(status: int, _remaining: int, _total: int) -> None:
        # Connection.backup() retries BUSY (5) and LOCKED (6) for ever.
        if status in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise Busy("database is locked")

    try:
        source.backup(target, progress=give_up, sleep=0)
    except sqlite3.OperationalError as error:
        raise Busy(str(error)) from error


def copy_to_file(source: sqlite3.Connection, file: Path) -> None:
    """Copy a database into one single file without side files, whatever mode it is in.

    Raises:
        Busy: a writer is in the middle of a commit.
    """
    single = sqlite3.connect(file, isolation_level=None)
    try:
        single.execute("PRAGMA synchronous = OFF")
        copy_into(source, single)
        single.execute("PRAGMA journal_mode = DELETE")
    finally:
        single.close()


def finish_file(source: Path, target: Path) -> None:
    """Copy a database file, with what its side files hold, into one single file."""
    control = open_control(source)
    try:
        copy_to_file(control, target)
    finally:
        control.close()


def has_tables(connection: sqlite3.Connection) -> bool:
    """Whether the schema has any table."""
    found = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'")
    return bool(found.fetchone()[0])


def run_script(dbapi_connection: Any, script: str) -> None:
    """Run a script of several statements."""
    dbapi_connection.executescript(script)


def main_file(dbapi_connection: Any) -> str:
    """Return the file that a live connection (sync, or adapted async) is on; "" for memory."""
    cursor = dbapi_connection.cursor()
    try:
        cursor.execute("PRAGMA database_list")
        return next((file or "" for _, name, file in cursor.fetchall() if name == "main"), "")
    finally:
        cursor.close()


def describe_session(connection: sqlite3.Connection) -> tuple[Any, ...]:
    """What a kept connection carries from one test to the next beside the file. Costs 7 µs.

    Temporary tables hide real ones; attached files and ``foreign_keys`` change what a
    statement does.
    """
    ask = sqlite3.Connection.execute
    return (
        ask(connection, "PRAGMA foreign_keys").fetchone()[0],
        tuple(row[1] for row in ask(connection, "PRAGMA database_list") if row[1] != "temp"),
        tuple(ask(connection, "SELECT name, sql FROM sqlite_temp_master")),
    )


def configure_like(session: tuple[Any, ...], dbapi_connection: Any) -> None:
    """Give a connection the settings that ``describe_session`` found on another one."""
    cursor = dbapi_connection.cursor()
    cursor.execute(f"PRAGMA foreign_keys = {int(session[0])}")
    cursor.close()


def file_of(database: str, *, uri: bool) -> str:
    """Return the absolute file that a ``database`` argument means; "" for a memory database."""
    if uri and database.startswith("file:"):
        path, _, query = database.removeprefix("file:").partition("?")
        path = unquote(path.partition("#")[0])
        if "mode=memory" in query or "vfs=memdb" in query:
            return ""
        database = re.sub(r"^//(localhost)?(?=/)", "", path)
    return "" if database in {"", MEMORY} else str(Path(database).absolute())


_COMMENTS = re.compile(r"^(\s+|--[^\n]*(\n|$)|/\*.*?\*/)+", re.DOTALL)
_ATTACH = re.compile(
    r"ATTACH\s+(?:DATABASE\s+)?(?:'((?:[^']|'')*)'|\"((?:[^\"]|\"\")*)\"|([?:@$][\w]*))", re.I
)


def attached_file(sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> str | None:
    """Return the file that an ATTACH statement names, None for any other statement.

    Returns ``""`` where the name is an expression that only SQLite can work out.
    """
    statement = _COMMENTS.sub("", sql)
    if statement[:6].upper() != "ATTACH":
        return None
    match = _ATTACH.match(statement)
    if match is None:
        return ""
    single, double, parameter = match.groups()
    if parameter is None:
        return single.replace("''", "'") if single is not None else double.replace('""', '"')
    return str(_bound(parameter, parameters))


def _bound(name: str, parameters: Sequence[Any] | Mapping[str, Any]) -> Any:
    if hasattr(parameters, "keys"):
        return parameters[name[1:]]  # type: ignore[call-overload]  # a mapping, seen by its keys
    number = int(name[1:] or 1) - 1 if name[1:].isdigit() or name == "?" else 0
    return list(parameters)[number]
