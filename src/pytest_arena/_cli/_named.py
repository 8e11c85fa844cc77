"""Which scenario does a word on the command line mean?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena.scenarios.specs import Reference

if TYPE_CHECKING:
    from pytest_arena.scenarios.specs import Index, Scenario

__all__ = ["named"]


def named(name: str, index: Index, *, verb: str) -> Scenario:
    """Return it, by its key, its name, or its own ``@ID``, to a verb of ``arena scenarios``.

    Raises:
        ScenarioError: none is called so, or several are; it shows the command for the nearest, or
            for each of them.
    """
    form = f"arena scenarios {verb} {{}}"
    return index.find(Reference(name=name, place="the command line", form=form))
