"""Each test asserts the exact rows at its start, and makes a mess of them."""

import pytest
from models import Order
from sqlalchemy import delete, select


def write(arena, item):
    with arena.session() as session:
        session.add(Order(item=item))
        session.commit()


def rows(arena):
    with arena.session() as session:
        return list(session.scalars(select(Order.item).order_by(Order.id)))


AT_END = []  # events that the end of a level sets, before its rows are restored


def pytest_arena_leave(level):
    while AT_END:
        AT_END.pop().set()


@pytest.fixture
def found(arena):
    """Return the rows as the test begins, and replace them."""
    items = rows(arena)
    with arena.session() as session:
        session.execute(delete(Order))
        session.add(Order(item="mess"))
        session.commit()
    return items
