"""A client answers 500 where the app has raised."""

import pytest


@pytest.fixture
def client_options():
    return {"raise_app_exceptions": False}
