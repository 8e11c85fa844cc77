"""The server of PostgreSQL's that these tests connect to."""

from __future__ import annotations

from pytest_arena._values import Address

__all__ = ["SERVER"]

SERVER = Address("postgresql", "127.0.0.1", 5432, "postgres", "postgres")
