"""``undo``: what a run that was killed has left is brought back by the next one, and used."""

from __future__ import annotations

import os
import random
import signal
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql._control import open_control
from tests.plugin.private_server import PrivateServer, private_server
from tests.plugin.test_postgresql_crashes import NEXT, Project, is_killed
from tests.servers.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena.testing import Example, Run

UNDO = {"ARENA_ISOLATION": "undo"}
LIVE = 'CREATE DATABASE "arena_live_'
# Sequences, the schema and what wider fixtures have written are as in a new database, too.
MORE = """

def test_the_rest(arena, test_client):
    from sqlalchemy import func, inspect, select, text
    from app import Dancer

    assert arena.isolation == "undo"
    test_client.post("/dancers/Dune")
    with arena.session() as session:
        assert session.scalar(select(func.max(Dancer.id))) == 2
        assert inspect(session.connection()).get_table_names() == ["dancers"]
"""
TURNS = 4


class UndoProject(Project):
    """A project whose tests are undone, and that can be struck."""

    def __init__(self, example: Example, server: PrivateServer) -> None:
        super().__init__(example, server, isolation="undo")
        self.example = self.example.with_files(test_next=NEXT + MORE)

    def next_run(self, *, made: int, version: str = "", words: tuple[str, ...] = ()) -> Run:
        """Run the next tests: green, clean, and with as many live databases made as said."""
        self.server.wait_until_forgotten()
        counted = self.example.folder.parent / "counted"
        env = self.env({"STATEMENT": LIVE, "COUNT": "100000", "COUNTED": str(counted)})
        run = self.built(version or "usual").run("test_next.py", *words, env=env)
        run.expect(passed=TURNS).says("isolation undo").never_says("Exception ignored")
        self.server.check_clean(run.output)
        assert read(counted) == made, run.output
        return run

    def changed(self, test: str) -> Run:
        """Run a test that is killed at its end."""
        files = {"test_it": STRUCK.replace("…", test)}
        example = self.built().with_files(**files)
        return example.run("test_it.py", env=self.env({"PLACES": "end", "SIGNAL": "9"}))


STRUCK = """
from conftest import strike
from sqlalchemy import text
from app import Dancer


def test_it(arena, test_client):
    test_client.post("/dancers/Dune")
    with arena.session() as session:
        session.execute(text("…"))
        session.commit()
    strike("end")
"""


def read(file: Path) -> int:
    """How many statements a run has counted."""
    return int(file.read_text())


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    """One for all tests here that do it no harm."""
    with private_server() as found:
        yield found


@pytest.fixture
def own_server() -> Iterator[PrivateServer]:
    """One for a test that does it harm."""
    with private_server() as found:
        yield found


@pytest.fixture
def project(example: Example, server: PrivateServer) -> UndoProject:
    """On the server that many tests share."""
    return UndoProject(example, server)


@pytest.mark.slow
def test_a_killed_run_is_gone_on_with_pitfall_063(project: UndoProject) -> None:
    """P2, P7: in a test, and again in the run after that: the same database, as new."""
    assert is_killed(project.struck("call"))
    [first] = [name for name in project.server.of_runs() if "live" in name]
    project.server.wait_until_forgotten()
    assert is_killed(project.struck("sync-call"))
    [second] = [name for name in project.server.of_runs() if "live" in name]
    assert first != second
    project.next_run(made=0)
    project.next_run(made=1)


@pytest.mark.parametrize(
    "places",
    [
        pytest.param("wide-end", marks=pytest.mark.slow),
        pytest.param("wide", marks=pytest.mark.slow),
        pytest.param("set-up", marks=pytest.mark.slow),
        pytest.param("tear-down", marks=pytest.mark.slow),
    ],
)
def test_killed_in_a_fixture_pitfall_063(project: UndoProject, places: str) -> None:
    """What wider fixtures have written is taken back with the rest."""
    assert is_killed(project.struck(places))
    project.next_run(made=0)


