"""Which file does a name mean to SQLite, and which files stand beside it?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MEMORY",
    "file_of",
    "is_read_only",
    "memory_of",
    "quoted",
    "renamed",
    "shm_of",
    "side_files",
    "wal_of",
]

MEMORY = ":memory:"


def wal_of(file: Path) -> str:
    """Return the name of a file's write-ahead log."""
    return f"{file}-wal"


def shm_of(file: Path) -> str:
    """Return the name of the index of a file's write-ahead log, which its connections share."""
    return f"{file}-shm"


def side_files(file: Path) -> tuple[Path, ...]:
    """Return all that SQLite may have made beside a file."""
    return tuple(Path(name) for name in (wal_of(file), shm_of(file), f"{file}-journal"))


def quoted(path: Path | str) -> str:
    """Return a path as it stands in a ``file:`` URI."""
    return quote(str(path))


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


def renamed(database: str, file: str, *, uri: bool) -> str:
    """Return another file's name, in the form and with the rights of a ``database`` argument."""
    if not uri:
        return file
    mode = "?mode=ro" if is_read_only(database, uri=uri) else ""
    return f"file:{quoted(file)}{mode}"


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
