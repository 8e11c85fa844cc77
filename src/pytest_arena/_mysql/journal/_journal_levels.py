"""A level of a journal, and the tables that it has changed."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class JournalLevel:
    """A level. ``bases`` has, for each table, the table with the rows at the level's start."""

    bases: dict[str, str]
    counters: dict[str, int]
    # Tables that had changed when a level above was entered. They are restored whole.
    replaced: set[str] = field(default_factory=set)
    # Copies of these tables, with their rows when a level above was last entered.
    copies: dict[str, str] = field(default_factory=dict)

    def replace(self, names: Iterable[str]) -> list[str]:
        """Note tables that are restored whole. Return their copies, which are outdated."""
        stale = []
        for name in names:
            self.replaced.add(name)
            copy = self.copies.pop(name, None)
            if copy is not None:
                stale.append(copy)
        return stale

    def begin_again(self) -> list[str]:
        """Note that the level's start is restored. Return the copies, which are outdated."""
        stale = [*self.copies.values()]
        self.replaced.clear()
        self.copies.clear()
        return stale

    def missing_copies(self) -> list[str]:
        """Return the changed tables without a copy."""
        return sorted(self.replaced - self.copies.keys())

    def bases_above(self) -> dict[str, str]:
        """Return the tables with the rows from the time when the journals were last emptied."""
        return {**self.bases, **self.copies}
