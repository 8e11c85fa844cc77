"""Before and after each test, the database is the same: rows, numbers and schema."""

import pytest
from async_app import engine
from models import Base, sync_url
from sqlalchemy import create_engine, inspect, text


def content(url):
    """Return all rows and columns, read on a connection of another engine."""
    other = create_engine(sync_url(url))
    found = {}
    with other.connect() as connection:
        for name in inspect(connection).get_table_names():
            rows = connection.execute(text(f"SELECT * FROM {name}"))
            found[name] = (sorted(rows.keys()), sorted(map(tuple, rows)))
    other.dispose()
    return found


SEEDED = {
    "orders": (sorted(Base.metadata.tables["orders"].columns.keys()), []),
    "stock": (["amount", "item"], [("chair", 5), ("lamp", 2)]),
    "visits": (["id", "path"], []),
}


@pytest.fixture(autouse=True)
def same_content(arena, request):
    if not request.node.get_closest_marker("arena"):
        assert content(arena.url) == SEEDED


@pytest.fixture
def dialect():
    return engine.dialect.name


INTERRUPTIONS = []


@pytest.fixture
def interruptions():
    return INTERRUPTIONS


def pytest_arena_leave(level):
    """Raise at the end of a test what is no Exception, as a time-out does."""
    if INTERRUPTIONS and level.is_test:
        raise INTERRUPTIONS.pop()
