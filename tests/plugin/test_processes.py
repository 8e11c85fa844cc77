"""Other programs on the test's database: queue workers, scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import HOWS, env_of, shop

if TYPE_CHECKING:
    from tests.example import Example

# A worker as people write it, which knows nothing of arena: paid orders are shipped.
WORKER = """
import asyncio, signal, sys
from sqlalchemy import update
from app import Order, engine, maker


async def work():
    print("ready", flush=True)
    while True:
        async with maker.begin() as session:
            paid = update(Order).where(Order.status == "paid").values(status="shipped")
            if (await session.execute(paid)).rowcount:
                print("shipped", flush=True)
        await asyncio.sleep(0.01)


if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "dies" in sys.argv:
    sys.exit("no broker")
asyncio.run(work())
"""

TESTS = """
import sys, time
import pytest
from sqlalchemy import select
from app import Order

COMMAND = [sys.executable, "worker.py"]


def shipped(db_session, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if "shipped" in db_session.scalars(select(Order.status)).all():
            return True
        db_session.commit()
        time.sleep(0.01)


@pytest.mark.parametrize("turn", range(3))
def test_worker(arena, db_session, test_client, turn):
    worker = arena.process(COMMAND, ready="ready")
    assert test_client.get("/orders").json() == []
    db_session.add(Order(item="chair", status="paid"))
    db_session.commit()
    assert shipped(db_session)
    assert worker.status is None
    assert arena.changes()["orders"].inserted[0].after["status"] == "shipped"


async def test_a_block(arena, client):
    with arena.process(COMMAND, ready="ready") as worker:
        assert (await client.get("/orders")).json() == []
    assert worker.status == -15
    assert worker.output == "ready\\n"


def test_a_script(arena, db_session):
    script = "import asyncio, app; asyncio.run(app.put())"
    assert arena.process([sys.executable, "-c", script]).wait(60) == 0
    assert [one.item for one in db_session.query(Order)] == ["by a script"]


def test_nothing_is_left(test_client):
    assert test_client.get("/orders").json() == []
"""
PUT = """

async def put():
    async with maker.begin() as session:
        session.add(Order(item="by a script"))
    await engine.dispose()
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", HOWS)
def test_a_worker_on_the_tests_database_pitfall_126(example: Example, how: str) -> None:
    """P1, P2: it sees what the test has committed, is seen, and ends with the test."""
    suite = shop(example, test_it=TESTS, worker=WORKER)
    run = suite.change("app.py", "app = FastAPI()\n", PUT + "\n\napp = FastAPI()\n").run(
        env=env_of(how)
    )
    run.expect(passed=6).never_says("arena: the output", "was killed", "had ended")


@pytest.mark.slow
def test_the_driver_that_its_url_names(example: Example) -> None:
    """A worker's variable may name another one than the app's."""
    test = """
import sys

def test_it(arena, test_client):
    assert test_client.get("/orders").json() == []
    with arena.process([sys.executable, "-c", "import os; print(os.environ['SYNC_URL'])"]) as done:
        assert done.wait() == 0
    assert done.output.startswith("postgresql+psycopg://")
    assert done.output.strip().partition("://")[2] == arena.url.partition("://")[2]
"""
    sync = "postgresql+psycopg://me:s3cret@db.example.org/shop"
    env = {**env_of("undo"), "SYNC_URL": sync}
    project = shop(example, test_it=test)
    project.run("-oarena_env=DATABASE_URL,SYNC_URL", env=env).expect(passed=1)


ENDS = """
import subprocess, sys
import pytest

COMMAND = [sys.executable, "worker.py"]


@pytest.fixture(scope="module")
def wide(arena):
    yield arena.process(COMMAND, ready="ready")


@pytest.mark.parametrize("turn", range(2))
def test_of_a_fixture(wide, turn):
    assert wide.status is None


def test_deaf(arena):
    arena.process([*COMMAND, "deaf"], ready="ready")


def test_broke_off(arena):
    arena.process(COMMAND, ready=lambda: True)._process.kill()
    arena.process([sys.executable, "-c", "raise SystemExit(3)"]).wait()


def test_dies(arena):
    arena.process([*COMMAND, "dies"], ready="ready")


def test_never_ready(arena):
    arena.process(COMMAND, ready="steady", patience=0.5)


def test_no_such_program(arena):
    arena.process(["no-such-program"])


def test_fails(arena, test_client):
    arena.process(COMMAND, ready="ready")
    assert test_client.get("/orders").json() == ["chair"]
"""


@pytest.mark.slow
def test_how_it_ends_pitfall_126(example: Example) -> None:
    """P7, P9: what is not ready, dies or is deaf is told, with what it has written."""
    run = shop(example, test_it=ENDS, worker=WORKER).run()
    run.expect(status=1, passed=4, failed=4)
    run.says(
        "test_deaf: `",
        "did not end within 5 s after SIGTERM, and was killed",
        "had ended with status 3",
        "worker.py dies has ended with status 1",
        "cause: no broker",
        "worker.py has not written 'steady' after 0.5 s",
        "No such file or directory: 'no-such-program'",
    )
    _, _, story = run.output.partition("_ test_fails _")
    assert "arena: the output of" in story
    assert "\nready\n" in story
