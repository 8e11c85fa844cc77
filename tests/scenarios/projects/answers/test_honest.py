"""Tests that may fail by what the app does. Most of them prove their scenarios."""

from helpers import *  # noqa: F403


async def test_below_500(client, storm):
    answer = await client.get("/dancers")
    assert answer.status_code < 500


async def test_a_body_in_a_variable_too(client, storm):
    answer = await client.get("/dancers")
    body = answer.json()
    assert isinstance(body, list)


async def test_two_answers_by_one_name(client, storm):
    answer = await client.get("/dancers")
    former = answer.json()
    answer = await client.get("/dancers")
    assert answer.json() == former


async def test_two_answers_in_a_loop(client, storm):
    for number in range(2):
        answer = await client.get("/dancers")
        if not number:
            former = answer.json()
    assert answer.json() == former


async def test_a_body_that_it_changes(client, storm):
    answer = await client.get("/page")
    body = answer.json()
    body.pop("all")
    assert body != answer.json()
    assert {**body, "all": ["Sand"]} == answer.json()


async def test_what_it_sent_and_got(client, storm):
    body = {"name": "Ann"}
    answer = await client.post("/dancers/Ann", json=body)
    assert answer.json() == body["name"]


async def test_what_a_helper_fills(client, storm):
    names = []

    async def get(path, json):
        json.append((await client.get(path)).status_code)

    await get("/dancers", json=names)
    assert names == [200]


async def test_an_error_of_the_answer(client, storm):
    answer = await client.get("/dancers")
    with pytest.raises(IndexError):
        answer.json()[2]


async def test_at_least_one(client, storm):
    answer = await client.get("/dancers")
    assert len(answer.json()) >= 1


async def test_all_of_some(client, storm):
    names = (await client.get("/dancers")).json()
    assert all(name for name in names)


async def test_all_of_an_item(client, storm):
    answer = await client.get("/page")
    assert all(name == "Sand" for name in answer.json()["all"])


async def test_all_of_a_missing_item(client, storm):
    answer = await client.get("/page")
    assert all(name == "Sand" for name in answer.json().get("nothing", []))


async def test_a_property(client, storm):
    answer = await client.get("/page")
    assert answer.is_success


async def test_all_of_its_own(client, storm):
    names = (await client.get("/dancers")).json()
    expected = ["Sand", "Storm"]
    assert all(name in names for name in expected)


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


async def test_a_list_that_is_filled(client, storm):
    found = []
    for name in (await client.get("/dancers")).json():
        if name == "Storm":
            found.append("yes")
    assert found == ["yes"]


async def test_a_list_that_is_given(client, storm):
    async def names_of(into):
        into.extend((await client.get("/dancers")).json())

    found = []
    await names_of(found)
    assert found == ["Sand", "Storm"]


async def test_a_list_that_is_replaced(client, storm):
    found = ["nobody"]
    found[:] = (await client.get("/dancers")).json()
    assert found == ["Sand", "Storm"]


async def test_a_list_by_two_names(client, storm):
    found = same = []
    same += (await client.get("/dancers")).json()
    assert found == ["Sand", "Storm"]


async def test_a_mock_in_the_app(client, storm):
    renamed = mock.Mock()
    HOOKS["renamed"] = renamed
    await client.post("/rename/1/Kite")
    renamed.assert_called_once_with()


async def test_a_mock_that_is_patched_in(client, storm):
    renamed = mock.Mock()
    with mock.patch.dict(HOOKS, renamed=renamed):
        await client.post("/rename/1/Kite")
    assert renamed.called


async def test_a_list_that_the_app_fills(client, storm):
    renamed = []
    HOOKS["renamed"] = lambda: renamed.append("it")
    await client.post("/rename/1/Kite")
    assert renamed == ["it"]


async def test_a_flag_that_the_app_sets(client, storm):
    is_renamed = False

    def note():
        nonlocal is_renamed
        is_renamed = True

    HOOKS["renamed"] = note
    await client.post("/rename/1/Kite")
    assert is_renamed


async def test_a_mock_that_is_told_the_answer(client, storm):
    heard = mock.Mock()
    heard((await client.get("/dancers")).json())
    heard.assert_called_once_with(["Sand", "Storm"])


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


async def test_read_again(client, db_session, storm):
    await db_session.commit()
    await client.post(f"/rename/{storm.id}/Kite")
    await db_session.scalars(select(Dancer))
    assert storm.name == "Kite"


