"""Fault 5: the specification has two scenarios, and one of them has no test."""

import pytest
from starlette.testclient import TestClient


@pytest.mark.scenario("A dancer is registered")
def test_a_dancer_is_registered(test_client: TestClient) -> None:
    """The list contains the new dancer."""
    assert test_client.post("/dancers/Ruby").status_code == 201
    assert "Ruby" in test_client.get("/dancers").json()
