"""Whatever some connections do in some levels, each leave gives back its enter: on each product."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_arena._sqlite._copy import Copy
from tests.isolation.conformance import MANY, new_world
from tests.isolation.random_work import RandomWork, Step
from tests.isolation.server_world import ServerWorld
from tests.isolation.test_copy import MODES

if TYPE_CHECKING:
    from pytest_arena._postgresql.registry import ServerRegistry

LAYOUTS = tuple(
    f"PRAGMA page_size = {size}; PRAGMA auto_vacuum = {vacuum}; "
    for size in (512, 4096, 16384)
    for vacuum in (0, 1, 2)
)
ON_SQLITE = (
    "INSERT INTO dancers (name) VALUES (random())",
    "UPDATE dancers SET style = random()",
    "DELETE FROM dancers WHERE id % 2",
    "INSERT INTO scores VALUES (random(), 1, 1)",
    "INSERT INTO notes VALUES ('sand ' || random())",
    "INSERT INTO places VALUES (random(), 1, 1)",
    f"INSERT INTO plain (a) {MANY} SELECT i FROM n",
    "DELETE FROM plain",
    "CREATE TABLE IF NOT EXISTS extra (a)",
    "DROP TABLE IF EXISTS extra",
    "INSERT INTO extra VALUES (random())",
    "ALTER TABLE plain ADD COLUMN b",
    "ALTER TABLE plain DROP COLUMN b",
    "CREATE INDEX IF NOT EXISTS by_name ON dancers (name, style)",
    "REINDEX",
    "PRAGMA user_version = 3",
    "PRAGMA wal_checkpoint(PASSIVE)",
    "PRAGMA wal_checkpoint(FULL)",
    "PRAGMA wal_checkpoint(RESTART)",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA wal_autocheckpoint = 1",
    "PRAGMA wal_autocheckpoint = 0",
    "PRAGMA journal_mode = wal",
    "PRAGMA journal_mode = delete",
    "PRAGMA journal_mode = persist",
    "PRAGMA journal_mode = memory",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA locking_mode = NORMAL",
    "PRAGMA cache_size = 2",
    "PRAGMA page_size = 1024",
    "PRAGMA auto_vacuum = 1",
    "PRAGMA auto_vacuum = 2",
    "PRAGMA incremental_vacuum",
    "VACUUM",
    "BEGIN",
    "BEGIN IMMEDIATE",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "COMMIT",
    "ROLLBACK",
    "SELECT * FROM dancers",
    "SELECT * FROM plain",
    "(reconnect)",
)
ON_A_SERVER = (
    "INSERT INTO dancers (name) VALUES (random()::text)",
    "UPDATE dancers SET style = random()::text",
    "DELETE FROM dancers WHERE id % 2 = 0",
    "INSERT INTO plain SELECT generate_series(1, 500)",
    "TRUNCATE plain",
    "INSERT INTO unlogged VALUES (2)",
    "INSERT INTO many (a) VALUES ('x')",
    "SELECT nextval('tickets')",
    "SELECT setval('tickets', 1, false)",
    "ALTER SEQUENCE tickets RESTART",
    "CREATE TABLE IF NOT EXISTS extra (a int)",
    "DROP TABLE IF EXISTS extra",
    "ALTER TABLE plain ADD COLUMN IF NOT EXISTS b int DEFAULT 3",
    "ALTER TABLE plain DROP COLUMN IF EXISTS b",
    "COMMENT ON TABLE plain IS 'x'",
    "GRANT SELECT ON plain TO PUBLIC",
    "SELECT lo_from_bytea(0, 'c')",
    "CREATE TEMP TABLE IF NOT EXISTS dancers (a int)",
    "VACUUM plain",
    "ANALYZE",
    "BEGIN",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "COMMIT",
    "ROLLBACK",
    "SELECT * FROM many",
    "SELECT * FROM many",
    "SELECT pg_advisory_lock(1)",
    "DO $$ BEGIN INSERT INTO plain VALUES (5); EXCEPTION WHEN division_by_zero THEN END $$",
)
STEPS = st.lists(
    st.one_of(
        st.sampled_from(("enter", "leave", "leave")),
        st.tuples(st.integers(0, 2), st.sampled_from(ON_SQLITE)),
    ),
    max_size=40,
)


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """The journal mode. A fixture, because Hypothesis does not mix with parametrize here."""
    found: str = request.param
    return found


def levels_after(mode: str, layout: str, steps: list[Step]) -> int:
    """Take all steps on a new database. Return the number of levels that stay open."""
    with (
        TemporaryDirectory() as folder,
        closing(new_world(Copy, Path(folder), mode, layout=layout)) as world,
    ):
        RandomWork(world, hands=3, levels=4).do_all(steps)
        return world.isolation.depth


@given(layout=st.sampled_from(LAYOUTS), steps=STEPS)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_work_is_undone(mode: str, layout: str, steps: list[Step]) -> None:
    """A little of it each time."""
    assert levels_after(mode, layout, steps) == 0


@pytest.mark.slow
@given(layout=st.sampled_from(LAYOUTS), steps=STEPS)
@settings(
    max_examples=max(500, settings().max_examples),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_much_random_work_is_undone(mode: str, layout: str, steps: list[Step]) -> None:
    """More of it, or as much as ``--hypothesis-profile`` says."""
    assert levels_after(mode, layout, steps) == 0


@pytest.mark.parametrize(
    "seed, number",
    [(3, 50), *(pytest.param(seed, 300, marks=pytest.mark.slow) for seed in range(10, 14))],
)
@pytest.mark.parametrize(
    "isolation",
    [
        pytest.param("clone", marks=pytest.mark.slow),
        "undo",
    ],
)
def test_random_work_on_a_server_is_undone_p87(
    own: ServerRegistry, template: str, isolation: str, seed: int, number: int
) -> None:
    """Statements above all; by force and forgotten now and then."""
    chance = random.Random(seed)  # noqa: S311 - it is to be repeatable
    verbs = {"enter": 7, "leave": 9, "force": 2, "forget": 1, "": 81}
    with closing(ServerWorld.of(own, template, isolation)) as world:
        statements = list(ON_A_SERVER)
        steps: list[Step] = []
        for verb in chance.choices(list(verbs), list(verbs.values()), k=number):
            if verb:
                steps.append(verb)
            else:
                hand = chance.randrange(2)
                steps.append((hand, "SET lock_timeout = '20ms'"))
                steps.append((hand, chance.choice(statements)))
        RandomWork(world, hands=2, levels=3).do_all(steps)
        assert world.isolation.depth == 0
