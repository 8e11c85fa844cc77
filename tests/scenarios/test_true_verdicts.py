"""Do tests that people write in a way of their own get the verdict that they deserve?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.example import APP
from tests.scenarios.proving import told
from tests.scenarios.seen import facts_of, scenarios, seeing
from tests.scenarios.wsgi import WSGI_APP

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scenarios.proving import Told

TESTS = """
import asyncio, threading, unittest
import httpx2
from starlette.testclient import TestClient
import checks, heard, pydantic, pytest_check, stranger
from assertpy import assert_that as matches
from app import Dancer, app, get_db, maker

@pytest.fixture
def storm(db_session):
    db_session.add(Dancer(name="Storm"))

@proves
async def test_message(client, storm):
    names = (await client.get("/dancers")).json()
    expected = ["Sand", "Storm"]
    assert names == expected, "others"

@proves
async def test_several_lines(client, storm):
    answer = await client.get("/dancers")
    assert (
        answer.status_code
        == 200
    ), "a ("

@proves
async def test_walrus(client, storm):
    assert (answer := await client.get("/dancers")) and answer.status_code == 200

@proves
async def test_answer_alone(client, storm):
    answer = await client.get("/dancers")
    assert answer
    assert answer is not None, "none"

@proves
async def test_true_with_bracket(client, storm):
    await client.get("/dancers")
    assert True, "a ("

@proves
async def test_true_in_a_row(client, storm):
    answer = await client.get("/dancers")
    if answer: assert True

@proves
async def test_row_that_is_there(client, storm, db_session):
    await client.get("/dancers")
    dancer = await db_session.get(Dancer, 1)
    assert dancer

@proves
async def test_unheard_helper(client, storm):
    checks.is_fine(await client.get("/dancers"))

@proves
async def test_unheard_object(client, storm):
    page = checks.Page(await client.get("/dancers"))
    page.is_fine()

@proves
async def test_other_library(client, storm):
    answer = await client.get("/dancers")
    stranger.assert_that(answer.status_code, 200)

@proves
async def test_matcher_by_another_name(client, storm):
    answer = await client.get("/dancers")
    matches(answer.status_code).is_equal_to(200)

@proves
async def test_module_of_checks(client, storm):
    answer = await client.get("/dancers")
    pytest_check.equal(answer.status_code, 200)

@proves
async def test_model(client, storm):
    pydantic.TypeAdapter(list[str]).validate_python((await client.get("/dancers")).json())

@proves
async def test_response_of_another_library(client, storm):
    answer = stranger.Response(await client.get("/dancers"))
    assert answer.status_code == 200

@proves
async def test_response_without_a_request(client, storm):
    sent = await client.get("/dancers")
    answer = httpx2.Response(sent.status_code, content=sent.content)
    assert answer.json() == ["Sand", "Storm"]

@proves
async def test_object_that_refuses_attributes(client, storm):
    answer = stranger.Strict((await client.get("/dancers")).json())
    assert answer.names == ["Sand", "Storm"]

@proves
async def test_heard_helper(client, storm):
    heard.is_fine(await client.get("/dancers"))

@proves
async def test_helper_too_early(client, storm):
    assert (await client.get("/dancers")).json()
    heard.is_fine(await client.get("/dancers"))
    await client.get("/dancers")

@pytest.fixture
async def session():
    async with maker() as session:
        session.add(Dancer(name="Storm"))
        await session.flush()
        yield session
        await session.rollback()

@proves
async def test_pending_in_a_shared_session(session):
    app.dependency_overrides[get_db] = lambda: session
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
        assert "Storm" in (await client.get("/dancers")).json()
    app.dependency_overrides.clear()

@proves
async def test_pending_elsewhere(session):
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
        assert "Storm" not in (await client.get("/dancers")).json()

@proves
def test_seeded_by_the_app_alone(test_client):
    assert test_client.get("/dancers").json()

