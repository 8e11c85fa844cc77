"""What is said of files: of those that are not the test's, and of one that is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._origin import who_connects
from pytest_arena.errors import (
    IsolationError,
    ProductionDatabaseError,
    RefusedError,
    UnknownDatabaseError,
)

if TYPE_CHECKING:
    from pathlib import Path


def production_file(file: str) -> RefusedError:
    """A connection of its own to a file that belongs to the app."""
    return _refused(
        f"a connection to {file}, a database file of the app",
        "it goes around the app's engine, so that arena cannot lead it into the test's "
        "database; what it did would stay in the app's own data",
        "use the app's engine, db_session or arena.url; or, if tests may reach this file:\n"
        f"arena_allow = {file}",
    )


def opened_file(file: str) -> RefusedError:
    """Return the error for a file of the app that a test opens by its path, as shutil.copy does."""
    return _refused(
        f"opening {file}, a database file of the app, by its path",
        "the test's database is in another file; this one has the app's own data, or is not there",
        "copy the database by a connection of the engine: VACUUM INTO 'copy.db'; or have a fixture "
        "set the app's path to make_url(arena.url).database; or, if tests may open this file:\n"
        f"arena_allow = {file}",
    )


def changed_file(file: str, action: str) -> RefusedError:
    """Return the error for a file of the app that a test removes, renames or truncates."""
    return _refused(
        f"{action}: {file} is a database file of the app",
        "the test's database is in another file. This one has the app's own data",
        "delete the line: each test starts with a fresh database; or, if tests may change this "
        f"file:\narena_allow = {file}",
    )


def attached(file: str) -> RefusedError:
    """An ATTACH of a file outside, on a connection whose statements cannot be rewritten."""
    return _refused(
        f"ATTACH of {file}, which is not inside the arena",
        "arena leads what the app's engine attaches into the test's database, and not what "
        "this connection does; it would stay in the app's own data",
        "attach it on the app's engine, or on a connection to arena.url; or, if tests may "
        f"reach this file:\narena_allow = {file}",
    )


def attached_unseen(file: str) -> RefusedError:
    """An ATTACH on a connection whose statements cannot be read."""
    return _refused(
        f"ATTACH of {file or 'a file'}, on a connection that a factory= of its own makes",
        "arena leads what is attached into the test's database, and cannot read what is run on "
        "this connection; it would stay in the app's own data",
        "give sqlite3.connect or the engine a class as factory=, not a function",
    )


def attached_unread() -> RefusedError:
    """Return the error for an ATTACH whose file pytest-arena cannot read in the statement."""
    return _refused(
        "ATTACH of a file that pytest-arena cannot read in the statement",
        "the file may have the app's own data, and pytest-arena cannot attach the test's instead",
        "write ATTACH 'file.db' AS name, or bind the file by ? or :file",
    )


def vacuumed_into(file: str) -> RefusedError:
    """A VACUUM INTO that would make a file of the app's."""
    return _refused(
        f"VACUUM INTO {file}, a database file of the app",
        "the file would be made, or SQLite say that it exists, outside of the arena",
        "let it write a file in tmp_path",
    )


def unknown_file(file: str, *, of_app: bool = False) -> RefusedError:
    """An engine whose own creator or listener led it outside the arena."""
    return _refused(
        f"an engine's connection to {file}, which is not inside the arena",
        "it was opened by the engine's own creator=, async_creator=, pool= or do_connect "
        "listener, which arena cannot redirect; what the test did would stay there",
        "give the engine a URL instead; or open arena.url in the creator; or, if tests may "
        f"reach it:\narena_allow = {file}",
        kind=ProductionDatabaseError if of_app else UnknownDatabaseError,
    )


def kept_memory() -> str:
    """A note: an engine's own creator opened a memory database."""
    return (
        "a creator= opens a memory database, which arena cannot bring back after a test; "
        f"give the engine a URL instead: {who_connects()}"
    )


def lost(live: Path, error: Exception, *, is_full: bool) -> IsolationError:
    """The test's own file is gone, or replaced, or there is no room for what is written to it."""
    folder = live.parent
    return IsolationError(
        f"the database {live.stem!r} cannot be read or written: {error}",
        why="each test starts on the database as it was before the test that ran last",
        cause=f"no more room in {folder}" if is_full else f"what was done to {live}",
        fix=f"df -h {folder}   # make room there, or have tests write less"
        if is_full
        else "leave the file where it is: `metadata.drop_all(engine)` empties it in place",
    )


def _refused(
    what: str, why: str, fix: str, *, kind: type[RefusedError] = ProductionDatabaseError
) -> RefusedError:
    return kind(f"refused: {what}", why=why, cause=who_connects(), fix=fix)
