"""What SQLite is told and asked: the only place with its SQL, pragmas and file names."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "Busy",
    "OwnConnection",
    "attached_files",
    "begin_writing",
    "copy_into",
    "copy_to_file",
    "data_version",
    "describe_session",
    "failing_line",
    "file_of",
    "finish_file",
    "has_tables",
    "is_read_only",
    "is_whole",
    "main_file",
    "makes_table",
    "memory_of",
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


class OwnConnection(sqlite3.Connection):
    """A connection that arena opens for itself, so that the guard can tell it from anybody's."""


def version() -> str:
    """The version of the SQLite library in this process."""
    return sqlite3.sqlite_version


def open_control(path: Path) -> sqlite3.Connection:
    """Open the connection by which a live file is restored.

    It never waits for a lock, since whoever holds one after a test is a leak to be named. It
    does not sync: no test database has to survive a power cut.
    """
    control = sqlite3.connect(
        path, isolation_level=None, timeout=0, check_same_thread=False, factory=OwnConnection
    )
    control.execute("PRAGMA synchronous = OFF")
    return control


def open_picture(path: Path) -> sqlite3.Connection:
    """Open a file that nobody changes any more: without locks, and without side files."""
    uri = f"file:{quoted(path)}?mode=ro&immutable=1"
    return sqlite3.connect(uri, uri=True, check_same_thread=False, factory=OwnConnection)


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
    """Give the write lock back. COMMIT rather than ROLLBACK, which forgets the page cache."""
    try:
        control.execute("COMMIT")
    except sqlite3.OperationalError:  # with a rollback journal, even an empty one waits for readers
        control.execute("ROLLBACK")


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
    single = sqlite3.connect(file, isolation_level=None, factory=OwnConnection)
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


def is_whole(file: Path) -> bool:
    """Whether a finished file has the length that its header says: not one that was cut off.

    https://sqlite.org/fileformat.html#the_database_header
    """
    with file.open("rb") as stream:
        header = stream.read(100)
    page_size = int.from_bytes(header[16:18], "big")
    pages = int.from_bytes(header[28:32], "big")
    page_size = 65536 if page_size == 1 else page_size
    return header.startswith(b"SQLite format 3\0") and file.stat().st_size == page_size * pages


def has_tables(connection: sqlite3.Connection) -> bool:
    """Whether the schema has any table."""
    found = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'")
    return bool(found.fetchone()[0])


def makes_table(statement: str) -> bool:
    """Whether a statement makes a table that stays. Costs 0.1 µs."""
    return statement.lstrip()[:12].upper() == "CREATE TABLE"


def run_script(dbapi_connection: Any, script: str) -> None:
    """Run a script of several statements."""
    dbapi_connection.executescript(script)


def failing_line(script: str) -> int:
    """Return the line where the first statement that fails begins; 0 if none fails alone.

    SQLite itself does not tell. The script is run again, a statement at a time, in memory.
    """
    with closing(sqlite3.connect(MEMORY, isolation_level=None)) as memory:
        for number, statement in _statements(script):
            try:
                memory.executescript(statement)
            except sqlite3.Error:
                return number
    return 0


def _statements(script: str) -> Iterator[tuple[int, str]]:
    """The statements of a script, as lines, each with the number of its first line."""
    first, lines = 1, list[str]()
    for number, line in enumerate(script.splitlines(), start=1):
        if not lines:
            first = number
        if lines or (line.strip() and not line.lstrip().startswith("--")):
            lines.append(line)
        if sqlite3.complete_statement("\n".join(lines)):
            yield first, "\n".join(lines)
            lines = []
    yield first, "\n".join(lines)


def main_file(dbapi_connection: Any) -> str:
    """Return the file that a live connection (sync, or adapted async) is on; "" for memory."""
    cursor = dbapi_connection.cursor()
    try:
        cursor.execute("PRAGMA database_list")
        return os.fsdecode(_values(cursor.fetchall()[0])[2] or "")  # `main` is the first
    finally:
        cursor.close()


def _values(row: Any) -> list[Any]:
    """The columns of a row, whatever the app's ``row_factory`` makes of it."""
    return list(row.values()) if isinstance(row, dict) else list(row)


_SETTINGS = ("foreign_keys", "query_only", "ignore_check_constraints", "recursive_triggers")


