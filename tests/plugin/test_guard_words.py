"""What a refusal says, and which products are refused altogether."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.plugin.developer import small_example, untouched

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
import pytest
import fake
from app import create_engine
from pytest_arena.errors import RefusedError

SECRET = "s3cret"

def test_another_product():
    create_engine("fake://me:s3cret@db.example.com:1234/shop?password=s3cret").connect()

def test_its_creator():
    made = create_engine("fake://", creator=lambda: fake.connect(password="s3cret"))
    made.connect()  # password='s3cret'

def test_a_driver_of_its_own_language():
    made = create_engine("fake://db.example.com/shop", connect_args={"password": "s3cret"})
    made.connect()

def test_allowed():
    with create_engine("fake://me:s3cret@ok.example.com:1234/shop").connect():
        assert len(fake.reached) == 2

def test_only_what_is_allowed_was_reached():
    assert [more.get("host") for _, more in fake.reached] == [None, "ok.example.com"]
"""


@pytest.mark.slow
def test_other_products_are_refused_unless_they_are_allowed(tmp_path: Path) -> None:
    """Before the driver is asked; a creator's connection as soon as it is seen."""
    example = small_example(tmp_path, fake=FAKE, test_products=PRODUCTS)
    allowing = example.change(
        "pytest.ini", "[pytest]", "[pytest]\narena_allow = fake://ok.example.com:*"
    )
    run = allowing.run().expect(1, failed=3, passed=2)
    run.says(
        "refused: a connection to fake://db.example.com:1234/shop",
        "arena_allow = fake://db.example.com:1234/shop",
        "test_products.py:10",
        "[A202]",
    )
    messages = re.findall(r"UnknownDatabaseError: .*?\[A202\]", run.output, re.DOTALL)
    assert len(messages) == 3
    assert "s3cret" not in "".join(messages), messages


@pytest.mark.slow
def test_what_the_message_tells_to_allow_is_then_allowed(tmp_path: Path) -> None:
    """The line of the message, pasted, lets the connection through."""
    attack = "import fake\nfrom app import create_engine\ndef test_it():\n    create_engine(URL)"
    example = small_example(tmp_path, fake=FAKE, test_products=attack + ".connect().close()")
    stated = example.change("test_products.py", "URL", "'fake://h:1/d'")
    said = stated.run().expect(1, failed=1).output
    (line,) = set(re.findall(r"arena_allow = \S+", said))
    stated.change("pytest.ini", "[pytest]", f"[pytest]\n{line}").run().expect(passed=1)
    # Where nobody knows the server, a line would allow others that look alike.
    unnamed = example.change("test_products.py", "URL", "'fake://', creator=fake.connect")
    assert "arena_allow" not in unnamed.run().expect(1, failed=1).output


REFUSALS = """
import sqlite3
from app import create_engine, engine

def test_production():
    sqlite3.connect("dev.db")  # the user's line

def test_attached():
    sqlite3.connect(":memory:").execute("ATTACH 'dev.db' AS x")  # the user's line

def test_unknown():
    made = create_engine("sqlite://", creator=lambda: sqlite3.connect("else.db"))
    made.connect()  # the user's line

"""


def test_every_refusal_has_four_parts_and_the_users_line(tmp_path: Path) -> None:
    """What, why, cause with file, line and source, next; and the traceback ends there."""
    example = small_example(tmp_path, test_refusals=REFUSALS)
    with untouched(example):
        run = example.run().expect(1, failed=3)
    messages = re.findall(r"(?ms)^E +\S*Error: refused.*?\[A20\d\]", run.output)
    assert len(messages) == 3
    for message in messages:
        assert re.findall(r"(why|cause|next): ", message) == ["why", "cause", "next"]
        assert re.search(r"cause: \S*test_refusals.py:\d+ .*# the user's line", message)
        assert len(message.splitlines()) <= 12
    run.never_says("site-packages/sqlalchemy", "src/pytest_arena/_gate")
