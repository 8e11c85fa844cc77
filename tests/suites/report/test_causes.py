"""A report names the cause of an error, and none that only looks like it."""

import pytest
from async_app import app
from fastapi import Depends
from models import Base, Order
from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column, relationship


class Parcel(Base):
    __tablename__ = "parcels"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))


Order.parcels = relationship(Parcel)


def current_order(): ...


@app.post("/parcels")
async def pack(order=Depends(current_order)):
    order.parcels.append(Parcel())


@pytest.mark.expect("AssertionError", at="assert")
async def test_an_object_that_the_app_added_by_a_cascade(client, db_session):
    order = Order(item="vase", parcels=[])
    db_session.add(order)
    app.dependency_overrides[current_order] = lambda: order
    await client.post("/parcels")
    assert False
