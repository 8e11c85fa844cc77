"""A database that one may not copy, and a role that owns it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.example import Example
    from tests.rollback.named import Named


@pytest.fixture(name="named")
def _named(example: Example) -> Iterator[Named]:
    from tests.rollback.named import PASSWORD, Named  # noqa: PLC0415 - configured later
    from tests.servers.postgresql import create_database, run  # noqa: PLC0415 - configured later

    name = f"ci_test_{secrets.token_hex(6)}"
    create_database(name)
    run(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'", f"ALTER DATABASE {name} OWNER TO {name}")
    run(f"ALTER SCHEMA public OWNER TO {name}", database=name)
    yield Named(example, name)
    run(f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {name}")
