"""The isolations ``undo`` and ``clone``."""

from pytest_arena._postgresql.isolation._server_isolation import ServerIsolation

__all__ = ["ServerIsolation"]
