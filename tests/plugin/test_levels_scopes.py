"""P6: what a wide fixture wrote is there exactly as long as the fixture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

# The oracle: tests assert the exact rows at their start, then make a mess of them.
CONFTEST = """
import asyncio
import pytest
from sqlalchemy import NullPool, create_engine, delete, insert, select, text
from app import Dancer, engine, maker


def rows(arena):
    twin = create_engine(arena.url.replace("+aiosqlite", ""), poolclass=NullPool)
    with twin.connect() as connection:
        return list(connection.scalars(text("SELECT name FROM dancers ORDER BY id")))


@pytest.fixture
def found(arena):
    return lambda: rows(arena)


@pytest.fixture
def mess(arena):
    def mess():
        twin = create_engine(arena.url.replace("+aiosqlite", ""), poolclass=NullPool)
        with twin.begin() as connection:
            connection.execute(delete(Dancer))
            connection.execute(insert(Dancer).values(name="Mess"))
    return mess


async def add(name):
    async with maker() as session:
        session.add(Dancer(name=name))
        await session.commit()


async def remove(name):
    async with maker() as session:
        await session.execute(delete(Dancer).where(Dancer.name == name))
        await session.commit()
"""

ASYNC = """
import pytest
import pytest_asyncio
from conftest import add, remove
from app import Dancer

{marker}

@{fixture}(scope="session")
async def in_session(arena):
    await add("session")
    yield
    await add("end of session")

@{fixture}(scope="module")
async def in_module(arena, in_session):
    async with arena.session() as session:
        session.add(Dancer(name="module"))
        await session.commit()

@{fixture}(scope="class")
async def in_class(arena, in_module):
    client = arena.new_client()
    assert (await client.post("/dancers/class")).status_code == 201
    yield
    await remove("class")
    await add("end of class")

@pytest.fixture(scope="class")
def clean():  # writes nothing
    yield

@pytest.mark.parametrize("turn", [1, 2])
async def test_session(in_session, found, mess, turn):
    assert found() == ["Sand", "session"]
    mess()

class TestOne:
    @pytest.mark.parametrize("turn", [1, 2])
    async def test_class(self, in_class, clean, found, mess, turn):
        assert found() == ["Sand", "session", "module", "class"]
        mess()

class TestTwo:
    async def test_class_again(self, in_class, found, mess):
        assert found() == ["Sand", "session", "module", "class"]
        mess()

    async def test_and_through_the_app(self, in_class, client):
        assert len((await client.get("/dancers")).json()) == 4
        await client.post("/dancers/more")

async def test_module_after_classes(in_module, found, mess):
    assert found() == ["Sand", "session", "module"]
    mess()
"""

PLAIN = """
import unittest
import pytest
from conftest import rows
from app import Dancer

def write(arena, name):
    with arena.session() as session:
        session.add(Dancer(name=name))
        session.commit()

ARENA = []

@pytest.fixture(scope="module", autouse=True)
def automatic(arena):
    ARENA[:] = [arena]
    write(arena, "autouse")
    yield
    write(arena, "end of autouse")

@pytest.fixture(scope="module", params=["a", "b"])
def parametrized(arena, request):
    write(arena, request.param)
    yield request.param

def test_automatic(found, mess):
    assert found() == ["Sand", "autouse"]
    mess()

class TestXunit:
    @classmethod
    def setup_class(cls):
        write(ARENA[0], "setup_class")

    def setup_method(self):
        write(ARENA[0], "setup_method")

    def teardown_method(self):
        write(ARENA[0], "teardown_method")

    @classmethod
    def teardown_class(cls):
        write(ARENA[0], "teardown_class")

    @pytest.mark.parametrize("turn", [1, 2])
    def test_xunit(self, found, mess, turn):
        assert found() == ["Sand", "autouse", "setup_class", "setup_method"]
        mess()

