"""From the first line of configuration until the process ends, the developer's file is safe."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.plugin.developer import change_of, small_example, untouched

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example

# Every moment writes by the app's engine, and on the way round it, each time to a file of its own;
# nobody looks at errors.
CONFTEST = """
import atexit
import os
import sqlite3
import threading
import weakref
import pytest
from sqlalchemy import create_engine, text

MOMENTS = {moments}
TABLE = "CREATE TABLE IF NOT EXISTS attacks (a)"
session_over = threading.Event()

def attack(moment):
    for way in WAYS:
        file = f"{{moment}}_{{way.__name__}}.db"
        try:
            way(file)
        except BaseException as error:
            outcome = type(error).__name__
        else:
            outcome = "done"
        os.write(2, f"{{moment}} {{way.__name__}} {{outcome}}\\n".encode())

def write(raw):
    raw.execute(TABLE)
    raw.commit()
    raw.close()

def add(engine):
    with engine.begin() as connection:
        connection.execute(text(TABLE))

def engine(file):
    add(ENGINES[file])

def new(file):
    made = create_engine(f"sqlite:///{{file}}")
    add(made)
    made.dispose()

def driver(file):
    write(sqlite3.connect(file))

def creator(file):
    add(create_engine("sqlite://", creator=lambda: sqlite3.connect(file)))

def attach(file):
    raw = sqlite3.connect(":memory:")
    try:
        raw.execute("ATTACH ? AS x", (file,))
        raw.execute("CREATE TABLE x.attacks (a)")
        raw.commit()
    finally:
        raw.close()

WAYS = (engine, new, driver, creator, attach)
FILES = [f"{{moment}}_{{way.__name__}}.db" for moment in MOMENTS for way in WAYS]
ENGINES = {{file: create_engine(f"sqlite:///{{file}}") for file in FILES}}

def outlive():
    session_over.wait(30)
    attack("thread")

class Dying:
    def __del__(self):
        attack("del")

attack("conftest")
atexit.register(attack, "atexit")
thread = threading.Thread(target=outlive)
dying = Dying()
finalizer = weakref.finalize(dying, attack, "finalize")
atexit.register(lambda: globals().pop("dying"))  # while there still is an interpreter

def pytest_configure():
    attack("configure")

def pytest_generate_tests():
    attack("generate")

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

def pytest_terminal_summary():
    attack("summary")

@pytest.hookimpl(trylast=True)
def pytest_unconfigure():
    attack("unconfigure")
    session_over.set()

@pytest.fixture(scope="session")
def wide():
    attack("setup")
    yield
    attack("teardown")
"""

DURING = (
    *("conftest", "configure", "sessionstart", "generate", "collection", "module", "setup"),
    *("test", "logreport", "teardown", "sessionfinish"),
)
AFTER = ("summary", "unconfigure", "thread", "atexit", "finalize", "del")
WAYS = ("engine", "new", "driver", "creator", "attach")
TEST = """
from conftest import attack
attack("module")

def test_attack():
    attack("test")

def test_wide(wide):
    pass
"""


def _files() -> dict[str, bool]:
    return {f"{moment}_{way}.db": False for moment in (*DURING, *AFTER) for way in WAYS}


def _example(folder: Path) -> Example:
    conftest = CONFTEST.format(moments=(*DURING, *AFTER))
    example = small_example(folder, conftest=conftest, test_attack=TEST)
    return example.with_paths({"pytest.ini": "[pytest]\npythonpath = .\n"})


def test_at_no_moment_is_a_file_of_the_developers_reached_pitfall_081_136(tmp_path: Path) -> None:
    """Import, hooks, fixtures, the end, a thread that outlives it: redirected or refused."""
    with change_of(_example(tmp_path), _files()) as changed:
        run = _example(tmp_path).run("-s")
    assert changed == [], run.output
    assert run.status == 1, run.output
    for moment in DURING:
        run.says(f"{moment} engine done", f"{moment} new done")
        for way in ("driver", "creator", "attach"):
            run.says(f"{moment} {way} ProductionDatabaseError")
    for moment in AFTER:
        run.says(f"{moment} engine AfterSessionError", f"{moment} new AfterSessionError")
        for way in ("driver", "creator", "attach"):
            run.says(f"{moment} {way} ProductionDatabaseError")
    run.says("arena: refused: a connection to")  # the last words


@pytest.mark.slow
def test_without_the_plugin_every_moment_reaches_every_file(tmp_path: Path) -> None:
    """The twin."""
    with change_of(_example(tmp_path), _files()) as changed:
        run = _example(tmp_path).run("-s", plugin=False)
    assert changed == list(_files()), run.output


# Kept by a module that outlives all others, with what it needs: no import works any more.
LATE = """
import builtins
import os
import sqlite3
from sqlalchemy import create_engine, text

