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


@pytest.fixture(scope="class")
def of_a_thread(arena):
    """Let a thread flush in the first test, and commit at the end of it."""
    ends = [threading.Event(), threading.Event()]
    with ThreadPoolExecutor(1) as pool:
        yield ends, pool.submit(flush_and_commit, arena, *ends)


def flush_and_commit(arena, has_flushed, end):
    with arena.session() as session:
        session.add(Order(item="of a thread"))
        session.flush()
        has_flushed.set()
        end.wait(20)
        items = session.scalars(select(Order.item)).all()
        session.commit()
        return items


class TestThread:
    def test_it_has_flushed(self, of_a_thread):
        [has_flushed, end], _ = of_a_thread
        assert has_flushed.wait(20)
        AT_END.append(end)

    def test_its_commit_has_its_rows(self, of_a_thread):
        assert "of a thread" in of_a_thread[1].result()


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