@proves
async def test_asked_by_a_server(db_session):
    db_session.add(Dancer(name="Storm"))
    await db_session.commit()
    answered, asserted, sent = threading.Event(), threading.Event(), []

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        sent.append(message)
        if message["type"] == "http.response.body":
            answered.set()
            asserted.wait(10)

    scope = {"type": "http", "method": "GET", "path": "/dancers"}
    scope |= {"headers": [], "query_string": b""}
    server = threading.Thread(target=lambda: asyncio.run(app(scope, receive, send)))
    server.start()
    answered.wait(10)
    assert b"Storm" in sent[-1]["body"]
    asserted.set()
    server.join()

@pytest.fixture(scope="module")
def storm_for_all(arena):
    arena.test_client().post("/dancers/Kite")

@proves
def test_fixture_by_name(test_client, request):
    request.getfixturevalue("storm_for_all")
    assert test_client.get("/dancers").json()

@proves
def test_socket(test_client, storm):
    with test_client.websocket_connect("/socket") as socket:
        assert "Storm" in socket.receive_json()

@proves
def test_socket_beside_a_request(test_client, storm):
    with test_client.websocket_connect("/socket") as socket:
        test_client.get("/dancers")
        assert socket.receive_json()

@proves
def test_socket_before(test_client, storm):
    with test_client.websocket_connect("/socket") as socket:
        assert socket.receive_json()
    test_client.get("/dancers")


@proves
async def test_async_socket(client, storm):
    async with client.websocket_connect("/socket") as socket:
        assert "Storm" in await socket.receive_json()

@proves
async def test_async_socket_before(client, storm):
    async with client.websocket_connect("/socket") as socket:
        assert await socket.receive_json()
    await client.get("/dancers")

@proves
async def test_stream(client, storm):
    async with client.stream("GET", "/stream") as response:
        assert "Sand" in await anext(response.aiter_lines())

@proves
async def test_stream_too_late(client, storm):
    assert storm is None
    async with client.stream("GET", "/stream"):
        pass

@proves
def test_sync_stream(test_client, storm):
    with test_client.stream("GET", "/stream") as response:
        assert "Sand" in next(response.iter_lines())


class TestUnit(unittest.TestCase):
    def setUp(self):
        self.client = self.enterContext(TestClient(app))
        self.client.post("/dancers/Storm")

    def tearDown(self):
        self.assertEqual(self.client.get("/dancers").status_code, 200)

    @proves
    def test_unit(self):
        self.assertIn("Storm", self.client.get("/dancers").json())

    @proves
    def test_unit_without(self):
        self.client.get("/dancers")


