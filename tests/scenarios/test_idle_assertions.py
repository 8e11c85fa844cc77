"""An assertion that cannot fail by what the app does proves nothing; what is not known counts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from pytest_arena.scenarios.assertions._idle import is_constant
from tests.scenarios.proving import told
from tests.scenarios.seen import seeing

if TYPE_CHECKING:
    from tests.scenarios.proving import Told

PREAMBLE = """
import asyncio
import contextlib
import datetime
import functools
import json
import unittest
import warnings
from decimal import Decimal
from unittest import mock

from app import Dancer, app, get_db, maker
from fastapi import Depends
from giving import give_error, give_status
from pytest_arena import inserted
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.testclient import TestClient, httpx

HOOKS = {}
NAME = "Sand"
NAMES = ["Sand", "Storm"]
PATCHED = ""
CALLS = []


@app.get("/none")
async def none():
    return []


@app.get("/page")
async def page():
    return {"dancers": [], "all": ["Sand"]}


@app.post("/rename/{dancer_id}/{name}")
async def rename(dancer_id: int, name: str, db=Depends(get_db)):
    dancer = await db.get(Dancer, dancer_id)
    dancer.name = name
    await db.commit()
    HOOKS.get("renamed", str)()


@pytest.fixture
def storm(db_session):
    storm = Dancer(name="Storm")
    db_session.add(storm)
    return storm


@pytest.fixture
def a_name():
    return "Storm"


@pytest.fixture
def shouted(a_name):
    return [a_name.upper()]


@pytest.fixture(scope="module")
def wanted():
    return {"status": 201, "names": ["Sand"]}


@pytest.fixture(scope="session")
def wanted_names():
    names = ["Sand"]
    names.append("Storm")
    yield names


@pytest.fixture(scope="module")
def outbox():
    return []


@pytest.fixture(scope="module")
def mailer(outbox):
    HOOKS["renamed"] = lambda: outbox.append("it")
    yield
    HOOKS.clear()


@pytest.fixture(scope="module")
def shared_box():
    return []


@pytest.fixture(scope="module")
def shared_names():
    return {"names": []}


@pytest.fixture
def calls():
    return []


@pytest.fixture
def hooked(calls):
    HOOKS["renamed"] = lambda: calls.append("it")
    yield
    HOOKS.clear()


@pytest.fixture
async def first(client):
    return await client.get("/dancers")


def is_there(value):
    assert value is not None


async def fetch(client):
    answer = await client.get("/dancers")
    return answer


async def fetch_if_good(client):
    answer = await client.get("/dancers")
    return answer if answer.is_success else None


def is_storm(value):
    assert value == "Storm"


def begin_with(names, letter="S"):
    for name in names:
        assert name.startswith(letter)


def begin_with_s(names):
    begin_with(names)


def the_names():
    return ["Sand", "Storm"]


def is_sand(value):
    assert value == "Sand"


def other_names():
    return ["Kite"]


def has_name(names, name):
    assert name in names


check = is_storm
check = is_sand
some_names = the_names
some_names = other_names
check_names = is_storm
check_names = has_name


def fill(into, values):
    into.extend(values)

"""

GIVING = """
def give_error(test):
    answer = test.http.get("/dancers")
    if answer.is_error:
        test.error = answer.text


def give_status(test):
    test.given_away = test.http.get("/dancers").status_code
"""

IDLE = """
@proves
async def test_below_600(client, storm):
    answer = await client.get("/dancers")
    assert answer.status_code < 600

@proves
async def test_between_100_and_600(client, storm):
    answer = await client.get("/dancers")
    assert 100 <= answer.status_code < 600

@proves
async def test_at_least_none(client, storm):
    answer = await client.get("/dancers")
    assert len(answer.json()) >= 0

@proves
async def test_in_a_range(client, storm):
    answer = await client.get("/dancers")
    assert answer.status_code in range(100, 600)

@proves
async def test_is_a_number(client, storm):
    answer = await client.get("/dancers")
    assert isinstance(answer.status_code, int)

@proves
async def test_has_a_status(client, storm):
    answer = await client.get("/dancers")
    assert answer.status_code

@proves
async def test_has_a_text(client, storm):
    answer = await client.get("/dancers")
    assert answer.text is not None

@proves
async def test_is_an_object(client, storm):
    answer = await client.get("/dancers")
    assert isinstance(answer.json(), object)

@proves
async def test_or_true(client, storm):
    answer = await client.get("/dancers")
    assert answer.json() or True

@proves
async def test_is_true_in_itself(client, storm):
    answer = await client.get("/dancers")
    assert bool(answer)

@proves
async def test_more_than_less_than_none(client, storm):
    answer = await client.get("/dancers")
    assert len(answer.json()) > -1

@proves
async def test_is_itself(client, storm):
    names = (await client.get("/dancers")).json()
    assert names == names

@proves
async def test_all_of_nothing(client, storm):
    await client.get("/dancers")
    assert all(name for name in [])

@proves
async def test_all_of_an_empty_list(client, storm):
    await client.get("/dancers")
    assert all([])

@proves
async def test_all_of_empty_names(client, storm):
    names = [name for name in (await client.get("/dancers")).json() if name == "Nobody"]
    assert all(names)

@proves
async def test_all_of_an_empty_answer(client, storm):
    names = [name for name in (await client.get("/dancers")).json() if name == "Nobody"]
    assert all(name == "Storm" for name in names)

@proves
async def test_all_of_an_empty_body(client, storm):
    answer = await client.get("/none")
    assert all(dancer["ok"] for dancer in answer.json())

@proves
async def test_all_of_an_empty_item(client, storm):
    body = (await client.get("/page")).json()
    assert all(dancer["ok"] for dancer in body["dancers"] if dancer)

@proves
async def test_all_of_an_empty_item_of_the_body(client, storm):
    answer = await client.get("/page")
    assert all([dancer["ok"] for dancer in answer.json()["dancers"]])

@proves
async def test_its_request(client, storm):
    answer = await client.get("/dancers")
    assert answer.request.method == "GET"
    assert answer.request.headers["accept"]

@proves
async def test_the_time_it_took(client, storm):
    answer = await client.get("/dancers")
    assert answer.elapsed.total_seconds() >= 0

