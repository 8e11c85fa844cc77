"""A test on a table with policies has to notice when they do not act."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.private_server import PrivateServer, private_server
from tests.scenarios.proving import project, told

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.example import Example
    from tests.scenarios.proving import Told

URL = "postgresql+asyncpg://shop_app:s3cret@db.example.org/shop"

APP = """
from fastapi import Depends, FastAPI, Header
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

engine = create_async_engine("URL")
app = FastAPI()


async def tenant_db(tenant: str = Header("a")):
    async with AsyncSession(engine) as db:
        await db.execute(text("SELECT set_config('app.tenant', :t, true)"), {"t": tenant})
        yield db


@app.get("/docs-of-all")
async def titles(db=Depends(tenant_db)):
    return list(await db.scalars(text("SELECT title FROM docs ORDER BY id")))


@app.post("/docs-of-all/{title}", status_code=201)
async def add(title: str, tenant: str = Header(), db=Depends(tenant_db)):
    await db.execute(
        text("INSERT INTO docs (tenant, title) VALUES (:n, :t)"), {"n": tenant, "t": title}
    )
    await db.commit()


@app.get("/news")
async def news(db=Depends(tenant_db)):
    return list(await db.scalars(text("SELECT line FROM news")))
"""

SCHEMA = """
CREATE TABLE docs (id serial PRIMARY KEY, tenant text NOT NULL, title text NOT NULL);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON docs USING (tenant = current_setting('app.tenant', true));
CREATE TABLE news (line text);
INSERT INTO docs (tenant, title) VALUES ('a', 'A1'), ('b', 'B1');
INSERT INTO news VALUES ('all well');
GRANT SELECT, INSERT ON docs, news TO shop_app;
GRANT USAGE ON SEQUENCE docs_id_seq TO shop_app;
"""

TESTS = """
import pytest
from sqlalchemy import text


async def docs_of(client, tenant):
    answer = await client.get("/docs-of-all", headers={"tenant": tenant})
    assert answer.status_code == 200
    return answer.json()


@pytest.fixture(scope="module")
def wide(arena):
    with arena.session() as session:
        session.execute(text("INSERT INTO news VALUES ('wide')"))
        session.commit()


@pytest.mark.scenario("each sees its own")
async def test_each_sees_its_own(client, wide):
    assert await docs_of(client, "a") == ["A1"]
    assert await docs_of(client, "b") == ["B1"]


@pytest.mark.scenario("sees it among others")
async def test_sees_it_among_others(client):
    assert "A1" in await docs_of(client, "a")


@pytest.mark.scenario("what changed")
async def test_what_changed(client, arena):
    from pytest_arena import inserted

    async with arena.expect_changes(docs=inserted(1)):
        await client.post("/docs-of-all/A2", headers={"tenant": "a"})
    assert "A2" in await docs_of(client, "a")


@pytest.mark.scenario("another table")
async def test_another_table(client, wide):
    assert (await client.get("/news")).json() == ["all well", "wide"]


@pytest.mark.scenario("excused")
async def test_excused(client):
    assert "A1" in await docs_of(client, "a")


@pytest.mark.scenario("and the next one")
async def test_and_the_next_one(client, wide):
    assert await docs_of(client, "a") == ["A1"]
