"""SQLite: its files, the connections to them, and how a file is restored."""

from pytest_arena._values import FileFormat, ProductFacts

_MODE_NOT_CHANGED = """
SQLite changes the mode WAL only if no other connection is open, and pytest-arena has one open
next: set journal_mode in a `connect` listener of the engine, the same mode for each connection"""
_NO_HOLDER = """
no open transaction of this process holds the lock. A result that was not read to its end may
next: read the result to its end before the request: session.scalars(…).all()"""

FACTS = ProductFacts(
    name="sqlite",
    shown="SQLite",
    isolations=("copy", "rollback"),  # both mean copy
    drivers=("sqlite3",),
    drivers_without_loop=("aiosqlite",),
    file_format=FileFormat(
        header=b"SQLite format 3\0",  # https://www.sqlite.org/fileformat.html
        name=r"\.(db|sqlite)\w*$",
        logs=("-wal", "-journal"),
        opening="sqlite3.connect",
    ),
    error_words={"no such table": "no table", "database is locked": "lock timeout"},
    unseen_locks={"journal_mode": _MODE_NOT_CHANGED, "": _NO_HOLDER},
    example_url="sqlite+aiosqlite:///test.db",
)
