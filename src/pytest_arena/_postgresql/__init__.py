"""All of PostgreSQL: its drivers, its servers, and how a database on one is brought back."""

from __future__ import annotations

from pytest_arena._postgresql._connections import PostgreSQLConnections

__all__ = ["connections"]

connections = PostgreSQLConnections()
