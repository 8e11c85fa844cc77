import pytest
from fastapi.testclient import TestClient
from shop import app, get_db
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

engine = create_engine("postgresql+psycopg://shop@shop-db:5432/shop_test")


@pytest.fixture
def session():
    with Session(engine) as session:
        yield session


@pytest.fixture
def client(session):
    app.dependency_overrides[get_db] = lambda: session
    yield TestClient(app)
    app.dependency_overrides.clear()
