"""What a driver's module is changed by: the guard, as the functions that replace its own see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import TypeAlias

    Change: TypeAlias = Callable[["Guard", ModuleType], None]

__all__ = ["Change", "Guard", "is_guarded", "marked", "owner_of"]


class Guard(Protocol):
    """Decides on each connection before a socket is opened, on each statement before it is sent."""

    def __hash__(self) -> int:
        """There is one of a process."""

    def admit(self, dialect: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Refuse a connection, or lead it, or let it be; return why, None where nobody looks."""

    def refuse_outside(self, dialect: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Refuse what would be refused when it connects."""

    def opened(self, admitted: Any, connection: Any) -> None:
        """Keep in mind why a connection was let through."""

    def refuse_beyond(self, connection: Any, statement: str | bytes) -> None:
        """Refuse a statement that reaches beyond the arena's database that it is run in."""


def is_guarded(function: Any) -> bool:
    """Whether a function of a driver's has been replaced already."""
    return hasattr(function, "arena_guards")


def marked(function: Any) -> Any:
    """Mark a function that replaces one of a driver's."""
    function.arena_guards = True
    return function


def owner_of(kind: type, name: str) -> Any:
    """Return the class that a method is written in.

    Raises:
        AttributeError: this version of the driver has no such method.
    """
    for one in kind.__mro__:
        if name in vars(one):
            return one
    raise AttributeError(name)
