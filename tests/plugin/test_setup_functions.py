"""Messages name the set-up functions of modules and classes, and the mode of SQLite's log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.developer import small_example

if TYPE_CHECKING:
    from pathlib import Path

SETUPS = """
import unittest
from app import add, engine


def setup_module():
    add(engine, "Module")


class TestPlain:
    @classmethod
    def setup_class(cls):
        add(engine, "Class")

    def test_it(self):
        assert 0


class TestUnit(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        add(engine, "Unit")

    def test_it(self):
        assert 0
"""


def test_a_set_up_function_has_its_name_in_the_story(tmp_path: Path) -> None:
    """Not the name of the fixture that pytest makes of it."""
    example = small_example(tmp_path, test_it=SETUPS)
    run = example.run("-W", "ignore").expect(1, failed=2)
    run.says(
        "setup_module of test_it.py dancers +1",
        "setup_class of test_it.py::TestPlain dancers +1",
        "setUpClass of test_it.py::TestUnit dancers +1",
    )
    run.never_says("_xunit_", "_unittest_")


LOG_MODE = """
from app import add, engine
from sqlalchemy import event


@event.listens_for(engine, "connect")
def use_log(connection, _):
    connection.execute("PRAGMA journal_mode=wal")


def test_it():
    add(engine, "Sand")


def test_leaves_the_mode():
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=delete")
"""


@pytest.mark.slow
def test_the_mode_of_the_log_is_for_a_sole_connection(tmp_path: Path) -> None:
    """The other connection is pytest-arena's, not a result of the app."""
    run = (
        small_example(tmp_path, test_it=LOG_MODE).run("-W", "ignore").expect(1, passed=1, failed=1)
    )
    run.says("SQLite changes the mode WAL only if no other connection is open", "has one open")
    run.says("next: set journal_mode in a `connect` listener of the engine")
    run.never_says("a result that was not read to its end")
