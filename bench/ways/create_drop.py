"""`create_all` before each test and `drop_all` after it, as SQLModel's tutorial and its readers do.

https://sqlmodel.tiangolo.com/tutorial/fastapi/tests/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import MetaData

from bench.ways.common import forget_connections, on_each_database

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def database() -> Iterator[None]:
    """Create all tables, and drop them."""
    on_each_database(MetaData.create_all)
    yield
    forget_connections()
    on_each_database(MetaData.drop_all)