def describe_session(connection: sqlite3.Connection) -> tuple[Any, ...]:
    """What a kept connection carries from one test to the next beside the file. Costs 20 µs.

    Temporary tables hide real ones; attached files and settings change what a statement does.
    """
    ask = sqlite3.Cursor(connection).execute  # a cursor without the app's row_factory
    return (
        *(ask(f"PRAGMA {setting}").fetchone()[0] for setting in _SETTINGS),
        tuple(row[1:] for row in ask("PRAGMA database_list") if row[0] != _TEMP),
        tuple(ask("SELECT name, sql FROM sqlite_temp_master")),
        (connection.isolation_level, connection.row_factory, connection.text_factory),
    )


_TEMP = 1  # the number of the database of temporary tables


def file_of(database: str, *, uri: bool) -> str:
    """Return the absolute file that a ``database`` argument means; "" for a memory database."""
    path, query = _split(database) if uri else (database, {})
    if path in {"", MEMORY} or _is_memory(query):
        return ""
    return str(Path(path).absolute())


def memory_of(database: str, *, uri: bool) -> str:
    """Return the name of a memory database that several connections share; "" for any other."""
    path, query = _split(database) if uri else (database, {})
    shared = query.get("cache") == "shared" or query.get("vfs") == "memdb"
    return path if _is_memory(query) and shared else ""


def is_read_only(database: str, *, uri: bool) -> bool:
    """Whether a ``database`` argument asks for a connection that cannot write."""
    query = _split(database)[1] if uri else {}
    return query.get("mode") == "ro" or query.get("immutable") == "1"


def _is_memory(query: Mapping[str, str]) -> bool:
    return query.get("mode") == "memory" or query.get("vfs") == "memdb"


def _split(database: str) -> tuple[str, dict[str, str]]:
    """Return the path and the parameters of a ``file:`` URI: https://sqlite.org/uri.html."""
    if not database.startswith("file:"):
        return database, {}
    path, _, query = database.removeprefix("file:").partition("#")[0].partition("?")
    path = re.sub(r"^//(localhost)?(?=/)", "", path)
    # A zero byte ends the path for SQLite, and is no path at all for Python.
    return unquote(path).partition("\0")[0], dict(parse_qsl(query))


_TOKEN = re.compile(
    r"""
      (?P<comment> --[^\n]* | /\*.*?(?:\*/|$) )
    | (?P<name> '(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\] )
    | (?P<bound> [?:@$][\w:]* )
    | (?P<word> \w+ )
    | (?P<end> ; )
    | (?P<other> \S )
    """,
    re.DOTALL | re.VERBOSE,
)
_Token = tuple[str, str]


def attached_files(
    sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
) -> Iterator[str | None]:
    """Yield the file of each ATTACH in a script; None where only SQLite can work its name out."""
    for statement in _token_lists(sql):
        words = [text.upper() for _, text in statement[:2]]
        if words[:1] == ["ATTACH"]:
            yield _attached(statement[1 + (words[1:] == ["DATABASE"]) :], parameters)


def _token_lists(sql: str) -> Iterator[list[_Token]]:
    """Split a script at its semicolons; comments are left out."""
    statement: list[_Token] = []
    for match in _TOKEN.finditer(sql):
        if match.lastgroup == "end":
            yield statement
            statement = []
        elif match.lastgroup != "comment":
            statement.append((str(match.lastgroup), match.group()))
    yield statement


def _attached(tokens: list[_Token], parameters: Sequence[Any] | Mapping[str, Any]) -> str | None:
    if [text.upper() for _, text in tokens[1:2]] != ["AS"]:
        return None  # an expression of several parts
    kind, text = tokens[0]
    if kind == "bound":
        return _bound(text, parameters)
    if kind == "name":
        return text[1:-1].replace(text[-1] * 2, text[-1])
    return text if kind == "word" and not text.isdigit() else None


def _bound(name: str, parameters: Sequence[Any] | Mapping[str, Any]) -> str | None:
    digits = name[1:].isdigit()
    try:
        if hasattr(parameters, "keys"):
            value = parameters[name[1:]]  # type: ignore[call-overload]  # a mapping, by its keys
        else:
            value = list(parameters)[int(name[1:]) - 1 if digits else 0]
    except (LookupError, TypeError):
        return None
    return "" if value is None else os.fsdecode(value) if isinstance(value, bytes) else str(value)