async def test_read_before_another_request(client, db_session, storm):
    await db_session.commit()
    await client.post(f"/rename/{storm.id}/Kite")
    await db_session.refresh(storm)
    await client.get("/dancers")
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


async def test_read_and_let_go(client, storm):
    await client.post("/rename/1/Kite")
    async with maker() as session:
        dancer = await session.get(Dancer, 1)
    assert dancer.name == "Kite"


def test_read_and_let_go_and_is_sync(test_client, arena, storm_too):
    test_client.post("/rename/1/Kite")
    with arena.session() as session:
        dancer = session.get(Dancer, 1)
    assert dancer.name == "Kite"


def test_expired_and_is_sync(test_client, arena):
    session = arena.session()
    dancer = Dancer(name="Storm")
    session.add(dancer)
    session.commit()
    test_client.post(f"/rename/{dancer.id}/Kite")
    session.expire(dancer)
    assert dancer.name == "Kite"


async def test_refreshed_in_part(client, db_session, storm):
    await db_session.commit()
    await client.post(f"/rename/{storm.id}/Kite")
    await db_session.refresh(storm, ["name"])
    assert storm.name == "Kite"


async def test_of_a_column_alone(client, db_session, storm):
    await client.post("/rename/1/Kite")
    name = await db_session.scalar(select(Dancer.name).where(Dancer.id == 1))
    assert name == "Kite"


async def test_beside_what_was_seeded(client, storm):
    assert storm.name in (await client.get("/dancers")).json()


async def test_in_a_loop(client, storm):
    expected = []
    for _ in range(2):
        assert (await client.get("/dancers")).json() != expected


async def test_changes_alone(client, arena, storm):
    async with arena.expect_changes(dancers=inserted(1, name="Ann")):
        await client.post("/dancers/Ann")


async def test_a_text_by_a_conditional_expression(client, storm):
    found = []
    answer = await client.get("/dancers")
    found.append("yes") if answer.is_success else found.append("no")
    assert found == ["yes"]


async def test_a_text_behind_and(client, storm):
    found = []
    answer = await client.get("/dancers")
    answer.is_success and found.append("yes")
    assert found == ["yes"]


async def test_texts_of_a_comprehension(client, storm):
    found = []
    answer = await client.get("/dancers")
    [found.append("yes") for name in answer.json() if name == "Storm"]
    assert found == ["yes"]


async def test_a_list_that_an_error_shortens(client, storm):
    names = ["Sand", "Storm"]
    answer = await client.get("/dancers")
    if answer.is_error:
        names.pop()
    assert names == ["Sand", "Storm"]


async def test_how_often_it_tried(client, storm):
    for attempt in range(3):
        if (await client.get("/dancers")).status_code == 200:
            break
    assert attempt == 0


async def test_a_flag_of_a_loop_that_goes_on(client, storm):
    answer = await client.get("/dancers")
    count = 0
    for name in ["Sand", "Ann"]:
        if name not in answer.json():
            continue
        count += 1
    assert count == 1


async def test_a_flag_of_an_error(client, storm):
    has_failed = False
    try:
        (await client.get("/dancers")).raise_for_status()
    except Exception:
        has_failed = True
    assert not has_failed


async def test_a_flag_behind_swallowed_errors(client, storm):
    is_done = False
    with contextlib.suppress(KeyError):
        await client.get("/dancers")
        is_done = True
    assert is_done


async def test_one_of_two_texts(client, storm):
    answer = await client.get("/dancers")
    outcome = "some" if answer.json() else "none"
    if answer.is_error:
        outcome = "error"
    assert outcome == "some"


async def test_a_mock_that_sends_the_answer(client, storm):
    gateway = mock.Mock()
    answer = await client.get("/dancers")
    gateway.post("/names", json=answer.json())
    gateway.post.assert_called_once_with("/names", json=["Sand", "Storm"])


async def test_a_list_in_a_dict(client, storm):
    found = {}
    for name in (await client.get("/dancers")).json():
        found.setdefault("names", []).append(name)
    assert found == {"names": ["Sand", "Storm"]}


async def test_a_list_by_another_list(client, storm):
    found = []
    lists = [found]
    for each in lists:
        each.extend((await client.get("/dancers")).json())
    assert found == ["Sand", "Storm"]


