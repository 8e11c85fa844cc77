"""Tests that pass whatever the app does. None of them may prove a scenario."""

from helpers import *  # noqa: F403


async def test_below_600(client, storm):
    answer = await client.get("/dancers")
    assert answer.status_code < 600


async def test_between_100_and_600(client, storm):
    answer = await client.get("/dancers")
    assert 100 <= answer.status_code < 600


async def test_at_least_none(client, storm):
    answer = await client.get("/dancers")
    assert len(answer.json()) >= 0


async def test_in_a_range(client, storm):
    answer = await client.get("/dancers")
    assert answer.status_code in range(100, 600)


async def test_is_a_number(client, storm):
    answer = await client.get("/dancers")
    assert isinstance(answer.status_code, int)


async def test_has_a_status(client, storm):
    answer = await client.get("/dancers")
    assert answer.status_code


async def test_has_a_text(client, storm):
    answer = await client.get("/dancers")
    assert answer.text is not None


async def test_is_an_object(client, storm):
    answer = await client.get("/dancers")
    assert isinstance(answer.json(), object)


async def test_or_true(client, storm):
    answer = await client.get("/dancers")
    assert answer.json() or True


async def test_is_true_in_itself(client, storm):
    answer = await client.get("/dancers")
    assert bool(answer)


async def test_more_than_less_than_none(client, storm):
    answer = await client.get("/dancers")
    assert len(answer.json()) > -1


async def test_is_itself(client, storm):
    names = (await client.get("/dancers")).json()
    assert names == names


async def test_all_of_nothing(client, storm):
    await client.get("/dancers")
    assert all(name for name in [])


async def test_all_of_an_empty_list(client, storm):
    await client.get("/dancers")
    assert all([])


async def test_all_of_empty_names(client, storm):
    names = [name for name in (await client.get("/dancers")).json() if name == "Nobody"]
    assert all(names)


async def test_all_of_an_empty_answer(client, storm):
    names = [name for name in (await client.get("/dancers")).json() if name == "Nobody"]
    assert all(name == "Storm" for name in names)


async def test_all_of_an_empty_body(client, storm):
    answer = await client.get("/none")
    assert all(dancer["ok"] for dancer in answer.json())


async def test_all_of_an_empty_item(client, storm):
    body = (await client.get("/page")).json()
    assert all(dancer["ok"] for dancer in body["dancers"] if dancer)


async def test_all_of_an_empty_item_of_the_body(client, storm):
    answer = await client.get("/page")
    assert all([dancer["ok"] for dancer in answer.json()["dancers"]])


async def test_its_request(client, storm):
    answer = await client.get("/dancers")
    assert answer.request.method == "GET"
    assert answer.request.headers["accept"]


async def test_the_time_it_took(client, storm):
    answer = await client.get("/dancers")
    assert answer.elapsed.total_seconds() >= 0


async def test_a_body_that_is_its_own(client, storm):
    answer = await client.get("/dancers")
    assert answer.json() == answer.json()


async def test_a_body_of_an_error_too(client, storm):
    answer = await client.get("/dancers")
    assert answer.json() is not None
    assert isinstance(answer.json(), (dict, list))


async def test_a_request_in_the_assertion(client, storm):
    assert (await client.get("/dancers")).json() is not None


async def test_written_as_a_text(client, storm):
    answer = await client.get("/dancers")
    assert str(answer)


async def test_an_error_or_none(client, storm):
    answer = await client.get("/dancers")
    assert answer.is_error or not answer.is_error


async def test_a_body_in_a_variable(client, storm):
    answer = await client.get("/dancers")
    body = answer.json()
    status = answer.status_code
    assert body is not None
    assert isinstance(body, (dict, list)) and status


async def test_a_body_that_is_compared_with_itself(client, storm):
    with mock.patch("app.open", create=True):
        answer = await client.get("/dancers")
        expected = answer.json()
    assert answer.json() == expected


