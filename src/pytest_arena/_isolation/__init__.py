"""How is a level of a database entered and left?"""

from __future__ import annotations

from pytest_arena._isolation._base import Held, Isolation
from pytest_arena._isolation._copy import Copy

__all__ = ["Copy", "Held", "Isolation"]
