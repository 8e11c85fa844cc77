import pytest


@pytest.fixture
def session(db_session):
    return db_session


@pytest.fixture
def client(test_client):
    return test_client
