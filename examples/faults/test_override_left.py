"""A test overrides a dependency and does not clear it: all later tests have it."""

import pytest
from starlette.testclient import TestClient

from app import app, get_role


@pytest.mark.parametrize("time", ["first time", "second time"])
def test_staff_room_opens_for_the_staff(test_client: TestClient, time: str) -> None:
    """A guest stays outside, whatever an earlier test has overridden."""
    assert test_client.get("/staff").status_code == 403

    app.dependency_overrides[get_role] = lambda: "staff"

    assert test_client.get("/staff").status_code == 200