class TestAsyncUnit(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        transport = httpx2.ASGITransport(app)
        self.client = httpx2.AsyncClient(transport=transport, base_url="http://x")
        await self.client.post("/dancers/Storm")

    async def asyncTearDown(self):
        self.assertEqual((await self.client.get("/dancers")).status_code, 200)
        await self.client.aclose()

    @proves
    async def test_async_unit(self):
        self.assertIn("Storm", (await self.client.get("/dancers")).json())

    @proves
    async def test_async_unit_without(self):
        await self.client.get("/dancers")
"""

CHECKS = """
def is_fine(answer):
    assert answer.status_code == 200


class Page:
    def __init__(self, answer):
        self.answer = answer

    def is_fine(self):
        is_fine(self.answer)
"""

STRANGER = """
def matching(was, wanted):
    pass

assert_that = matching


class Response:
    def __init__(self, answer):
        self.request = answer.request
        self.status_code = answer.status_code


class Strict:
    def __init__(self, names):
        self.names = names

    def __getattr__(self, name):
        raise KeyError(name)
"""

LIFESPAN = """
class Start(Base):
    __tablename__ = "starts"
    id: Mapped[int] = mapped_column(primary_key=True)


@contextlib.asynccontextmanager
async def lifespan(_app):
    async with maker() as session:
        session.add(Start())
        await session.commit()
    yield


app = FastAPI(lifespan=lifespan)
"""

SOCKET = f"""import asyncio, contextlib
{APP.replace("app = FastAPI()", LIFESPAN)}
from fastapi import WebSocket
from fastapi.responses import StreamingResponse


@app.websocket("/socket")
async def socket(socket: WebSocket, db=Depends(get_db)):
    await socket.accept()
    await socket.send_json(list(await db.scalars(select(Dancer.name))))


@app.get("/stream")
async def stream(db=Depends(get_db)):
    names = list(await db.scalars(select(Dancer.name)))
    async def endless():
        while True:
            for name in names:
                yield f"{{name}}\\n"
                await asyncio.sleep(0.001)
    return StreamingResponse(endless())
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One run of all of them."""
    example = seeing(tmp_path_factory.mktemp("true"), TESTS).with_files(
        app=SOCKET,
        checks=CHECKS,
        stranger=STRANGER,
        assertpy="class assert_that:\n    __init__ = is_equal_to = lambda *_: None\n",
        pytest_check="def equal(was, wanted):\n    pass\n",
        heard=CHECKS,
        conftest="import pytest\npytest.register_assert_rewrite('heard')",
    )
    found = told(example)
    assert "failed" not in found.run.output.splitlines()[-1], found.run.output
    return found


@pytest.mark.parametrize(
    "name",
    [
        *("message", "several_lines", "walrus", "row_that_is_there", "heard_helper"),
        *("pending_in_a_shared_session", "fixture_by_name", "socket", "socket_beside_a_request"),
        *("response_of_another_library", "response_without_a_request", "unit", "async_unit"),
        *("object_that_refuses_attributes", "asked_by_a_server", "async_socket"),
        *("stream", "sync_stream"),
    ],
)
def test_an_honest_test_proves_its_scenario(run: Told, name: str) -> None:
    """However it is written."""
    assert run.statuses[name] == "PROVEN", run.reason(name)


@pytest.mark.parametrize(
    "name, reason",
    [
        ("answer_alone", "could fail"),
        ("true_with_bracket", "could fail"),
        ("true_in_a_row", "could fail"),
        ("helper_too_early", "is before it"),
        ("pending_elsewhere", "seeded"),
        ("seeded_by_the_app_alone", "seeded"),
        ("socket_before", "is before it"),
        ("async_socket_before", "is before it"),
        ("stream_too_late", "is before it"),
        ("unit_without", "no assertion after GET"),
        ("async_unit_without", "no assertion after GET"),
    ],
)
def test_a_hollow_one_does_not(run: Told, name: str, reason: str) -> None:
    """However honest it looks."""
    assert run.statuses[name] == "HOLLOW", run.reason(name)
    assert reason in run.reason(name)


@pytest.mark.parametrize("name", ["unheard_helper", "unheard_object"])
def test_what_a_helper_asserts_that_nobody_hears_is_unknown(run: Told, name: str) -> None:
    """And it is said how to have it heard."""
    assert run.statuses[name] == "UNKNOWN"
    assert "pytest.register_assert_rewrite('checks')" in run.reason(name)


def test_what_asserts_in_a_way_of_its_own_is_unknown(run: Told) -> None:
    """As libraries of matchers do, which raise the error themselves."""
    assert run.statuses["other_library"] == "UNKNOWN"
    assert "pytest-arena does not see that assert_that passes" in run.reason("other_library")


@pytest.mark.parametrize(
    "name, what",
    [
        ("matcher_by_another_name", "matches"),
        ("module_of_checks", "pytest_check"),
        ("model", "validate_python"),
    ],
)
def test_what_a_known_library_asserts_is_unknown(run: Told, name: str, what: str) -> None:
    """By whatever name the test calls it."""
    assert run.statuses[name] == "UNKNOWN"
    assert f"pytest-arena does not see that {what} passes" in run.reason(name)


def test_what_unittest_does_around_a_test_is_not_the_tests(run: Told) -> None:
    """``setUp`` prepares, as a fixture does; ``tearDown`` comes after it."""
    for name in ("unit", "async_unit"):
        facts = facts_of(run, name)
        assert [one["method"] for one in facts["requests"]] == ["POST", "GET"]
        assert facts["seeded"] == {"dancers": 1}


SHARED = """

from starlette.testclient import TestClient
from app import Dancer, app

@pytest.fixture(scope="session")
def shared():
    with TestClient(app) as client:
        yield client

def test_that_proves_nothing(shared, test_client):
    pass

@proves
def test_client_of_arena(test_client):
    assert test_client.get("/dancers").json()

@proves
def test_client_of_its_own(shared):
    assert shared.get("/dancers").json()

@proves
def test_seeding(shared, db_session):
    db_session.add(Dancer(name="Storm"))
    db_session.commit()
    assert shared.get("/dancers").json()
"""


@pytest.mark.slow
def test_what_an_app_writes_as_it_starts_for_a_session_is_no_seed(tmp_path: Path) -> None:
    """Also where a test that proves nothing was the first to need it, and files are looked into."""
    driver = "import sqlite3\n\ndef pytest_configure():\n    sqlite3.connect(':memory:').close()\n"
    example = seeing(tmp_path, SHARED).with_files(app=SOCKET, conftest=driver)
    example = example.change("pytest.ini", "[pytest]\n", "[pytest]\narena_lifespan = session\n")
    found = told(example)
    assert found.statuses == {
        "client_of_arena": "HOLLOW",
        "client_of_its_own": "HOLLOW",
        "seeding": "PROVEN",
    }, found.run.output


OF_FLASK = """
from app import Dancer, app

@proves
def test_status(db_session):
    db_session.add(Dancer(name="Storm"))
    db_session.commit()
    answer = app.test_client().get("/dancers")
    assert answer.status_code == 200
    assert answer.json == ["Sand", "Storm"]

@proves
def test_nothing(db_session):
    db_session.add(Dancer(name="Storm"))
    db_session.commit()
    app.test_client().get("/dancers")
"""


@pytest.mark.slow
def test_responses_of_flask_are_not_rebuilt(tmp_path: Path) -> None:
    """Their constructor is another one than that of httpx."""
    example = seeing(tmp_path, OF_FLASK).with_files(app=WSGI_APP)
    found = told(example)
    found.run.expect(passed=2)
    assert found.statuses == {"status": "UNKNOWN", "nothing": "HOLLOW"}, found.run.output


STEPS = """
from pytest_bdd import given, scenarios, then, when
from app import Dancer
import checks

scenarios("dancers.feature")

@given('a dancer "Storm" exists')
def _(db_session):
    db_session.add(Dancer(name="Storm"))
    db_session.commit()

@when("I GET /dancers", target_fixture="page")
def _(test_client):
    return checks.Page(test_client.get("/dancers"))

@then("there are dancers")
def _(page):
    page.is_fine()
"""


@pytest.mark.parametrize(
    "step, status",
    [
        ("page.is_fine()", "UNKNOWN"),
        pytest.param("checks.is_fine(page.answer)", "UNKNOWN", marks=pytest.mark.slow),
        ("pass", "HOLLOW"),
    ],
)
def test_a_step_that_calls_a_helper_is_judged_as_a_plain_test(
    tmp_path: Path, step: str, status: str
) -> None:
    """Where nobody hears what the helper asserts, it is said how to have it heard."""
    example = seeing(tmp_path, "").with_files(
        test_it=STEPS.replace("page.is_fine()", step), checks=CHECKS
    )
    example = example.with_paths({"dancers.feature": scenarios(["dancing"])})
    found = told(example, "-p", "pytest_bdd.plugin")
    assert found.statuses == {"dancing": status}, found.run.output
    reason = found.reason("dancing")
    assert ("register_assert_rewrite('checks')" in reason) == (status == "UNKNOWN")