@proves
async def test_a_body_that_is_its_own(client, storm):
    answer = await client.get("/dancers")
    assert answer.json() == answer.json()

@proves
async def test_a_body_of_an_error_too(client, storm):
    answer = await client.get("/dancers")
    assert answer.json() is not None
    assert isinstance(answer.json(), (dict, list))

@proves
async def test_a_request_in_the_assertion(client, storm):
    assert (await client.get("/dancers")).json() is not None

@proves
async def test_written_as_a_text(client, storm):
    answer = await client.get("/dancers")
    assert str(answer)

@proves
async def test_an_error_or_none(client, storm):
    answer = await client.get("/dancers")
    assert answer.is_error or not answer.is_error

@proves
async def test_a_body_in_a_variable(client, storm):
    answer = await client.get("/dancers")
    body = answer.json()
    status = answer.status_code
    assert body is not None
    assert isinstance(body, (dict, list)) and status

@proves
async def test_a_body_that_is_compared_with_itself(client, storm):
    with mock.patch("app.open", create=True):
        answer = await client.get("/dancers")
        expected = answer.json()
    assert answer.json() == expected

@proves
async def test_what_it_sent(client, storm):
    body = {"name": "Ann", "roles": ["lead"]}
    answer = await client.post("/dancers/Ann", json=body, params={"role": body["roles"]})
    assert body["name"] == "Ann"

@proves
async def test_an_error_of_python(client, storm):
    await client.get("/dancers")
    with pytest.raises(ValueError):
        int("x")

@proves
async def test_a_warning_of_its_own(client, storm):
    await client.get("/dancers")
    with pytest.warns(UserWarning):
        warnings.warn("Storm", UserWarning)

@proves
async def test_a_method_that_it_does_not_call(client, storm):
    answer = await client.get("/page")
    assert answer.json

@proves
async def test_a_mock_that_it_calls_itself(client, storm):
    notify = mock.Mock()
    notify("Storm")
    await client.get("/dancers")
    notify.assert_called_once_with("Storm")

@proves
async def test_a_mock_that_nobody_has(client, storm):
    notify = mock.MagicMock()
    await client.get("/dancers")
    assert not notify.called

@proves
async def test_what_a_fixture_seeded(client, storm):
    await client.get("/dancers")
    assert storm.name == "Storm"

@proves
async def test_what_it_seeded(client, db_session):
    dancer = Dancer(name="Storm")
    db_session.add(dancer)
    await client.get("/dancers")
    assert dancer.name == "Storm" and dancer.id

@proves
def test_what_it_seeded_and_is_sync(test_client, arena):
    session = arena.session()
    dancer = Dancer(name="Storm")
    session.add(dancer)
    session.commit()
    test_client.get("/dancers")
    assert dancer.name == "Storm"

@proves
async def test_what_it_has_written_down(client, storm):
    await client.get("/dancers")
    expected = ["Sand", "Storm"]
    assert expected == ["Sand", "Storm"]

@proves
async def test_a_dict_that_it_fills(client, storm):
    await client.get("/dancers")
    expected = {}
    expected["x"] = 1
    assert expected["x"] == 1

@proves
async def test_a_number_that_it_counts(client, storm):
    await client.get("/dancers")
    number = 1
    number += 1
    assert number == 2

@proves
async def test_what_it_computes(client, storm):
    await client.get("/dancers")
    first, names = "Sand", ["Sand", "Storm"]
    count: int = len(names)
    shouted = [f"{name}!" for name in names]
    assert count == 2 and shouted[0] == f"{first}!"

@proves
async def test_a_method_of_its_text(client, storm):
    await client.get("/dancers")
    assert "Sand".lower() == "sand"

@proves
async def test_a_loop_of_its_own(client, storm):
    await client.get("/dancers")
    names = ["Sand", "Storm"]
    for name in names:
        assert name.startswith("S")

@proves
async def test_its_own_in_a_block(client, storm):
    with mock.patch("app.open", create=True):
        await client.get("/dancers")
        expected = ["Sand"]
        assert expected == ["Sand"]

@proves
@pytest.mark.parametrize("name, number", [("Sand", 1), ("Storm", 2)])
async def test_its_parameters(client, storm, name, number):
    await client.get("/dancers")
    assert name in ["Sand", "Storm"] and number

@proves
async def test_a_constant_of_its_module(client, storm):
    await client.get("/dancers")
    assert NAME == "Sand"

@proves
async def test_a_mock_that_a_loop_calls(client, storm):
    notify = mock.Mock()
    notify.kind = "mail"
    await client.get("/dancers")
    for name in ["Sand", "Storm"]:
        notify(name)
    notify.assert_called_with("Storm")
    assert notify.kind == "mail"

@proves
async def test_an_error_of_its_own(client, storm):
    await client.get("/dancers")
    items = {}
    with pytest.raises(KeyError):
        items["x"]

@proves
async def test_a_mock_in_one_line(client, storm):
    it = mock.Mock(); it("x"); await client.get("/dancers"); it.assert_called_with("x")

@proves
async def test_a_text_of_its_own_in_a_helper(client, storm):
    await client.get("/dancers")
    is_storm("Storm")

@proves
async def test_a_list_of_its_own_in_a_helper_of_a_helper(client, storm):
    await client.get("/dancers")
    names = ["Sand", "Storm"]
    begin_with_s(names)

@proves
async def test_what_a_helper_makes(client, storm):
    await client.get("/dancers")
    names = the_names()
    assert names[0] == "Sand"

@proves
async def test_its_own_in_a_helper_with_two_names(client, storm):
    await client.get("/dancers")
    check("Sand")

@proves
async def test_its_own_in_a_helper_with_two_names_of_its_own(client, storm):
    await client.get("/dancers")
    verify = is_storm
    verify = is_sand
    verify("Sand")

@proves
async def test_what_a_helper_with_two_names_makes(client, storm):
    await client.get("/dancers")
    assert some_names() == ["Kite"]

@proves
async def test_a_constant_of_a_fixture(client, storm, a_name):
    await client.get("/dancers")
    assert a_name == "Storm"

@proves
async def test_a_constant_of_a_fixture_of_a_fixture(client, storm, shouted):
    await client.get("/dancers")
    assert shouted == ["STORM"]

