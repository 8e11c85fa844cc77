"""SQLite: its files, the connections to them, and how a file is restored."""

from pytest_arena._values import ProductFacts

FACTS = ProductFacts(
    name="sqlite",
    shown="SQLite",
    isolations="copy",
    drivers=("sqlite3",),
    is_file=True,
    example_url="sqlite+aiosqlite:///test.db",
)
