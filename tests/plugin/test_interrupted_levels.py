"""A BaseException inside the restore of a level: the next test begins with the right content."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_postgresql_story import on_postgresql

if TYPE_CHECKING:
    from tests.example import Example

CONFTEST = """
import sys
from pathlib import Path
import pytest
import pytest_arena
from app import Dancer

PACKAGE = Path(pytest_arena.__file__).parent
PLACES = tuple(str(PACKAGE / place) for place in PLACES_)


def interrupt_at(number):
    lines = iter(range(number))

    def trace(frame, event, _argument):
        if not frame.f_code.co_filename.startswith(PLACES):
            return None
        if event == "line" and next(lines, None) is None:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    sys.settrace(trace)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown():
    # pytest ends a run at Ctrl-C. Here a next test follows, as after a timeout.
    try:
        return (yield)
    except KeyboardInterrupt:
        pytest.fail("interrupted")
    finally:
        sys.settrace(None)


@pytest.fixture(scope="module")
def crew(arena):
    write(arena, ["Sand"], "Crew")


@pytest.fixture
def interrupted(crew, request):
    yield
    interrupt_at(request.node.callspec.params["number"])


def write(arena, before, name):
    with arena.session() as session:
        assert [row.name for row in session.query(Dancer).order_by(Dancer.id)] == before
        dancer = Dancer(name=name)
        session.add(dancer)
        session.commit()
        assert dancer.id == len(before) + 1
"""
TESTS = """
import pytest
from conftest import write


@pytest.mark.parametrize("number", range(0, STOP, STEP))
def test_it(interrupted, arena, number):
    write(arena, ["Sand", "Crew"], "Left")


def test_after(crew, arena):
    write(arena, ["Sand", "Crew"], "Left")
"""
LATER = """
from conftest import write


def test_after_the_fixture(arena):
    write(arena, ["Sand"], "Left")
"""
LEVELS = "_run/levels"
PLACES = {
    "sqlite": (LEVELS, "_sqlite/_copy.py", "_sqlite/_restore.py", "_sqlite/_live_file.py"),
    "postgresql": (LEVELS, "_postgresql/isolation", "_postgresql/journal"),
}
CALMLY = ("--tb=short", "-W", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.parametrize(
    "database, stop, step",
    [
        ("sqlite", 300, 30),
        pytest.param("sqlite", 300, 1, marks=pytest.mark.slow),
        pytest.param("postgresql", 160, 20),
        pytest.param("postgresql", 160, 1, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_leave(example: Example, database: str, stop: int, step: int) -> None:
    """P2: the rows of the test are gone, and those of the wider fixture are not."""
    tests = TESTS.replace("STOP", str(stop)).replace("STEP", str(step))
    conftest = CONFTEST.replace("PLACES_", repr(PLACES[database]))
    files = {"conftest": conftest, "test_it": tests, "test_later": LATER}
    if database == "postgresql":
        project = on_postgresql(example, **files)
    else:
        project = example.with_files(**files)
    run = project.run("-p", "no:randomly", *CALMLY)
    errors = len(range(0, stop, step))
    run.expect(1, passed=errors + 2, errors=errors).says("Failed: interrupted")
    run.never_says("ArenaInternalError", "is not the top one")
