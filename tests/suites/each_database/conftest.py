"""Fixtures of a suite with its own engine. Two have the names of fixtures of pytest-arena."""

import pytest
from app_on_server import app, get_db
from fastapi.testclient import TestClient
from models import Order
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

engine = create_engine("sqlite:///test.db")


@pytest.fixture
def db_session():
    with Session(engine) as session:
        yield session


@pytest.fixture
def client(db_session):
    app.dependency_overrides[get_db] = lambda: db_session
    yield TestClient(app)
    app.dependency_overrides.clear()


@pytest.fixture(scope="module")
def of_module():
    with Session(engine) as session:
        session.add(Order(item="of the module"))
        session.commit()
