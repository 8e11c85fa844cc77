"""What is PostgreSQL asked before it is used, and while it is watched?"""

from __future__ import annotations

from pytest_arena._postgresql._control import identifier

__all__ = ["ABOUT_LOGIN", "OTHER_CLIENTS", "SYNCS", "let_create"]

# One row: what the server is, and what this role may do on it.
ABOUT_LOGIN = """
SELECT version(), current_setting('server_version_num'), current_setting('server_version'),
       rolcreatedb OR rolsuper, pg_is_in_recovery()
FROM pg_catalog.pg_roles WHERE rolname = current_user
"""

OTHER_CLIENTS = """
SELECT count(*) FROM pg_catalog.pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


SYNCS = "SHOW fsync"


def let_create(role: str) -> str:
    """The statement by which somebody else lets a role create databases."""
    return f"ALTER ROLE {identifier(role)} CREATEDB"
