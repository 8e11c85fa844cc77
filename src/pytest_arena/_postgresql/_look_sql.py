"""What does somebody ask a server, and a registry, who only looks?"""

# ruff: noqa: S608 - the name is written by literal() alone

from __future__ import annotations

from pytest_arena._postgresql._control import literal

__all__ = ["REGISTRY_BYTES", "is_there"]

REGISTRY_BYTES = "SELECT pg_database_size(current_database())"


def is_there(name: str) -> str:
    """Ask whether a database is there."""
    return f"SELECT EXISTS (SELECT FROM pg_database WHERE datname = {literal(name)})"