@proves
async def test_a_constant_of_a_fixture_in_a_helper(client, storm, a_name):
    await client.get("/dancers")
    is_storm(a_name)

@proves
async def test_an_item_of_a_fixture_of_its_module(client, storm, wanted):
    await client.post("/dancers/Ann", json=wanted)
    assert wanted["status"] == 201

@proves
async def test_a_variable_with_an_item_of_a_fixture_of_its_module(client, storm, wanted):
    await client.get("/dancers")
    names = wanted.get("names")
    assert names == ["Sand"]

@proves
async def test_a_list_of_a_fixture_of_the_session(client, storm, wanted_names):
    await client.get("/dancers")
    for name in wanted_names:
        is_there(name)

@proves
async def test_how_long_a_list_of_a_fixture_of_the_session_is(client, storm, wanted_names):
    await client.get("/dancers")
    assert len(wanted_names) == 2

@proves
async def test_a_list_of_its_module(client, storm):
    await client.get("/dancers")
    assert NAMES == ["Sand", "Storm"]

@proves
async def test_what_a_library_makes(client, storm):
    await client.get("/dancers")
    expected = json.loads('{"name": "Ann"}')
    assert expected["name"] == "Ann"
    assert Decimal("1.0") == 1

@proves
async def test_a_list_of_its_answer(client, storm):
    answer = await client.get("/dancers")
    answers = [answer]
    pair = (answer, 1)
    assert len(answers) == 1 and answers
    assert pair[1] == 1

@proves
async def test_how_many_requests_it_sends(client, storm):
    answers = [await client.get(path) for path in ("/dancers", "/none")]
    same = await asyncio.gather(client.get("/dancers"), client.get("/none"))
    assert len(answers) == 2
    assert len(same) == 2

@proves
async def test_a_list_that_gets_its_answer(client, storm):
    answers = []
    answers.append(await client.get("/dancers"))
    assert len(answers) == 1
    assert answers

@proves
async def test_a_list_that_gets_answers_of_variables(client, storm):
    answers: list[object] = []
    first = await client.get("/dancers")
    answers.append(first)
    second = await client.get("/none")
    answers.append(second.json())
    assert len(answers) == 2

@proves
async def test_a_list_that_gets_answers_of_a_loop(client, storm):
    answers = []
    for path in ("/dancers", "/none"):
        answers.append(await client.get(path))
    assert len(answers) == 2

@proves
async def test_a_list_that_gets_answers_of_a_variable_of_a_loop(client, storm):
    statuses = []
    for _ in range(3):
        answer = await client.get("/dancers")
        statuses.append(answer.status_code)
    assert len(statuses) > 2

@proves
async def test_the_class_of_its_answer(client, storm):
    answer = await client.get("/dancers")
    assert isinstance(answer, httpx.Response)
    assert answer is not None
    assert "Response" in str(type(answer))

@proves
async def test_an_answer_in_a_helper(client, storm):
    answer = await client.get("/dancers")
    is_there(answer)

@proves
async def test_an_answer_of_a_helper(client, storm):
    answer = await fetch(client)
    assert answer

@proves
async def test_an_answer_of_a_fixture(client, storm, first):
    await client.get("/dancers")
    assert first

@proves
async def test_two_answers(client, storm):
    one = await client.get("/dancers")
    two = await client.get("/none")
    assert one and two and one is not two

@proves
async def test_its_tools(client, db_session, storm):
    await client.get("/dancers")
    assert client
    assert isinstance(client, httpx.AsyncClient)
    assert isinstance(db_session, AsyncSession) and db_session is not None
    assert app is not None and Dancer is not None

@proves
async def test_a_range_of_its_own(client, storm):
    answer = await client.get("/dancers")
    possible = range(100, 600)
    assert answer.status_code in possible

class TestConstants:
    ITS_NAME = "Sand"

    @proves
    async def test_a_constant_of_its_class(self, client, storm):
        await client.get("/dancers")
        assert self.ITS_NAME == "Sand"
        assert TestConstants.ITS_NAME == "Sand"

class TestSetUp:
    def setup_method(self):
        self.wanted_status = 201

    @proves
    async def test_a_constant_of_its_set_up(self, client, storm):
        await client.get("/dancers")
        assert self.wanted_status == 201

class TestSetUpByFixture:
    @pytest.fixture(autouse=True)
    def prepare(self):
        self.wanted_code = 201

    @proves
    async def test_a_constant_of_a_fixture_of_its_class(self, client, storm):
        await client.get("/dancers")
        assert self.wanted_code == 201

class TestIdleBase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.wanted_of_class = 201

    def setUp(self):
        self.http = self.enterContext(TestClient(app))
        self.http.post("/dancers/Storm")
        self.wanted = 201
        self.wanted_body = {"status": 201}

class TestIdleSelf(TestIdleBase):
    @proves
    def test_a_constant_by_a_method(self):
        self.http.get("/dancers")
        self.assertEqual(self.wanted, 201)
        self.assertEqual(self.wanted_of_class, 201)

    @proves
    def test_a_dict_of_its_set_up_by_a_method(self):
        self.http.get("/dancers")
        self.assertEqual(self.wanted_body["status"], 201)

    @proves
    def test_its_client_by_methods(self):
        self.http.get("/dancers")
        self.assertTrue(self.http)
        self.assertIsNotNone(self.http)
        self.assertIsInstance(self.http, TestClient)

