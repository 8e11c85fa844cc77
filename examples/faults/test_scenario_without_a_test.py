"""A specification has two scenarios, and only one of them has a test: nobody notices."""

import pytest
from starlette.testclient import TestClient


@pytest.mark.scenario("A dancer is registered")
def test_dancer_is_registered(test_client: TestClient) -> None:
    """The registered dancer is listed."""
    assert test_client.post("/dancers/Ruby").status_code == 201
    assert "Ruby" in test_client.get("/dancers").json()
