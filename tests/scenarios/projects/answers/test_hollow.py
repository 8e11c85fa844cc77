"""Tests that pass whatever the app does. None of them may prove a scenario."""

from helpers import *  # noqa: F403


async def test_below_600(client, storm):
    assert (await client.get("/dancers")).status_code < 600


async def test_all_of_an_empty_body(client, storm):
    assert all(dancer["ok"] for dancer in (await client.get("/none")).json())


async def test_any_body_of_a_refusal(client, storm):
    assert (await client.get("/nothing")).json()


async def test_what_it_sent(client, storm):
    body = {"name": "Ann", "roles": ["lead"]}
    answer = await client.post("/dancers/Ann", json=body, params={"role": body["roles"]})
    assert body["name"] == "Ann"


async def test_an_error_of_python(client, storm):
    await client.get("/dancers")
    with pytest.raises(ValueError):
        int("x")


async def test_a_mock_that_it_calls_itself(client, storm):
    notify = mock.Mock()
    notify("Storm")
    await client.get("/dancers")
    notify.assert_called_once_with("Storm")


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


async def test_how_many_requests_it_sends(client, storm):
    answers = [await client.get(path) for path in ("/dancers", "/none")]
    same = await asyncio.gather(client.get("/dancers"), client.get("/none"))
    assert len(answers) == 2
    assert len(same) == 2


async def test_an_answer_before_its_last_request(client, storm):
    assert (await client.post("/dancers/Ann")).status_code == 201
    await client.post("/rename/1/Kite")


async def test_nothing_of_its_last_answer(client, storm):
    assert (await client.post("/dancers/Ann")).json() == "Ann"
    assert await client.get("/dancers") is not None


async def test_an_answer_of_a_fixture(client, storm, first):
    await client.get("/dancers")
    assert first


class TestIdle(unittest.TestCase):
    def setUp(self):
        self.client = self.enterContext(TestClient(app))
        self.client.post("/dancers/Storm")

    def test_at_least_none_by_a_method(self):
        self.assertGreaterEqual(len(self.client.get("/dancers").json()), 0)

    def test_a_subtest_of_its_own(self):
        self.client.get("/dancers")
        for name in ["Sand"]:
            with self.subTest(name=name):
                self.assertEqual(name, "Sand")