class TestUnit(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        write(ARENA[0], "setUpClass")

    def setUp(self):
        write(ARENA[0], "setUp")

    def check(self):
        assert rows(ARENA[0]) == ["Sand", "autouse", "setUpClass", "setUp"]
        write(ARENA[0], "test")

    test_1 = test_2 = check

    @classmethod
    def tearDownClass(cls):
        write(ARENA[0], "tearDownClass")

class TestIsolatedAsyncio(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        write(ARENA[0], "setUpClass")

    async def asyncSetUp(self):
        from conftest import add
        await add("asyncSetUp")

    async def check(self):
        from conftest import add
        assert rows(ARENA[0]) == ["Sand", "autouse", "setUpClass", "asyncSetUp"]
        await add("test")

    test_1 = test_2 = check

def test_automatic_again(found):
    assert found() == ["Sand", "autouse"]

# Alive until the module ends, as pytest has it: so these come last.
@pytest.mark.parametrize("turn", [1, 2])
def test_parametrized(parametrized, found, mess, turn):
    assert found() == ["Sand", "autouse", parametrized]
    mess()
"""

SETUP_MODULE = """
from app import engine, Dancer
from sqlalchemy import create_engine, insert
from conftest import add
import asyncio

def setup_module():
    asyncio.run(add("setup_module"))

def teardown_module():
    asyncio.run(add("teardown_module"))

def test_1(found, mess):
    assert found() == ["Sand", "setup_module"]
    mess()

test_2 = test_1
"""

AFTER = """
def test_nothing_is_left(found):
    assert found() == ["Sand"]
"""


def run_modes(example: Example) -> Example:
    """The same tests for both modes of pytest-asyncio."""
    strict = "import pytest_asyncio\npytestmark = pytest.mark.asyncio"
    return example.with_paths({"conftest.py": CONFTEST}).with_files(
        test_a_auto=ASYNC.format(marker="", fixture="pytest.fixture"),
        test_b_strict=ASYNC.format(marker=strict, fixture="pytest_asyncio.fixture"),
    )


def test_levels_of_every_scope_live_as_long_as_their_fixture(example: Example) -> None:
    """P6 in plain, async, unittest and xunit tests, with session loops, in auto and strict mode."""
    config = (
        "asyncio_default_fixture_loop_scope = session\nasyncio_default_test_loop_scope = session"
    )
    base = run_modes(example).change(
        "pytest.ini", "asyncio_default_fixture_loop_scope = function", config
    )
    package = ASYNC.format(marker="", fixture="pytest.fixture").replace(
        '="session")', '="package")'
    )
    files = {"test_c_plain": PLAIN, "test_d_module": SETUP_MODULE, "test_e_package": package}
    project = base.with_files(**files, test_z=AFTER)
    # What session fixtures wrote stands until the end, so that theirs is the last module.
    first = ("test_c_plain.py", "test_d_module.py", "test_z.py")
    project.run(*first, "test_e_package.py").expect(passed=22)
    project.run("test_z.py", "test_b_strict.py").expect(passed=8)
    project.run("test_z.py", "test_a_auto.py").expect(passed=8)


@pytest.mark.slow
def test_levels_under_anyio(example: Example) -> None:
    """P6 with anyio's runner, whose wide fixtures hold a loop for several tests."""
    marker = (
        "pytestmark = pytest.mark.anyio\n"
        "@pytest.fixture(scope='session')\ndef anyio_backend():\n    return 'asyncio'\n"
    )
    text = ASYNC.format(marker=marker, fixture="pytest.fixture")
    text = text.replace("(arena)", "(arena, anyio_backend)")
    off = example.change("pytest.ini", "asyncio_mode = auto", "asyncio_mode = strict")
    run = off.with_paths({"conftest.py": CONFTEST}).with_files(test_anyio=text)
    run.run("-p", "anyio").expect(passed=7)


SCOPE_OF_PARAMETRIZE = """
import pytest


@pytest.fixture
def named(arena, request):
    with arena.session() as session:
        session.add(Dancer(name=request.param))
        session.commit()


def found(arena):
    with arena.session() as session:
        return list(session.scalars(select(Dancer.name)))


@pytest.mark.parametrize("named", ["Ada", "Bob"], indirect=True, scope="class")
class TestClass:
    def test_1(self, named, arena):
        assert found(arena)[1:] in (["Ada"], ["Bob"])

    def test_2(self, named, arena):
        assert found(arena)[1:] in (["Ada"], ["Bob"])


def pytest_generate_tests(metafunc):
    if metafunc.function is test_3:
        metafunc.parametrize("named", ["Eve"], indirect=True, scope="module")


def test_3(named, arena):
    assert found(arena) == ["Sand", "Eve"]
"""


@pytest.mark.slow
def test_a_scope_that_parametrize_sets_overrides_that_of_the_fixture(example: Example) -> None:
    """As in pytest: the rows live as long as the fixture."""
    imports = "from app import Dancer\nfrom sqlalchemy import select\n"
    project = example.with_files(test_scopes=imports + SCOPE_OF_PARAMETRIZE)
    project.run("-p", "no:randomly").expect(passed=5)
