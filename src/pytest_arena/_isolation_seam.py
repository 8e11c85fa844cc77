"""The old name of a part of the seam, for a moment."""

from pytest_arena._product import (
    Held,
    Isolation,
    held_by,
    isolation_named,
    nothing,
    to_nobody,
)

__all__ = ["Held", "Isolation", "held_by", "isolation_named", "nothing", "to_nobody"]
