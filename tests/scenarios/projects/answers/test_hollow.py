"""Tests that pass whatever the app does. None of them may prove a scenario."""

from helpers import *  # noqa: F403


async def test_below_600(client, storm):
    answer = await client.get("/dancers")
    assert answer.status_code < 600


async def test_at_least_none(client, storm):
    answer = await client.get("/dancers")
    assert len(answer.json()) >= 0


async def test_is_a_number(client, storm):
    answer = await client.get("/dancers")
    assert isinstance(answer.status_code, int)


async def test_or_true(client, storm):
    answer = await client.get("/dancers")
    assert answer.json() or True


async def test_is_itself(client, storm):
    names = (await client.get("/dancers")).json()
    assert names == names


async def test_all_of_nothing(client, storm):
    await client.get("/dancers")
    assert all(name for name in [])


async def test_all_of_empty_names(client, storm):
    names = [name for name in (await client.get("/dancers")).json() if name == "Nobody"]
    assert all(names)


async def test_all_of_an_empty_body(client, storm):
    answer = await client.get("/none")
    assert all(dancer["ok"] for dancer in answer.json())


async def test_all_of_an_empty_item(client, storm):
    body = (await client.get("/page")).json()
    assert all(dancer["ok"] for dancer in body["dancers"] if dancer)


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


async def test_a_request_in_the_assertion(client, storm):
    assert (await client.get("/dancers")).json() is not None


async def test_an_error_or_none(client, storm):
    answer = await client.get("/dancers")
    assert answer.is_error or not answer.is_error


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


async def test_a_mock_that_it_calls_itself(client, storm):
    notify = mock.Mock()
    notify("Storm")
    await client.get("/dancers")
    notify.assert_called_once_with("Storm")


async def test_a_mock_that_nobody_has(client, storm):
    notify = mock.MagicMock()
    await client.get("/dancers")
    assert not notify.called


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


@pytest.mark.parametrize("name, number", [("Sand", 1), ("Storm", 2)])
async def test_its_parameters(client, storm, name, number):
    await client.get("/dancers")
    assert name in ["Sand", "Storm"] and number


async def test_a_text_of_its_own_in_a_helper(client, storm):
    await client.get("/dancers")
    is_storm("Storm")


async def test_a_constant_of_a_fixture(client, storm, a_name):
    await client.get("/dancers")
    assert a_name == "Storm"


async def test_a_list_of_a_fixture_of_the_session(client, storm, wanted_names):
    await client.get("/dancers")
    for name in wanted_names:
        is_there(name)


async def test_how_many_requests_it_sends(client, storm):
    answers = [await client.get(path) for path in ("/dancers", "/none")]
    same = await asyncio.gather(client.get("/dancers"), client.get("/none"))
    assert len(answers) == 2
    assert len(same) == 2


async def test_a_list_that_gets_answers_of_a_loop(client, storm):
    answers = []
    for path in ("/dancers", "/none"):
        answers.append(await client.get(path))
    assert len(answers) == 2


async def test_the_class_of_its_answer(client, storm):
    answer = await client.get("/dancers")
    assert isinstance(answer, httpx.Response)
    assert answer is not None
    assert "Response" in str(type(answer))


async def test_an_answer_of_a_fixture(client, storm, first):
    await client.get("/dancers")
    assert first


async def test_its_tools(client, db_session, storm):
    await client.get("/dancers")
    assert client
    assert isinstance(client, httpx.AsyncClient)
    assert isinstance(db_session, AsyncSession) and db_session is not None
    assert app is not None and Dancer is not None


class TestSetUp:
    def setup_method(self):
        self.wanted_status = 201

    async def test_a_constant_of_its_set_up(self, client, storm):
        await client.get("/dancers")
        assert self.wanted_status == 201


class TestIdle(unittest.TestCase):
    def setUp(self):
        self.client = self.enterContext(TestClient(app))
        self.client.post("/dancers/Storm")

    def test_at_least_none_by_a_method(self):
        answer = self.client.get("/dancers")
        self.assertGreaterEqual(len(answer.json()), 0)

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

    def test_an_empty_text(self):
        answer = self.client.get("/dancers")
        self.assertIn("", answer.text)

    def test_a_true_constant_in_a_subtest(self):
        self.client.get("/dancers")
        with self.subTest():
            self.assertTrue(True)
