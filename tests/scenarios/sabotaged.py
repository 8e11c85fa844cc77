"""Suites with honest tests and their hollow twins, and what became of each under sabotage."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.scenarios.proving import project, told

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.example import Example
    from tests.scenarios.proving import Told

__all__ = [
    "FOREIGN",
    "HONEST",
    "ODD",
    "ODD_RESULTS",
    "RESULTS",
    "TWINS",
    "WIDE",
    "results",
    "sabotaged",
    "suite",
]

# Each test proves the scenario of its own name.
_PREAMBLE = """
import asyncio
import pytest
from app import Dancer, app
from sqlalchemy import select

NAMES = select(Dancer.name).order_by(Dancer.id)


@pytest.fixture
async def row(db_session):
    db_session.add(Dancer(name="Row"))
    await db_session.commit()
"""

HONEST = """
async def test_honest(client, row):
    answer = await client.post("/dancers/Ann")
    assert answer.status_code == 201
    assert answer.json() == "Ann"
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    assert answer.json() == ["Sand", "Row", "Ann"]


def test_honest_and_sync(test_client, arena):
    with arena.session() as session:
        session.add(Dancer(name="Row"))
        session.commit()
    answer = test_client.post("/dancers/Ann")
    assert answer.status_code == 201
    answer = test_client.get("/dancers")
    assert answer.status_code == 200
    assert answer.json() == ["Sand", "Row", "Ann"]


async def test_honest_by_its_changes(client, db_session, arena):
    from pytest_arena import inserted

    db_session.add(Dancer(name="Row"))
    async with arena.expect_changes(dancers=inserted(1, id=3)):
        answer = await client.post("/dancers/Ann")
    assert answer.status_code == 201
    assert answer.json() == "Ann"
"""

TWINS = """
async def test_ignores_its_seed(client, row):
    await client.post("/dancers/Ann")
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    assert "Ann" in answer.json()


async def test_ignores_its_seed_around_changes(client, row, arena):
    from pytest_arena import inserted

    async with arena.expect_changes(dancers=inserted(1)):
        answer = await client.post("/dancers/Ann")
    assert answer.json() == "Ann"


async def test_believes_the_answer(client, row):
    assert (await client.get("/dancers")).json() == ["Sand", "Row"]
    answer = await client.post("/dancers/Ann")
    assert answer.status_code == 201
    assert answer.json() == "Ann"


def test_believes_the_answer_and_is_sync(test_client):
    answer = test_client.post("/dancers/Ann")
    assert answer.status_code == 201
    assert answer.json() == "Ann"


async def test_looks_at_the_status_alone(client, row, db_session):
    answer = await client.post("/dancers/Ann")
    assert answer.status_code == 201
    assert (await db_session.scalars(NAMES)).all() == ["Sand", "Row", "Ann"]


async def test_looks_at_the_body_alone(client, row, db_session):
    answer = await client.post("/dancers/Ann")
    assert answer.text
    assert (await db_session.scalars(NAMES)).all() == ["Sand", "Row", "Ann"]
"""

FOREIGN = """
import httpx2 as httpx
from starlette.testclient import TestClient


def their_own():
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://them")


async def test_foreign_and_honest(row):
    async with their_own() as client:
        answer = await client.post("/dancers/Ann")
        assert answer.status_code == 201
        answer = await client.get("/dancers")
    assert answer.status_code == 200
    assert answer.json() == ["Sand", "Row", "Ann"]


async def test_foreign_and_ignores_its_seed(row):
    async with their_own() as client:
        answer = await client.post("/dancers/Ann")
    assert answer.status_code == 201
    assert answer.json() == "Ann"


def test_foreign_and_sync(arena):
    with arena.session() as session:
        session.add(Dancer(name="Row"))
        session.commit()
    with TestClient(app) as client:
        answer = client.post("/dancers/Ann")
    assert answer.status_code == 201
    with arena.session() as session:
        assert session.scalars(NAMES).all() == ["Sand", "Row", "Ann"]
"""

WIDE = """
MADE = []


@pytest.fixture(scope="module")
def wide(arena):
    MADE.append(1)
    assert len(MADE) <= 2, "once for the tests, and once for all that is broken under them"
    with arena.session() as session:
        session.add(Dancer(name="Wide"))
        session.commit()
    yield
    with arena.session() as session:
        assert session.scalars(NAMES).all() == ["Sand", "Wide"]


async def test_wide_and_honest(client, wide, row):
    await client.post("/dancers/Ann")
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    assert answer.json() == ["Sand", "Wide", "Row", "Ann"]