class TestIdle(unittest.TestCase):
    def setUp(self):
        self.client = self.enterContext(TestClient(app))
        self.client.post("/dancers/Storm")

    @proves
    def test_a_list_that_gets_its_answer_by_a_method(self):
        answers = []
        for _ in range(2):
            answers.append(self.client.get("/dancers"))
        self.assertEqual(len(answers), 2)

    @proves
    def test_a_request_in_a_method(self):
        self.assertIsNotNone(self.client.get("/dancers").json())

    @proves
    def test_below_600_by_a_method(self):
        answer = self.client.get("/dancers")
        self.assertLess(answer.status_code, 600)

    @proves
    def test_at_least_none_by_a_method(self):
        answer = self.client.get("/dancers")
        self.assertGreaterEqual(len(answer.json()), 0)

    @proves
    def test_true_by_a_method(self):
        answer = self.client.get("/dancers")
        self.assertTrue(len(answer.json()) >= 0)

    @proves
    def test_its_own_by_a_method(self):
        self.client.get("/dancers")
        expected = ["Sand"]
        self.assertEqual(expected, ["Sand"])
        self.assertListEqual(expected, ["Sand"])

    @proves
    def test_a_mock_by_a_method(self):
        notify = mock.Mock()
        self.client.get("/dancers")
        notify("Storm")
        self.assertTrue(notify.called)

    @proves
    def test_a_subtest_of_its_own(self):
        self.client.get("/dancers")
        for name in ["Sand"]:
            with self.subTest(name=name):
                self.assertEqual(name, "Sand")

    @proves
    def test_itself_by_methods(self):
        answer = self.client.get("/dancers")
        self.assertIs(answer, answer)
        self.assertListEqual(answer.json(), answer.json())

    @proves
    def test_itself_in_one_line(self):
        answer = self.client.get("/dancers"); self.assertEqual(answer.text, answer.text)

    @proves
    def test_true_in_one_line(self):
        self.client.get("/dancers"); self.assertTrue(True); self.assertFalse(False)

    @proves
    def test_not_none_in_one_line(self):
        answer = self.client.get("/dancers"); self.assertIsNotNone(answer)

    @proves
    def test_an_empty_text_in_one_line(self):
        answer = self.client.get("/dancers"); self.assertIn("", answer.text)

    @proves
    def test_a_mock_by_a_method_in_one_line(self):
        it = mock.Mock(); self.client.get("/dancers"); it("x"); it.assert_called_with("x")

    @proves
    def test_true_in_a_block_of_one_line(self):
        self.client.get("/dancers")
        with self.subTest(): self.assertTrue(True)
"""

HONEST = """
@proves
async def test_below_500(client, storm):
    answer = await client.get("/dancers")
    assert answer.status_code < 500

@proves
async def test_a_body_in_a_variable_too(client, storm):
    answer = await client.get("/dancers")
    body = answer.json()
    assert isinstance(body, list)

@proves
async def test_two_answers_by_one_name(client, storm):
    answer = await client.get("/dancers")
    former = answer.json()
    answer = await client.get("/dancers")
    assert answer.json() == former

@proves
async def test_two_answers_in_a_loop(client, storm):
    for number in range(2):
        answer = await client.get("/dancers")
        if not number:
            former = answer.json()
    assert answer.json() == former

@proves
async def test_a_body_that_it_changes(client, storm):
    answer = await client.get("/page")
    body = answer.json()
    body.pop("all")
    assert body != answer.json()
    assert {**body, "all": ["Sand"]} == answer.json()

@proves
async def test_what_it_sent_and_got(client, storm):
    body = {"name": "Ann"}
    answer = await client.post("/dancers/Ann", json=body)
    assert answer.json() == body["name"]

@proves
async def test_what_a_helper_fills(client, storm):
    names = []
    async def get(path, json): json.append((await client.get(path)).status_code)
    await get("/dancers", json=names)
    assert names == [200]

@proves
async def test_an_error_of_the_answer(client, storm):
    answer = await client.get("/dancers")
    with pytest.raises(IndexError):
        answer.json()[2]

@proves
async def test_at_least_one(client, storm):
    answer = await client.get("/dancers")
    assert len(answer.json()) >= 1

@proves
async def test_all_of_some(client, storm):
    names = (await client.get("/dancers")).json()
    assert all(name for name in names)

@proves
async def test_all_of_an_item(client, storm):
    answer = await client.get("/page")
    assert all(name == "Sand" for name in answer.json()["all"])

@proves
async def test_all_of_a_missing_item(client, storm):
    answer = await client.get("/page")
    assert all(name == "Sand" for name in answer.json().get("nothing", []))

@proves
async def test_a_property(client, storm):
    answer = await client.get("/page")
    assert answer.is_success

@proves
async def test_all_of_its_own(client, storm):
    names = (await client.get("/dancers")).json()
    expected = ["Sand", "Storm"]
    assert all(name in names for name in expected)

@proves
async def test_a_flag(client, storm):
    found = False
    for name in (await client.get("/dancers")).json():
        if name == "Storm":
            found = True
    assert found

@proves
async def test_one_flag(client, storm):
    for name in (await client.get("/dancers")).json():
        if name == "Storm":
            found = True
    assert found

@proves
async def test_a_count(client, storm):
    count = 0
    for name in (await client.get("/dancers")).json():
        count += 1
    assert count == 2

@proves
async def test_a_list_that_is_filled(client, storm):
    found = []
    for name in (await client.get("/dancers")).json():
        if name == "Storm":
            found.append("yes")
    assert found == ["yes"]

@proves
async def test_a_list_that_is_given(client, storm):
    async def names_of(into):
        into.extend((await client.get("/dancers")).json())

    found = []
    await names_of(found)
    assert found == ["Sand", "Storm"]

@proves
async def test_a_list_that_is_replaced(client, storm):
    found = ["nobody"]
    found[:] = (await client.get("/dancers")).json()
    assert found == ["Sand", "Storm"]

@proves
async def test_a_list_by_two_names(client, storm):
    found = same = []
    same += (await client.get("/dancers")).json()
    assert found == ["Sand", "Storm"]

@proves
async def test_a_mock_in_the_app(client, storm):
    renamed = mock.Mock()
    HOOKS["renamed"] = renamed
    await client.post("/rename/1/Kite")
    renamed.assert_called_once_with()

@proves
async def test_a_mock_that_is_patched_in(client, storm):
    renamed = mock.Mock()
    with mock.patch.dict(HOOKS, renamed=renamed):
        await client.post("/rename/1/Kite")
    assert renamed.called

@proves
async def test_a_list_that_the_app_fills(client, storm):
    renamed = []
    HOOKS["renamed"] = lambda: renamed.append("it")
    await client.post("/rename/1/Kite")
    assert renamed == ["it"]

@proves
async def test_a_flag_that_the_app_sets(client, storm):
    is_renamed = False

    def note():
        nonlocal is_renamed
        is_renamed = True

    HOOKS["renamed"] = note
    await client.post("/rename/1/Kite")
    assert is_renamed

