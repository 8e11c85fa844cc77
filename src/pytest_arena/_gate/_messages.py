"""The guard's words: one function for each thing that it refuses."""

from __future__ import annotations

from pytest_arena._gate._origin import user_line
from pytest_arena.errors import (
    AfterSessionError,
    ProductionDatabaseError,
    UnknownDatabaseError,
)

__all__ = [
    "NOWHERE",
    "UNNAMED",
    "after_session",
    "attached",
    "attached_unread",
    "beyond",
    "kept_memory",
    "lost_transaction",
    "production_file",
    "unknown_connection",
    "unknown_file",
    "vacuumed_into",
]

# A name that no resolver answers (RFC 2606): in the place of a server that may not be reached.
NOWHERE = "arena.invalid"
UNNAMED = "(unknown)"  # in the place of a server that a live connection does not tell
_UNSEEN = "no line of yours is on the stack: a thread or an extension module connects"


def _cause() -> str:
    return str(user_line() or _UNSEEN)


def production_file(file: str) -> ProductionDatabaseError:
    """A connection of its own to a file that belongs to the app."""
    return ProductionDatabaseError(
        f"refused: a connection to {file}, a database file of the app",
        why="it goes around the app's engine, so that arena cannot lead it into the test's "
        "database; what it did would stay in the app's own data",
        cause=_cause(),
        fix="use the app's engine, db_session or arena.url; or, if tests may reach this file:\n"
        f"arena_allow = {file}",
    )


def attached(file: str) -> ProductionDatabaseError:
    """An ATTACH of a file outside, on a connection whose statements cannot be rewritten."""
    return ProductionDatabaseError(
        f"refused: ATTACH of {file}, which is not inside the arena",
        why="arena leads what the app's engine attaches into the test's database, and not what "
        "this connection does; it would stay in the app's own data",
        cause=_cause(),
        fix="attach it on the app's engine, or on a connection to arena.url; or, if tests may "
        f"reach this file:\narena_allow = {file}",
    )


def attached_unread() -> ProductionDatabaseError:
    """An ATTACH whose file cannot be known before SQLite opens it."""
    return ProductionDatabaseError(
        "refused: ATTACH of a name that only SQLite works out",
        why="this may be the app's own data, and arena reads the name before SQLite does",
        cause=_cause(),
        fix="write the name as a literal in the statement, or bind it by ? or :name",
    )


def vacuumed_into(file: str) -> ProductionDatabaseError:
    """A VACUUM INTO that would make a file of the app's."""
    return ProductionDatabaseError(
        f"refused: VACUUM INTO {file}, a database file of the app",
        why="the file would be made, or SQLite say that it exists, outside of the arena",
        cause=_cause(),
        fix="let it write a file in tmp_path",
    )


def unknown_file(
    file: str, *, of_app: bool = False
) -> UnknownDatabaseError | ProductionDatabaseError:
    """An engine whose own creator or listener led it outside the arena."""
    kind = ProductionDatabaseError if of_app else UnknownDatabaseError
    return kind(
        f"refused: an engine's connection to {file}, which is not inside the arena",
        why="it was opened by the engine's own creator=, async_creator=, pool= or do_connect "
        "listener, which arena cannot redirect; what the test did would stay there",
        cause=_cause(),
        fix="give the engine a URL instead; or open arena.url in the creator; or, if tests may "
        f"reach it:\narena_allow = {file}",
    )


def kept_memory() -> str:
    """A note: an engine's own creator opened a memory database."""
    return (
        "a creator= opens a memory database, which arena cannot bring back after a test; "
        f"give the engine a URL instead: {_cause()}"
    )


def unknown_connection(description: str, *, left_out_by: str = "") -> UnknownDatabaseError:
    """A connection of a product that this version cannot isolate, or that an option leaves out."""
    if NOWHERE in description:
        return _replaced(description)
    if left_out_by:
        return UnknownDatabaseError(
            f"refused: a connection to {description}",
            why=f"{left_out_by} gives tests no database in its place: it may be a real one",
            cause=_cause(),
            fix="take that option out: this product can be isolated",
        )
    # A name without its server would allow others that look alike.
    is_named = UNNAMED not in description
    allowing = f"; or, if tests may reach this one:\narena_allow = {description}"
    return UnknownDatabaseError(
        f"refused: a connection to {description}",
        why="it is none of the tests' databases, and no product or driver that this version can "
        "lead there: the test would leave what it did, and it may be a real one",
        cause=_cause(),
        fix="an engine with a URL, which arena leads into the test's database"
        + (allowing if is_named else ""),
    )


def _replaced(description: str) -> UnknownDatabaseError:
    return UnknownDatabaseError(
        f"refused: a connection to {description}",
        why="the environment named a database of this product, which this version cannot isolate; "
        "its host was replaced by one that leads nowhere, so that nothing reaches it",
        cause=_cause(),
        fix="DATABASE_URL=sqlite+aiosqlite:///test.db pytest …\n(or arena_allow = "
        "<dialect>://<host>:<port>/<name> of the real one, if tests may reach it)",
    )


def beyond(statement: str) -> ProductionDatabaseError:
    """A statement that would touch another database of the server, or all of it."""
    return ProductionDatabaseError(
        f"refused: {statement}, which reaches beyond the test's database",
        why="the server may have databases of yours; what is done to them, and to the server, is "
        "not taken back after the test",
        cause=_cause(),
        fix="delete the fixture that makes a test database, and name what fills one:\n"
        "arena_schema = <module>:<Base>   (a migration names its own by current_database())",
    )


def lost_transaction(line: object) -> str:
    """A note: a wider fixture was inside a transaction when its database was given up."""
    return (
        f"a fixture holds a connection inside a transaction over its tests ({line}): after a test "
        "that wrote, it has to roll back before it can go on; commit, or roll back, before the "
        "fixture's `yield`"
    )


def after_session(name: str) -> AfterSessionError:
    """A connection after the end of the test session."""
    return AfterSessionError(
        f"refused: a connection to {name or 'a memory database'} after the test session",
        why="the arena is closed, so that it would have reached the app's own database",
        cause=_cause(),
        fix="close what still works (threads, atexit handlers) in a session fixture's tear-down",
    )
