import pytest
from fastapi.testclient import TestClient
from shop import Base, app, get_db
from sqlalchemy import create_engine, delete
from sqlalchemy.orm import sessionmaker

engine = create_engine("sqlite:///./test.db", connect_args={"check_same_thread": False})
TestingSession = sessionmaker(bind=engine)
Base.metadata.create_all(bind=engine)


def override_get_db():
    with TestingSession() as session:
        yield session


app.dependency_overrides[get_db] = override_get_db


@pytest.fixture
def session():
    with TestingSession() as session:
        yield session
        for table in Base.metadata.sorted_tables:
            session.execute(delete(table))
        session.commit()


@pytest.fixture
def client():
    return TestClient(app)