# Statements of arena's in the life of a run, in the order in which they are said.
POINTS = [
    (r"EXECUTE enter\(", 1),
    (r"EXECUTE enter\(", 2),
    (r"EXECUTE leave\(", 1),
    (r"EXECUTE leave\(", 2),
    (r"SELECT arena.take_over\(", 1),
    (r"UPDATE arena.database SET origin", 1),
    (r"SELECT \w+\.recover\(", 1),
    (r'ALTER DATABASE "arena_live_\w+" WITH ALLOW_CONNECTIONS false', 1),
    (r'ALTER DATABASE "arena_live_\w+" RENAME', 1),
    (r'DROP DATABASE "arena_live_', 1),
]


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_killed_at_every_kind_of_statement_pitfall_063(project: UndoProject, moment: str) -> None:
    """In the middle of a level's beginning or end, and of taking over: each time the next does."""
    assert is_killed(project.struck("call", version="points"))
    for number, (statement, count) in enumerate(POINTS):
        project.server.wait_until_forgotten()
        run = project.killed_at(statement, moment, count=count, version="points")
        assert is_killed(run), f"{statement}: {run.output}"
        if number % 4 == 3:
            project.is_green_next(passed=TURNS)
            assert is_killed(project.struck("call", version="points"))
    project.is_green_next(passed=TURNS)


@pytest.mark.slow
def test_killed_at_random_pitfall_063(project: UndoProject) -> None:
    """At whichever statement, and those that come next go on with what is there."""
    most = project.statements()
    chosen = random.Random(630)  # noqa: S311 - the same ones each time
    for _ in range(16):
        moment = chosen.choice(["before", "during", "after"])
        count = chosen.randint(1, most)
        run = project.killed_at(".", moment, count=count)
        assert is_killed(run) or count > most * 0.5, (count, moment, run.output)
    project.is_green_next(passed=TURNS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE left_over (id int)",
        pytest.param(
            "DROP SCHEMA IF EXISTS pg_arena, arena_journal CASCADE", marks=pytest.mark.slow
        ),
        pytest.param("ALTER TABLE dancers DISABLE TRIGGER ALL", marks=pytest.mark.slow),
    ],
)
def test_what_no_journal_brings_back_is_not_gone_on_with(
    project: UndoProject, statement: str
) -> None:
    """P2: a changed schema, a journal that is gone: there is a new database."""
    run = project.changed(statement)
    assert is_killed(run), run.output
    project.next_run(made=1)


@pytest.mark.slow
def test_another_template_takes_over_nothing(project: UndoProject) -> None:
    """What was left of an older one is dropped, before the run ends."""
    assert is_killed(project.struck("call", version="old"))
    project.next_run(made=1, version="new")


@pytest.mark.slow
def test_a_server_that_was_killed_as_well(example: Example, own_server: PrivateServer) -> None:
    """A journal that was emptied by the crash of the server brings nothing back."""
    project = UndoProject(example, own_server)
    assert is_killed(project.struck("call"))
    own_server.wait_until_forgotten()
    with closing(open_control(own_server.address())) as control:
        os.kill(control.pid, 9)
    until(own_server.is_there, "the server is back")
    project.next_run(made=1)


def is_stopped(pid: int) -> bool:
    """Whether a process waits to be continued."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.slow
def test_workers_take_over_one_each_pitfall_076(project: UndoProject) -> None:
    """Two runs that were killed, and two workers: no database is shared, and none is left."""
    env = project.env({"PLACES": "call", "SIGNAL": str(signal.SIGSTOP.value)})
    runs = [project.built().start("test_it.py", env=env) for _ in range(2)]
    for run in runs:
        until(partial(is_stopped, run.pid), "a run has stopped itself")
    for run in runs:
        run.kill()
        run.communicate()
    assert len([name for name in project.server.of_runs() if "live" in name]) == 2
    project.server.wait_until_forgotten()
    words = ("-p", "xdist.plugin", "-n", "2")
    done = project.built().run("test_next.py", *words, env=project.env({})).expect(passed=TURNS)
    project.server.check_clean(done.output)
