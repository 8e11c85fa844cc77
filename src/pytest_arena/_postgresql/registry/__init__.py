"""Which databases on a server are arena's own, whose are they, and who may drop them?"""

from __future__ import annotations

from pytest_arena._postgresql.registry._server_registry import RegistryRow, ServerRegistry, new_name

__all__ = ["RegistryRow", "ServerRegistry", "new_name"]
