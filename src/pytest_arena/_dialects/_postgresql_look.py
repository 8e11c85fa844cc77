"""What does somebody ask a registry who only looks?"""

from __future__ import annotations

__all__ = ["REGISTRY_BYTES"]

REGISTRY_BYTES = "SELECT pg_database_size(current_database())"
