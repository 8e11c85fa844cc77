import pytest
from shop import Item


@pytest.fixture
def sand(session):
    item = Item(name="sand", price=3)
    session.add(item)
    return item


def test_items_are_listed(sand, client):
    assert client.get("/items").json() == {"sand": 3}


def test_a_price_is_set(sand, client, session):
    assert client.put("/items/sand/5").status_code == 200
    session.refresh(sand)
    assert sand.price == 5


def test_each_test_has_its_rows(client, session):
    session.add(Item(name="dune", price=1))
    assert client.get("/items").json() == {"dune": 1}
