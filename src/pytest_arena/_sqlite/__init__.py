"""SQLite: its files, the connections to them, and how a file is restored."""

from pytest_arena._facts import FileFormat, ProductFacts

FACTS = ProductFacts(
    name="sqlite",
    shown="SQLite",
    isolations=("copy", "clone", "rollback"),  # all mean copy
    drivers=("sqlite3",),
    drivers_without_loop=("aiosqlite",),
    file_format=FileFormat(
        header=b"SQLite format 3\0",  # https://www.sqlite.org/fileformat.html
        name=r"\.(db|sqlite)\w*$",
        logs=("-wal", "-journal"),
    ),
    error_words={
        "no such table": "no table",
        "database is locked": "lock timeout",
        "readonly database": "read only",
    },
    example_url="sqlite+aiosqlite:///test.db",
)
