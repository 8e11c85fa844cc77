"""Sessions of wide fixtures, which live longer than a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import HOWS, env_of, shop

if TYPE_CHECKING:
    from tests.example import Example

LONG = """
import pytest
from sqlalchemy import func, select
from app import Order, Stock

LEFT = []

@pytest.fixture(scope="module")
def db(arena):
    with arena.session() as session:
        yield session

@pytest.fixture(scope="module")
def vase(db):
    order = Order(item="vase", status="of the module")
    db.add(order)
    db.commit()
    return order

def items(db):
    return sorted(db.scalars(select(Order.item)))

def test_1_writes(db, vase):
    LEFT.append(Order(item="lamp"))
    db.add(LEFT[0])
    db.commit()
    LEFT.append(db.get(Stock, "chair"))
    vase.status = "paid"
    db.commit()

def test_2_knows_nothing_of_that(db, vase):
    assert LEFT[0] not in db
    for order in db.identity_map.values():
        order.note = "seen"
    db.commit()
    assert items(db) == ["vase"]

def test_3_finds_the_values_of_the_module(db, vase):
    assert (vase.status, vase.note) == ("of the module", None)
    vase.status = "paid"
    db.commit()
    assert db.scalar(select(Order.status)) == "paid"

def test_4_leaves_a_change_unwritten(db, vase):
    vase.status = "never written"

def test_5_writes_nothing_of_that(db, vase):
    db.commit()
    assert db.scalar(select(Order.status)) == "of the module"

def test_6_the_same_key_is_another_row(db, vase):
    db.add(Order(item="torch"))
    db.commit()
    assert items(db) == ["torch", "vase"]
"""

WIDER = """
import pytest
from sqlalchemy import select
from app import Order

@pytest.fixture(scope="session")
def db(arena):
    with arena.session() as session:
        yield session

@pytest.fixture(scope="module", params=["vase", "lamp"])
def order(db, request):
    order = Order(item=request.param)
    db.add(order)
    db.commit()
    return order

KEPT = []

def test_rows_of_the_module(db, order):
    KEPT.append(order)
    assert [*db] == [order]
    order.note = "seen"
    db.commit()
    assert db.scalars(select(Order.item)).all() == [order.item]
"""

ASYNC = """
import pytest
import pytest_asyncio
from sqlalchemy import select
from app import Order

pytestmark = pytest.mark.asyncio(loop_scope="module")
LEFT = []

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def db(arena):
    async with arena.session() as session:
        yield session

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vase(db):
    order = Order(item="vase", status="of the module")
    db.add(order)
    await db.commit()
    return order

async def test_1_writes(db, vase):
    LEFT.append(Order(item="lamp"))
    db.add(LEFT[0])
    vase.status = "paid"
    await db.commit()

async def test_2_knows_nothing_of_that(db, vase):
    assert [*db.sync_session] == [vase]
    assert (await db.scalars(select(Order.status))).all() == ["of the module"]
"""


@pytest.mark.parametrize("how", HOWS)
def test_a_session_of_a_module_forgets_the_rows_of_a_test(example: Example, how: str) -> None:
    """It holds what it held before the test, with the values of then."""
    project = shop(example, test_long=LONG, test_async=ASYNC, test_wider=WIDER)
    project.run("-p", "no:randomly", env=env_of(how)).expect(passed=10)
