"""Has a request read the very row that was seeded? Told by what its queries were given."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.parameters import slow_except
from tests.plugin.private_server import PRODUCTION
from tests.scenarios.proving import told
from tests.scenarios.seen import facts_of, seeing

if TYPE_CHECKING:
    from tests.scenarios.proving import Told

ROUTES = """
import uuid
from sqlalchemy import func, text


class Ticket(Base):
    __tablename__ = "tickets"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    seat: Mapped[int]
    note: Mapped[str | None]


app = FastAPI()


@app.get("/tickets/{seat}")
async def ticket(seat: int, db=Depends(get_db)):
    found = (await db.scalars(select(Ticket).where(Ticket.seat == seat))).first()
    return found and found.note


@app.get("/aliased/{seat}")
async def aliased(seat: int, db=Depends(get_db)):
    inner = select(Ticket.seat.label("place"), Ticket.note).subquery()
    return [note for note in await db.scalars(select(inner.c.place).where(inner.c.place == seat))]


@app.get("/count/{seat}")
async def count(seat: int, db=Depends(get_db)):
    return await db.scalar(select(func.count()).select_from(Ticket).where(Ticket.seat == seat))


@app.get("/text/{seat}")
async def by_text(seat: int, db=Depends(get_db)):
    query = text("SELECT 1 FROM tickets WHERE seat = :seat")
    return (await db.scalars(query, {"seat": seat})).all()


@app.get("/stream/{seat}")
async def stream(seat: int, db=Depends(get_db)):
    rows = await db.stream_scalars(select(Ticket).where(Ticket.seat == seat))
    return [one.note async for one in rows]


@app.put("/tickets/{seat}")
async def move(seat: int, to: int, db=Depends(get_db)):
    moved = text("UPDATE tickets SET seat = :to WHERE seat = :seat")
    await db.execute(moved, {"seat": seat, "to": to})
    await db.commit()
    return (await db.scalars(select(Ticket).where(Ticket.seat == to))).one().note


@app.post("/tickets/{seat}")
async def add(seat: int, db=Depends(get_db)):
    db.add(Ticket(seat=seat))
    await db.commit()
    return (await db.scalars(select(Ticket).where(Ticket.seat == seat))).first().note
"""

SEED = """
from app import Ticket

async def seed(session):
    session.add(Ticket(seat=7, note="of every test"))
"""

# By name: what a test asks of the app, once it has seeded the ticket for seat 3.
READS = {
    "its_row": ("get", "/tickets/3"),
    "its_row_in_an_alias": ("get", "/aliased/3"),
    "its_row_counted": ("get", "/count/3"),
    "its_row_by_text": ("get", "/text/3"),
    "another_streamed": ("get", "/stream/7"),
    "its_row_moved": ("put", "/tickets/3?to=9"),
}
READS_NOT = {
    "no_row": ("get", "/tickets/4"),
    "another": ("get", "/tickets/7"),
    "another_in_an_alias": ("get", "/aliased/7"),
    "no_row_by_text": ("get", "/text/4"),
    "a_new_one": ("post", "/tickets/5"),
}


def _test(name: str, method: str, path: str) -> str:
    return f"""
@proves
async def test_{name}(client, db_session):
    db_session.add(Ticket(seat=3, note="of this test"))
    assert (await client.{method}("{path}")).is_success
"""


# Where it cannot be known whether the row is one of those that were seeded.
UPDATED = """
@proves
async def test_updated(client, db_session):
    ticket = Ticket(seat=3)
    db_session.add(ticket)
    await db_session.commit()
    ticket.seat = 6
    assert (await client.get("/tickets/6")).is_success


@proves
async def test_seeded_by_text(client, db_session):
    words = "INSERT INTO tickets (id, seat) VALUES ('00000000000000000000000000000000', 3)"
    await db_session.execute(text(words))
    assert (await client.get("/tickets/7")).is_success
"""


@pytest.fixture(scope="module", params=slow_except(["sqlite", "asyncpg", "psycopg"], "sqlite"))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One run of all of them."""
    tests = "".join(_test(name, *asked) for name, asked in (READS | READS_NOT).items())
    head = "from sqlalchemy import text\nfrom app import Ticket\n"
    example = seeing(tmp_path_factory.mktemp("rows"), head + tests + UPDATED)
    example = example.change("app.py", "app = FastAPI()\n", ROUTES)
    example = example.with_files(seed=SEED)
    servers = {
        "ARENA_DATABASE": os.environ["TESTS_POSTGRESQL"],
        "DATABASE_URL": PRODUCTION.replace("asyncpg", request.param),
    }
    found = told(example, env={} if request.param == "sqlite" else servers)
    assert "failed" not in found.run.output.splitlines()[-1], found.run.output
    return found


def _read(run: Told, name: str) -> list[str]:
    [one] = facts_of(run, name)["requests"]
    return list(one.get("read", []))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*READS, "updated", "seeded_by_text"])
def test_a_request_that_may_have_read_the_row_has(run: Told, name: str) -> None:
    """What is computed, streamed or has been changed since may be of it: nobody is accused."""
    assert _read(run, name) == ["tickets"]
    assert "no request read" not in str(run.scenarios[name])


@pytest.mark.parametrize("name", READS_NOT)
def test_a_request_that_was_given_other_rows_has_not_read_it(run: Told, name: str) -> None:
    """A row of the same table is not the one that the test has made."""
    assert _read(run, name) == []
    assert "no request read the seeded rows of tickets" in str(run.scenarios[name])
