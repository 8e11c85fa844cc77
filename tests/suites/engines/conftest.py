"""Engines that are made before and within tests, and what the folder has."""

import os
from pathlib import Path

import pytest
from sqlalchemy import create_engine

AT_IMPORT = os.environ["DATABASE_URL"].replace("+aiosqlite", "")
from_conftest = create_engine("sqlite:///shop.db")
Path("data").mkdir(exist_ok=True)
Path("link.sqlite").unlink(missing_ok=True)
Path("link.sqlite").symlink_to("shop.db")


@pytest.fixture
def made():
    engines = []

    def make(*args, **options):
        engines.append(create_engine(*args, **options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()
