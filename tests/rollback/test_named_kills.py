"""A run in a named database that is killed leaves nothing there."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from subprocess import TimeoutExpired
from typing import TYPE_CHECKING

import pytest

from tests.rollback.named import content
from tests.rollback.test_named_database import ONE
from tests.servers.postgresql import rows
from tests.servers.waiting import until

if TYPE_CHECKING:
    from tests.rollback.named import Content, Named

WRITES = """
import pytest


@pytest.mark.parametrize("number", range(20))
async def test_writes(client, number):
    for turn in range(5):
        assert (await client.post(f"/dancers/{number}-{turn}")).status_code == 201
"""


def unsequenced(dump: Content) -> Content:
    """Return content without the numbers of sequences, which no transaction restores."""
    return {name: texts for name, texts in dump.items() if not name.endswith("_seq")}


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("is_filled", [False, True])
def test_kills_at_any_moment(named: Named, kills: int, *, is_filled: bool) -> None:
    """All rows and catalogs are as before. The next run works."""
    if is_filled:
        named.build()
    chance = random.Random(kills)  # noqa: S311 - it is to be repeatable
    example = named.of(WRITES)
    started = time.monotonic()
    output, _ = example.start(env=named.env).communicate()
    assert "20 passed" in output
    length = time.monotonic() - started
    before = unsequenced(content(named.name))
    sessions = f"SELECT FROM pg_stat_activity WHERE datname = '{named.name}'"
    for _ in range(kills):
        process = example.start(env=named.env)
        with suppress(TimeoutExpired):
            process.wait(chance.uniform(0, length))
        process.kill()
        process.communicate()
        until(lambda: not rows(sessions), "the sessions of the killed run end")
        assert unsequenced(content(named.name)) == before
    if not is_filled:
        named.test(ONE).expect(passed=1)
    example.run(env=named.env).expect(passed=20)
