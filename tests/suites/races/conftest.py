"""-odriver=… replaces the driver in the app's URL, also by a sync one."""

import os

import pytest


def pytest_addoption(parser):
    parser.addini("driver", "the driver of the app", default="")


def pytest_configure(config):
    driver = config.getini("driver")
    if driver:
        product, _, rest = os.environ["DATABASE_URL"].partition("+")
        _, _, place = rest.partition(":")
        os.environ["DATABASE_URL"] = f"{product}+{driver}:{place}"


@pytest.fixture
def client_options():
    return {"raise_app_exceptions": False}
