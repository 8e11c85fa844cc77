"""Libraries that assert, and plugins that run a test again: what they prove of a scenario."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scenarios.proving import told
from tests.scenarios.sabotaged import sabotaged, suite

if TYPE_CHECKING:
    from pathlib import Path

ELSEWHERE = "`make test-full` has it, in an environment of its own"

CHECKS = """
import pytest_check
from pytest_check import check as imported, equal


async def test_by_the_fixture(client, row, check):
    answer = await client.post("/dancers/Ann")
    check.equal(answer.status_code, 201)
    check.is_in("Ann", answer.text)
    answer = await client.get("/dancers")
    check.equal(answer.json(), ["Sand", "Row", "Ann"])


async def test_by_the_module(client, row):
    answer = await client.post("/dancers/Ann")
    pytest_check.between_equal(answer.status_code, 201, 201)
    answer = await client.get("/dancers")
    pytest_check.equal(answer.json(), ["Sand", "Row", "Ann"])


async def test_by_the_object(client, row):
    answer = await client.post("/dancers/Ann")
    imported.is_true(answer.status_code == 201)
    answer = await client.get("/dancers")
    imported.equal(answer.json(), ["Sand", "Row", "Ann"])


async def test_by_the_function(client, row):
    answer = await client.post("/dancers/Ann")
    equal(answer.status_code, 201)
    answer = await client.get("/dancers")
    equal(answer.json(), ["Sand", "Row", "Ann"])
"""


def test_soft_checks_are_assertions(tmp_path: Path) -> None:
    """A soft check that fails fails a sabotaged test."""
    pytest.importorskip("pytest_check", reason=ELSEWHERE)
    found = sabotaged(suite(tmp_path, CHECKS), "-p", "pytest_check.plugin")
    assert found.statuses == {
        "by_the_fixture": "PROVEN",
        "by_the_module": "PROVEN",
        "by_the_object": "PROVEN",
        "by_the_function": "PROVEN",
    }, found.run.output


IDLE_CHECKS = """
import pytest_check


async def test_of_nothing(client, row):
    await client.post("/dancers/Ann")
    pytest_check.equal(1, 1)


async def test_of_any_answer(client, row, check):
    answer = await client.post("/dancers/Ann")
    check.is_instance(answer.status_code, int)
"""


def test_a_soft_check_that_cannot_fail_proves_nothing(tmp_path: Path) -> None:
    """It is judged as the assertion that it stands for."""
    pytest.importorskip("pytest_check", reason=ELSEWHERE)
    found = told(suite(tmp_path, IDLE_CHECKS), "-p", "pytest_check.plugin")
    for name in ("of_nothing", "of_any_answer"):
        assert found.statuses[name] == "HOLLOW"
        assert "no assertion after POST /dancers/Ann that could fail" in found.reason(name)


RETRIED = """
ATTEMPTS = []


async def post_and_count(client):
    assert (await client.post("/dancers/Ann")).status_code == 201
    ATTEMPTS.append(1)
    answer = await client.get("/dancers")
    assert answer.json() == ["Sand", "Row", "Ann"]


@pytest.mark.flaky(retries=2)
async def test_passes_on_a_retry(client, row):
    await post_and_count(client)
    assert len(ATTEMPTS) == 2, "not yet"


@pytest.mark.flaky(retries=2)
async def test_passes_at_once(client, row):
    await post_and_count(client)


@pytest.mark.flaky(retries=1)
async def test_never_passes(client, row):
    await post_and_count(client)
    assert False, "never"
"""


def test_a_test_that_pytest_retry_saves_is_flaky(tmp_path: Path) -> None:
    """Its one report says that it passed. A sabotaged test is not retried with nothing broken."""
    pytest.importorskip("pytest_retry", reason=ELSEWHERE)
    found = sabotaged(suite(tmp_path, RETRIED), "-p", "pytest_retry.retry_plugin")
    assert found.statuses == {
        "passes_on_a_retry": "FLAKY",
        "passes_at_once": "PROVEN",
        "never_passes": "FAILED",
    }, found.run.output
    reason = found.reason("passes_on_a_retry")
    assert reason.startswith("passed only in a rerun, after: AssertionError: not yet")


SYRUPY = """
async def test_by_a_snapshot(client, row, snapshot):
    await client.post("/dancers/Ann")
    assert (await client.get("/dancers")).json() == snapshot


async def test_by_both(client, row, snapshot):
    answer = await client.post("/dancers/Ann")
    assert answer.json() == snapshot
    assert answer.json() == "Ann"
"""

INLINE = """
from inline_snapshot import snapshot


async def test_by_a_snapshot(client, row):
    await client.post("/dancers/Ann")
    assert (await client.get("/dancers")).json() == snapshot(["Sand", "Row", "Ann"])


async def test_by_both(client, row):
    expected = snapshot("Ann")
    answer = await client.post("/dancers/Ann")
    assert answer.json() == expected
    assert answer.json() == "Ann"
"""

REGRESSIONS = """
async def test_by_a_snapshot(client, row, data_regression):
    await client.post("/dancers/Ann")
    data_regression.check((await client.get("/dancers")).json())


async def test_by_both(client, row, data_regression):
    answer = await client.post("/dancers/Ann")
    data_regression.check(answer.json())
    assert answer.json() == "Ann"
"""


@pytest.mark.parametrize(
    "tests, plugins, update",
    [
        pytest.param(SYRUPY, ("syrupy",), "--snapshot-update", id="syrupy"),
        pytest.param(
            INLINE, ("inline_snapshot.pytest_plugin",), "--inline-snapshot=fix", id="inline"
        ),
        pytest.param(
            REGRESSIONS,
            ("pytest_datadir.plugin", "pytest_regressions.plugin"),
            "--regen-all",
            id="regressions",
        ),
    ],
)
def test_a_snapshot_proves_unless_the_run_updates_it(
    tmp_path: Path, tests: str, plugins: tuple[str, ...], update: str
) -> None:
    """An assertion about a snapshot that the run itself writes cannot fail."""
    pytest.importorskip(plugins[-1].partition(".")[0], reason=ELSEWHERE)
    named = [word for plugin in plugins for word in ("-p", plugin)]
    example = suite(tmp_path, tests)
    updating = told(example, *named, update)
    assert updating.statuses == {"by_a_snapshot": "UNKNOWN", "by_both": "PROVEN"}
    assert "which updates the snapshots. Run it again without that option" in updating.reason(
        "by_a_snapshot"
    )
    comparing = told(example, *named)
    assert set(comparing.statuses.values()) == {"PROVEN"}, comparing.run.output