async def test_wide_and_ignores_its_seed(client, wide):
    await client.post("/dancers/Ann")
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    assert answer.json()[-1] == "Ann"


async def test_wide_still_there(client, wide):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    assert answer.json() == ["Sand", "Wide"]


@pytest.fixture(scope="module")
def late(arena):
    with arena.session() as session:
        session.add(Dancer(name="Late"))
        session.commit()


RUNS = []


def test_wide_and_late(test_client, wide, request):
    RUNS.append(1)
    test_client.get("/dancers")
    if len(RUNS) == 3:  # after the first one and the one for comparison: without its seed
        request.getfixturevalue("late")
    answer = test_client.get("/dancers")
    assert answer.status_code == 200
    assert answer.json()[-1] == "Late" or len(RUNS) != 3
    assert answer.json()[0] == "Sand"
"""


ODD = """
import warnings

from app import maker
from fastapi import Response, WebSocket
from fastapi.responses import PlainTextResponse, RedirectResponse, StreamingResponse
from hypothesis import HealthCheck, given, settings, strategies as st


@app.get("/nothing", status_code=204)
async def nothing():
    return None


@app.get("/bare")
async def bare():
    return Response()


@app.get("/null")
async def null():
    return None


@app.get("/refused")
async def refused():
    return PlainTextResponse("no", status_code=403)


@app.get("/broken")
async def broken():
    return PlainTextResponse("oh", status_code=503)


@app.post("/there/{name}")
async def there(name: str):
    return RedirectResponse(f"/dancers/{name}", status_code=307)


@app.get("/parts")
async def parts():
    async def some():
        for part in ("a", "b", "c"):
            yield part

    return StreamingResponse(some())


@app.websocket("/socket")
async def socket(websocket: WebSocket):
    await websocket.accept()
    await websocket.send_text("hello")
    await websocket.close()


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(["Ann", "Bob"]))
async def test_examples(client, name):
    answer = await client.post(f"/dancers/{name}")
    assert answer.json() == name


async def test_subtests(client, subtests):
    answer = await client.post("/dancers/Ann")
    with subtests.test("status"):
        assert answer.status_code == 201
    assert answer.json() == "Ann"


async def test_at_once(client):
    answers = await asyncio.gather(*(client.post(f"/dancers/{name}") for name in ("Ann", "Bob")))
    assert {answer.json() for answer in answers} == {"Ann", "Bob"}


async def test_without_a_body(client):
    answer = await client.get("/nothing")
    assert answer.status_code == 204


async def test_with_a_bare_answer(client):
    answer = await client.get("/bare")
    assert answer.status_code == 200


async def test_with_null(client):
    answer = await client.get("/null")
    assert answer.status_code == 200


async def test_refused(client, row):
    await client.get("/dancers")
    answer = await client.get("/refused")
    assert answer.status_code == 403


async def test_broken(client):
    answer = await client.get("/broken")
    assert answer.status_code == 503


async def test_redirected(client):
    answer = await client.post("/there/Ann", follow_redirects=True)
    assert answer.status_code == 201
    assert answer.json() == "Ann"


async def test_streamed(client):
    answer = await client.get("/parts")
    assert answer.text == "abc"


def test_by_websocket(test_client):
    with test_client.websocket_connect("/socket") as websocket:
        assert websocket.receive_text() == "hello"


@pytest.mark.filterwarnings("default")
async def test_skips_itself(client):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    if not answer.content:
        warnings.warn("there is no body")
        pytest.skip("nothing to see")
    assert answer.json() == ["Sand"]


async def test_ignores_its_seed_and_asks_what_changed(client, row, arena):
    answer = await client.post("/dancers/Ann")
    assert answer.json() == "Ann"
    assert len(arena.changes(0)["dancers"].inserted) == 1


RUNS = []


async def test_only_the_first_time(client):
    RUNS.append(1)
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    assert len(RUNS) == 1
    assert answer.json() == ["Sand"]


LEFT = [1, 2]


async def test_reaches_a_limit(client):
    answer = await client.get("/dancers")
    assert answer.content is not None
    assert LEFT.pop()


async def test_holds_a_transaction(client, row):
    async with maker() as session:
        session.add(Dancer(name="Never"))
        await session.flush()
        answer = await client.get("/dancers")
    assert answer.status_code == 200
    assert answer.json() == ["Sand", "Row"]


