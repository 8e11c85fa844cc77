import psycopg
import pytest
from fastapi.testclient import TestClient
from shop import Base, app, get_db
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

with psycopg.connect("postgresql://postgres@shop-db:5432/postgres", autocommit=True) as admin:
    admin.execute("DROP DATABASE IF EXISTS shop_test")
    admin.execute("CREATE DATABASE shop_test")

engine = create_engine("postgresql+psycopg://shop@shop-db:5432/shop_test")


@pytest.fixture(autouse=True)
def tables():
    Base.metadata.create_all(engine)
    yield
    Base.metadata.drop_all(engine)


@pytest.fixture
def session():
    with Session(engine) as session:
        yield session


@pytest.fixture
def client(session):
    app.dependency_overrides[get_db] = lambda: session
    yield TestClient(app)
    app.dependency_overrides.clear()
