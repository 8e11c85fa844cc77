"""An app that works by itself: it polls the database all the time, also between two tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.libraries import GIVES_BACK_WHAT_IS_CANCELLED
from tests.plugin.private_server import PRODUCTION

if TYPE_CHECKING:
    from tests.example import Example

# An outbox that is emptied every millisecond, as people write it.
POLLING = """
import asyncio, contextlib, os, time
from sqlalchemy import create_engine, update
from sqlalchemy.orm import Session

WHERE, WITH = os.environ["POLLER"].split("-")
polling = create_engine(os.environ["SYNC_URL"])
turns, errors = [], []


class Outbox(Base):
    __tablename__ = "outbox"
    id: Mapped[int] = mapped_column(primary_key=True)
    sent: Mapped[bool] = mapped_column(default=False)


WAITING = select(Outbox.id).where(Outbox.sent.is_(False)).order_by(Outbox.id)


def sent(numbers):
    return update(Outbox).where(Outbox.id.in_(numbers)).values(sent=True)


def empty():
    with Session(polling) as session:
        if numbers := session.scalars(WAITING).all():
            session.execute(sent(numbers))
            session.commit()


async def aempty():
    async with maker() as session:
        if numbers := (await session.scalars(WAITING)).all():
            await session.execute(sent(numbers))
            await session.commit()


async def poll(is_over=lambda: False):
    while not is_over():
        try:
            await (aempty() if WITH == "async" else asyncio.to_thread(empty))
        except Exception as error:
            errors.append(error)
        turns.append(None)
        await asyncio.sleep(0.001)
    await engine.dispose()


@contextlib.asynccontextmanager
async def lifespan(app):
    task = asyncio.create_task(poll()) if WHERE == "task" else None
    yield
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


app = FastAPI(lifespan=lifespan)
"""

CONFTEST = """
import asyncio, threading
import pytest
import app


@pytest.fixture(scope="session", autouse=True)
def poller():
    over = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(app.poll(over.is_set)))
    if app.WHERE == "thread":
        thread.start()
    yield
    over.set()
    if app.WHERE == "thread":
        thread.join(30)
    app.polling.dispose()
    assert app.errors == []
    assert app.turns
"""

TESTS = """
import os
import pytest

@pytest.mark.parametrize("turn", range(int(os.environ["TURNS"])))
async def test_a_dancer(client, turn):
    assert (await client.post(f"/dancers/{turn}")).status_code == 201
    assert (await client.get("/dancers")).json() == ["Sand", str(turn)]
"""


FILE = "sqlite+aiosqlite:///dev.db"


def _assert_passes(example: Example, poller: str, isolation: str, turns: int) -> None:
    if poller == "task-async" and not GIVES_BACK_WHAT_IS_CANCELLED:
        pytest.skip("SQLAlchemy before 2.0.55 loses the connection of a task that is cancelled")
    polling = (
        example.change("app.py", "app = FastAPI()\n", POLLING)
        .change("app.py", "db.add(Dancer(name=name))", "db.add_all([Dancer(name=name), Outbox()])")
        .change("app.py", FILE, FILE if isolation == "copy" else PRODUCTION)
        .with_files(conftest=CONFTEST, test_it=TESTS)
    )
    sync = PRODUCTION.replace("asyncpg", "psycopg")
    if isolation == "copy":
        sync = FILE.replace("+aiosqlite", "")
    env = {
        "POLLER": poller,
        "TURNS": str(turns),
        "SYNC_URL": sync,
        "PYTEST_ADDOPTS": f"--arena-isolation={isolation}",
    }
    process = polling.start("-q", env=env)
    output, _ = process.communicate(timeout=60 + turns)
    assert process.returncode == 0, output[-8000:]
    assert f"{turns} passed" in output


@pytest.mark.parametrize("poller, isolation", [("thread-async", "copy"), ("thread-sync", "undo")])
def test_a_poller(example: Example, poller: str, isolation: str) -> None:
    """P2: what works beside the tests is waited for, and neither fails nor is ended."""
    _assert_passes(example, poller, isolation, 8)
