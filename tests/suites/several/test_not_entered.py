"""A test that cannot have its level on the second database leaves no trace in the first one."""

import threading
import time

import pytest
from sqlalchemy import func, select
from two_databases import Order, analytics_sync, new_session


@pytest.fixture(scope="module")
def lock():
    def hold():
        with analytics_sync.connect() as connection:
            connection.exec_driver_sql("BEGIN EXCLUSIVE")
            begun.set()
            time.sleep(1.6)  # pytest-arena waits for a second
            connection.rollback()

    with new_session() as session:
        session.add(Order(id=3))
        session.commit()
    begun = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait()
    yield
    thread.join()


@pytest.mark.arena(seed=False)
@pytest.mark.expect("A501", at="with analytics_sync.connect() as connection:")
def test_the_second_is_locked(lock):
    pass


def test_the_first_has_its_rows(lock):
    with new_session() as session:
        assert session.scalar(select(func.count(Order.id))) == 3
