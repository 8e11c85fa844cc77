"""`db_session` has `exec`, and reads fresh."""

from shop_app import Order
from sqlmodel import select


async def test_an_async_session(db_session, client):
    vase = Order(item="vase")
    db_session.add(vase)
    assert (await client.get("/orders")).json() == ["vase"]
    await client.post(f"/orders/{vase.id}/bowl")
    assert (await db_session.exec(select(Order))).one().item == "bowl"


def test_a_sync_session(db_session, test_client):
    vase = Order(item="vase")
    db_session.add(vase)
    assert test_client.get("/orders").json() == ["vase"]
    test_client.post(f"/orders/{vase.id}/bowl")
    assert db_session.exec(select(Order)).one().item == "bowl"
