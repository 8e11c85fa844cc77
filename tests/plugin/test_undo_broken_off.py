"""``undo``: whoever breaks into the arena's own work, the next test begins as the first one did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.private_server import PrivateServer, on_postgresql, private_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.example import Example

# By no signal: that is made to wait, and here is what happens to one who does not.
CONFTEST = """
import sys
from pathlib import Path
import pytest
import pytest_arena
from sqlalchemy import text
from app import Dancer

PACKAGE = Path(pytest_arena.__file__).parent
SERVER = [f"_postgresql/{name}" for name in ("isolation", "journal", "servers", "_control.py")]
PLACES = tuple(str(PACKAGE / name) for name in ("_run/levels/_levels.py", *SERVER))
assert all(Path(place).exists() for place in PLACES), PLACES


def break_in_at(number, raised):
    calls = iter(range(number))

    def called(frame, event, _argument):
        code = frame.f_code
        is_meant = event == "call" and code.co_filename.startswith(PLACES)
        is_meant = is_meant and "<" not in code.co_name
        if is_meant and next(calls, None) is None:
            sys.setprofile(None)
            raise raised

    sys.setprofile(called)


A_TIMEOUT = pytest.fail.Exception("a timeout", pytrace=False)
RAISED = A_TIMEOUT


@pytest.fixture(scope="module")
def crew(arena):
    with arena.session() as session:
        session.add(Dancer(name="Crew"))
        session.commit()
    yield
    sys.setprofile(None)


@pytest.fixture
def broken(crew):
    sys.setprofile(None)
    struck = []
    yield struck.append
    break_in_at(struck[0], RAISED)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    entering = item.callspec.params.get("entering") if hasattr(item, "callspec") else None
    if entering is not None:
        break_in_at(entering, RAISED)


def write(arena, *, alter=False):
    with arena.session() as session:
        names = session.scalars(text("SELECT name FROM dancers ORDER BY id")).all()
        assert names == ["Sand", "Crew"]
        assert session.scalar(text("SELECT last_value FROM dancers_id_seq")) == 2
        session.add(Dancer(name="Left"))
        if alter:
            session.execute(text("CREATE TABLE left_too (a int)"))
        session.commit()
"""
LEAVING = """
import pytest
from conftest import write

NUMBERS = range(0, STOP, STEP)


@pytest.mark.parametrize("number", NUMBERS)
def test_it(broken, arena, number):
    write(arena, alter=ALTER)
    broken(number)


def test_after(crew, arena):
    write(arena)
"""
ENTERING = """
import sys
import pytest
from conftest import write


@pytest.fixture(autouse=True)
def own():
    sys.setprofile(None)


@pytest.mark.parametrize("entering", [at for number in range(12) for at in (None, number)])
def test_it(crew, arena, entering):
    write(arena)
"""
LATER = """
from app import Dancer


def test_after_the_fixture(arena):
    with arena.session() as session:
        assert session.query(Dancer.name).all() == [("Sand",)]
"""
# Whoever is broken off while it connects has no hand on the connection.
CALMLY = ("--tb=short", "-W", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    """One for all tests here."""
    with private_server() as found:
        yield found


def suite(example: Example, text: str, **values: object) -> Example:
    """A project with tests, in which names are values."""
    for name, value in values.items():
        text = text.replace(name, repr(value))
    return on_postgresql(example, conftest=CONFTEST, test_it=text, test_later=LATER)


@pytest.mark.slow
@pytest.mark.parametrize("alter,numbers", [("", (45, 5)), ("alter", (125, 25))])
def test_a_level_goes_wherever_its_leaving_is_broken_off_pitfall_070(
    example: Example, server: PrivateServer, alter: str, numbers: tuple[int, int]
) -> None:
    """P2, P7: at its beginning, in the middle and at its end, in place and by a copy."""
    stop, step = numbers
    project = suite(example, LEAVING, ALTER=bool(alter), STOP=stop, STEP=step)
    run = project.run(*CALMLY, env={**server.env, "PYTEST_ADDOPTS": "--arena-isolation=undo"})
    errors = len(range(0, stop, step))
    run.expect(1, passed=errors + 2, errors=errors).says("a timeout")
    run.never_says("is not the top one", "ArenaInternalError")
    server.check_clean(run.output)


@pytest.mark.slow
def test_a_level_that_was_entered_by_halves_pitfall_070(
    example: Example, server: PrivateServer
) -> None:
    """Nobody knows of it, so it is gone at once."""
    project = suite(example, ENTERING)
    run = project.run(*CALMLY, env={**server.env, "PYTEST_ADDOPTS": "--arena-isolation=undo"})
    run.expect(1, passed=13, errors=12).never_says("ArenaInternalError")
    server.check_clean(run.output)


@pytest.mark.slow
def test_ctrl_c_ends_the_run_in_order_pitfall_070(example: Example, server: PrivateServer) -> None:
    """What the test and the wider fixture have written is gone, and so are the databases."""
    project = suite(example, LEAVING, ALTER=False, STOP=26, STEP=25)
    project = project.change("conftest.py", "RAISED = A_TIMEOUT", "RAISED = KeyboardInterrupt()")
    run = project.run(*CALMLY, env={**server.env, "PYTEST_ADDOPTS": "--arena-isolation=undo"})
    run.expect(2, passed=1).says("KeyboardInterrupt").never_says("ArenaInternalError")
    server.check_clean(run.output)