@proves
async def test_a_mock_that_is_told_the_answer(client, storm):
    heard = mock.Mock()
    heard((await client.get("/dancers")).json())
    heard.assert_called_once_with(["Sand", "Storm"])

@proves
async def test_by_the_session_of_the_app(client, db_session):
    dancer = Dancer(name="Storm")
    db_session.add(dancer)
    await db_session.commit()
    app.dependency_overrides[get_db] = lambda: db_session
    await client.post(f"/rename/{dancer.id}/Kite")
    app.dependency_overrides.clear()
    assert dancer.name == "Kite"

@proves
async def test_refreshed(client, db_session, storm):
    await db_session.commit()
    await client.post(f"/rename/{storm.id}/Kite")
    await db_session.refresh(storm)
    assert storm.name == "Kite"

@proves
async def test_read_again(client, db_session, storm):
    await db_session.commit()
    await client.post(f"/rename/{storm.id}/Kite")
    await db_session.scalars(select(Dancer))
    assert storm.name == "Kite"

@proves
async def test_read_before_another_request(client, db_session, storm):
    await db_session.commit()
    await client.post(f"/rename/{storm.id}/Kite")
    await db_session.refresh(storm)
    await client.get("/dancers")
    assert storm.name == "Kite"

@proves
async def test_of_a_session_of_the_apps_own(client):
    async with maker() as session:
        dancer = Dancer(name="Storm")
        session.add(dancer)
        await session.commit()
        await session.refresh(dancer)
        await client.post(f"/rename/{dancer.id}/Kite")
        await session.refresh(dancer)
        assert dancer.name == "Kite"

@proves
async def test_read_and_let_go(client, storm):
    await client.post("/rename/1/Kite")
    async with maker() as session:
        dancer = await session.get(Dancer, 1)
    assert dancer.name == "Kite"

@proves
def test_read_and_let_go_and_is_sync(test_client, arena, storm_too):
    test_client.post("/rename/1/Kite")
    with arena.session() as session:
        dancer = session.get(Dancer, 1)
    assert dancer.name == "Kite"

@proves
def test_expired_and_is_sync(test_client, arena):
    session = arena.session()
    dancer = Dancer(name="Storm")
    session.add(dancer)
    session.commit()
    test_client.post(f"/rename/{dancer.id}/Kite")
    session.expire(dancer)
    assert dancer.name == "Kite"

@proves
async def test_refreshed_in_part(client, db_session, storm):
    await db_session.commit()
    await client.post(f"/rename/{storm.id}/Kite")
    await db_session.refresh(storm, ["name"])
    assert storm.name == "Kite"

@proves
async def test_of_a_column_alone(client, db_session, storm):
    await client.post("/rename/1/Kite")
    name = await db_session.scalar(select(Dancer.name).where(Dancer.id == 1))
    assert name == "Kite"

@proves
async def test_beside_what_was_seeded(client, storm):
    assert storm.name in (await client.get("/dancers")).json()

@proves
async def test_in_a_loop(client, storm):
    expected = []
    for _ in range(2):
        assert (await client.get("/dancers")).json() != expected

@proves
async def test_changes_alone(client, arena, storm):
    async with arena.expect_changes(dancers=inserted(1, name="Ann")):
        await client.post("/dancers/Ann")

@proves
async def test_a_text_by_a_conditional_expression(client, storm):
    found = []
    answer = await client.get("/dancers")
    found.append("yes") if answer.is_success else found.append("no")
    assert found == ["yes"]

@proves
async def test_a_text_behind_and(client, storm):
    found = []
    answer = await client.get("/dancers")
    answer.is_success and found.append("yes")
    assert found == ["yes"]

@proves
async def test_texts_of_a_comprehension(client, storm):
    found = []
    answer = await client.get("/dancers")
    [found.append("yes") for name in answer.json() if name == "Storm"]
    assert found == ["yes"]

@proves
async def test_a_list_that_an_error_shortens(client, storm):
    names = ["Sand", "Storm"]
    answer = await client.get("/dancers")
    if answer.is_error:
        names.pop()
    assert names == ["Sand", "Storm"]

@proves
async def test_how_often_it_tried(client, storm):
    for attempt in range(3):
        if (await client.get("/dancers")).status_code == 200:
            break
    assert attempt == 0

@proves
async def test_a_flag_of_a_loop_that_goes_on(client, storm):
    answer = await client.get("/dancers")
    count = 0
    for name in ["Sand", "Ann"]:
        if name not in answer.json():
            continue
        count += 1
    assert count == 1

@proves
async def test_a_flag_of_an_error(client, storm):
    has_failed = False
    try:
        (await client.get("/dancers")).raise_for_status()
    except Exception:
        has_failed = True
    assert not has_failed

@proves
async def test_a_flag_behind_swallowed_errors(client, storm):
    is_done = False
    with contextlib.suppress(KeyError):
        await client.get("/dancers")
        is_done = True
    assert is_done

@proves
async def test_one_of_two_texts(client, storm):
    answer = await client.get("/dancers")
    outcome = "some" if answer.json() else "none"
    if answer.is_error:
        outcome = "error"
    assert outcome == "some"

@proves
async def test_a_mock_that_sends_the_answer(client, storm):
    gateway = mock.Mock()
    answer = await client.get("/dancers")
    gateway.post("/names", json=answer.json())
    gateway.post.assert_called_once_with("/names", json=["Sand", "Storm"])

@proves
async def test_a_list_in_a_dict(client, storm):
    found = {}
    for name in (await client.get("/dancers")).json():
        found.setdefault("names", []).append(name)
    assert found == {"names": ["Sand", "Storm"]}

@proves
async def test_a_list_by_another_list(client, storm):
    found = []
    lists = [found]
    for each in lists:
        each.extend((await client.get("/dancers")).json())
    assert found == ["Sand", "Storm"]

@proves
async def test_a_list_that_an_object_fills(client, storm):
    renamed = []

    class Mailer:
        def send(self):
            renamed.append("it")

    HOOKS["renamed"] = Mailer().send
    await client.post("/rename/1/Kite")
    assert renamed == ["it"]

@proves
async def test_a_mock_in_a_dict_of_the_app(client, storm):
    renamed = mock.Mock(return_value=None)
    hooks = {"renamed": renamed}
    HOOKS.update(hooks)
    await client.post("/rename/1/Kite")
    assert renamed.call_count == 1