async def test_what_it_sent(client, storm):
    body = {"name": "Ann", "roles": ["lead"]}
    answer = await client.post("/dancers/Ann", json=body, params={"role": body["roles"]})
    assert body["name"] == "Ann"


async def test_an_error_of_python(client, storm):
    await client.get("/dancers")
    with pytest.raises(ValueError):
        int("x")


async def test_a_warning_of_its_own(client, storm):
    await client.get("/dancers")
    with pytest.warns(UserWarning):
        warnings.warn("Storm", UserWarning)


async def test_a_method_that_it_does_not_call(client, storm):
    answer = await client.get("/page")
    assert answer.json


async def test_a_mock_that_it_calls_itself(client, storm):
    notify = mock.Mock()
    notify("Storm")
    await client.get("/dancers")
    notify.assert_called_once_with("Storm")


async def test_a_mock_that_nobody_has(client, storm):
    notify = mock.MagicMock()
    await client.get("/dancers")
    assert not notify.called


async def test_what_a_fixture_seeded(client, storm):
    await client.get("/dancers")
    assert storm.name == "Storm"


async def test_what_it_seeded(client, db_session):
    dancer = Dancer(name="Storm")
    db_session.add(dancer)
    await client.get("/dancers")
    assert dancer.name == "Storm" and dancer.id


def test_what_it_seeded_and_is_sync(test_client, arena):
    session = arena.session()
    dancer = Dancer(name="Storm")
    session.add(dancer)
    session.commit()
    test_client.get("/dancers")
    assert dancer.name == "Storm"


async def test_what_it_has_written_down(client, storm):
    await client.get("/dancers")
    expected = ["Sand", "Storm"]
    assert expected == ["Sand", "Storm"]


async def test_a_dict_that_it_fills(client, storm):
    await client.get("/dancers")
    expected = {}
    expected["x"] = 1
    assert expected["x"] == 1


async def test_a_number_that_it_counts(client, storm):
    await client.get("/dancers")
    number = 1
    number += 1
    assert number == 2


async def test_what_it_computes(client, storm):
    await client.get("/dancers")
    first, names = "Sand", ["Sand", "Storm"]
    count: int = len(names)
    shouted = [f"{name}!" for name in names]
    assert count == 2 and shouted[0] == f"{first}!"


async def test_a_method_of_its_text(client, storm):
    await client.get("/dancers")
    assert "Sand".lower() == "sand"


async def test_a_loop_of_its_own(client, storm):
    await client.get("/dancers")
    names = ["Sand", "Storm"]
    for name in names:
        assert name.startswith("S")


async def test_its_own_in_a_block(client, storm):
    with mock.patch("app.open", create=True):
        await client.get("/dancers")
        expected = ["Sand"]
        assert expected == ["Sand"]


@pytest.mark.parametrize("name, number", [("Sand", 1), ("Storm", 2)])
async def test_its_parameters(client, storm, name, number):
    await client.get("/dancers")
    assert name in ["Sand", "Storm"] and number


async def test_a_constant_of_its_module(client, storm):
    await client.get("/dancers")
    assert NAME == "Sand"


async def test_a_mock_that_a_loop_calls(client, storm):
    notify = mock.Mock()
    notify.kind = "mail"
    await client.get("/dancers")
    for name in ["Sand", "Storm"]:
        notify(name)
    notify.assert_called_with("Storm")
    assert notify.kind == "mail"


async def test_an_error_of_its_own(client, storm):
    await client.get("/dancers")
    items = {}
    with pytest.raises(KeyError):
        items["x"]


async def test_a_mock_in_one_line(client, storm):
    it = mock.Mock()
    it("x")
    await client.get("/dancers")
    it.assert_called_with("x")


async def test_a_text_of_its_own_in_a_helper(client, storm):
    await client.get("/dancers")
    is_storm("Storm")


async def test_a_list_of_its_own_in_a_helper_of_a_helper(client, storm):
    await client.get("/dancers")
    names = ["Sand", "Storm"]
    begin_with_s(names)


