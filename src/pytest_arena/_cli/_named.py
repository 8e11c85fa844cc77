"""Which scenario does a word on the command line mean?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._specs import Reference
from pytest_arena.errors import ScenarioError

if TYPE_CHECKING:
    from pytest_arena._specs import Index, Scenario

__all__ = ["named"]


def named(name: str, index: Index) -> Scenario:
    """Return it, by its key, its name, or its own ``@ID``.

    Raises:
        ScenarioError: none is called so, or several are; it names the nearest, or all of them.
    """
    try:
        return index.find(Reference(name=name, place="the command line"))
    except ScenarioError as error:
        raise ScenarioError(
            error.what,
            why="it is not known which scenario is meant",
            cause=error.cause,
            fix="arena scenarios list   shows what they are called",
        ) from None
