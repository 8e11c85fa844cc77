"""How is a level of a database entered and left?"""

from __future__ import annotations

from pytest_arena._isolation._base import Held, Isolation
from pytest_arena._isolation._copy import Copy

__all__ = ["ISOLATIONS", "Copy", "Held", "Isolation"]

# By the values of ``arena_isolation``; a new variant is one more line.
ISOLATIONS: dict[str, type[Isolation]] = {"auto": Copy, "copy": Copy}