async def test_what_a_helper_makes(client, storm):
    await client.get("/dancers")
    names = the_names()
    assert names[0] == "Sand"


async def test_its_own_in_a_helper_with_two_names(client, storm):
    await client.get("/dancers")
    check("Sand")


async def test_its_own_in_a_helper_with_two_names_of_its_own(client, storm):
    await client.get("/dancers")
    verify = is_storm
    verify = is_sand
    verify("Sand")


async def test_what_a_helper_with_two_names_makes(client, storm):
    await client.get("/dancers")
    assert some_names() == ["Kite"]


async def test_a_constant_of_a_fixture(client, storm, a_name):
    await client.get("/dancers")
    assert a_name == "Storm"


async def test_a_constant_of_a_fixture_of_a_fixture(client, storm, shouted):
    await client.get("/dancers")
    assert shouted == ["STORM"]


async def test_a_constant_of_a_fixture_in_a_helper(client, storm, a_name):
    await client.get("/dancers")
    is_storm(a_name)


async def test_an_item_of_a_fixture_of_its_module(client, storm, wanted):
    await client.post("/dancers/Ann", json=wanted)
    assert wanted["status"] == 201


async def test_a_variable_with_an_item_of_a_fixture_of_its_module(client, storm, wanted):
    await client.get("/dancers")
    names = wanted.get("names")
    assert names == ["Sand"]


async def test_a_list_of_a_fixture_of_the_session(client, storm, wanted_names):
    await client.get("/dancers")
    for name in wanted_names:
        is_there(name)


async def test_how_long_a_list_of_a_fixture_of_the_session_is(client, storm, wanted_names):
    await client.get("/dancers")
    assert len(wanted_names) == 2


async def test_a_list_of_its_module(client, storm):
    await client.get("/dancers")
    assert NAMES == ["Sand", "Storm"]


async def test_what_a_library_makes(client, storm):
    await client.get("/dancers")
    expected = json.loads('{"name": "Ann"}')
    assert expected["name"] == "Ann"
    assert Decimal("1.0") == 1


async def test_a_list_of_its_answer(client, storm):
    answer = await client.get("/dancers")
    answers = [answer]
    pair = (answer, 1)
    assert len(answers) == 1 and answers
    assert pair[1] == 1


async def test_how_many_requests_it_sends(client, storm):
    answers = [await client.get(path) for path in ("/dancers", "/none")]
    same = await asyncio.gather(client.get("/dancers"), client.get("/none"))
    assert len(answers) == 2
    assert len(same) == 2


async def test_a_list_that_gets_its_answer(client, storm):
    answers = []
    answers.append(await client.get("/dancers"))
    assert len(answers) == 1
    assert answers


async def test_a_list_that_gets_answers_of_variables(client, storm):
    answers: list[object] = []
    first = await client.get("/dancers")
    answers.append(first)
    second = await client.get("/none")
    answers.append(second.json())
    assert len(answers) == 2


async def test_a_list_that_gets_answers_of_a_loop(client, storm):
    answers = []
    for path in ("/dancers", "/none"):
        answers.append(await client.get(path))
    assert len(answers) == 2


async def test_a_list_that_gets_answers_of_a_variable_of_a_loop(client, storm):
    statuses = []
    for _ in range(3):
        answer = await client.get("/dancers")
        statuses.append(answer.status_code)
    assert len(statuses) > 2


async def test_the_class_of_its_answer(client, storm):
    answer = await client.get("/dancers")
    assert isinstance(answer, httpx.Response)
    assert answer is not None
    assert "Response" in str(type(answer))


async def test_an_answer_in_a_helper(client, storm):
    answer = await client.get("/dancers")
    is_there(answer)


async def test_an_answer_of_a_helper(client, storm):
    answer = await fetch(client)
    assert answer


async def test_an_answer_of_a_fixture(client, storm, first):
    await client.get("/dancers")
    assert first


async def test_two_answers(client, storm):
    one = await client.get("/dancers")
    two = await client.get("/none")
    assert one and two and one is not two