@proves
async def test_a_mock_behind_a_monkeypatch(client, storm, monkeypatch):
    renamed = mock.Mock()
    monkeypatch.setitem(HOOKS, "renamed", renamed)
    await client.post("/rename/1/Kite")
    renamed.assert_called_once()

@proves
async def test_what_was_printed(client, storm, capsys):
    HOOKS["renamed"] = lambda: print("renamed")
    await client.post("/rename/1/Kite")
    printed = capsys.readouterr().out
    assert printed.strip() == "renamed"

@proves
@pytest.mark.parametrize("name", ["Sand", "Storm"])
async def test_a_parameter_in_the_answer(client, storm, name):
    names = (await client.get("/dancers")).json()
    assert name in names

@proves
async def test_a_word_of_python(client, storm):
    type = (await client.get("/dancers")).json()
    assert type == ["Sand", "Storm"]

@proves
async def test_an_error_of_an_item(client, storm):
    names = (await client.get("/dancers")).json()
    with pytest.raises(IndexError):
        names[2]

@proves
async def test_the_answer_in_a_helper(client, storm):
    is_storm((await client.get("/dancers")).json()[1])

@proves
async def test_its_own_and_the_answer_in_helpers_of_one_line(client, storm):
    answer = await client.get("/dancers")
    is_storm("Storm"), is_storm(answer.json()[1])

@proves
async def test_the_answer_in_a_helper_of_a_helper(client, storm):
    names = (await client.get("/dancers")).json()
    begin_with_s(names)

@proves
async def test_a_helper_by_another_name(client, storm):
    answer = await client.get("/dancers")
    check = is_storm
    check(answer.json()[1])

@proves
async def test_a_helper_with_two_names(client, storm):
    answer = await client.get("/dancers")
    check_names(answer.json(), "Storm")

@proves
async def test_a_helper_that_the_answer_chooses(client, storm):
    answer = await client.get("/dancers")
    verify = is_storm
    if answer.is_success:
        verify = is_sand
    verify("Sand")

@proves
async def test_a_helper_that_the_answer_chooses_in_one_line(client, storm):
    answer = await client.get("/dancers")
    verify = is_sand if answer.is_success else is_storm
    verify("Sand")

@proves
async def test_a_helper_with_a_part_of_its_arguments(client, storm):
    answer = await client.get("/dancers")
    verify = functools.partial(has_name, answer.json())
    verify("Storm")

@proves
async def test_a_helper_by_a_function(client, storm):
    answer = await client.get("/dancers")
    list(map(is_storm, answer.json()[1:]))

@proves
async def test_its_own_by_a_condition_in_a_helper(client, storm):
    name = "Storm"
    if (await client.get("/dancers")).is_error:
        name = "error"
    is_storm(name)

@proves
async def test_a_list_that_a_helper_fills(client, storm):
    names = []
    fill(names, (await client.get("/dancers")).json())
    assert names == ["Sand", "Storm"]

@proves
async def test_a_list_that_a_helper_fills_by_name(client, storm):
    names = []
    answer = await client.get("/dancers")
    fill(values=answer.json(), into=names)
    begin_with(names)

@proves
async def test_a_list_of_a_fixture_that_the_app_has(client, storm, hooked, calls):
    await client.post("/rename/1/Kite")
    assert calls == ["it"]

@proves
async def test_a_list_of_a_fixture_that_the_test_shares(client, storm, calls):
    HOOKS["renamed"] = lambda: calls.append("it")
    await client.post("/rename/1/Kite")
    assert calls == ["it"]

@proves
async def test_a_list_of_a_fixture_of_its_module_that_the_app_fills(client, storm, mailer, outbox):
    outbox.clear()
    await client.post("/rename/1/Kite")
    assert outbox == ["it"]

@proves
async def test_a_list_of_a_fixture_of_its_module_that_it_shares(client, storm, shared_box):
    HOOKS["renamed"] = lambda: shared_box.append("it")
    await client.post("/rename/1/Kite")
    assert shared_box

@proves
async def test_a_list_of_a_fixture_of_its_module_that_another_test_shares(
    client, storm, shared_box
):
    shared_box.clear()
    await client.get("/dancers")
    assert not shared_box

@proves
async def test_a_dict_of_a_fixture_of_its_module_with_the_answer(client, storm, shared_names):
    shared_names["names"] = (await client.get("/dancers")).json()
    assert shared_names["names"] == ["Sand", "Storm"]

@proves
async def test_an_item_of_a_fixture_of_its_module_and_the_answer(client, storm, wanted):
    answer = await client.get("/dancers")
    assert wanted["names"][0] in answer.json()

@proves
async def test_items_of_a_fixture_of_the_session_and_the_answer(client, storm, wanted_names):
    names = (await client.get("/dancers")).json()
    for name in wanted_names:
        assert name in names

@proves
async def test_a_constant_of_a_fixture_and_the_answer(client, storm, a_name):
    names = (await client.get("/dancers")).json()
    assert a_name in names

@proves
async def test_a_list_of_its_module_that_the_app_fills(client, storm):
    HOOKS["renamed"] = lambda: CALLS.append("it")
    await client.post("/rename/1/Kite")
    assert CALLS == ["it"]

@proves
async def test_a_patched_constant(client, storm, monkeypatch):
    monkeypatch.setattr(f"{__name__}.PATCHED", (await client.get("/dancers")).json()[0])
    assert PATCHED == "Sand"

@proves
async def test_what_a_library_reads(client, storm):
    names = json.loads((await client.get("/dancers")).text)
    assert names == ["Sand", "Storm"]

@proves
async def test_the_time_until_the_answer(client, storm):
    start = datetime.datetime.now()
    await client.get("/dancers")
    assert datetime.datetime.now() - start < datetime.timedelta(minutes=1)

@proves
async def test_an_answer_or_none(client, storm):
    answer = await client.get("/dancers")
    good = answer if answer.is_success else None
    assert good is not None

@proves
async def test_the_first_good_answer(client, storm):
    answers = [await client.get("/dancers"), await client.get("/none")]
    good = next((answer for answer in answers if answer.json()), None)
    assert good

