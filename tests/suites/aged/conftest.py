"""-odriver=psycopg replaces asyncpg in the app's URL."""

import os


def pytest_addoption(parser):
    parser.addini("driver", "the driver of the app", default="asyncpg")


def pytest_configure(config):
    url = os.environ["DATABASE_URL"]
    os.environ["DATABASE_URL"] = url.replace("asyncpg", config.getini("driver"))
