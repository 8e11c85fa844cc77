"""Plugins that do not change how often or in which order tests run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

ELSEWHERE = "`make test-full` has it, in an environment of its own"

USUAL = """
import pytest
from app import Dancer

@pytest.mark.parametrize("turn", range(2))
async def test_async(client, db_session, turn):
    db_session.add(Dancer(name="Grain"))
    assert (await client.get("/dancers")).json() == ["Sand", "Grain"]
    assert (await client.post("/dancers/Dune")).status_code == 201

@pytest.mark.parametrize("turn", range(2))
def test_sync(test_client, db_session, turn):
    db_session.add(Dancer(name="Grain"))
    assert test_client.get("/dancers").json() == ["Sand", "Grain"]
    assert test_client.post("/dancers/Dune").status_code == 201
"""

FEATURE = """
Feature: Battles

  Background:
    Given a dancer called Grain

  Scenario: A dancer enters
    When Dune enters
    Then there are 3 dancers

  Scenario: Another one
    When Gobi enters
    Then there are 3 dancers
"""

STEPS = """
import asyncio
import pytest
from pytest_bdd import given, parsers, scenarios, then, when
from app import Dancer, maker

scenarios("battles.feature")

@given(parsers.parse("a dancer called {name}"))
def a_dancer(db_session, name):
    db_session.add(Dancer(name=name))

@when(parsers.parse("{name} enters"))
def enters(test_client, name):
    assert test_client.post(f"/dancers/{name}").status_code == 201

@then(parsers.parse("there are {number:d} dancers"))
def there_are(test_client, number):
    assert len(test_client.get("/dancers").json()) == number

    async def count():
        async with maker() as session:
            return len(list(await session.scalars(Dancer.__table__.select())))

    assert asyncio.run(count()) == number  # what an async step would await
"""


def test_bdd(example: Example) -> None:
    """Steps are sync functions: with our sync fixtures, or `asyncio.run` for the app's own."""
    project = example.with_files(test_it=STEPS).with_paths({"battles.feature": FEATURE})
    run = project.run("-p", "pytest_bdd.plugin").expect(passed=2)
    run.says("2 of 2 tests had a separate database, and 2 changed it")


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("-p", "xdist.plugin", "-n2")], ids=["alone", "xdist"])
def test_cov(example: Example, more: tuple[str, ...]) -> None:
    """Every line of the app counts, async engines' greenlets and the client's thread included."""
    project = example.with_files(test_it=USUAL).with_paths(
        {".coveragerc": "[run]\nconcurrency = greenlet,thread\n"}
    )
    run = project.run(*more, "-p", "pytest_cov.plugin", "--cov=app", "--cov-report=term-missing")
    run.expect(passed=4)
    line = next(line for line in run.output.splitlines() if line.startswith("app.py"))
    assert line.split()[-1] == "100%", line


NAMES = """
import pytest

async def test_client_of_another_plugin(client):
    assert type(client).__module__ == {module!r}

async def test_by_the_facade(arena):
    async with arena.client() as client:
        assert (await client.get("/dancers")).json() == ["Sand"]
        assert (await client.post("/dancers/Dune")).status_code == 201
"""

OWN = """
import pytest

@pytest.fixture
def client(arena):
    return arena.client()
"""

SETTINGS = """
SECRET_KEY = "x"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
"""


def test_django_is_installed_and_not_configured_pitfall_083(example: Example) -> None:
    """Two plugins with a fixture `client`: pytest-django's skips; the summary says why."""
    pytest.importorskip("pytest_django", reason=ELSEWHERE)
    project = example.with_files(test_it=USUAL)
    run = project.run("-p", "pytest_django.plugin").expect(passed=2, skipped=2)
    run.says("the plugin pytest_django.fixtures replaces the fixture 'client'")
    own = project.with_files(conftest=OWN).run("-p", "pytest_django.plugin").expect(passed=4)
    own.never_says("the fixture 'client'")


def test_the_later_plugin_has_the_name_pitfall_083(example: Example) -> None:
    """`client` is whoever's comes last; the facade always gives ours."""
    pytest.importorskip("pytest_django", reason=ELSEWHERE)
    django = example.with_files(test_it=NAMES.format(module="django.test.client"), conf=SETTINGS)
    choice = ("-p", "pytest_asyncio.plugin", "-p", "pytest_arena.plugin")
    run = django.python(
        "-m", "pytest", *choice, "-p", "pytest_django.plugin", "--ds=conf", "-W", "ignore"
    )
    run.expect(passed=2)


OPTIONS = """
import pytest

@pytest.fixture
def client_options():
    return {"headers": {"x-tribe": "Sand"}}

async def test_options(arena):
    assert arena.client().headers["x-tribe"] == "Sand"
    assert arena.client(headers={"x-tribe": "Dune"}).headers["x-tribe"] == "Dune"
    assert arena.test_client().headers["x-tribe"] == "Sand"

@pytest.fixture(scope="module")
def wide(arena):
    return arena.test_client().headers.get("x-tribe")

def test_a_wide_fixture_has_no_options(wide):
    assert wide is None
"""

TASTES = """
import socket
import unittest
import pytest
from app import Dancer

async def test_subtests(client, subtests):
    for number in range(3):
        with subtests.test(number=number):
            assert (await client.post(f"/dancers/{number}")).status_code == 201
            assert number != 1
    assert len((await client.get("/dancers")).json()) == 4

class TestUnit(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        from sqlalchemy import create_engine, text
        cls.engine = create_engine("sqlite:///dev.db")
        with cls.engine.begin() as connection:
            connection.execute(text("INSERT INTO dancers (name) VALUES ('Class')"))

    def count(self):
        from sqlalchemy import text
        with self.engine.begin() as connection:
            connection.execute(text("INSERT INTO dancers (name) VALUES (hex(randomblob(8)))"))
            return connection.scalar(text("SELECT count(*) FROM dancers"))

    def test_sub(self):
        for number in range(3):
            with self.subTest(number=number):
                assert self.count() == 3 + number

    def test_next(self):
        assert self.count() == 3

def test_after(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
"""


def test_subtests_and_unittest_pitfall_080(example: Example) -> None:
    """A failed subtest fails its test; the state is the test's; `setUpClass` seeds its class."""
    pytest.importorskip("_pytest.subtests", reason="pytest has them since 9")
    project = example.with_files(test_it=TASTES, test_options=OPTIONS)
    run = project.run()
    assert run.status == 1, run.output
    run.says("SUBFAILED", "number=1")
    assert (run.outcomes["failed"], run.outcomes["passed"]) == (2, 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "plugin",
    [
        ("pytest_mock",),
        ("pytest_benchmark.plugin",),
        ("pytest_socket", "--disable-socket", "--allow-unix-socket"),
        ("pytest_order",),
        ("pytest_split.plugin", "--splits=1", "--group=1"),
        ("pytest_sugar",),
        ("pytest_html.plugin", "-p", "pytest_metadata.plugin", "--html=report.html"),
        ("pytest_aiohttp.plugin",),
        ("pytest_recording.plugin", "--block-network"),
    ],
    ids=lambda plugin: plugin[0].partition(".")[0],
)
def test_more_plugins(example: Example, plugin: tuple[str, ...]) -> None:
    """No crash, the same verdicts, the summary."""
    pytest.importorskip(plugin[0], reason=ELSEWHERE)
    run = example.with_files(test_it=USUAL).run("-p", *plugin)
    run.expect(passed=4).says("4 of 4 tests had a separate database, and 4 changed it")
