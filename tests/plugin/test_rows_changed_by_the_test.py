"""A test changes a row in db_session, and sends a request that writes nothing: it is named."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import shop
from tests.suites.harness import ROOT, Suite

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example

# More of the shop's async app.
PAGE = """
@app.get("/stock")
async def stock() -> dict[str, int]:
    async with maker() as db:
        return {each.item: each.amount for each in await db.scalars(select(Stock))}


@app.api_route("/nothing/{item}", methods=["PUT", "PATCH", "POST", "DELETE", "GET"])
async def nothing(item: str) -> None:
    async with maker() as db:
        await db.get(Stock, item)


@app.put("/to/{path}/{item}")
async def to(path: str, item: str) -> None:
    return RedirectResponse(f"/{path}/{item}", 307)


@app.put("/refused/{item}")
async def refused(item: str) -> None:
    await nothing(item)
    raise HTTPException(409)


@app.put("/written/{item}")
async def written(item: str) -> None:
    async with maker.begin() as db:
        db.add(Visit(path=item))
        await db.scalar(select(Visit))
"""
TEST = """
import httpx2
import pytest
from models import Order, Stock
from sqlalchemy import select, update


@pytest.fixture
async def chair(db_session):
    return await db_session.get(Stock, "chair")


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_named_a_loaded_object(client, db_session, chair, method):
    chair.amount = 3
    await client.request(method, "/nothing/chair")
    await db_session.refresh(chair)
    assert chair.amount == 3


async def test_named_an_object_that_the_test_has_committed(client, db_session):
    order = Order(item="vase")
    db_session.add(order)
    await db_session.commit()
    order.item = "cup"
    await client.put("/nothing/chair")


async def test_named_a_flushed_object(client, db_session, chair):
    chair.amount = 3
    await db_session.flush()
    await client.put("/nothing/chair")
    assert (await client.get("/stock")).json()["chair"] == 3


async def test_named_after_a_read(client, chair):
    chair.amount = 3
    await client.get("/stock")
    await client.put("/nothing/chair")


async def test_named_a_redirect(client_options, arena, db_session, chair):
    chair.amount = 3
    await arena.client(follow_redirects=True).put("/to/nothing/chair")


def test_named_a_sync_test(test_client, db_session):
    db_session.get(Stock, "chair").amount = 3
    test_client.put("/nothing/chair")


def test_named_the_live_server(live_server, db_session):
    db_session.get(Stock, "chair").amount = 3
    httpx2.put(f"{live_server.url}/nothing/chair")


@pytest.mark.parametrize("method, path, status", [
    ("PUT", "refused", 409),
    ("PUT", "written", 200),
    ("POST", "nothing", 200),
    ("DELETE", "nothing", 200),
    ("GET", "nothing", 200),
])
async def test_quiet_request(client, chair, method, path, status):
    chair.amount = 3
    assert (await client.request(method, f"/{path}/chair")).status_code == status


async def test_quiet_a_redirect(arena, chair):
    chair.amount = 3
    await arena.client(follow_redirects=True).put("/to/written/chair")


@pytest.mark.parametrize("amount, end", [(3, "commit"), (3, "rollback"), (5, "flush")])
async def test_quiet_no_change(client, db_session, chair, amount, end):
    chair.amount = amount
    await getattr(db_session, end)()
    await client.put("/nothing/chair")


async def test_quiet_made_by_the_test(client, db_session):
    order = Order(item="vase")
    db_session.add(order)
    await db_session.flush()
    order.item = "cup"
    await client.put("/nothing/chair")


async def test_quiet_in_a_block(client, arena, chair):
    chair.amount = 3
    async with arena.expect_changes():
        await client.put("/nothing/chair")


async def test_quiet_statement(client, db_session):
    await db_session.execute(update(Stock).values(amount=3))
    await client.put("/nothing/chair")
"""
NAMED = 8


@pytest.mark.parametrize("setting", ["sqlite", "postgresql", "clone", "rollback", "mysql"])
def test_a_request_that_wrote_nothing_after_a_change_by_the_test_is_named(
    example: Example, setting: str, tmp_path: Path
) -> None:
    """A refused request, one that writes, and a change that the test has committed are not."""
    environment = Suite(ROOT / "visibility", setting)._environment(tmp_path)
    names = ("DATABASE_URL", "ARENA_DATABASE", "PYTEST_ADDOPTS")
    env = {name: environment[name] for name in names if name in environment}
    project = shop(example, page=PAGE, test_it=TEST)
    project.run("-q", "-k", "quiet", env=env).expect(passed=12).never_says("wrote nothing")
    run = project.run("-q", "-k", "named", env=env).expect(passed=NAMED)
    lines = [line for line in run.output.splitlines() if "wrote nothing" in line]
    more = [int(number) for line in lines for number in re.findall(r"also in (\d+) more", line)]
    assert len(lines) + sum(more) == NAMED, run.output