@proves
async def test_an_answer_or_none_of_a_helper(client, storm):
    answer = await fetch_if_good(client)
    is_there(answer)

@proves
async def test_an_answer_of_some_rounds(client, storm):
    good = None
    for path in ("/none", "/dancers"):
        answer = await client.get(path)
        if answer.json():
            good = answer
    assert good

@proves
async def test_how_many_answers_are_good(client, storm):
    answers = [await client.get(path) for path in ("/dancers", "/none")]
    good = [answer for answer in answers if answer.json()]
    assert len(good) == 1

@proves
async def test_how_many_rounds_it_takes(client, storm):
    answers = []
    path = "/dancers"
    while path:
        answers.append(await client.get(path))
        path = "/none" if len(answers[-1].json()) == 2 else ""
    assert len(answers) == 2

@proves
async def test_a_list_that_gets_a_good_answer(client, storm):
    good = []
    answer = await client.get("/dancers")
    if answer.is_success:
        good.append(answer)
    assert len(good) == 1

@proves
async def test_a_list_that_gets_the_good_answers_of_a_loop(client, storm):
    good = []
    for path in ("/dancers", "/none"):
        answer = await client.get(path)
        if answer.json():
            good.append(answer)
    assert good

@proves
async def test_a_list_that_gets_no_answer_of_an_error(client, storm):
    answers = []
    with contextlib.suppress(Exception):
        answers.append(await client.get("/dancers"))
    assert len(answers) == 1

@proves
async def test_a_list_that_gets_a_part_of_its_answer(client, storm):
    first = []
    for _ in range(2):
        answer = await client.get("/dancers")
        first.append(answer.json()[0])
    assert len(first) == 2

@proves
async def test_a_list_that_gets_an_answer_for_each_name(client, storm):
    answers = []
    names = (await client.get("/dancers")).json()
    for _ in names:
        answers.append(await client.get("/dancers"))
    assert len(answers) == 2

@proves
async def test_an_answer_in_a_list_that_gets_it(client, storm):
    answers = []
    answers.append(await client.get("/dancers"))
    assert answers[0].json() == ["Sand", "Storm"]

@proves
async def test_answers_in_a_list_that_are_alike(client, storm):
    answers = []
    for _ in range(2):
        answer = await client.get("/dancers")
        answers.append(answer)
    assert answers[0].json() == answers[1].json()

@proves
async def test_a_list_that_loses_an_answer(client, storm):
    answers = []
    answers.append(await client.get("/dancers"))
    if answers[0].is_error:
        answers.pop()
    assert answers

@proves
async def test_answers_that_are_alike(client, storm):
    answers = [await client.get("/dancers") for _ in range(2)]
    assert len({answer.text for answer in answers}) == 1

@proves
async def test_answers_at_once_that_are_alike(client, storm):
    answers = await asyncio.gather(client.get("/dancers"), client.get("/dancers"))
    assert answers[0].json() == answers[1].json()

@proves
async def test_an_error_that_is_none(client, storm):
    error = None
    try:
        (await client.get("/dancers")).raise_for_status()
    except httpx.HTTPError as raised:
        error = raised
    assert error is None

class TestAttributes:
    found = None

    @proves
    async def test_an_attribute_of_its_class(self, client, storm):
        await self.load(client)
        assert self.found == ["Sand", "Storm"]

    @proves
    async def test_an_attribute_by_name(self, client, storm):
        setattr(self, "found", (await client.get("/dancers")).json())
        assert self.found == ["Sand", "Storm"]

    async def load(self, client):
        self.found = (await client.get("/dancers")).json()

class TestHonestSelf(unittest.TestCase):
    is_early = False

    def setUp(self):
        self.http = self.enterContext(TestClient(app))
        self.http.post("/dancers/Storm")
        self.expected_names = ["Sand", "Storm"]
        self.calls_seen = []
        self.is_called = False
        self.result = None
        self.given_away = None
        self.error = None
        self.token = self.http.get("/dancers").json()[0]
        self.is_up = False
        if self.http.get("/dancers").is_success:
            self.is_up = True

    def tearDown(self):
        HOOKS.clear()

    def note(self):
        self.is_called = True

    def note_early(self):
        self.is_early = True

    def load(self):
        self.result = self.http.get("/dancers").json()

    @proves
    def test_a_list_of_its_set_up_that_the_app_fills(self):
        HOOKS["renamed"] = lambda: self.calls_seen.append("it")
        self.http.post("/rename/1/Kite")
        self.assertEqual(self.calls_seen, ["it"])

    @proves
    def test_a_flag_of_its_set_up_that_the_app_sets(self):
        HOOKS["renamed"] = self.note
        self.http.post("/rename/1/Kite")
        self.assertTrue(self.is_called)

    @proves
    def test_a_flag_of_its_set_up_that_the_app_does_not_set(self):
        HOOKS["renamed"] = self.note
        self.http.get("/dancers")
        self.assertFalse(self.is_called)

    @proves
    def test_a_flag_of_its_class_that_the_app_sets(self):
        HOOKS["renamed"] = self.note_early
        self.http.post("/rename/1/Kite")
        self.assertTrue(self.is_early)

    @proves
    def test_an_attribute_of_its_set_up_that_a_method_sets(self):
        self.load()
        self.assertEqual(self.result, ["Sand", "Storm"])

    @proves
    def test_an_attribute_of_its_set_up_that_another_file_sets(self):
        give_status(self)
        self.assertEqual(self.given_away, 200)

    @proves
    def test_an_attribute_of_its_set_up_that_another_file_may_set(self):
        give_error(self)
        self.assertIsNone(self.error)

    @proves
    def test_an_answer_to_its_set_up(self):
        self.http.get("/dancers")
        self.assertEqual(self.token, "Sand")

    @proves
    def test_a_flag_that_its_set_up_sets_by_an_answer(self):
        self.http.get("/dancers")
        self.assertTrue(self.is_up)

    @proves
    def test_a_list_of_its_set_up_and_the_answer(self):
        names = self.http.get("/dancers").json()
        self.assertEqual(names, self.expected_names)

    @proves
    def test_a_part_of_its_client(self):
        self.http.get("/dancers")
        self.assertEqual(len(self.http.cookies), 0)

