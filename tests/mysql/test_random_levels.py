"""Random work in levels. Each leave restores the content of its enter, with each isolation."""

from __future__ import annotations

import random
import secrets
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import pytest

from pytest_arena._mysql._control import open_control
from pytest_arena._mysql._server_registry import MySQLRegistry
from pytest_arena._values import Address
from tests.isolation.random_work import RandomWork
from tests.mysql.level_world import LevelWorld, made_template

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conformance.story_mysql_server import StoryMySQLServer
    from tests.isolation.random_work import Step

pytestmark = pytest.mark.slow

LOCK_SECONDS = 10  # for which pytest-arena's connections wait for a lock

ROWS = (
    "INSERT INTO dancers (name) VALUES ('{n}')",
    "INSERT INTO dancers (name) VALUES ('{n}'), ('Sand')",
    "INSERT IGNORE INTO dancers (name) VALUES ('{n}'), ('Sand')",
    "INSERT INTO dancers (id, name) VALUES ({n}, 'n') ON DUPLICATE KEY UPDATE style = 'again'",
    "REPLACE INTO dancers (id, name, style) VALUES ({n}, 'n{n}', 'new')",
    "INSERT INTO dancers (name) SELECT CONCAT(name, {n}) FROM dancers ORDER BY id",
    "UPDATE dancers SET style = '{n}'",
    "UPDATE dancers SET id = id + 10 ORDER BY id DESC",
    "UPDATE dancers d JOIN scores s ON s.dancer = d.id SET d.style = 'm', s.round = s.round + 1",
    "DELETE FROM dancers WHERE id % 2 = 0",
    "DELETE FROM dancers WHERE id = {n}",
    "INSERT INTO scores VALUES ('z', {n}, 1)",
    "INSERT INTO crews (up, dancer) VALUES ({n}, NULL)",
    "INSERT INTO crews (up) SELECT id FROM crews ORDER BY id",
    "DELETE FROM crews WHERE id = {n}",
    "INSERT INTO plain VALUES (1), ({n})",
    "UPDATE plain SET a = 1",
    "DELETE FROM plain WHERE a = {n}",
    "TRUNCATE plain",
    "TRUNCATE logged",
    "CALL more()",
    "SET SESSION foreign_key_checks = 0",
    "SET SESSION foreign_key_checks = 1",
    "SELECT * FROM dancers",
    "SELECT * FROM plain FOR UPDATE",
    "BEGIN",
    "BEGIN",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "COMMIT",
    "COMMIT",
    "ROLLBACK",
    "SET autocommit = 0",
    "SET autocommit = 1",
    "(reconnect)",
)
DEFINITIONS = (
    "CREATE TABLE IF NOT EXISTS extra (id INT AUTO_INCREMENT PRIMARY KEY, a INT)",
    "INSERT INTO extra (a) VALUES ({n})",
    "DROP TABLE IF EXISTS extra",
    "ALTER TABLE plain ADD COLUMN b INT DEFAULT 3",
    "ALTER TABLE plain DROP COLUMN b",
    "ALTER TABLE dancers AUTO_INCREMENT = 70",
    "CREATE INDEX by_style ON dancers (style)",
    "DROP INDEX by_style ON dancers",
    "RENAME TABLE plain TO other",
    "RENAME TABLE other TO plain",
    "CREATE OR REPLACE VIEW named AS SELECT style FROM dancers",
    "DROP TRIGGER IF EXISTS styled",
    "CREATE TRIGGER more BEFORE INSERT ON plain FOR EACH ROW SET NEW.a = 7",
    "DROP PROCEDURE IF EXISTS more",
    "OPTIMIZE TABLE dancers",
    "ANALYZE TABLE plain",
)


