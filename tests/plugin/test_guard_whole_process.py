"""From the first line of configuration until the process ends, the developer's file is safe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.plugin.developer import assert_reached_without_the_plugin, small_example, untouched

if TYPE_CHECKING:
    from pathlib import Path

# Every moment writes through the app's engine, and on the way round it; nobody looks at errors.
CONFTEST = """
import atexit
import sqlite3
import sys
import threading
import pytest
from app import add, create_engine, engine, names

session_over = threading.Event()

def attack(moment):
    for way in (by_engine, by_new_engine, by_driver, by_attach):
        try:
            way(moment)
        except BaseException as error:
            print(f"{moment}: {way.__name__}: {type(error).__name__}", file=sys.__stdout__)
        else:
            print(f"{moment}: {way.__name__}: done", file=sys.__stdout__)

def by_engine(moment):
    add(engine, moment)

def by_new_engine(moment):
    made = create_engine("sqlite:///dev.db")
    add(made, f"{moment} new")
    made.dispose()

def by_driver(moment):
    with sqlite3.connect("dev.db") as raw:
        raw.execute("INSERT INTO dancers VALUES (?)", (f"{moment} raw",))
    raw.close()

def by_attach(moment):
    raw = sqlite3.connect(":memory:")
    try:
        raw.execute("ATTACH 'dev.db' AS x")
        raw.execute("INSERT INTO x.dancers VALUES (?)", (f"{moment} attached",))
        raw.commit()
    finally:
        raw.close()

def outlive():
    session_over.wait(30)
    attack("thread")

attack("conftest")
atexit.register(attack, "atexit")
thread = threading.Thread(target=outlive)

def pytest_configure():
    attack("configure")

def pytest_collection_modifyitems():
    attack("collection")

def pytest_runtest_logreport(report):
    if report.when == "call":
        attack("logreport")

def pytest_sessionstart():
    attack("sessionstart")
    thread.start()

def pytest_sessionfinish():
    attack("sessionfinish")

@pytest.hookimpl(trylast=True)
def pytest_unconfigure():
    attack("unconfigure")
    session_over.set()

@pytest.fixture(scope="session")
def wide():
    attack("wide set-up")
    yield
    attack("wide tear-down")
"""

MOMENTS = (
    *("conftest", "configure", "sessionstart", "collection", "module", "wide set-up", "test"),
    *("logreport", "wide tear-down", "sessionfinish"),
)
AFTER = ("unconfigure", "thread", "atexit")
TEST = """
from conftest import attack
attack("module")

def test_attack():
    attack("test")

def test_wide(wide):
    pass
"""


def test_pitfall_081_at_no_moment_is_the_developers_file_reached(tmp_path: Path) -> None:
    """Import, hooks, fixtures, the end, a thread that outlives it: redirected or refused."""
    example = small_example(tmp_path, conftest=CONFTEST, test_attack=TEST)
    with untouched(example):
        run = example.run("-s")
    assert run.status == 1, run.output
    for moment in MOMENTS:
        run.says(
            f"{moment}: by_engine: done",
            f"{moment}: by_new_engine: done",
            f"{moment}: by_driver: ProductionDatabaseError",
            f"{moment}: by_attach: ProductionDatabaseError",
        )
    for moment in AFTER:
        run.says(
            f"{moment}: by_engine: AfterSessionError",
            f"{moment}: by_new_engine: AfterSessionError",
            f"{moment}: by_driver: ProductionDatabaseError",
            f"{moment}: by_attach: ProductionDatabaseError",
        )
    run.says("arena: refused: a connection to")  # the last words


def test_without_the_plugin_every_moment_reaches_it(tmp_path: Path) -> None:
    """The twin."""
    example = small_example(tmp_path, conftest=CONFTEST, test_attack=TEST)
    assert_reached_without_the_plugin(example)


SWALLOWED = """
import sqlite3
import pytest

def swallow():
    try:
        sqlite3.connect("dev.db")
    except Exception:
        pass

def test_swallowed():
    swallow()

def test_swallowed_twice():
    swallow()
    swallow()

def test_raised():
    sqlite3.connect("dev.db")

def test_wrapped():
    try:
        sqlite3.connect("dev.db")
    except Exception as error:
        raise ValueError("the app's own") from error

def test_expected_by_pytest():
    with pytest.raises(Exception):
        sqlite3.connect("dev.db")

def test_expected(arena):
    with arena.expect_refusal():
        swallow()

@pytest.fixture
def at_the_end():
    yield
    swallow()

def test_swallowed_in_tear_down(at_the_end):
    pass

def test_nothing():
    pass
"""


def test_a_swallowed_refusal_fails_its_test_once(tmp_path: Path) -> None:
    """Swallowed: fails. Raised, or the cause of what was raised: not reported twice."""
    example = small_example(tmp_path, test_swallowed=SWALLOWED)
    with untouched(example):
        run = example.run("-rA").expect(1, failed=5, passed=3, errors=1)
    run.says("the app caught this error of pytest-arena and went on", "test_swallowed.py:7")
    run.never_says("refused outside of any test")
    run.never_says("arena: refused")
    assert run.output.count("swallowed_in_tear_down") == 3, run.output


OUTSIDE = {
    "swallowed at import": "try:\n    sqlite3.connect('dev.db')\nexcept Exception:\n    pass",
    "swallowed in a hook": "def pytest_collection_modifyitems():\n    try:\n"
    "        sqlite3.connect('dev.db')\n    except Exception:\n        pass",
    "swallowed in a session hook": "def pytest_sessionfinish():\n    try:\n"
    "        sqlite3.connect('dev.db')\n    except Exception:\n        pass",
}


def test_a_refusal_outside_of_any_test_is_listed_and_fails_the_run(tmp_path: Path) -> None:
    """Also where the only worker of xdist met it."""
    conftest = "import sqlite3\nimport app\n" + "\n".join(OUTSIDE.values())
    example = small_example(tmp_path, conftest=conftest, test_nothing="def test_nothing(): pass")
    with untouched(example):
        alone = example.run().expect(1, passed=1)
        spread = example.run("-p", "xdist.plugin", "-n", "1").expect(1, passed=1)
    assert alone.output.count("refused outside of any test: refused: a connection to") == 3
    spread.says("refused outside of any test: refused: a connection to", "conftest.py:4")