class TestHonest(unittest.TestCase):
    def setUp(self):
        self.client = self.enterContext(TestClient(app))
        self.client.post("/dancers/Storm")

    @proves
    def test_by_a_method(self):
        self.assertIn("Storm", self.client.get("/dancers").json())

    @proves
    def test_a_list_that_gets_a_good_answer_by_a_method(self):
        good = []
        for path in ("/dancers", "/none"):
            answer = self.client.get(path)
            if answer.json():
                good.append(answer)
        self.assertEqual(len(good), 1)

    @proves
    def test_answers_in_a_list_that_are_alike_by_a_method(self):
        answers = []
        for _ in range(2):
            answers.append(self.client.get("/dancers"))
        self.assertEqual(answers[0].json(), answers[1].json())

    @proves
    def test_a_body_in_a_variable_by_a_method(self):
        answer = self.client.get("/dancers")
        body = answer.json()
        self.assertEqual(len(body), 2)

    @proves
    def test_equal_by_a_method(self):
        self.assertEqual(["Sand", "Storm"], self.client.get("/dancers").json())

    @proves
    def test_false_by_a_method(self):
        answer = self.client.get("/dancers")
        self.assertFalse(answer.is_error)

    @proves
    def test_by_methods_in_one_line(self):
        got = self.client.get("/dancers"); self.assertTrue(True); self.assertIn("Storm", got.text)

    @proves
    def test_counted_by_a_method(self):
        names = self.client.get("/dancers").json()
        self.assertCountEqual(names, ["Storm", "Sand"])

    @proves
    def test_a_flag_by_a_method(self):
        found = False
        for name in self.client.get("/dancers").json():
            found = found or name == "Storm"
        self.assertTrue(found)
"""

SYNC = """
@pytest.fixture
def storm_too(arena):
    with arena.session() as session:
        session.add(Dancer(name="Storm"))
        session.commit()
"""

UNHEARD = """
def must_have(name, names):
    if name not in names:
        raise AssertionError(name)

@proves
async def test_raises(client, storm):
    answer = await client.get("/dancers")
    if "Storm" not in answer.json(): raise AssertionError("Storm is not there")

@proves
async def test_raises_in_a_helper(client, storm):
    must_have("Storm", (await client.get("/dancers")).json())

@proves
async def test_fails(client, storm):
    answer = await client.get("/dancers")
    if "Storm" not in answer.json():
        pytest.fail("Storm is not there")
"""

UNHEARD_METHODS = """
class TestUnheard(unittest.TestCase):
    def setUp(self):
        self.client = self.enterContext(TestClient(app))
        self.client.post("/dancers/Storm")

    @proves
    def test_fails_by_a_method(self):
        if "Storm" not in self.client.get("/dancers").json():
            self.fail("Storm is not there")
"""

_NAMES = re.compile(r"def test_(\w+)")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One run of all of them."""
    folder = tmp_path_factory.mktemp("idle")
    example = seeing(folder, PREAMBLE + SYNC + IDLE + HONEST + UNHEARD + UNHEARD_METHODS)
    return told(example.with_files(giving=GIVING))


@pytest.mark.slow
@pytest.mark.parametrize("name", _NAMES.findall(IDLE))
def test_what_could_not_fail_by_what_the_app_does_proves_nothing(found: Told, name: str) -> None:
    """The line is named, and what to do."""
    assert found.statuses[name] == "HOLLOW", found.run.output
    advice = "compare the answer"
    if name.startswith("all_of"):
        advice = r"all\(…\) of an empty list is true, so assert its length too"
    elif name == "a_method_that_it_does_not_call":
        advice = "answer.json is always true, so compare its value"
    assert re.search(rf"could fail \(test_it.py:\d+ cannot: {advice}", found.reason(name))


@pytest.mark.parametrize("name", _NAMES.findall(HONEST))
def test_nobody_is_accused_whose_values_may_be_the_apps(found: Told, name: str) -> None:
    """Flags, lists and mocks that somebody else has; rows that were read by whomever."""
    assert found.statuses[name] == "PROVEN", found.reason(name)


@pytest.mark.parametrize("name", ["raises", "raises_in_a_helper", "fails", "fails_by_a_method"])
def test_an_error_that_is_not_raised_is_unknown(found: Told, name: str) -> None:
    """It may have been an assertion, and nobody hears it pass."""
    assert found.statuses[name] == "UNKNOWN", found.reason(name)
    assert "is not reached. Assert its condition" in found.reason(name)


@pytest.mark.parametrize(
    "text",
    [
        *("len(x) >= 0", "0 <= len(x)", "r.status_code < 600"),
        *("r.status_code <= 599", "100 <= r.status_code", "100 <= client.get(x).status_code < 600"),
        *("1 < 2", "self.assertTrue(len(x) >= 0)", "len(x) > -1", "len(x) is not None"),
        *("'' in r.text",),
        *("isinstance(r.json(), object)", "isinstance(x, (dict, object))", "x or True"),
        *("self.assertIsNotNone(len(x))",),
        *("self.assertLess(r.status_code, 600)", "self.assertGreaterEqual(len(x), 0)"),
    ],
)
def test_what_is_so_in_any_case_is_constant(text: str) -> None:
    """A length is never negative, a status has three digits."""
    assert is_constant(text)


@pytest.mark.parametrize(
    "text",
    [
        *("len(x) >= 1", "len(x) > 0", "0 < len(x)", "len(x) >= len(y)", "len(x) <= 0", "len(x)"),
        *("r.status_code < 500", "r.status_code <= 600 - x", "r.status_code > 100", "x < 600"),
        *("200 <= r.status_code < 600", "r.status_code != 600", "600 > r.status_code > x"),
        "isinstance(x, int)",
        *("isinstance(r.json(), dict)", "row.status_code is not None", "x is not None", "' ' in x"),
        "isinstance(row.status_code, int)",
        *("all(x)", "all(x for x in y)", "all([x])", "any([])", "not all([])", "all(f())"),
        *("self.assertLess(r.status_code, 500)", "self.assertIn(a, b)", "self.assertGreater(x, 0)"),
    ],
)
def test_what_may_be_otherwise_is_not_constant(text: str) -> None:
    """Each of them has failed in some suite."""
    assert not is_constant(text)
