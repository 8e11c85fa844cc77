"""All tables are truncated after each test, and the numbers of their rows begin again.

https://www.postgresql.org/docs/current/sql-truncate.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Connection, MetaData, text

from bench.ways.common import on_each_database

if TYPE_CHECKING:
    from collections.abc import Iterator


def truncate(metadata: MetaData, connection: Connection) -> None:
    """Delete all rows."""
    names = ", ".join(metadata.tables)
    connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))


@pytest.fixture(autouse=True)
def database(tables: None) -> Iterator[None]:
    """Delete all rows after the test."""
    yield
    on_each_database(truncate)
