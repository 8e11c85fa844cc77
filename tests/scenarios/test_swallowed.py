"""An assertion that failed, and that the test swallowed, is no proof and is named with its line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.scenarios.proving import told
from tests.scenarios.seen import seeing

if TYPE_CHECKING:
    from tests.scenarios.proving import Told

PREAMBLE = """
import asyncio
import threading
import unittest
from contextlib import suppress
from unittest import mock

from app import Dancer


@pytest.fixture
def storm(db_session):
    db_session.add(Dancer(name="Storm"))


def soft(check):
    try:
        check()
    except AssertionError:
        pass


def named(answer, name):
    assert name in answer.text


def is_named(answer, name):
    try:
        assert name in answer.text
    except AssertionError:
        return False
    return True


async def eventually(check):
    for _ in range(9):
        try:
            return await check()
        except AssertionError:
            await asyncio.sleep(0)
    return await check()

"""

# In each of them another assertion passes, so that the scenario stays proven.
LIARS = """
@proves
async def test_except(client, storm):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    try:
        assert answer.json() == ["Mist"]  # swallowed
    except AssertionError:
        pass

@proves
async def test_except_all(client, storm):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    try:
        assert answer.json() == ["Mist"]  # swallowed
    except (ValueError, Exception) as error:
        print(error)

@proves
async def test_suppress(client, storm):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    with suppress(AssertionError):
        assert answer.json() == ["Mist"], "a message"  # swallowed

@proves
async def test_helper(client, storm):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    soft(lambda: named(answer, "Mist"))

@proves
async def test_unittest(client, storm):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    with suppress(AssertionError):
        unittest.TestCase().assertEqual(answer.json(), ["Mist"])  # swallowed

@proves
async def test_mock(client, storm):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    with suppress(AssertionError):
        mock.Mock().assert_called_once_with(answer)  # swallowed

@proves
async def test_thread(client, storm):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    await asyncio.gather(asyncio.to_thread(named, answer, "Mist"), return_exceptions=True)

@proves
async def test_last_item(client, storm):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    for name in ["Storm", "Mist"]:
        with suppress(AssertionError):
            assert name in answer.text  # swallowed

@proves
async def test_gives_up(client, storm):
    answer = await client.get("/dancers")
    assert answer.status_code == 200
    for _ in range(3):
        try:
            assert answer.json() == ["Mist"]  # swallowed
            break
        except AssertionError:
            await asyncio.sleep(0)
"""

HONEST = """
@proves
async def test_retries(client, storm):
    names = ["Nobody"]
    for _ in range(9):
        try:
            assert "Storm" in names
            break
        except AssertionError:
            names = (await client.get("/dancers")).json()
    assert names

@proves
async def test_eventually(client, storm):
    tries = []

    async def check():
        tries.append(1)
        answer = await client.get("/dancers")
        assert "Storm" in answer.json() and len(tries) == 3

    await eventually(check)

@proves
async def test_is_to_fail(client, storm):
    answer = await client.get("/dancers")
    with pytest.raises(AssertionError):
        assert answer.json() == ["Mist"]

@proves
async def test_helper_is_to_fail(client, storm):
    answer = await client.get("/dancers")
    named(answer, "Storm")
    with pytest.raises(AssertionError, match="Mist"):
        named(answer, "Mist")

@proves
async def test_unittest_is_to_fail(client, storm):
    answer = await client.get("/dancers")
    with unittest.TestCase().assertRaises(AssertionError):
        unittest.TestCase().assertEqual(answer.json(), ["Mist"])

@proves
async def test_asks(client, storm):
    answer = await client.get("/dancers")
    assert is_named(answer, "Storm")
    assert not is_named(answer, "Mist")

@proves
async def test_asks_for_what_is_not_there(client, storm):
    answer = await client.get("/dancers")
    assert not is_named(answer, "Mist")

@proves
async def test_one_or_the_other(client, storm):
    answer = await client.get("/dancers")
    try:
        assert answer.json() == []
    except AssertionError:
        assert "Storm" in answer.json()

@proves
async def test_raises_anew(client, storm):
    answer = await client.get("/dancers")
    with pytest.raises(LookupError):
        try:
            assert answer.json() == ["Mist"]
        except AssertionError as error:
            raise LookupError("Mist") from error

@proves
async def test_collects(client, storm):
    errors = []
    answer = await client.get("/dancers")
    for name in ("Storm", "Mist"):
        try:
            assert name in answer.text
        except AssertionError as error:
            errors.append(error)
        except Exception:
            pass
    assert len(errors) == 1

@proves
async def test_notes(client, storm):
    is_there = True
    answer = await client.get("/dancers")
    try:
        assert "Mist" in answer.text
    except AssertionError:
        is_there = False
    assert not is_there, answer.text
"""

NO_PROOF = """
@proves
async def test_only_one(client, storm):
    answer = await client.get("/dancers")
    for name in ["Storm", "Mist"]:
        with suppress(AssertionError):
            assert name in answer.text
"""


def names(tests: str) -> list[str]:
    """The scenarios of these tests."""
    return re.findall(r"def test_(\w+)", tests)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """All of them in one run."""
    folder = tmp_path_factory.mktemp("swallowed")
    return told(seeing(folder, PREAMBLE + LIARS + HONEST + NO_PROOF), "-v")


@pytest.mark.parametrize("name", names(LIARS))
def test_a_failed_assertion_that_is_swallowed_is_named(run: Told, name: str) -> None:
    """With its line. The scenario stays proven by the assertion that passed."""
    lines = (run.run.folder / "test_it.py").read_text(encoding="utf-8").splitlines()
    start = lines.index(f"async def test_{name}(client, storm):")
    if name in {"helper", "thread"}:
        start = lines.index("def named(answer, name):")
    line = next(n for n in range(start + 1, len(lines)) if "# swallowed" in lines[n] or n < 40)
    scenario = run.scenarios[name]
    assert scenario["status"] == "PROVEN"
    [warning] = [text for text in scenario["warnings"] if "swallow" in text]
    assert f"test_it.py:{line + 1}" in warning
    assert warning in run.run.output


@pytest.mark.parametrize("name", names(HONEST))
def test_a_failure_that_the_test_answers_is_not_accused(run: Told, name: str) -> None:
    """It retries, expects the failure, or asks about it."""
    scenario = run.scenarios[name]
    assert scenario["status"] == "PROVEN"
    assert not [text for text in scenario.get("warnings", ()) if "swallow" in text]


def test_an_assertion_that_failed_at_last_is_no_proof(run: Told) -> None:
    """Though it passed before."""
    assert run.statuses["only_one"] == "HOLLOW"
    assert "no assertion after GET /dancers" in run.reason("only_one")
