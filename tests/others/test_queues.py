"""Queues as people have them: their workers in other processes, and in this one."""

from __future__ import annotations

import socket
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import env_of, shop

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example

REDIS = ("127.0.0.1", 6379)


def _redis_answers() -> bool:
    try:
        socket.create_connection(REDIS, timeout=1).close()
    except OSError:
        return False
    return True


def needs(package: str) -> pytest.MarkDecorator:
    """Skip where a package is not installed."""
    reason = f"{package} is not installed: `make test-full` has it, in an environment of its own"
    return pytest.mark.skipif(find_spec(package) is None, reason=reason)


pytestmark = pytest.mark.slow
with_redis = pytest.mark.skipif(not _redis_answers(), reason=f"no Redis on {REDIS}")
HOWS = pytest.mark.parametrize("how", ["copy", "undo"])

WAITING = """
import sys, time, uuid
import pytest
from sqlalchemy import select
from app import Order


def until_shipped(db_session):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if "shipped" in db_session.scalars(select(Order.status)).all():
            return
        db_session.commit()
        time.sleep(0.02)
    raise AssertionError("nobody has shipped it")
"""

ARQ = """
import os
from arq import create_pool
from arq.connections import RedisSettings
from sqlalchemy import update
from app import Order, app, maker

REDIS = RedisSettings(host="127.0.0.1", port=6379)


def queue():
    return os.environ["QUEUE"]


async def ship(ctx, item):
    async with maker.begin() as session:
        await session.execute(update(Order).where(Order.item == item).values(status="shipped"))


class Settings:
    functions = [ship]
    redis_settings = REDIS
    queue_name = os.environ.get("QUEUE")


@app.post("/ship/{item}")
async def asks(item: str):
    pool = await create_pool(REDIS, default_queue_name=queue())
    await pool.enqueue_job("ship", item)
    await pool.aclose()
"""

WITH_ARQ = (
    WAITING
    + """
import jobs


@pytest.fixture
def queue(monkeypatch):
    name = f"arena-{uuid.uuid4().hex}"  # Redis is not the database: each test has its own
    monkeypatch.setenv("QUEUE", name)
    return name


@pytest.mark.parametrize("turn", range(2))
def test_another_process(arena, test_client, db_session, queue, turn):
    command = [sys.executable, "-m", "arq", "jobs.Settings"]
    with arena.process(command, ready="Starting worker", patience=60):
        test_client.post("/orders/chair")
        test_client.post("/ship/chair")
        until_shipped(db_session)


async def test_this_process(client, db_session, queue):
    from arq import Worker
    await client.post("/orders/chair")
    await client.post("/ship/chair")
    worker = Worker(
        [jobs.ship], redis_settings=jobs.REDIS, queue_name=queue, burst=True, handle_signals=False
    )
    await worker.main()
    await worker.close()
    assert (await db_session.scalars(select(Order.status))).all() == ["shipped"]
"""
)


@needs("arq")
@with_redis
@HOWS
def test_arq_pitfall_130(example: Example, how: str) -> None:
    """P1, P3: its worker sees what was committed, its rows are seen, and go with the test."""
    files = shop(example, jobs=ARQ, test_queue=WITH_ARQ)
    run = files.change("pytest.ini", "filterwarnings = error", "").run(env=env_of(how))
    run.expect(passed=3).never_says("killed", "cut off")


CELERY = """
import os
from celery import Celery
from sqlalchemy import create_engine, update
from app import Order, app

QUEUE = os.environ["QUEUE"]  # a folder: kombu wants another redis than arq does
celery = Celery("jobs", broker="filesystem://")
celery.conf.broker_transport_options = {
    f"{name}_folder": QUEUE for name in ("control", "processed")
} | {"data_folder_in": QUEUE, "data_folder_out": QUEUE}
engine = create_engine(os.environ["SYNC_URL"])


@celery.task
def ship(item):
    with engine.begin() as connection:
        connection.execute(update(Order).where(Order.item == item).values(status="shipped"))


@app.post("/ship/{item}")
def asks(item: str):
    ship.delay(item)
"""

WITH_CELERY = (
    WAITING
    + """
import jobs


@pytest.mark.parametrize("turn", range(2))
def test_another_process(arena, test_client, db_session, turn):
    command = [sys.executable, "-m", "celery", "-A", "jobs:celery", "worker"]
    command += ["--pool", "solo", "--loglevel", "INFO"]
    with arena.process(command, ready=" ready.", patience=60):
        test_client.post("/orders/chair")
        test_client.post("/ship/chair")
        until_shipped(db_session)


def test_this_process(test_client, db_session):
    jobs.celery.conf.task_always_eager = True  # the last test
    test_client.post("/orders/chair")
    test_client.post("/ship/chair")
    assert db_session.scalars(select(Order.status)).all() == ["shipped"]
"""
)


@needs("celery")
@HOWS
def test_celery_pitfall_130(example: Example, tmp_path: Path, how: str) -> None:
    """P1, P3: a sync engine in its worker, whose URL stands in a variable of its own."""
    files = shop(example, jobs=CELERY, test_queue=WITH_CELERY)
    files = files.change(
        "pytest.ini", "filterwarnings = error", "arena_env =\n    DATABASE_URL\n    SYNC_URL"
    )
    env = env_of(how)
    sync = {"copy": f"sqlite:///{files.folder}/shop.db"}
    url = sync.get(how, "postgresql+psycopg://me:s3cret@db.example.org/shop")
    (queue := tmp_path / "queue").mkdir()
    env |= {"SYNC_URL": url, "QUEUE": str(queue)}
    # Over folders it takes its time to end, and may be killed.
    files.run(env=env).expect(passed=3).never_says("cut off")


TASKIQ = """
from taskiq import InMemoryBroker
from sqlalchemy import update
from app import Order, app, maker

broker = InMemoryBroker()


@broker.task
async def ship(item):
    async with maker.begin() as session:
        await session.execute(update(Order).where(Order.item == item).values(status="shipped"))


@app.post("/ship/{item}")
async def asks(item: str):
    await ship.kiq(item)
"""

WITH_TASKIQ = """
import pytest
from sqlalchemy import select
from app import Order
import jobs


@pytest.mark.parametrize("turn", range(3))
async def test_this_process(arena, client, db_session, turn):
    await client.post("/orders/chair")
    await client.post("/ship/chair")
    await arena.settled()
    assert (await db_session.scalars(select(Order.status))).all() == ["shipped"]


async def test_nobody_waits(client):
    await client.post("/orders/chair")
    await client.post("/ship/chair")


def test_nothing_is_left(test_client):
    assert test_client.get("/orders").json() == []
"""


@needs("taskiq")
@HOWS
def test_taskiq_pitfall_130(example: Example, how: str) -> None:
    """P5: its broker's tasks are background work, which a test waits for at its end."""
    run = shop(example, jobs=TASKIQ, test_queue=WITH_TASKIQ).run(env=env_of(how))
    run.expect(passed=5).never_says("cut off")
