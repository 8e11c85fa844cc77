"""The recipe of SQLAlchemy's documentation: a suite that undoes its tests itself."""

import os

import pytest
from models import Order, sync_url
from sqlalchemy import create_engine, event, select
from sqlalchemy.orm import Session


@pytest.fixture(scope="module")
def engine():
    engine = create_engine(sync_url(os.environ["DATABASE_URL"]))
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", lambda c, _: setattr(c, "isolation_level", None))
        event.listen(engine, "begin", lambda c: c.exec_driver_sql("BEGIN"))
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def connection(engine):
    with engine.connect() as connection:
        yield connection


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_each_test_is_a_transaction(connection, turn):
    transaction = connection.begin()
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        session.add(Order(item="mine"))
        session.commit()
        assert list(session.scalars(select(Order.item))) == ["mine"]
    transaction.rollback()