async def test_its_tools(client, db_session, storm):
    await client.get("/dancers")
    assert client
    assert isinstance(client, httpx.AsyncClient)
    assert isinstance(db_session, AsyncSession) and db_session is not None
    assert app is not None and Dancer is not None


async def test_a_range_of_its_own(client, storm):
    answer = await client.get("/dancers")
    possible = range(100, 600)
    assert answer.status_code in possible


class TestConstants:
    ITS_NAME = "Sand"

    async def test_a_constant_of_its_class(self, client, storm):
        await client.get("/dancers")
        assert self.ITS_NAME == "Sand"
        assert TestConstants.ITS_NAME == "Sand"


class TestSetUp:
    def setup_method(self):
        self.wanted_status = 201

    async def test_a_constant_of_its_set_up(self, client, storm):
        await client.get("/dancers")
        assert self.wanted_status == 201


class TestSetUpByFixture:
    @pytest.fixture(autouse=True)
    def prepare(self):
        self.wanted_code = 201

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
    def test_a_constant_by_a_method(self):
        self.http.get("/dancers")
        self.assertEqual(self.wanted, 201)
        self.assertEqual(self.wanted_of_class, 201)

    def test_a_dict_of_its_set_up_by_a_method(self):
        self.http.get("/dancers")
        self.assertEqual(self.wanted_body["status"], 201)

    def test_its_client_by_methods(self):
        self.http.get("/dancers")
        self.assertTrue(self.http)
        self.assertIsNotNone(self.http)
        self.assertIsInstance(self.http, TestClient)


class TestIdle(unittest.TestCase):
    def setUp(self):
        self.client = self.enterContext(TestClient(app))
        self.client.post("/dancers/Storm")

    def test_a_list_that_gets_its_answer_by_a_method(self):
        answers = []
        for _ in range(2):
            answers.append(self.client.get("/dancers"))
        self.assertEqual(len(answers), 2)

    def test_a_request_in_a_method(self):
        self.assertIsNotNone(self.client.get("/dancers").json())

    def test_below_600_by_a_method(self):
        answer = self.client.get("/dancers")
        self.assertLess(answer.status_code, 600)

    def test_at_least_none_by_a_method(self):
        answer = self.client.get("/dancers")
        self.assertGreaterEqual(len(answer.json()), 0)

    def test_true_by_a_method(self):
        answer = self.client.get("/dancers")
        self.assertTrue(len(answer.json()) >= 0)

    def test_its_own_by_a_method(self):
        self.client.get("/dancers")
        expected = ["Sand"]
        self.assertEqual(expected, ["Sand"])
        self.assertListEqual(expected, ["Sand"])

    def test_a_mock_by_a_method(self):
        notify = mock.Mock()
        self.client.get("/dancers")
        notify("Storm")
        self.assertTrue(notify.called)

    def test_a_subtest_of_its_own(self):
        self.client.get("/dancers")
        for name in ["Sand"]:
            with self.subTest(name=name):
                self.assertEqual(name, "Sand")

    def test_itself_by_methods(self):
        answer = self.client.get("/dancers")
        self.assertIs(answer, answer)
        self.assertListEqual(answer.json(), answer.json())

    def test_itself_in_one_line(self):
        answer = self.client.get("/dancers")
        self.assertEqual(answer.text, answer.text)

    def test_true_in_one_line(self):
        self.client.get("/dancers")
        self.assertTrue(True)
        self.assertFalse(False)

    def test_not_none_in_one_line(self):
        answer = self.client.get("/dancers")
        self.assertIsNotNone(answer)

    def test_an_empty_text_in_one_line(self):
        answer = self.client.get("/dancers")
        self.assertIn("", answer.text)

    def test_a_mock_by_a_method_in_one_line(self):
        it = mock.Mock()
        self.client.get("/dancers")
        it("x")
        it.assert_called_with("x")

    def test_true_in_a_block_of_one_line(self):
        self.client.get("/dancers")
        with self.subTest():
            self.assertTrue(True)
