"""Which live databases did dead runs leave, and which of them does this run go on with?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._postgresql import _taking_sql as sql

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._postgresql.registry._copying import Copying
    from pytest_arena._postgresql.registry._run import Registry

__all__ = ["Taking"]


class Taking:
    """Takes over live databases of dead runs, one at a time and from whoever else would.

    ``freeze`` keeps everybody out of a database, and ends who is in it.
    """

    def __init__(
        self, registry: Registry, copying: Copying, *, freeze: Callable[[str], None]
    ) -> None:
        self._registry, self._copying, self._freeze = registry, copying, freeze
        self.left = 0  # how many there were, at the beginning of the run
        self._has_asked = False

    def claim(self, template: str) -> str:
        """Have one for this run alone, and return its name; "" where there is none.

        Raises:
            Failed: the server refuses.
        """
        if not self.left:
            return ""
        line = self._registry.line
        with self._registry.writes.one():
            [(name,)] = line.rows(sql.take_over(template, self._registry.run))
        if name is None:
            return ""
        self._registry.has(name, "live")
        return str(name)

    def moved(self, name: str, template: str, called: str) -> bool:
        """Whether one that was claimed can be used; if so, nobody is in it, and it is ``called``.

        Raises:
            Failed: the server refuses.
            ArenaError: somebody does not end.
        """
        if not self._is_fit(name, template):
            return False
        with self._registry.writes.one():
            self._registry.line.run(sql.move(name, called))
        self._registry.has(called, "live")
        self._registry.let_go(name)
        return True

    def _is_fit(self, name: str, template: str) -> bool:
        line = self._registry.line
        if line.rows(sql.is_in_the_way(name, template)) != [(False,)]:
            return False
        if not self._copying.is_set_like(name, template, line):
            return False
        self._freeze(name)
        return True

    def has_more(self, *, besides: bool) -> bool:
        """Whether there was more than what was taken, the first time that somebody asked."""
        is_first, self._has_asked = not self._has_asked, True
        return is_first and self.left > besides

    def offer(self, name: str, template: str) -> None:
        """Let a later run have a live database, should this one be killed."""
        with self._registry.writes.one():
            self._registry.line.run(sql.offer(name, template))

    def withdraw(self, name: str) -> None:
        """Let nobody have it any more."""
        with self._registry.writes.one():
            self._registry.line.run(sql.withdraw(name))
