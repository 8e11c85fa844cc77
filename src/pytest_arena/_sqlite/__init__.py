"""SQLite: its files, the connections to them, and how a file is restored."""

from pytest_arena._values import ProductFacts

FACTS = ProductFacts(shown="SQLite", drivers=("sqlite3",), is_file=True)
