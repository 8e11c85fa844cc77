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


@pytest.fixture
def found(arena):
    """Return the rows as the test begins, and replace them."""
    items = rows(arena)
    with arena.session() as session:
        session.execute(delete(Order))
        session.add(Order(item="mess"))
        session.commit()
    return items
