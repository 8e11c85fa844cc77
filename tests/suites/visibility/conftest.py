import pytest
from async_app import items
from models import Order


@pytest.fixture
async def vase(db_session):
    vase = Order(item="vase")
    db_session.add(vase)
    await db_session.commit()
    yield vase
    assert "vase" in await items(db_session)
    db_session.add(Order(item="in the tear-down"))
    await db_session.commit()
