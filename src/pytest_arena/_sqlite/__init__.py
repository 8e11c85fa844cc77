"""SQLite: its files, the connections to them, and how a file is restored."""
