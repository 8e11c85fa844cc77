"""What a build leaves in the process: the run that builds has the same state as later runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example, Run

FACTORIES = """
import random

import factory.fuzzy

from app import Dancer

own_generator = random.Random(3)


class DancerFactory(factory.Factory):
    class Meta:
        model = Dancer

    name = factory.Sequence(lambda number: f"Dancer {number}")
    id = factory.fuzzy.FuzzyInteger(1, 1000)


class ChildFactory(DancerFactory):
    pass


class UsedFactory(factory.Factory):
    class Meta:
        model = Dancer

    id = 5
    name = factory.Sequence(lambda number: f"Used {number}")
"""

SEED = """
import random

from faker import Faker

from factories import ChildFactory, DancerFactory, UsedFactory, own_generator


async def seed(session):
    random.random()
    own_generator.random()
    Faker().name()
    UsedFactory.build()
    DancerFactory.build()
    session.add(ChildFactory.build(id=1))
"""

CONFTEST = """
import random

import factory.random
from faker import Faker

from factories import UsedFactory

random.seed(1)
Faker.seed(1)
factory.random.reseed_random(1)
UsedFactory.build()
"""

TEST = """
import random

from faker import Faker

from factories import ChildFactory, DancerFactory, UsedFactory, own_generator


def test_it(test_client):
    test_client.get("/dancers")
    values = [random.random(), own_generator.random(), Faker().name()]
    for factory in (UsedFactory, DancerFactory, ChildFactory):
        dancer = factory.build()
        values += [dancer.name, dancer.id]
    print("drawn:", values)
"""


@pytest.mark.slow
def test_a_build_moves_no_generator_and_no_sequence(example: Example) -> None:
    """Of ``random``, of a module, Faker and factory_boy: a later run draws the same."""
    project = example.with_files(seed=SEED, factories=FACTORIES, conftest=CONFTEST, test_it=TEST)
    first = project.run("-s").expect(passed=1)
    first.says("template built")
    later = project.run("-s").expect(passed=1)
    later.says("template from the cache")
    assert _drawn(first) == _drawn(later)
    later.says("'Used 1'", "'Dancer 0'", "'Dancer 1'")


def _drawn(run: Run) -> str:
    _, _, drawn = run.output.partition("drawn:")
    return drawn.partition("\n")[0]


LEAVING_SEED = """
from app import CACHE, Dancer

IDS = []


async def seed(session):
    import shop.extra

    CACHE["rate"] = shop.extra.RATE
    IDS.extend([1, 2])
    session.add(Dancer(name="Sand"))
"""

READING_TEST = """
import sys

from seed import IDS


def test_it(test_client):
    test_client.get("/dancers")
    assert IDS
    assert "shop.extra" in sys.modules
"""


@pytest.mark.slow
def test_the_run_that_builds_names_what_the_build_leaves_in_modules(example: Example) -> None:
    """A test that needs it passes in this run alone. ``-q`` shows the line too."""
    app = example.files["app.py"] + "\nCACHE = {}\n"
    project = example.with_files(app=app, seed=LEAVING_SEED, test_it=READING_TEST)
    project = project.with_paths({"shop/__init__.py": "", "shop/extra.py": "RATE = 7\n"})
    run = project.run("-q").expect(passed=1)
    run.says(
        "arena: arena_seed = seed:seed: its build left traces: shop is imported; shop.extra "
        "is imported; app.CACHE has 1 item, and had 0; seed.IDS has 2 items, and had 0. A later "
        "run finds the template in the cache, so it lacks these traces, and a test that needs them "
        "fails. Next: import the module, or fill the container, in conftest.py"
    )
    project.run("-q").expect(status=1, failed=1).never_says("left traces")


@pytest.mark.slow
def test_a_build_that_leaves_nothing_in_modules_has_no_line(example: Example) -> None:
    """The app and the seed are imported at the collection, in each run."""
    test = "def test_it(test_client): test_client.get('/dancers')"
    run = example.with_files(test_it=test).run().expect(passed=1)
    run.says("template built")
    run.never_says("left traces")


MOCKED_SEED = """
import names
from app import Dancer


async def seed(session):
    session.add(Dancer(name=names.first()))
"""
BUILD_EARLY = """
import pytest


@pytest.fixture(scope="session", autouse=True)
def build(arena):
    return arena.url
"""
MOCKING_TEST = """
def test_it(monkeypatch, test_client):
    monkeypatch.setattr("names.first", lambda: "Mock")
    assert test_client.get("/dancers").json() == ["Sand"]
"""


def test_a_session_fixture_that_reads_the_url_builds_before_a_test_mocks(example: Example) -> None:
    """The seed calls a function that the first test replaces."""
    names = "def first():\n    return 'Sand'\n"
    project = example.with_files(seed=MOCKED_SEED, names=names, test_it=MOCKING_TEST)
    project.with_files(conftest=BUILD_EARLY).run().expect(passed=1)
    project.run().expect(passed=1).says("template from the cache")