async def test_logs_in_as_a_row(client_as, row):
    staff = client_as("Row")
    answer = await staff.get("/dancers")
    assert answer.status_code == 200
    assert answer.json()[0] == "Sand"


async def test_logs_in_another_row_later(client, client_as, row):
    assert (await client.get("/dancers")).status_code == 200
    answer = await client_as("Row").get("/dancers")
    assert answer.status_code == 200
    assert answer.json()[0] == "Sand"


@pytest.fixture
async def posted(client):
    await client.post("/dancers/Posted")


async def test_prepared_by_a_request(client, posted):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    assert answer.json() == ["Sand", "Posted"]


async def test_ignores_what_was_prepared_by_a_request(client, posted):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    assert answer.json()[0] == "Sand"


@pytest.fixture
async def refreshed(db_session):
    dancer = Dancer(name="Fresh")
    db_session.add(dancer)
    await db_session.commit()
    yield
    await db_session.refresh(dancer)


async def test_ignores_what_its_tear_down_refreshes(client, refreshed):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    assert len(answer.json()) < 1000


async def test_notices_before_its_tear_down(client, refreshed):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    assert answer.json() == ["Sand", "Fresh"]
"""

# Of each kind what a test becomes, in the order seed, commit, empty, 500: Noticed, Survived,
# Unknown, or - where it does not apply.
RESULTS: Mapping[str, str] = {
    "honest": "NNNN",
    "honest_and_sync": "NNNN",
    "honest_by_its_changes": "NNNN",
    "ignores_its_seed": "SNNN",
    "ignores_its_seed_around_changes": "SNNN",
    "believes_the_answer": "NSNN",
    "believes_the_answer_and_is_sync": "-SNN",
    "looks_at_the_status_alone": "NNSN",
    "looks_at_the_body_alone": "NNNS",
    "foreign_and_honest": "NNNN",
    "foreign_and_ignores_its_seed": "SSNN",
    "foreign_and_sync": "NNSN",
    "wide_and_honest": "NNNN",
    "wide_and_ignores_its_seed": "SNNN",
    "wide_still_there": "N-NN",
    "wide_and_late": "S-NN",
}

ODD_RESULTS: Mapping[str, str] = {
    "examples": "-UUU",
    "subtests": "-UUU",
    "at_once": "-SNN",
    "without_a_body": "---N",
    "with_null": "---N",
    "with_a_bare_answer": "---N",
    "refused": "S--N",
    "broken": "----",
    "redirected": "-SNN",
    "streamed": "--NN",
    "by_websocket": "----",
    "skips_itself": "--UN",
    "ignores_its_seed_and_asks_what_changed": "SNNN",
    "only_the_first_time": "--UU",
    "reaches_a_limit": "--SU",
    "holds_a_transaction": "U-NN",
    "logs_in_as_a_row": "S-NN",
    "logs_in_another_row_later": "N-NN",
    "prepared_by_a_request": "N-NN",
    "ignores_what_was_prepared_by_a_request": "S-NN",
    "ignores_what_its_tear_down_refreshes": "U-NN",
    "notices_before_its_tear_down": "N-NN",
}

_LETTERS = {"noticed": "N", "survived": "S", "unknown": "U", "not applicable": "-"}


_LOGIN = """

async def login(client, role):
    assert role in (await client.get("/dancers")).json()
"""


def suite(folder: Path, *tests: str) -> Example:
    """Return a project whose tests each prove the scenario of their name."""
    text = "\n".join([_PREAMBLE, *tests])
    begins = re.compile(r"^((?:async )?def test_(\w+))", re.MULTILINE)
    marked = begins.sub(r'@pytest.mark.scenario("\2")\n\1', text)
    names = [name for _, name in begins.findall(text)]
    example = project(folder, names, marked, more="arena_login = seed:login\n")
    return example.with_paths({"seed.py": example.files["seed.py"] + _LOGIN})


def sabotaged(example: Example, *args: str, **options: Any) -> Told:
    """Run it with sabotage."""
    return told(example, "--scenarios-sabotage", *args, **options)


def results(found: Told) -> dict[str, str]:
    """Return a letter for each kind, by the names of the scenarios, as ``RESULTS`` has them."""
    return {name: _letters(one["tests"]) for name, one in found.scenarios.items()}


def _letters(tests: list[dict[str, Any]]) -> str:
    [test] = tests
    found = {one["kind"]: _LETTERS[one["result"]] for one in test.get("sabotages", ())}
    return "".join(found.get(kind, "?") for kind in ("seed", "commit", "empty", "500"))
