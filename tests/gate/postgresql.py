"""The server of PostgreSQL's that these tests connect to."""

from __future__ import annotations

from tests.servers.postgresql import address

SERVER = address()
