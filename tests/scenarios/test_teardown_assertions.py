"""Assertions in the tear-down of a fixture: the test is red if they fail, so they are evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scenarios.proving import told
from tests.scenarios.seen import seeing

if TYPE_CHECKING:
    from tests.scenarios.proving import Told

CONFTEST = """
import pytest

@pytest.fixture
async def still_there(client):
    yield
    assert "Storm" in (await client.get("/dancers")).json()

@pytest.fixture
def finalized(request):
    answers = []
    def check():
        assert "Storm" in answers[0].json()
    request.addfinalizer(check)
    return answers

@pytest.fixture(autouse=True)
def no_errors(caplog):
    yield
    assert not [one for one in caplog.records if one.levelname == "ERROR"]
"""

TESTS = """
import os
import unittest
from app import Dancer

@pytest.fixture
def storm(db_session):
    db_session.add(Dancer(name="Storm"))

@pytest.fixture
def answers():
    answers = []
    yield answers
    assert ["Storm" in one.json() for one in answers] == [True]

@proves
async def test_of_its_file(client, storm, answers):
    answers.append(await client.get("/dancers"))

@pytest.fixture
def collected():
    received = []
    yield received
    assert [answer.status_code for answer in received] == [200]
    assert all("Storm" in answer.json() for answer in received)

@proves
async def test_of_another_name(client, storm, collected):
    collected.append(await client.get("/dancers"))

class TestValue:
    __slots__ = ()

@pytest.fixture
def answer_beside_slots(storm):
    value = TestValue()
    answers = []
    yield answers
    assert value and "Storm" in answers[0].json()

@proves
async def test_beside_slots(client, answer_beside_slots):
    answer_beside_slots.append(await client.get("/dancers"))

@proves
async def test_of_the_conftest(client, storm, still_there):
    await client.get("/dancers")

@proves
async def test_by_a_finalizer(client, storm, finalized):
    finalized.append(await client.get("/dancers"))

class TestMethods:
    def teardown_method(self):
        assert "Storm" in self.answer.json()

    @proves
    async def test_by_a_teardown_method(self, client, storm):
        self.answer = await client.get("/dancers")

class TestOfUnittest(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def prepare(self, storm, arena):
        self.client = arena.test_client()

    def setUp(self):
        self.assertTrue(self.client)

    def tearDown(self):
        self.assertIn("Storm", self.answer.json())

    @proves
    def test_by_unittest(self):
        self.answer = self.client.get("/dancers")

@proves
async def test_by_no_fixture_that_it_requests(client, storm):
    await client.get("/dancers")

@pytest.fixture
def idle():
    yield
    assert True

@proves
async def test_by_a_constant(client, storm, idle):
    await client.get("/dancers")

@pytest.fixture
async def cleaning(client):
    yield
    assert (await client.post("/dancers/Crumbs")).status_code == 201

@proves
async def test_by_its_cleaning(client, storm, cleaning):
    await client.get("/dancers")

@pytest.fixture
def variable(monkeypatch):
    monkeypatch.setenv("CREW", "Ata")
    yield
    assert os.environ["CREW"] == "Ata"

@proves
async def test_by_something_else(client, storm, variable):
    await client.get("/dancers")

@pytest.fixture
async def deleted(db_session):
    dancer = Dancer(id=77, name="Storm")
    db_session.add(dancer)
    await db_session.commit()
    yield
    await db_session.delete(dancer)
    await db_session.commit()
    assert await db_session.get(Dancer, 77) is None

@proves
async def test_by_a_row_that_it_deletes(client, deleted):
    await client.get("/dancers")

@pytest.fixture
async def read_again(db_session):
    dancer = Dancer(name="Storm")
    db_session.add(dancer)
    await db_session.commit()
    yield
    await db_session.refresh(dancer)
    assert dancer.name == "Storm"

@proves
async def test_by_a_row(client, read_again):
    await client.get("/dancers")

@pytest.fixture(scope="module")
def module_answers():
    answers = []
    yield answers
    assert all(one.status_code == 200 for one in answers)

@proves
async def test_by_a_wide_fixture(client, storm, module_answers):
    module_answers.append(await client.get("/dancers"))
"""

PROVEN = [
    "of_its_file",
    "of_another_name",
    "beside_slots",
    "of_the_conftest",
    "by_a_finalizer",
    "by_a_teardown_method",
    "by_unittest",
    "by_a_row",
]
HOLLOW = [
    "by_no_fixture_that_it_requests",
    "by_a_constant",
    "by_its_cleaning",
    "by_a_wide_fixture",
    "by_something_else",
    "by_a_row_that_it_deletes",
]


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One run of all."""
    example = seeing(tmp_path_factory.mktemp("late"), TESTS).with_files(conftest=CONFTEST)
    found = told(example)
    found.run.expect(passed=len(PROVEN) + len(HOLLOW))
    return found


@pytest.mark.parametrize("name", PROVEN)
def test_a_tear_down_that_asserts_proves(late: Told, name: str) -> None:
    """Of a fixture that the test requests, of its file, or of its class."""
    assert late.statuses[name] == "PROVEN", late.reason(name)


@pytest.mark.parametrize("name", HOLLOW)
def test_a_tear_down_that_is_about_another_thing_proves_nothing(late: Told, name: str) -> None:
    """It runs after each test, cannot fail, checks its own clean-up, or is of several tests."""
    assert late.statuses[name] == "HOLLOW"
    assert "no assertion after GET /dancers" in late.reason(name)


@pytest.mark.slow
def test_sabotage_counts_what_such_an_assertion_notices(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The seed and the answer are asserted in the tear-down alone."""
    tests = TESTS[: TESTS.index("@proves\nasync def test_of_the_conftest")]
    example = seeing(tmp_path_factory.mktemp("sabotaged"), tests).with_files(conftest=CONFTEST)
    found = told(example, "--scenarios-sabotage")
    statuses = dict.fromkeys(("of_its_file", "of_another_name", "beside_slots"), "PROVEN")
    assert found.statuses == statuses, found.reason("of_its_file")
