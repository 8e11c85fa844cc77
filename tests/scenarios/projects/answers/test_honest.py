"""Tests that may fail by what the app does. Most of them prove their scenarios."""

from helpers import *  # noqa: F403


async def test_the_type_of_its_body(client, storm):
    body = (await client.get("/dancers")).json()
    assert isinstance(body, list)


async def test_what_it_sent_and_got(client, storm):
    body = {"name": "Ann"}
    assert (await client.post("/dancers/Ann", json=body)).json() == body["name"]


async def test_an_error_of_the_answer(client, storm):
    answer = await client.get("/dancers")
    with pytest.raises(IndexError):
        answer.json()[2]


async def test_all_of_a_missing_item(client, storm):
    answer = await client.get("/page")
    assert all(name == "Sand" for name in answer.json().get("nothing", []))


async def test_a_property(client, storm):
    assert (await client.get("/page")).is_success


async def test_a_refusal_by_no_success(client, storm):
    assert not (await client.get("/nothing")).is_success


async def test_a_flag(client, storm):
    found = False
    for name in (await client.get("/dancers")).json():
        if name == "Storm":
            found = True
    assert found


async def test_one_flag(client, storm):
    for name in (await client.get("/dancers")).json():
        if name == "Storm":
            found = True
    assert found


async def test_a_count(client, storm):
    count = 0
    for name in (await client.get("/dancers")).json():
        count += 1
    assert count == 2


async def test_a_mock_in_the_app(client, storm):
    renamed = mock.Mock()
    HOOKS["renamed"] = renamed
    await client.post("/rename/1/Kite")
    renamed.assert_called_once_with()


async def test_by_the_session_of_the_app(client, db_session):
    dancer = Dancer(name="Storm")
    db_session.add(dancer)
    await db_session.commit()
    app.dependency_overrides[get_db] = lambda: db_session
    await client.post(f"/rename/{dancer.id}/Kite")
    app.dependency_overrides.clear()
    assert dancer.name == "Kite"


async def test_refreshed(client, db_session, storm):
    await db_session.commit()
    await client.post(f"/rename/{storm.id}/Kite")
    await db_session.refresh(storm)
    assert storm.name == "Kite"


async def test_of_a_session_of_the_apps_own(client):
    async with maker() as session:
        dancer = Dancer(name="Storm")
        session.add(dancer)
        await session.commit()
        await session.refresh(dancer)
        await client.post(f"/rename/{dancer.id}/Kite")
        await session.refresh(dancer)
        assert dancer.name == "Kite"


def test_read_and_let_go_and_is_sync(test_client, arena, storm_too):
    test_client.post("/rename/1/Kite")
    with arena.session() as session:
        dancer = session.get(Dancer, 1)
    assert dancer.name == "Kite"


async def test_changes_alone(client, arena, storm):
    async with arena.expect_changes(dancers=inserted(1, name="Ann")):
        await client.post("/dancers/Ann")


async def test_a_flag_behind_swallowed_errors(client, storm):
    is_done = False
    with contextlib.suppress(KeyError):
        await client.get("/dancers")
        is_done = True
    assert is_done


async def test_what_was_printed(client, storm, capsys):
    HOOKS["renamed"] = lambda: print("renamed")
    await client.post("/rename/1/Kite")
    assert capsys.readouterr().out.strip() == "renamed"


@pytest.mark.parametrize("name", ["Sand", "Storm"])
async def test_a_parameter_in_the_answer(client, storm, name):
    assert name in (await client.get("/dancers")).json()


async def test_the_answer_in_a_helper(client, storm):
    is_storm((await client.get("/dancers")).json()[1])


async def test_each_answer_in_a_helper(client, storm):
    is_storm((await client.get("/dancers")).json()[1])
    is_storm((await client.get("/dancers")).json()[-1])


async def test_a_list_of_a_fixture_of_its_module_that_the_app_fills(client, storm, mailer, outbox):
    outbox.clear()
    await client.post("/rename/1/Kite")
    assert outbox == ["it"]


async def test_a_list_of_a_fixture_of_its_module_that_it_shares(client, storm, shared_box):
    HOOKS["renamed"] = lambda: shared_box.append("it")
    await client.post("/rename/1/Kite")
    assert shared_box


async def test_a_list_of_a_fixture_of_its_module_that_another_test_shares(
    client, storm, shared_box
):
    shared_box.clear()
    await client.get("/dancers")
    assert not shared_box


async def test_a_list_of_its_module_that_the_app_fills(client, storm):
    HOOKS["renamed"] = lambda: CALLS.append("it")
    await client.post("/rename/1/Kite")
    assert CALLS == ["it"]


async def test_the_time_until_the_answer(client, storm):
    start = datetime.datetime.now()
    await client.get("/dancers")
    assert datetime.datetime.now() - start < datetime.timedelta(minutes=1)


async def test_a_list_that_gets_no_answer_of_an_error(client, storm):
    answers = []
    with contextlib.suppress(Exception):
        answers.append(await client.get("/dancers"))
    assert len(answers) == 1


async def test_a_list_that_gets_a_part_of_its_answer(client, storm):
    first = []
    for _ in range(2):
        first.append((await client.get("/dancers")).json()[0])
    assert len(first) == 2


async def test_raises(client, storm):
    if "Storm" not in (await client.get("/dancers")).json():
        raise AssertionError("Storm is not there")


async def test_fails(client, storm):
    if "Storm" not in (await client.get("/dancers")).json():
        pytest.fail("Storm is not there")


class TestHonest(unittest.TestCase):
    def setUp(self):
        self.http = self.enterContext(TestClient(app))
        self.http.post("/dancers/Storm")
        self.calls_seen = []
        self.token = self.http.get("/dancers").json()[0]

    def tearDown(self):
        HOOKS.clear()

    def test_by_a_method(self):
        self.assertIn("Storm", self.http.get("/dancers").json())

    def test_fails_by_a_method(self):
        if "Storm" not in self.http.get("/dancers").json():
            self.fail("Storm is not there")

    def test_a_list_of_its_set_up_that_the_app_fills(self):
        HOOKS["renamed"] = lambda: self.calls_seen.append("it")
        self.http.post("/rename/1/Kite")
        self.assertEqual(self.calls_seen, ["it"])

    def test_a_list_of_its_set_up_that_the_app_does_not_fill(self):
        HOOKS["renamed"] = lambda: self.calls_seen.append("it")
        self.http.get("/dancers")
        self.assertFalse(self.calls_seen)

    def test_an_answer_to_its_set_up(self):
        self.http.get("/dancers")
        self.assertEqual(self.token, "Sand")

    def test_a_part_of_its_client(self):
        self.http.get("/dancers")
        self.assertEqual(len(self.http.cookies), 0)