def steps_of(seed: int, number: int, *, hands: int) -> list[Step]:
    """Return steps that depend only on the seed. Each statement has one of the connections."""
    chance = random.Random(seed)  # noqa: S311 - a seed repeats the work
    verbs = {"enter": 9, "leave": 11, "force": 1, "forget": 2, "rows": 72, "definitions": 5}
    statements = {"rows": ROWS, "definitions": DEFINITIONS}
    steps: list[Step] = []
    for verb in chance.choices(list(verbs), list(verbs.values()), k=number):
        if verb in statements:
            statement = chance.choice(statements[verb])
            hand = chance.randrange(hands)
            steps.append((hand, statement.format(n=chance.randrange(1, 9))))
        else:
            steps.append(verb)
    return steps


@pytest.fixture(scope="module")
def registry() -> str:
    """The name of the registry of this module's tests."""
    return f"arena_registry_{secrets.token_hex(4)}"


@pytest.fixture
def address(server: StoryMySQLServer) -> Address:
    """The server, with the login of the runs."""
    login = server.entrance
    return Address("mysql", login["host"], login["port"], login["user"], "", login["password"])


@pytest.fixture
def own(address: Address, registry: str) -> Iterator[MySQLRegistry]:
    """A registry. It is dropped after the test, with its databases."""
    with closing(MySQLRegistry(address, registry=registry)) as own:
        yield own
        own.sweep(everything=True)
    with closing(open_control(replace(address, database=""))) as control:
        control.run(f"DROP DATABASE IF EXISTS {registry}")


class TestInStep:
    """``undo`` and ``clone`` give the same content at each enter, after the same work.

    One connection works. With two, the server's plan for a statement decides which rows are
    locked, and plans differ between two databases.
    """

    kinds: ClassVar[tuple[str, ...]] = ("undo", "clone")
    hands: ClassVar[int] = 1

    @pytest.mark.parametrize("seed", range(6))
    def test_random_work(self, own: MySQLRegistry, address: Address, seed: int) -> None:
        """The contents stay the same in 150 steps, in up to three levels."""
        assert_same_contents(own, address, self.kinds, steps_of(seed, 150, hands=self.hands))


class TestUndone(TestInStep):
    """``undo`` restores the content of each enter after the work of two connections."""

    kinds: ClassVar[tuple[str, ...]] = ("undo",)
    hands: ClassVar[int] = 2


class TestCloned(TestUndone):
    """``clone`` restores it too."""

    kinds: ClassVar[tuple[str, ...]] = ("clone",)


def test_an_update_that_changes_no_row_holds_no_level(own: MySQLRegistry, address: Address) -> None:
    """The driver reports no changed row. pytest-arena leaves the level without a wait."""
    with closing(LevelWorld.of(own, made_template(own, address), "undo")) as world:
        work = RandomWork(world, hands=1, levels=1)
        start = time.monotonic()
        work.do_all([(0, "BEGIN"), (0, "UPDATE plain SET a = a")])
        assert time.monotonic() - start < LOCK_SECONDS


def assert_same_contents(
    own: MySQLRegistry, address: Address, kinds: tuple[str, ...], steps: list[Step]
) -> None:
    """Take the same steps under each isolation, and compare the contents after each of them."""
    template = made_template(own, address)
    with ExitStack() as stack:
        works = []
        for kind in kinds:
            world = LevelWorld.of(own, template, kind)
            stack.callback(world.close)
            works.append(RandomWork(world, hands=2, levels=3))
        for step in ("enter", *steps):
            do_in_step(works, step)
        while works[0].states:
            do_in_step(works, "leave")


def do_in_step(works: list[RandomWork], step: Step) -> None:
    """Take one step in each world, and compare the contents at the enters of the open levels."""
    generations = [work.world.isolation.generation for work in works]
    for work in works:
        work.do(step)
    if generations != [work.world.isolation.generation for work in works]:
        # If only one world has kept its connections, only these have settings of their sessions.
        for work in works:
            work.reconnect()
    for work in works:
        assert work.states == works[0].states, step