async def test_a_list_that_an_object_fills(client, storm):
    renamed = []

    class Mailer:
        def send(self):
            renamed.append("it")

    HOOKS["renamed"] = Mailer().send
    await client.post("/rename/1/Kite")
    assert renamed == ["it"]


async def test_a_mock_in_a_dict_of_the_app(client, storm):
    renamed = mock.Mock(return_value=None)
    hooks = {"renamed": renamed}
    HOOKS.update(hooks)
    await client.post("/rename/1/Kite")
    assert renamed.call_count == 1


async def test_a_mock_behind_a_monkeypatch(client, storm, monkeypatch):
    renamed = mock.Mock()
    monkeypatch.setitem(HOOKS, "renamed", renamed)
    await client.post("/rename/1/Kite")
    renamed.assert_called_once()


async def test_what_was_printed(client, storm, capsys):
    HOOKS["renamed"] = lambda: print("renamed")
    await client.post("/rename/1/Kite")
    printed = capsys.readouterr().out
    assert printed.strip() == "renamed"


@pytest.mark.parametrize("name", ["Sand", "Storm"])
async def test_a_parameter_in_the_answer(client, storm, name):
    names = (await client.get("/dancers")).json()
    assert name in names


async def test_a_word_of_python(client, storm):
    type = (await client.get("/dancers")).json()
    assert type == ["Sand", "Storm"]


async def test_an_error_of_an_item(client, storm):
    names = (await client.get("/dancers")).json()
    with pytest.raises(IndexError):
        names[2]


async def test_the_answer_in_a_helper(client, storm):
    is_storm((await client.get("/dancers")).json()[1])


async def test_its_own_and_the_answer_in_helpers_of_one_line(client, storm):
    answer = await client.get("/dancers")
    is_storm("Storm"), is_storm(answer.json()[1])


async def test_the_answer_in_a_helper_of_a_helper(client, storm):
    names = (await client.get("/dancers")).json()
    begin_with_s(names)


async def test_a_helper_by_another_name(client, storm):
    answer = await client.get("/dancers")
    check = is_storm
    check(answer.json()[1])


async def test_a_helper_with_two_names(client, storm):
    answer = await client.get("/dancers")
    check_names(answer.json(), "Storm")


async def test_a_helper_that_the_answer_chooses(client, storm):
    answer = await client.get("/dancers")
    verify = is_storm
    if answer.is_success:
        verify = is_sand
    verify("Sand")


async def test_a_helper_that_the_answer_chooses_in_one_line(client, storm):
    answer = await client.get("/dancers")
    verify = is_sand if answer.is_success else is_storm
    verify("Sand")


async def test_a_helper_with_a_part_of_its_arguments(client, storm):
    answer = await client.get("/dancers")
    verify = functools.partial(has_name, answer.json())
    verify("Storm")


async def test_a_helper_by_a_function(client, storm):
    answer = await client.get("/dancers")
    list(map(is_storm, answer.json()[1:]))


async def test_its_own_by_a_condition_in_a_helper(client, storm):
    name = "Storm"
    if (await client.get("/dancers")).is_error:
        name = "error"
    is_storm(name)


async def test_a_list_that_a_helper_fills(client, storm):
    names = []
    fill(names, (await client.get("/dancers")).json())
    assert names == ["Sand", "Storm"]


async def test_a_list_that_a_helper_fills_by_name(client, storm):
    names = []
    answer = await client.get("/dancers")
    fill(values=answer.json(), into=names)
    begin_with(names)


async def test_a_list_of_a_fixture_that_the_app_has(client, storm, hooked, calls):
    await client.post("/rename/1/Kite")
    assert calls == ["it"]


async def test_a_list_of_a_fixture_that_the_test_shares(client, storm, calls):
    HOOKS["renamed"] = lambda: calls.append("it")
    await client.post("/rename/1/Kite")
    assert calls == ["it"]


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


async def test_a_dict_of_a_fixture_of_its_module_with_the_answer(client, storm, shared_names):
    shared_names["names"] = (await client.get("/dancers")).json()
    assert shared_names["names"] == ["Sand", "Storm"]


async def test_an_item_of_a_fixture_of_its_module_and_the_answer(client, storm, wanted):
    answer = await client.get("/dancers")
    assert wanted["names"][0] in answer.json()


async def test_items_of_a_fixture_of_the_session_and_the_answer(client, storm, wanted_names):
    names = (await client.get("/dancers")).json()
    for name in wanted_names:
        assert name in names


