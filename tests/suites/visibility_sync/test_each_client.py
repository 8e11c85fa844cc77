"""Every client sees the test's rows, and the test sees what requests committed."""

import httpx2
from models import Order
from sqlalchemy import select


def items(session):
    return list(session.scalars(select(Order.item).order_by(Order.id)))


def test_the_sync_client(test_client, db_session, arena, turn):
    db_session.add(Order(item="vase"))
    assert test_client.get("/orders").json() == ["vase"]
    assert test_client.post("/orders/chair").status_code == 201
    assert items(db_session) == ["vase", "chair"]
    assert [request.status for request in arena.requests] == [200, 201]


async def test_the_async_client(client, db_session, turn):
    db_session.add(Order(item="vase"))
    assert (await client.get("/orders")).json() == ["vase"]
    assert (await client.post("/orders/chair")).status_code == 201
    assert items(db_session) == ["vase", "chair"]


def test_the_live_server(live_server, db_session):
    db_session.add(Order(item="vase"))
    assert httpx2.post(f"{live_server.url}/orders/chair").status_code == 201
    assert items(db_session) == ["vase", "chair"]
