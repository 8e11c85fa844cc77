"""The names of the databases that a test may not reach."""

from collections.abc import Callable, Iterable


class OtherDatabases:
    """The names of the databases on the server and in the app's URLs."""

    def __init__(self) -> None:
        self._read: Callable[[], Iterable[str]] | None = None
        self._names: frozenset[str] = frozenset()

    def read_by(self, read: Callable[[], Iterable[str]]) -> None:
        """Set the function that reads the names. A run calls this when it has a server."""
        self._read = read
        self._names = frozenset()

    def has(self, name: str) -> bool:
        """Return whether a database exists, by its name in lower case.

        An unknown name makes pytest-arena read the names again. Statements seldom have one.
        """
        if name not in self._names and self._read is not None:
            self._names = frozenset(known.lower() for known in self._read())
        return name in self._names


other_databases = OtherDatabases()