"""

NAMES = (
    "each sees its own",
    "sees it among others",
    "what changed",
    "another table",
    "excused",
    "and the next one",
)


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    """One for all tests here."""
    with private_server() as found:
        yield found


def shop(folder: Path, tests: str = TESTS, names: tuple[str, ...] = NAMES) -> Example:
    """An app whose role policies act on, and tests that prove scenarios."""
    example = project(folder, names, tests)
    text = example.files["specs/stories.feature"]
    tagged = text.replace("  Scenario: excused", "  @survives-policy\n  Scenario: excused")
    example = example.with_paths({"specs/stories.feature": tagged})
    options = ("arena_schema = app:Base\narena_seed = seed:seed", "arena_schema = schema.sql")
    files = {"app.py": APP.replace("URL", URL), "schema.sql": SCHEMA}
    return example.change("pytest.ini", *options).with_paths(files)


def broken(example: Example, server: PrivateServer, *words: str) -> Told:
    """Run it with sabotage on the server."""
    return told(example, "--scenarios-sabotage", *words, env=server.env)


def of_policies(found: Told) -> dict[str, tuple[str, str]]:
    """What became of each test with the policies off, and why."""
    tests = {name: one["tests"][0] for name, one in found.scenarios.items()}
    kinds = {
        name: {one["kind"]: (one["result"], one.get("why", "")) for one in test["sabotages"]}
        for name, test in tests.items()
    }
    return {name: one["policy"] for name, one in kinds.items()}


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["undo", "clone"])
def test_who_stays_green_with_the_policies_off_is_hollow(
    tmp_path: Path, server: PrivateServer, isolation: str
) -> None:
    """Tables are named; nobody else is asked, and the next test has its policies again."""
    found = broken(shop(tmp_path), server, f"--arena-isolation={isolation}")
    results = of_policies(found)
    outcomes = {name: result for name, (result, _) in results.items()}
    assert outcomes == {
        "each sees its own": "noticed",
        "sees it among others": "survived",
        "what changed": "survived",
        "another table": "not applicable",
        "excused": "survived",
        "and the next one": "noticed",
    }
    assert "still passes with the policies of its tables disabled: docs" in found.reason(
        "sees it among others"
    )
    accused = [name for name in NAMES if "policies" in found.reason(name)]
    assert accused == ["sees it among others", "what changed"]
    assert found.statuses["excused"] == "PROVEN"
    assert results["each sees its own"][1].endswith("assert ['A1', 'B1'] == ['A1']")
    found.run.expect(0, passed=6).never_says("was replaced", "do not act")
    server.check_clean(found.run.output)


KILLED = """
import os, signal
import pytest


@pytest.mark.scenario("it")
async def test_it(client):
    titles = (await client.get("/docs-of-all", headers={"tenant": "a"})).json()
    if "B1" in titles and "DEADLY" in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    assert titles == ["A1"]
"""


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["undo", "clone"])
def test_a_run_that_is_killed_leaves_templates_their_policies(
    tmp_path: Path, server: PrivateServer, isolation: str
) -> None:
    """What is altered is a copy, whatever becomes of the process."""
    example = shop(tmp_path, KILLED, ("it",))
    words = ("--scenarios-sabotage", f"--arena-isolation={isolation}")
    killed = example.run(*words, env={**server.env, "DEADLY": "1"})
    assert killed.status == -9
    found = broken(example, server, *words)
    assert of_policies(found)["it"][0] == "noticed"
    found.run.expect(0, passed=1)
    server.check_clean(found.run.output)


HELD = """
import pytest
from app import engine
from sqlalchemy import text


@pytest.mark.scenario("it")
async def test_it(client):
    async with engine.connect() as connection:
        await connection.execute(text("SELECT count(*) FROM docs"))
        answer = await client.get("/docs-of-all", headers={"tenant": "a"})
    assert answer.json() == ["A1"]
"""


@pytest.mark.slow
def test_a_transaction_in_the_way_is_told_and_accuses_nobody(
    tmp_path: Path, server: PrivateServer
) -> None:
    """A table that somebody reads has its policies until that ends."""
    found = broken(shop(tmp_path, HELD, ("it",)), server)
    result, why = of_policies(found)["it"]
    assert result == "unknown"
    assert "an open transaction prevented the sabotage" in why
    found.run.expect(0, passed=1)


@pytest.mark.parametrize("user", ["postgres", "shop_app"])
@pytest.mark.slow
def test_policies_that_do_not_act_anyway_are_not_switched_off(
    tmp_path: Path, server: PrivateServer, user: str
) -> None:
    """Of a superuser, or of whoever owns the tables: a line says so already."""
    example = shop(tmp_path, KILLED.replace('"A1"', '"A1", "B1"'), ("it",))
    granted = SCHEMA[SCHEMA.index("GRANT") :]
    example = example.change("app.py", "shop_app", user).change("schema.sql", granted, "")
    found = broken(example, server)
    why = "no policy applies to the app"
    assert of_policies(found)["it"] == ("not applicable", why)
    found.run.expect(0, passed=1).says("policies do not act on docs")
