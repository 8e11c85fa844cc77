"""An app that works by itself: it polls the database all the time, also between two tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.private_server import PRODUCTION

if TYPE_CHECKING:
    from tests.example import Example

# An outbox that is emptied every millisecond, as people write it.
POLLING = """
import asyncio, os
from sqlalchemy import create_engine, update
from sqlalchemy.orm import Session

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


async def poll(is_over):
    while not is_over():
        try:
            await (aempty() if os.environ["POLLER"] == "async" else asyncio.to_thread(empty))
        except Exception as error:
            errors.append(error)
        turns.append(None)
        await asyncio.sleep(0.001)
    await engine.dispose()


app = FastAPI()
"""

CONFTEST = """
import asyncio, threading
import pytest
import app


@pytest.fixture(scope="session", autouse=True)
def poller():
    over = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(app.poll(over.is_set)))
    thread.start()
    yield
    over.set()
    thread.join(30)
    app.polling.dispose()
    assert app.errors == []
    assert app.turns
"""

TESTS = """
import pytest

@pytest.mark.parametrize("turn", range(8))
async def test_a_dancer(client, turn):
    assert (await client.post(f"/dancers/{turn}")).status_code == 201
    assert (await client.get("/dancers")).json() == ["Sand", str(turn)]
"""


FILE = "sqlite+aiosqlite:///dev.db"


@pytest.mark.parametrize("poller, isolation", [("async", "copy"), ("sync", "undo")])
def test_a_poller(example: Example, poller: str, isolation: str) -> None:
    """What works beside the tests is waited for, and neither fails nor is ended."""
    polling = (
        example.change("app.py", "app = FastAPI()\n", POLLING)
        .change("app.py", "db.add(Dancer(name=name))", "db.add_all([Dancer(name=name), Outbox()])")
        .change("app.py", FILE, FILE if isolation == "copy" else PRODUCTION)
        .with_files(conftest=CONFTEST, test_it=TESTS)
    )
    sync = PRODUCTION.replace("asyncpg", "psycopg")
    if isolation == "copy":
        sync = FILE.replace("+aiosqlite", "")
    env = {"POLLER": poller, "SYNC_URL": sync, "PYTEST_ADDOPTS": f"--arena-isolation={isolation}"}
    process = polling.start("-q", env=env)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output[-8000:]
    assert "8 passed" in output
