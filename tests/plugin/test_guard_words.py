"""What a refusal says, and which products are refused altogether."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.plugin.developer import small_example

if TYPE_CHECKING:
    from pathlib import Path

# A third-party dialect, as small as it can be: its driver would reach a server.
FAKE = """
import sys
import types
from sqlalchemy.dialects import registry
from sqlalchemy.engine.default import DefaultDialect

reached = []
driver = types.ModuleType("fakedriver")
driver.paramstyle, driver.Error = "qmark", Exception

class Connection:
    def rollback(self):
        pass
    close = commit = rollback

def connect(*args, **more):
    reached.append((args, more))
    return Connection()

driver.connect = connect

class Fake(DefaultDialect):
    name, driver, supports_statement_cache = "fake", "fakedriver", True

    @classmethod
    def import_dbapi(cls):
        return driver

    def initialize(self, connection):
        pass

sys.modules["fakedriver"] = driver
registry.register("fake", "fake", "Fake")
"""

PRODUCTS = """
import fake
from app import create_engine

def test_another_product():
    create_engine("fake://me:s3cret@db.example.com:1234/shop?password=s3cret").connect()

def test_allowed():
    with create_engine("fake://me:s3cret@ok.example.com:1234/shop").connect():
        assert len(fake.reached) == 1

"""


def test_other_products_are_refused_unless_they_are_allowed(tmp_path: Path) -> None:
    """Before the driver is asked; a creator's connection as soon as it is seen."""
    example = small_example(tmp_path, fake=FAKE, test_products=PRODUCTS)
    allowing = example.change(
        "pytest.ini", "[pytest]", "[pytest]\narena_allow = fake://ok.example.com:*"
    )
    run = allowing.run().expect(1, failed=1, passed=1)
    run.says(
        "refused: a connection to fake://db.example.com:1234/shop",
        "arena_allow = fake://db.example.com:1234/shop",
        "test_products.py:6",
        "[A202]",
    )
