"""A session of a module has the values from before each test."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import AT_END
from models import Order
from sqlalchemy import select


@pytest.fixture(scope="module")
def db(arena):
    with arena.session() as session:
        yield session


@pytest.fixture(scope="module")
def vase(db):
    order = Order(item="vase")
    db.add(order)
    db.commit()
    return order


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_values_of_the_module(db, vase, turn):
    assert (vase.status, vase.note) == ("new", None)
    db.add(Order(item="lamp"))
    vase.status = "paid"
    db.commit()
    assert sorted(db.scalars(select(Order.item))) == ["lamp", "vase"]
    if turn == 1:
        db.commit()


def test_a_change_that_is_never_written(db, vase):
    vase.status = "never written"


def test_a_deletion_that_is_never_written(db, vase):
    db.delete(vase)


def test_it_is_not_written_later(db, vase):
    db.commit()
    assert db.scalar(select(Order.status)) == "new"


FLUSHED = threading.Event()
END = threading.Event()


def flush_and_commit(arena):
    with arena.session() as session:
        session.add(Order(item="of a thread"))
        session.flush()
        FLUSHED.set()
        END.wait(20)
        items = session.scalars(select(Order.item)).all()
        session.commit()
        return items


@pytest.fixture(scope="class")
def items(arena):
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(flush_and_commit, arena)


class TestThread:
    def test_it_flushes(self, items):
        assert FLUSHED.wait(20)
        AT_END.append(END)

    def test_it_commits_what_it_has_flushed(self, items):
        assert "of a thread" in items.result()


@pytest.fixture(scope="class")
def adds_at_its_end(db):
    yield
    db.add(Order(item="never written"))


class TestAdds:
    def test_it(self, adds_at_its_end):
        pass


def test_an_order_of_a_tear_down_is_not_written_later(db, vase):
    db.commit()
    assert db.scalars(select(Order.item)).all() == ["vase"]
