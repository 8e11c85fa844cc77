"""What is still there of what is known as long as somebody else has it?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from weakref import WeakKeyDictionary

__all__ = ["alive"]

_Key = TypeVar("_Key")


def alive(known: WeakKeyDictionary[_Key, Any]) -> list[_Key]:
    """Return the keys, while other threads add some and take some away.

    ``keyrefs`` reads them in one step. Whatever else walks such a dictionary runs Python between
    two of them, and raises where it has changed by then.
    """
    return [key for reference in known.keyrefs() if (key := reference()) is not None]
