"""A test that sends a request again until it succeeds meets the same breakage each time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scenarios.sabotaged import results, sabotaged, suite

if TYPE_CHECKING:
    from pathlib import Path

REPEATED = """
async def retried(send):
    for _ in range(3):
        answer = await send()
        if answer.status_code < 500 and answer.content:
            return answer
    return answer


async def test_retries_its_last_request(client, row):
    answer = await retried(lambda: client.get("/dancers"))
    assert answer.status_code == 200
    assert answer.json() == ["Sand", "Row"]


async def test_polls_until_it_is_done(client, row):
    await client.post("/dancers/Ann")
    for _ in range(5):
        answer = await client.get("/dancers")
        if answer.status_code == 200 and answer.content and "Ann" in answer.json():
            break
    assert answer.status_code == 200
    assert answer.json() == ["Sand", "Row", "Ann"]


async def test_writes_again_until_it_is_there(client, row):
    for _ in range(3):
        await client.post("/dancers/Ann")
        answer = await client.get("/dancers")
        if "Ann" in answer.json():
            break
    assert answer.status_code == 200
    assert answer.json() == ["Sand", "Row", "Ann"]


@pytest.fixture
async def cleaned(client, row):
    yield
    (await client.get("/dancers")).raise_for_status()


async def test_ignores_its_answer_before_a_tear_down(client, cleaned):
    answer = await client.get("/dancers")
    assert len(answer.text) < 1000 or answer.status_code == 404


async def test_reads_twice_and_ignores_the_second_answer(client, row):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    assert answer.json() == ["Sand", "Row"]
    again = await client.get("/dancers")
    assert len(again.text) < 1000 or again.status_code == 404
"""


@pytest.mark.slow
def test_repetitions_of_a_broken_request_are_broken_alike(tmp_path: Path) -> None:
    """A helper that retries or polls is honest. Earlier requests and tear-downs stay whole."""
    assert results(sabotaged(suite(tmp_path, REPEATED))) == {
        "retries_its_last_request": "N-NN",
        "polls_until_it_is_done": "NNNN",
        "writes_again_until_it_is_there": "NNNN",
        "ignores_its_answer_before_a_tear_down": "S-SS",
        "reads_twice_and_ignores_the_second_answer": "N-SS",
    }
