"""The sabotage of a commit includes the commits of work that outlives its request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_litestar import EMITS
from tests.scenarios.sabotaged import results, sabotaged, suite
from tests.scenarios.seen import facts_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scenarios.proving import Told

LATE = """
from app import maker
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

# aiosqlite's thread would fail if a test ends in the middle of a call.
IN_LOOP = create_engine("sqlite:///dev.db")
TASKS = set()
RELEASE = asyncio.Event()


async def save(name):
    async with maker() as session:
        session.add(Dancer(name=name))
        await session.commit()


async def save_in_loop(name):
    await asyncio.sleep(0)
    with Session(IN_LOOP) as session:
        session.add(Dancer(name=name))
        session.commit()


async def release_and_save(name):
    await RELEASE.wait()
    await save(name)


async def send_mail(name):
    await asyncio.sleep(0)


def begin(work):
    task = asyncio.create_task(work)
    TASKS.add(task)
    task.add_done_callback(TASKS.discard)


@app.post("/later/{name}", status_code=202)
async def later(name: str):
    begin(save(name))
    return name


@app.post("/soon/{name}", status_code=202)
async def soon(name: str):
    begin(save_in_loop(name))
    return name


@app.post("/mails/{name}", status_code=202)
async def mail(name: str):
    begin(send_mail(name))
    return name


@app.post("/released/{name}", status_code=202)
async def released(name: str):
    begin(release_and_save(name))
    return name


async def test_believes_a_task(client, arena):
    answer = await client.post("/later/Ann")
    await arena.settled()
    assert answer.status_code == 202
    assert answer.json() == "Ann"


def test_believes_a_task_and_is_sync(test_client, arena):
    answer = test_client.post("/later/Ann")
    arena.settled()
    assert answer.status_code == 202
    assert answer.json() == "Ann"


async def test_does_not_wait_for_a_task(client):
    answer = await client.post("/soon/Ann")
    assert answer.status_code == 202
    assert answer.json() == "Ann"


async def test_reads_what_a_task_saved(client, arena):
    answer = await client.post("/later/Ann")
    await arena.settled()
    assert answer.status_code == 202
    assert answer.json() == "Ann"
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    assert answer.json() == ["Sand", "Ann"]


async def test_believes_an_answer_before_a_task_without_rows(client, arena):
    answer = await client.post("/dancers/Ann")
    assert answer.json() == "Ann"
    answer = await client.post("/mails/Ann")
    await arena.settled()
    assert answer.status_code == 202
    assert answer.json() == "Ann"


async def test_releases_a_task_itself(client, arena):
    RELEASE.clear()
    answer = await client.post("/released/Ann")
    RELEASE.set()
    await arena.settled()
    assert answer.status_code == 202
    assert answer.json() == "Ann"
"""


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One run of tests whose requests begin tasks."""
    example = suite(tmp_path_factory.mktemp("late"), LATE)
    return sabotaged(example, "-o", "arena_settle=0.2", "-v")


@pytest.mark.slow
def test_commits_of_a_task_are_rolled_back_with_those_of_its_request(late: Told) -> None:
    """So are those of an earlier request if the last task commits none."""
    assert results(late) == {
        "believes_a_task": "-SNN",
        "believes_a_task_and_is_sync": "-SNN",
        "does_not_wait_for_a_task": "-SNN",
        "reads_what_a_task_saved": "-NNN",
        "believes_an_answer_before_a_task_without_rows": "-SNN",
        "releases_a_task_itself": "-UNN",
    }


def test_work_that_did_not_end_is_named_as_the_reason(late: Told) -> None:
    """Its later commit could not be rolled back."""
    reason = late.reason("releases_a_task_itself")
    assert late.statuses["releases_a_task_itself"] == "UNKNOWN"
    assert "still ran" in reason
    assert "test_it.py" in reason


def test_rows_of_a_task_are_rows_of_its_request(late: Told) -> None:
    """Also if it commits them when the test's function is over."""
    for name in ("believes_a_task", "does_not_wait_for_a_task"):
        [request] = facts_of(late, name)["requests"]
        assert request["changed"] == {"dancers": 1}
    late.run.never_says("POST /later/{name} changed no row", "POST /soon/{name} changed no row")


_EMITTED = """
async def test_believes_an_event(client, arena):
    answer = await client.post("/arrive")
    await arena.settled()
    assert answer.status_code == 201


async def test_reads_what_a_listener_saved(client, arena):
    answer = await client.post("/arrive")
    assert answer.status_code == 201
    await arena.settled()
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    assert "Dune" in answer.json()


def test_reads_it_and_is_sync(test_client, arena):
    answer = test_client.post("/arrive")
    assert answer.status_code == 201
    arena.settled()
    answer = test_client.get("/dancers")
    assert answer.status_code == 200
    assert "Dune" in answer.json()
"""


@pytest.mark.slow
@pytest.mark.parametrize("lifespan", ["on", "session"])
def test_commits_of_a_listener_are_those_of_the_request_that_emitted(
    tmp_path: Path, lifespan: str
) -> None:
    """Litestar runs it in a task of its lifespan's worker."""
    example = suite(tmp_path, _EMITTED).with_files(app=EMITS)
    found = sabotaged(example, "-o", f"arena_lifespan={lifespan}")
    assert results(found) == {
        "believes_an_event": "-S-N",
        "reads_what_a_listener_saved": "-NNN",
        "reads_it_and_is_sync": "-NNN",
    }
    [request] = facts_of(found, "believes_an_event")["requests"]
    assert request["changed"] == {"dancers": 1}