async def test_a_constant_of_a_fixture_and_the_answer(client, storm, a_name):
    names = (await client.get("/dancers")).json()
    assert a_name in names


async def test_a_list_of_its_module_that_the_app_fills(client, storm):
    HOOKS["renamed"] = lambda: CALLS.append("it")
    await client.post("/rename/1/Kite")
    assert CALLS == ["it"]


async def test_a_patched_constant(client, storm, monkeypatch):
    monkeypatch.setattr(f"{__name__}.PATCHED", (await client.get("/dancers")).json()[0])
    assert PATCHED == "Sand"


async def test_what_a_library_reads(client, storm):
    names = json.loads((await client.get("/dancers")).text)
    assert names == ["Sand", "Storm"]


async def test_the_time_until_the_answer(client, storm):
    start = datetime.datetime.now()
    await client.get("/dancers")
    assert datetime.datetime.now() - start < datetime.timedelta(minutes=1)


async def test_an_answer_or_none(client, storm):
    answer = await client.get("/dancers")
    good = answer if answer.is_success else None
    assert good is not None


async def test_the_first_good_answer(client, storm):
    answers = [await client.get("/dancers"), await client.get("/none")]
    good = next((answer for answer in answers if answer.json()), None)
    assert good


async def test_an_answer_or_none_of_a_helper(client, storm):
    answer = await fetch_if_good(client)
    is_there(answer)


async def test_an_answer_of_some_rounds(client, storm):
    good = None
    for path in ("/none", "/dancers"):
        answer = await client.get(path)
        if answer.json():
            good = answer
    assert good


async def test_how_many_answers_are_good(client, storm):
    answers = [await client.get(path) for path in ("/dancers", "/none")]
    good = [answer for answer in answers if answer.json()]
    assert len(good) == 1


async def test_how_many_rounds_it_takes(client, storm):
    answers = []
    path = "/dancers"
    while path:
        answers.append(await client.get(path))
        path = "/none" if len(answers[-1].json()) == 2 else ""
    assert len(answers) == 2


async def test_a_list_that_gets_a_good_answer(client, storm):
    good = []
    answer = await client.get("/dancers")
    if answer.is_success:
        good.append(answer)
    assert len(good) == 1


async def test_a_list_that_gets_the_good_answers_of_a_loop(client, storm):
    good = []
    for path in ("/dancers", "/none"):
        answer = await client.get(path)
        if answer.json():
            good.append(answer)
    assert good


async def test_a_list_that_gets_no_answer_of_an_error(client, storm):
    answers = []
    with contextlib.suppress(Exception):
        answers.append(await client.get("/dancers"))
    assert len(answers) == 1


async def test_a_list_that_gets_a_part_of_its_answer(client, storm):
    first = []
    for _ in range(2):
        answer = await client.get("/dancers")
        first.append(answer.json()[0])
    assert len(first) == 2


async def test_a_list_that_gets_an_answer_for_each_name(client, storm):
    answers = []
    names = (await client.get("/dancers")).json()
    for _ in names:
        answers.append(await client.get("/dancers"))
    assert len(answers) == 2


async def test_an_answer_in_a_list_that_gets_it(client, storm):
    answers = []
    answers.append(await client.get("/dancers"))
    assert answers[0].json() == ["Sand", "Storm"]


async def test_answers_in_a_list_that_are_alike(client, storm):
    answers = []
    for _ in range(2):
        answer = await client.get("/dancers")
        answers.append(answer)
    assert answers[0].json() == answers[1].json()


async def test_a_list_that_loses_an_answer(client, storm):
    answers = []
    answers.append(await client.get("/dancers"))
    if answers[0].is_error:
        answers.pop()
    assert answers


async def test_answers_that_are_alike(client, storm):
    answers = [await client.get("/dancers") for _ in range(2)]
    assert len({answer.text for answer in answers}) == 1


async def test_answers_at_once_that_are_alike(client, storm):
    answers = await asyncio.gather(client.get("/dancers"), client.get("/dancers"))
    assert answers[0].json() == answers[1].json()


async def test_an_error_that_is_none(client, storm):
    error = None
    try:
        (await client.get("/dancers")).raise_for_status()
    except httpx.HTTPError as raised:
        error = raised
    assert error is None


