"""Stories of suites in which something goes wrong (P7, P8), and of what a test costs (P10)."""

from __future__ import annotations

__all__ = ["BROKEN_SEED", "COST", "COST_CONFTEST", "COST_SEED", "KILLED", "LEFT", "TOLD"]

LEFT = """
import pytest
import product
from hand import add, leave_a_connection, leave_a_transaction, names, standing
# runner


async def test_p7_an_open_transaction(backend):
    await leave_a_transaction()


async def test_p7_a_connection_that_is_not_given_back(backend):
    await leave_a_connection()


async def test_p7_the_next_one_has_all(client):
    await add("mine")
    assert (await client.get("/dancers")).json() == [*standing(), "mine"]


async def test_p8_around_sqlalchemy(backend):
    product.go_around()


async def test_p8_and_swallowed(backend):
    try:
        product.go_around()
    except Exception:
        pass
"""

FOUR_PARTS = ("why:", "[A")

# What each of these tests has to end with: in which phase, and which words are said there.
TOLD: dict[str, tuple[str, tuple[str, ...]]] = {
    "test_p7_an_open_transaction": (
        "teardown",
        ("an open transaction", "hand.py:", "taken here", *FOUR_PARTS),
    ),
    "test_p7_a_connection_that_is_not_given_back": (
        "teardown",
        ("LeakWarning", "a connection that was not returned", "hand.py:", "taken here"),
    ),
    "test_p8_around_sqlalchemy": ("call", ("refused", "product.py:", *FOUR_PARTS)),
    "test_p8_and_swallowed": (
        "call",
        ("the app caught this error", "product.py:", *FOUR_PARTS),
    ),
    "test_p8_a_seed_that_fails": ("call", ("seed.py:", "no such style", *FOUR_PARTS)),
    "test_p8_and_the_next_one": ("call", ("seed.py:", "no such style", *FOUR_PARTS)),
}

# A project whose database cannot be built: each test says why.
BROKEN_SEED = {
    "seed.py": """
NAMES = []


def seed(session):
    raise LookupError("no such style")
""",
    "test_seed.py": """
import pytest
from hand import add
# runner


@pytest.fixture(scope="session", autouse=True)
def base():
    pass


async def test_p8_a_seed_that_fails(backend):
    await add("mine")


async def test_p8_and_the_next_one(backend):
    await add("mine")
""",
}

KILLED = """
import os
import signal
import pytest
from hand import add, in_the_middle, names, standing
# runner


def end():
    if "CONFORMANCE_KILL" in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)


async def test_p7_after_the_run_was_killed(client, arena):
    await add("committed")
    await in_the_middle(end)
    assert await names() == [*standing(), "committed"]
"""

# A server would compress a text that is always the same.
COST_SEED = """
from random import Random
from app import Dancer, Note
NAMES = []


def seed(session):
    session.add(Dancer(name="Sand", style="power"))
    session.add_all([Note(id=n, text=Random(n).randbytes(4000).hex()) for n in range(1, 501)])
"""

COST_CONFTEST = """

import linecache
import sys

MOVED = {}


# For each task asyncio's debug mode reads the sources of whoever made it: they are no test's cost.
def pytest_collection_finish():
    if "PYTHONASYNCIODEBUG" in os.environ:
        for module in list(sys.modules.values()):
            linecache.getlines(getattr(module, "__file__", None) or "")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    before = product.moved()
    result = yield
    MOVED[item.originalname] = [now - then for now, then in zip(product.moved(), before)]
    return result


@pytest.fixture(scope="session", autouse=True)
def base():
    pass
"""

# In this order. What counts is the bytes that are read and written from one test to the next.
COST = """
import pytest
from conftest import MOVED
from hand import add, lacks, names
# runner

MEGABYTES = 4_000_000


async def test_p10_nothing_is_built_for_who_does_not_connect(backend):
    pass


async def test_p10_the_first_one_pays_for_the_template(client):
    assert (await client.get("/dancers")).json() == ["Sand"]


async def test_p10_touches_nothing(backend):
    pass


async def test_p10_only_reads(client):
    assert (await client.get("/dancers")).json() == ["Sand"]


async def test_p10_changes_one_row(backend):
    await add("mine")


async def test_p10_touches_nothing_again(backend):
    pass


@pytest.mark.parametrize("name", [
    "nothing_is_built_for_who_does_not_connect",
    "touches_nothing",
    "only_reads",
    "touches_nothing_again",
])
async def test_p10_the_bill(backend, name):
    assert max(MOVED["test_p10_" + name]) < MEGABYTES / 20, MOVED


@lacks("reading by changes")
async def test_p10_what_is_read_for_one_row(backend):
    assert MOVED["test_p10_changes_one_row"][0] < MEGABYTES / 2, MOVED


@lacks("writing by changes")
async def test_p10_what_is_written_for_one_row(backend):
    assert MOVED["test_p10_changes_one_row"][1] < MEGABYTES / 2, MOVED
"""
