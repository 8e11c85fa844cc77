"""Real commits are taken back in place, and what the key journal cannot restore by a copy."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.mysql.shop import shop

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conformance.story_mysql_server import StoryMySQLServer

HAND = """
import pytest
from app import engine
from sqlalchemy import text

NAMES = []


async def run(*statements):
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def ask(statement):
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(statement))]


async def is_whole():
    assert await ask("SELECT id, name FROM item") == [(1, "seeded")]
    assert await ask("SELECT id, item_id FROM line") == [(1, 1)]
    await run("INSERT INTO item (name) VALUES ('next')")
    assert await ask("SELECT MAX(id) FROM item") == [(2,)]
    [(name,)] = await ask("SELECT DATABASE()")
    NAMES.append(name)
"""
WRITES = """
import pytest
from hand import NAMES, ask, is_whole, run


@pytest.mark.parametrize("write", [
    "DELETE FROM item",
    "TRUNCATE line",
    "REPLACE INTO line VALUES (1, 1)",
    "INSERT INTO item VALUES (1, 'x') ON DUPLICATE KEY UPDATE name = 'y'",
    "UPDATE item SET name = 'other' WHERE id = 1",
])
async def test_in_place(client, write):
    await is_whole()
    await run(write)


@pytest.mark.parametrize("change", [
    "ALTER TABLE item ADD COLUMN late INT",
    "ALTER TABLE line AUTO_INCREMENT = 90",
    "CREATE TABLE late (id INT) ENGINE = MyISAM",
    "DROP TABLE line",
    "CREATE VIEW names AS SELECT name FROM item",
])
async def test_by_a_copy(client, change):
    await is_whole()
    await run("DELETE FROM line", change)


async def test_the_copies(client):
    await is_whole()
    assert NAMES[0] == NAMES[5]
    assert len(set(NAMES)) == 6


@pytest.mark.arena(isolation="clone")
async def test_by_a_clone(client):
    await is_whole()
    assert NAMES[-1] == NAMES[-2]
    await run("DELETE FROM line")


async def test_after_a_clone(client):
    await is_whole()
    assert NAMES[-1] != NAMES[-2]
"""


def test_what_undo_restores(server: StoryMySQLServer, tmp_path: Path) -> None:
    """Rows, cascades and counters in place, a changed schema by a copy, which a line names."""
    example = shop(server, tmp_path).with_paths({"hand.py": HAND}).with_files(test_writes=WRITES)
    run = example.run("-q")
    run.expect(passed=13).says("its database was replaced: a statement may have changed the schema")
    assert server.left() == []


STORY = """
import pytest
from hand import run
from pytest_arena import inserted


@pytest.fixture(scope="module")
def pear():
    from app import URL
    from sqlalchemy import create_engine, text
    with create_engine(URL.replace("asyncmy", "pymysql")).begin() as connection:
        connection.execute(text("INSERT INTO item (name) VALUES ('pear')"))


async def test_fails(pear, client):
    await client.post("/items/apple")
    await client.post("/items/plum")
    assert (await client.get("/items")).json() == []


async def test_between(client, arena):
    await client.post("/items/fig")
    with arena.expect_changes(item=inserted(1)):
        await client.post("/items/plum")
    assert len(arena.changes().inserted["item"]) == 2
    await run("ALTER TABLE item ADD COLUMN late INT")
    assert len(arena.changes().inserted["item"]) == 2


async def test_the_schema_changes_meanwhile(client, arena):
    await client.post("/items/fig")
    with arena.expect_changes(item=inserted(2)):
        await client.post("/items/plum")
        await run("ALTER TABLE item ADD COLUMN late INT")
"""


@pytest.mark.slow
def test_the_story_of_a_failed_test(server: StoryMySQLServer, tmp_path: Path) -> None:
    """It names the rows of each request, and those of a wide fixture."""
    example = shop(server, tmp_path).with_paths({"hand.py": HAND}).with_files(test_story=STORY)
    run = example.run("-q")
    run.expect(status=1, passed=1, failed=2)
    run.says("POST /items/apple 200  item +1", "POST /items/plum 200  item +1", "pear")
    run.says("the changes since a moment of this test are not known")


MADE_IN_THE_TEST = """
import pytest
from hand import run


@pytest.fixture
async def tables(client):
    await run("DROP TABLE line", "DROP TABLE item")
    await run("CREATE TABLE item (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50))")


async def test_by_a_fixture(client, tables):
    await client.post("/items/apple")
    await client.post("/items/plum")
    assert 0


async def test_between_requests(client):
    await client.post("/items/apple")
    await run("CREATE TABLE late (id INT)", "INSERT INTO late VALUES (1)")
    await client.post("/items/plum")
    assert 0


async def test_emptied(client):
    await client.post("/items/apple")
    await run("TRUNCATE line")
    await client.post("/items/plum")
    assert 0
"""
UNKNOWN = "in all (with undo it is not known which request changed what)"
STORIES = [
    f"""
POST /items/apple 200
POST /items/plum 200
{UNKNOWN}  item +1 ~1, line -1
""",
    f"""
POST /items/apple 200
POST /items/plum 200
{UNKNOWN}  item +2, late +1
""",
    """