class TestAttributes:
    found = None

    async def test_an_attribute_of_its_class(self, client, storm):
        await self.load(client)
        assert self.found == ["Sand", "Storm"]

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

    def test_a_list_of_its_set_up_that_the_app_fills(self):
        HOOKS["renamed"] = lambda: self.calls_seen.append("it")
        self.http.post("/rename/1/Kite")
        self.assertEqual(self.calls_seen, ["it"])

    def test_a_flag_of_its_set_up_that_the_app_sets(self):
        HOOKS["renamed"] = self.note
        self.http.post("/rename/1/Kite")
        self.assertTrue(self.is_called)

    def test_a_flag_of_its_set_up_that_the_app_does_not_set(self):
        HOOKS["renamed"] = self.note
        self.http.get("/dancers")
        self.assertFalse(self.is_called)

    def test_a_flag_of_its_class_that_the_app_sets(self):
        HOOKS["renamed"] = self.note_early
        self.http.post("/rename/1/Kite")
        self.assertTrue(self.is_early)

    def test_an_attribute_of_its_set_up_that_a_method_sets(self):
        self.load()
        self.assertEqual(self.result, ["Sand", "Storm"])

    def test_an_attribute_of_its_set_up_that_another_file_sets(self):
        give_status(self)
        self.assertEqual(self.given_away, 200)

    def test_an_attribute_of_its_set_up_that_another_file_may_set(self):
        give_error(self)
        self.assertIsNone(self.error)

    def test_an_answer_to_its_set_up(self):
        self.http.get("/dancers")
        self.assertEqual(self.token, "Sand")

    def test_a_flag_that_its_set_up_sets_by_an_answer(self):
        self.http.get("/dancers")
        self.assertTrue(self.is_up)

    def test_a_list_of_its_set_up_and_the_answer(self):
        names = self.http.get("/dancers").json()
        self.assertEqual(names, self.expected_names)

    def test_a_part_of_its_client(self):
        self.http.get("/dancers")
        self.assertEqual(len(self.http.cookies), 0)


class TestHonest(unittest.TestCase):
    def setUp(self):
        self.client = self.enterContext(TestClient(app))
        self.client.post("/dancers/Storm")

    def test_by_a_method(self):
        self.assertIn("Storm", self.client.get("/dancers").json())

    def test_a_list_that_gets_a_good_answer_by_a_method(self):
        good = []
        for path in ("/dancers", "/none"):
            answer = self.client.get(path)
            if answer.json():
                good.append(answer)
        self.assertEqual(len(good), 1)

    def test_answers_in_a_list_that_are_alike_by_a_method(self):
        answers = []
        for _ in range(2):
            answers.append(self.client.get("/dancers"))
        self.assertEqual(answers[0].json(), answers[1].json())

    def test_a_body_in_a_variable_by_a_method(self):
        answer = self.client.get("/dancers")
        body = answer.json()
        self.assertEqual(len(body), 2)

    def test_equal_by_a_method(self):
        self.assertEqual(["Sand", "Storm"], self.client.get("/dancers").json())

    def test_false_by_a_method(self):
        answer = self.client.get("/dancers")
        self.assertFalse(answer.is_error)

    def test_by_methods_in_one_line(self):
        got = self.client.get("/dancers")
        self.assertTrue(True)
        self.assertIn("Storm", got.text)

    def test_counted_by_a_method(self):
        names = self.client.get("/dancers").json()
        self.assertCountEqual(names, ["Storm", "Sand"])

    def test_a_flag_by_a_method(self):
        found = False
        for name in self.client.get("/dancers").json():
            found = found or name == "Storm"
        self.assertTrue(found)


def must_have(name, names):
    if name not in names:
        raise AssertionError(name)


async def test_raises(client, storm):
    answer = await client.get("/dancers")
    if "Storm" not in answer.json():
        raise AssertionError("Storm is not there")


async def test_raises_in_a_helper(client, storm):
    must_have("Storm", (await client.get("/dancers")).json())


async def test_fails(client, storm):
    answer = await client.get("/dancers")
    if "Storm" not in answer.json():
        pytest.fail("Storm is not there")


class TestUnheard(unittest.TestCase):
    def setUp(self):
        self.client = self.enterContext(TestClient(app))
        self.client.post("/dancers/Storm")

    def test_fails_by_a_method(self):
        if "Storm" not in self.client.get("/dancers").json():
            self.fail("Storm is not there")