class Late:
    def __init__(self):
        self.write, self.connect = os.write, sqlite3.connect
        self.statement = text("CREATE TABLE a (a)")
        names = ("late_engine", "late_raw", "late_attach")
        self.engine, *self.others = [create_engine(f"sqlite:///{name}.db") for name in names]

    def __del__(self):
        for way in (self.by_engine, self.by_driver, self.by_attach):
            try:
                way()
            except BaseException as error:
                self.write(2, f"{way.__name__}: {error!r}".encode())

    def by_engine(self):
        with self.engine.begin() as connection:
            connection.execute(self.statement)

    def by_driver(self):
        raw = self.connect("late_raw.db")
        raw.execute("CREATE TABLE a (a)")
        raw.commit()

    def by_attach(self):
        raw = self.connect(":memory:")
        raw.execute("ATTACH 'late_attach.db' AS x")
        raw.execute("CREATE TABLE x.a (a)")
        raw.commit()

builtins.late = Late()
"""


@pytest.mark.usefixtures("whole_process")
@pytest.mark.slow
def test_nothing_is_reached_while_the_interpreter_is_taken_down_pitfall_081(tmp_path: Path) -> None:
    """By a ``__del__`` after everything else; without the plugin it reaches all three."""
    files = dict.fromkeys(("late_engine.db", "late_raw.db", "late_attach.db"), False)
    example = small_example(tmp_path, conftest=LATE, test_nothing="def test_nothing(): pass")
    example = example.with_paths({"pytest.ini": "[pytest]\npythonpath = .\n"})
    with change_of(example, files) as changed:
        example.run().expect(passed=1)
    assert changed == []
    twin = replace(example, folder=tmp_path / "twin")
    with change_of(twin, files) as changed:
        twin.run(plugin=False).expect(passed=1)
    assert changed == list(files)


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
    run.says("the app caught this error of pytest-arena and continued", "test_swallowed.py:7")
    run.never_says("outside of any test: refused")
    run.never_says("arena: refused")
    assert run.output.count("swallowed_in_tear_down") == 3, run.output


OUTSIDE = {
    "swallowed at import": "try:\n    sqlite3.connect('dev.db')\nexcept Exception:\n    pass",
    "swallowed in a hook": "def pytest_collection_modifyitems():\n    try:\n"
    "        sqlite3.connect('dev.db')\n    except Exception:\n        pass",
    "swallowed in a session hook": "def pytest_sessionfinish():\n    try:\n"
    "        sqlite3.connect('dev.db')\n    except Exception:\n        pass",
}


AFTER_THE_SUMMARY = """
import sqlite3
import app

def pytest_unconfigure():
    try:
        sqlite3.connect("dev.db")
    except Exception:
        pass
"""


def test_a_refusal_after_the_summary_fails_the_run_and_is_told(tmp_path: Path) -> None:
    """In the last hook; what comes later still is told, and too late for the exit status."""
    nothing = "def test_nothing(): pass"
    example = small_example(tmp_path, conftest=AFTER_THE_SUMMARY, test_nothing=nothing)
    with untouched(example):
        run = example.run().expect(1, passed=1)
    run.says("arena: refused: a connection to", "conftest.py:7")


def test_a_refusal_outside_of_any_test_is_listed_and_fails_the_run(tmp_path: Path) -> None:
    """Also where the only worker of xdist met it."""
    conftest = "import sqlite3\nimport app\n" + "\n".join(OUTSIDE.values())
    example = small_example(tmp_path, conftest=conftest, test_nothing="def test_nothing(): pass")
    with untouched(example):
        alone = example.run().expect(1, passed=1)
        spread = example.run("-p", "xdist.plugin", "-n", "1").expect(1, passed=1)
    assert alone.output.count("outside of any test: refused: a connection to") == 3
    spread.says("outside of any test: refused: a connection to", "conftest.py:4")