POST /items/apple 200  item +1
then, outside of requests  line -1
POST /items/plum 200  item +1
""",
]


def test_the_story_of_a_test_that_makes_tables(server: StoryMySQLServer, tmp_path: Path) -> None:
    """The journal does not see their rows: no request is said to have changed nothing."""
    example = shop(server, tmp_path).with_paths({"hand.py": HAND})
    run = example.with_files(test_made=MADE_IN_THE_TEST).run("-q", "--tb=short")
    run.expect(status=1, failed=3)
    output = re.sub("\n    [+~-] .*", "", run.output)  # without the rows
    for story in STORIES:
        assert story in re.sub("  +", "  ", output)


UNFIT = """
CREATE TABLE item (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50));
CREATE TABLE line (id INT AUTO_INCREMENT PRIMARY KEY, item_id INT) ENGINE = MyISAM;
"""
# An ALTER TABLE that restores AUTO_INCREMENT makes MariaDB use the number of a deleted text again.
TEXTS = """
CREATE TABLE item (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50));
CREATE TABLE line (id INT AUTO_INCREMENT PRIMARY KEY, item_id INT DEFAULT 1, words VARCHAR(50),
    half INT AS (item_id / 2) VIRTUAL, FULLTEXT (words));
"""
TURNS = """
import pytest
from hand import ask, is_whole, run


@pytest.mark.parametrize("turn", [1, 2])
async def test_turn(client, turn):
    await is_whole()
    await run("DELETE FROM line")
"""
FINDS = """
    await run("INSERT INTO line (words) VALUES ('zebra')")
    assert await ask("SELECT id FROM line WHERE MATCH (words) AGAINST ('zebra')") == [(2,)]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "schema, story, reason",
    [
        (UNFIT, TURNS, "line: the engine MyISAM has no transactions"),
        (TEXTS, TURNS + FINDS, "line: MATCH would miss rows, as the table has a VIRTUAL column"),
    ],
)
def test_a_table_that_no_journal_restores(
    server: StoryMySQLServer, tmp_path: Path, schema: str, story: str, reason: str
) -> None:
    """``auto`` is ``clone``, and a line names the table. ``undo`` is refused."""
    example = shop(server, tmp_path).change("pytest.ini", "app:Base", "schema.sql")
    example = example.with_paths({"schema.sql": schema, "hand.py": HAND})
    example = example.with_files(test_turns=story)
    run = example.run("-q")
    run.expect(passed=2).says(f"tests are isolated by clone, since {reason}")
    run = example.run("-q", "--arena-isolation=undo")
    run.says(f"arena_isolation = undo: {reason}", "arena_isolation = auto")
    assert run.status == 1


ROLLED_BACK = """
import pytest


@pytest.mark.arena(isolation="rollback")
def test_marked(test_client):
    test_client.get("/items")
"""


def test_rollback_is_refused(server: StoryMySQLServer, tmp_path: Path) -> None:
    """As an option and as a marker, with the next step."""
    example = shop(server, tmp_path).with_files(test_marked=ROLLED_BACK)
    run = example.run("-q", "--arena-isolation=rollback").expect(1, failed=1)
    run.says(
        "arena_isolation = rollback does not exist on", "arena_isolation = auto", "undo, clone"
    )
    run = example.run("-q").expect(1, failed=1)
    run.says("isolation='rollback' is not available", "has only the isolations undo and clone")
    run.says("next: @pytest.mark.arena(isolation='undo')")


MADE = """
import pytest
from app import URL
from hand import ask, run
from sqlalchemy import create_engine, text


@pytest.fixture(scope="module", params=["InnoDB", "MyISAM"])
def late(request):
    with create_engine(URL.replace("asyncmy", "pymysql")).begin() as connection:
        connection.execute(text("INSERT INTO item (name) VALUES ('wide')"))
        connection.execute(text(f"CREATE TABLE late (id INT) ENGINE = {request.param}"))
        connection.execute(text("INSERT INTO late VALUES (1)"))


@pytest.mark.parametrize("turn", [1, 2])
async def test_above(late, client, turn):
    assert await ask("SELECT id FROM late") == [(1,)]
    assert (await client.get("/items")).json() == ["seeded", "wide"]
    await run("INSERT INTO late VALUES (2)", "DELETE FROM item WHERE name = 'wide'")
"""
AFTER = """
from hand import ask


async def test_without(client):
    assert await ask("SHOW TABLES LIKE 'late'") == []
    assert (await client.get("/items")).json() == ["seeded"]
    await client.post("/items/mine")


async def test_without_again(client):
    assert (await client.get("/items")).json() == ["seeded"]
    assert (await client.post("/items/mine")).json() == 2
"""


@pytest.mark.slow
def test_a_wide_fixture_that_makes_a_table(server: StoryMySQLServer, tmp_path: Path) -> None:
    """The levels above it begin in a snapshot, and the levels after it in place again."""
    example = shop(server, tmp_path).with_paths({"hand.py": HAND})
    example = example.with_files(test_a_made=MADE, test_b_after=AFTER)
    run = example.run("-q")
    run.expect(passed=6).says("was replaced: late: the engine MyISAM")
    assert server.left() == []
