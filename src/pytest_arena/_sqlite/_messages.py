"""The texts of errors and notes about SQLite files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._origin import cause_of_connection
from pytest_arena.errors import (
    IsolationError,
    ProductionDatabaseError,
    RefusedError,
    UnknownDatabaseError,
)

if TYPE_CHECKING:
    from pathlib import Path


def production_file(file: str) -> RefusedError:
    """Return the error for a raw connection to a file of the app."""
    return _refused(
        f"a connection to {file}, a database file of the app",
        "it does not use the app's engine, so pytest-arena cannot redirect it to the test's "
        "database. Its changes would stay in the app's data",
        "use the app's engine, db_session or arena.url. If tests may reach this file:\n"
        f"arena_allow = {file}",
    )


def unknown_file(file: str, *, of_app: bool = False) -> RefusedError:
    """Return the error for an engine whose creator or listener opens another file."""
    return _refused(
        f"an engine's connection to {file}, which is no test database",
        "the engine's creator=, async_creator=, pool= or do_connect listener opened it, or the "
        "engine connected before pytest began. The test's changes would stay in that file",
        "give the engine a URL, or open arena.url in the creator; or engine.dispose() before "
        f"pytest begins. If tests may reach this file:\narena_allow = {file}",
        kind=ProductionDatabaseError if of_app else UnknownDatabaseError,
    )


def kept_memory() -> str:
    """Return the note about a memory database that an engine's creator opens."""
    return (
        "a creator= opens a memory database, which pytest-arena cannot restore after a test. "
        f"Give the engine a URL instead: {cause_of_connection()}"
    )


def lost(live: Path, error: Exception) -> IsolationError:
    """Return the error for a live file that was removed or replaced, or for a full disk."""
    return IsolationError(
        f"the database {live.stem!r} cannot be read or written: {error}",
        why="pytest-arena restores the database before each test",
        cause=f"a test or the app has removed, replaced or locked {live}, or the disk is full",
        fix="do not remove or replace the file: `metadata.drop_all(engine)` empties it in place\n"
        f"df -h {live.parent}   shows the free space",
    )


def too_old(version: str) -> IsolationError:
    """Return the error for an SQLite library that cannot copy a database into memory."""
    return IsolationError(
        f"SQLite {version} of this Python cannot copy a database into memory",
        why="pytest-arena keeps the content that it restores after a test in memory",
        cause="an SQLite before 3.36, or one that was built without sqlite3_serialize",
        fix="a Python with SQLite 3.36 or later:\n"
        'python -c "import sqlite3; print(sqlite3.sqlite_version)"',
    )


def _refused(
    what: str, why: str, fix: str, *, kind: type[RefusedError] = ProductionDatabaseError
) -> RefusedError:
    return kind(f"refused: {what}", why=why, cause=cause_of_connection(), fix=fix)
