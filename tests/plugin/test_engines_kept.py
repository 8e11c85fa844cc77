"""An engine in memory for each test, which a framework's cache keeps: no test pays for others'."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

CONFIG = """
[pytest]
asyncio_default_fixture_loop_scope = function
filterwarnings = error
pythonpath = .
"""

# As FastAPI's documentation and SQLModel's have it. FastAPI keeps an override for good, and with
# it what its closure holds: a session and an engine for each test.
APP = """
from fastapi import Depends, FastAPI
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

class Base(DeclarativeBase):
    pass

class Hero(Base):
    __tablename__ = "heroes"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]

def get_session():
    raise NotImplementedError

app = FastAPI()

@app.get("/heroes")
def heroes(session: Session = Depends(get_session)):
    return [hero.name for hero in session.scalars(select(Hero))]
"""

TEST = """
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool
from app import Base, Hero, app, get_session

@pytest.fixture
def session():
    options = {{"check_same_thread": False}}
    engine = create_engine("sqlite://", connect_args=options, poolclass=StaticPool)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        yield session

@pytest.fixture
def client(session):
    app.dependency_overrides[get_session] = lambda: session
    yield TestClient(app)
    app.dependency_overrides.clear()

@pytest.mark.parametrize("turn", range({turns}))
def test_heroes(client, session, turn):
    session.add(Hero(name="Deadpond"))
    session.commit()
    assert client.get("/heroes").json() == ["Deadpond"]
"""

# What arena's own functions call in each test, themselves included, in the thread of the test.
COUNTED = """
import gc, json, os, sys, pytest

counts, kept = [], []

@pytest.fixture(autouse=True)
def keeps(session):
    kept.append(session)  # as the cache does, whichever version this is

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    calls = 0

    def count(frame, event, _argument):
        nonlocal calls
        calls += event in {"call", "c_call"} and "pytest_arena" in frame.f_code.co_filename

    gc.disable()  # what it ends is not the test's doing
    sys.setprofile(count)
    try:
        return (yield)
    finally:
        sys.setprofile(None)
        files = [os.readlink(f"/proc/self/fd/{one}") for one in os.listdir("/proc/self/fd")
                 if os.path.islink(f"/proc/self/fd/{one}")]
        counts.append((calls, sum("memory" in file for file in files)))

def pytest_sessionfinish():
    with open("counts.json", "w") as file:
        json.dump(counts, file)
"""


# By instructions such a test took 1.17 times as long as without the plugin where it was 1,003 of
# them, and 1.25 times where it was 1,107. The attributes of the app's state, its cached functions
# and writes that a fixture never commits take some 55. Each statement of sqlite3 asks whether its
# work is over: 15. The state of a test's clients and routes takes some 13.
# Shared connections, wide clients and the state of drivers take some 120 more. Mocks of Python's
# functions are looked for twice: some 30. The search for the objects of middleware and
# dependencies takes some 70.
MOST_CALLS = 1_480


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="open files are counted in /proc")
def test_tests_before_cost_nothing_pitfall_099(example: Example) -> None:
    """P10: the last test costs what the others do; no file stays open for one that is over."""
    files = {"pytest.ini": CONFIG, "app.py": APP, "test_it.py": TEST.format(turns=120)}
    replace(example, files={**files, "conftest.py": COUNTED}, env={}).run().expect(passed=120)
    counts = json.loads((example.folder / "counts.json").read_text(encoding="utf-8"))
    (early, files_then), (late, files_now) = counts[20], counts[110]
    assert late <= early * 1.1, counts
    assert early <= MOST_CALLS, counts
    assert files_now == files_then == 0, counts  # the app's first one ended with its test, too


KEPT = """
import pytest

kept = []

@pytest.fixture(autouse=True)
def keeps(session):
    kept.append(session)
"""

SEEN = (
    TEST.partition("@pytest.mark.parametrize")[0]
    + """
@pytest.mark.parametrize("turn", range(3))
def test_heroes(client, db_session, turn):
    db_session.add(Hero(name="Deadpond"))
    assert client.get("/heroes").json() == ["Deadpond"]
"""
)


@pytest.mark.parametrize("conftest", [KEPT, ""], ids=["kept", "as FastAPI has it"])
def test_the_first_one_is_each_tests_own_pitfall_099(example: Example, conftest: str) -> None:
    """P1: `db_session` means the engine of this test, and not the first one that is still there."""
    files = {"pytest.ini": CONFIG, "app.py": APP, "test_it.py": SEEN.format()}
    replace(example, files={**files, "conftest.py": conftest}, env={}).run().expect(passed=3)


OF_A_MODULE = SEEN.format().replace("@pytest.fixture\n", '@pytest.fixture(scope="module")\n')
OF_A_MODULE = OF_A_MODULE.replace("turn):", "turn):\n    db_session.query(Hero).delete()")
# The module's fixture makes the engine alone: the first test to connect makes its tables.
LATE = SEEN.format().replace(
    """@pytest.fixture
def session():
""",
    """@pytest.fixture(scope="module")
def engine():
""",
)
LATE = LATE.replace(
    "    Base.metadata.create_all(engine)\n",
    """    return engine

@pytest.fixture
def session(engine):
    Base.metadata.create_all(engine)
""",
)


@pytest.mark.slow
@pytest.mark.parametrize("conftest", [KEPT, ""], ids=["kept", "as FastAPI has it"])
@pytest.mark.parametrize(
    "text",
    [OF_A_MODULE, pytest.param(LATE, marks=pytest.mark.slow)],
    ids=["with tables", "engine alone"],
)
def test_the_first_one_is_each_modules_own_pitfall_099(
    example: Example, conftest: str, text: str
) -> None:
    """P1: so does an engine that a module's fixture made, with others beside it."""
    files = {"pytest.ini": CONFIG, "app.py": APP, "test_one.py": text, "test_two.py": text}
    run = replace(example, files={**files, "conftest.py": conftest}, env={}).run()
    run.expect(passed=6)
