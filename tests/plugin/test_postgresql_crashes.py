"""Does a run that dies, or a server that dies, cost more than the tests that it happened to?"""

from __future__ import annotations

import os
import random
import signal
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql._control import open_control
from tests.plugin.private_server import PrivateServer, on_postgresql, private_server
from tests.servers.waiting import lives, server_pid, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.example import Example, Run

KILL, INTERRUPT, TERMINATE = signal.SIGKILL, signal.SIGINT, signal.SIGTERM
XDIST = ("-p", "xdist.plugin")

# A run strikes itself: at a place in its tests, or where arena says a statement.
CONFTEST = """
import os
import re
import signal
import threading
from pathlib import Path
from pytest_arena._postgresql._control import Control

PLACES = os.environ.get("PLACES", "").split()
STATEMENT, MOMENT = os.environ.get("STATEMENT", ""), os.environ.get("MOMENT", "")
COUNT = int(os.environ.get("COUNT", "1"))
said = []


def strike(place):
    if place in PLACES:
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))


def execute(self, sql, *, fetch, say=Control._execute):
    if STATEMENT and re.match(STATEMENT, sql):
        said.append(sql)
        if len(said) == COUNT:
            if MOMENT == "during":
                threading.Thread(target=say, args=(self, sql), kwargs={"fetch": fetch}).start()
                self.sent.wait(0.003)
            elif MOMENT == "after":
                say(self, sql, fetch=fetch)
            os.kill(os.getpid(), signal.SIGKILL)
    return say(self, sql, fetch=fetch)


Control.sent = threading.Event()  # never set: a moment for what was said to arrive
Control._execute = execute
Control.ask = lambda self, sql: self.rows(sql)[0][0]  # by `execute`, as the others


def pytest_sessionfinish():
    if os.environ.get("COUNTED"):
        Path(os.environ["COUNTED"]).write_text(str(len(said)))
"""

TESTS = """
import pytest
from conftest import strike
from app import Dancer, maker


@pytest.fixture(scope="module")
def wide(arena):
    with arena.session() as session:
        session.add(Dancer(name="Wide"))
        session.commit()
    strike("wide")
    yield
    strike("wide-end")


@pytest.fixture
async def fixed(client, wide):
    await client.post("/dancers/Fix")
    strike("set-up")
    yield
    strike("tear-down")


async def test_async(fixed, client):
    await client.post("/dancers/Dune")
    async with maker() as session:
        session.add(Dancer(name="open"))
        await session.flush()
        strike("call")


def test_sync(test_client, db_session):
    test_client.post("/dancers/Dune")
    db_session.add(Dancer(name="open"))
    db_session.flush()
    strike("sync-call")
"""

SEED = """
import os
import threading
from app import Dancer
from conftest import strike

VERSION = "{version}"


async def seed(session):
    session.add(Dancer(name="Sand"))
    await session.flush()
    strike("build")
"""

NEXT = """
import pytest


@pytest.mark.parametrize("turn", range(3))
def test_next(test_client, turn):
    assert test_client.get("/dancers").json() == ["Sand"]
    assert test_client.post("/dancers/Dune").status_code == 201
"""


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


class Project:
    """A project that can be struck, on a server."""

    isolation = "clone"

    def __init__(self, example: Example, server: PrivateServer) -> None:
        files = {"conftest": CONFTEST, "test_it": TESTS, "test_next": NEXT, "seed": SEED}
        self.example, self.server = on_postgresql(example, **files), server

    def struck(
        self, places: str, number: signal.Signals = KILL, *words: str, version: str = ""
    ) -> Run:
        """Run the tests; they strike there."""
        env = {"PLACES": places, "SIGNAL": str(number.value)}
        return self.built(version or "usual").run("test_it.py", *words, env=self.env(env))

    def killed_at(
        self, statement: str, moment: str = "during", *, count: int = 1, version: str = ""
    ) -> Run:
        """Run the tests; they are killed at a statement of arena's."""
        env = {"STATEMENT": statement, "MOMENT": moment, "COUNT": str(count)}
        return self.built(version or "usual").run("test_it.py", env=self.env(env))

    def statements(self) -> int:
        """How many statements arena says in a run that builds a template."""
        counted = self.example.folder.parent / "counted"
        env = {"STATEMENT": ".", "COUNT": "100000", "COUNTED": str(counted)}
        self.built("to count").run("test_it.py", env=self.env(env)).expect(passed=2)
        return int(counted.read_text())

    def built(self, version: str = "usual") -> Example:
        """With a template of its own for each version."""
        return self.example.with_files(seed=SEED.replace("{version}", version))

    def env(self, more: dict[str, str]) -> dict[str, str]:
        """What a run is told."""
        return {**self.server.env, "PYTEST_ADDOPTS": f"--arena-isolation={self.isolation}", **more}

    def is_green_next(self, *words: str, passed: int = 3) -> Run:
        """Run the next tests, which are green and leave nothing, of earlier runs either."""
        self.server.wait_until_forgotten()
        run = self.built().run("test_next.py", *words, env=self.env({}))
        run.expect(passed=passed)
        self.server.check_clean(run.output)
        return run


@pytest.fixture
def project(example: Example, server: PrivateServer) -> Project:
    """On the server that many tests share."""
    return Project(example, server)


def is_killed(run: Run) -> bool:
    """Whether it got no chance to do anything."""
    return run.status == -KILL.value


@pytest.mark.slow
def test_killed_at_any_place_pitfall_063(project: Project) -> None:
    """P4, P7: as a template is built, a clone made or dropped, in a test: the next run cleans."""
    assert is_killed(project.struck("build"))
    assert is_killed(project.killed_at('CREATE DATABASE "arena_live_', version="2"))
    assert is_killed(project.struck("call"))
    assert is_killed(project.killed_at('DROP DATABASE "arena_live_', "before", count=2))
    left = project.server.of_runs()
    assert left
    project.is_green_next().says("3 of 3 tests had a separate database, and 3 changed it")
    assert is_killed(project.struck("sync-call"))
    project.server.wait_until_forgotten()
    assert [thing["state"] for thing in project.server.listed() if thing["what"] != "template"]
    project.server.arena("sweep")
    assert {thing["what"] for thing in project.server.listed()} == {"template"}
    project.server.check_clean()


# Each place in the life of a template, of a clone, and of a run; at the n-th of a kind.
POINTS = [
    ('CREATE DATABASE "arena_building_', 1),
    ('ALTER DATABASE "arena_building_\\w+" WITH ALLOW_CONNECTIONS false', 1),
    ('ALTER DATABASE "arena_building_\\w+" RENAME', 1),
    ('CREATE DATABASE "arena_live_', 1),
    ('CREATE DATABASE "arena_live_', 2),
    ('ALTER DATABASE "arena_live_\\w+" WITH ALLOW_CONNECTIONS false', 1),
    ('DROP DATABASE "arena_live_', 1),
]
UNDO_POINTS = [
    (r"EXECUTE enter\(", 1),
    (r"EXECUTE leave\(", 1),
    (r"EXECUTE leave\(", 2),
    ('DROP DATABASE "arena_live_', 1),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "isolation, points", [("clone", POINTS), ("undo", UNDO_POINTS)], ids=["clone", "undo"]
)
@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_killed_at_every_kind_of_statement_pitfall_063(
    project: Project, isolation: str, points: list[tuple[str, int]], moment: str
) -> None:
    """Before the server has heard it, while it is at it, and before the run has its answer."""
    project.isolation = isolation
    for number, (statement, count) in enumerate(points):
        version = f"{moment} {number}"
        run = project.killed_at(statement, moment, count=count, version=version)
        assert is_killed(run), f"{statement}: {run.output}"
        if number % 3 == 2:
            project.is_green_next()
    project.is_green_next()


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["clone", "undo"])
def test_killed_at_random_pitfall_063(project: Project, isolation: str) -> None:
    """At whichever statement, and those that come next are no cleaner."""
    project.isolation = isolation
    most = project.statements()
    chosen = random.Random(63)  # noqa: S311 - the same ones each time
    for number in range(12):
        count = chosen.randint(1, most)
        moment = chosen.choice(["before", "during", "after"])
        run = project.killed_at(".", moment, count=count, version=f"random {number}")
        assert is_killed(run) or count > most * 0.7, (count, moment, run.output)
    project.is_green_next()


# Ctrl-C and SIGTERM


@pytest.mark.slow
@pytest.mark.parametrize(
    "places",
    [
        "call",
        pytest.param("build", marks=pytest.mark.slow),
        pytest.param("tear-down", marks=pytest.mark.slow),
        pytest.param("wide", marks=pytest.mark.slow),
        pytest.param("set-up", marks=pytest.mark.slow),
        pytest.param("sync-call", marks=pytest.mark.slow),
        pytest.param("wide-end", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_pitfall_071(project: Project, places: str) -> None:
    """Pytest ends as it does, and nothing is left even before the next run."""
    run = project.struck(places, INTERRUPT, version=f"ctrl-c {places}")
    assert run.status == pytest.ExitCode.INTERRUPTED, run.output
    run.says("KeyboardInterrupt").never_says("INTERNALERROR")
    if places != "build":
        run.never_says("left on")
    project.server.check_clean(run.output)
    if places != "call":
        project.is_green_next()


# A server that syncs takes seconds for each drop. Here a drop takes longer than the run.
SLOW_DROPS = """
import os
import signal
import time
from pytest_arena._postgresql._control import Control


def execute(self, sql, *, fetch, say=Control._execute):
    if sql.startswith("DROP DATABASE"):
        time.sleep(60)
    return say(self, sql, fetch=fetch)


def note():
    with open("times", "a") as file:
        print(time.monotonic(), file=file)


def strike(place=""):
    if place:
        return  # the seed calls it
    note()
    os.kill(os.getpid(), signal.SIGINT)


def pytest_keyboard_interrupt():
    note()


def pytest_unconfigure():
    note()


Control._execute = execute
"""
WAITS = """
import pytest
from conftest import strike


@pytest.mark.parametrize("turn", range(40))
def test_it(test_client, turn):
    test_client.post("/dancers/Dune")
    if turn == 12:
        strike()
"""


@pytest.mark.slow
def test_ctrl_c_waits_for_no_slow_drop(project: Project) -> None:
    """It is said at once, and after three seconds the databases are left to the next run."""
    example = project.example.with_files(conftest=SLOW_DROPS, test_slow=WAITS)
    run = example.run("test_slow.py", env=project.env({"PLACES": "call"}))
    assert run.status == pytest.ExitCode.INTERRUPTED, run.output
    run.says("The next run drops them")
    times = (example.folder / "times").read_text().split()
    struck, interrupted, ended = map(float, times)
    assert interrupted - struck < 2, run.output
    assert ended - struck < 6, run.output
    project.is_green_next()


@pytest.mark.slow
@pytest.mark.parametrize(
    "places",
    [
        "call wide-end",
        pytest.param("call tear-down", marks=pytest.mark.slow),
        pytest.param("set-up wide-end", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_twice_pitfall_071(project: Project, places: str) -> None:
    """The second one breaks off the tear-down: all the same."""
    run = project.struck(places, INTERRUPT)
    assert run.status not in {0, 1}, run.output
    project.server.check_clean(run.output)
    project.is_green_next()


@pytest.mark.slow
@pytest.mark.parametrize("places", ["build", "call", "wide-end"])
def test_sigterm_pitfall_071(project: Project, places: str) -> None:
    """Pytest does not catch it: the process ends as by kill -9."""
    run = project.struck(places, TERMINATE, version=f"sigterm {places}")
    assert run.status == -TERMINATE.value, run.output
    project.is_green_next()


# pytest-timeout

STUCK = """
import pytest
from sqlalchemy import text
from app import Dancer


async def test_in_a_query(client, db_session):
    await client.post("/dancers/Dune")
    db_session.add(Dancer(name="open"))
    await db_session.execute(text("SELECT pg_sleep(400)"))


def test_in_a_query_of_the_sync_driver(test_client, db_session):
    db_session.add(Dancer(name="open"))
    db_session.execute(text("SELECT pg_sleep(400)"))
"""


def timed_out(project: Project, method: str) -> Run:
    """Run tests that never end."""
    example = project.built().with_files(test_it=STUCK)
    words = ("-p", "pytest_timeout", "--timeout=3", f"--timeout-method={method}")
    return example.run(*words, "test_it.py", "test_next.py", env=project.env({}))


@pytest.mark.slow
def test_a_timeout_by_signal_pitfall_069(project: Project) -> None:
    """The test fails where it waits; those after it have databases as usual."""
    run = timed_out(project, "signal")
    run.expect(1, passed=3, failed=2).says("Timeout (>3.0s) from pytest-timeout")
    project.server.check_clean(run.output)


@pytest.mark.slow
def test_a_timeout_by_thread_pitfall_069(project: Project) -> None:
    """The process is ended from inside, and the next run cleans."""
    run = timed_out(project, "thread")
    assert run.status == 1, run.output
    run.says("+ Timeout +")
    project.is_green_next()


# The server dies

SERVER_DIES = """
import os
import pytest


async def test_before(client):
    await client.post("/dancers/Dune")


async def test_while_it_dies(client):
    await client.post("/dancers/Dune")
    os.kill(int(os.environ["VICTIM"]), 9)
    for number in range(1_000_000):  # the app's own connection lives some moments longer
        await client.post(f"/dancers/Fix-{number}")


@pytest.mark.parametrize("turn", range(3))
async def test_after(client, turn):
    assert (await client.get("/dancers")).json() == ["Sand"]
    await client.post("/dancers/Dune")
"""


SAID_AT_MOST = 4  # by the test in which it went, and by each that comes later


def killing(project: Project, victim: int, **more: str) -> Run:
    """Run tests one of which kills a process of the server."""
    example = project.built().with_files(test_it=SERVER_DIES)
    return example.run("test_it.py", env=project.env({"VICTIM": str(victim), **more}))


@pytest.mark.slow
def test_the_server_crashes_in_the_middle_pitfall_071(
    example: Example, own_server: PrivateServer
) -> None:
    """One of its processes dies, so that it ends all others and begins anew."""
    project = Project(example, own_server)
    project.built().run("test_next.py", env=project.env({})).expect(passed=3)
    with closing(open_control(own_server.address())) as control:
        run = killing(project, control.pid).expect(1, passed=4, failed=1)
    run.says("connection was closed").never_says("Exception ignored")
    # What was struck from the registry some milliseconds before the crash may be there again.
    assert own_server.of_runs() == []
    project.is_green_next()


@pytest.mark.slow
def test_the_server_is_gone_pitfall_071(example: Example, own_server: PrivateServer) -> None:
    """Those tests fail and say why, without a wait for each; the next run starts it again."""
    project = Project(example, own_server)
    project.built().run("test_next.py", env=project.env({})).expect(passed=3)
    run = killing(project, server_pid(own_server.folder), IMPATIENT="1")
    run.expect(1, passed=1, failed=1, errors=4)
    assert run.output.count("no server answers") <= SAID_AT_MOST, run.output
    run.says("2 of 5 tests had a separate database (3 used none)")
    run.says("the server has stopped or is restarting", "starts it again. If it stops again, read")
    run.never_says("Exception ignored", "most recent call last")
    run = project.built().run("test_next.py", env=project.env({})).expect(passed=3)
    own_server.check_clean(run.output)


WIDE = """
import os

import pytest
from app import Dancer
from sqlalchemy.exc import DBAPIError


@pytest.fixture(scope="module")
def wide(arena):
    with arena.session() as session:
        session.add(Dancer(name="Wide"))
        session.commit()


def test_it(wide, test_client):
    assert test_client.get("/dancers").json() == ["Sand", "Wide"]
    os.kill(int(os.environ["VICTIM"]), 9)
    with pytest.raises(DBAPIError):  # when the server has noticed it
        while True:
            test_client.get("/dancers")
"""


@pytest.mark.slow
def test_rows_of_wider_fixtures_are_lost_in_a_crash(
    example: Example, own_server: PrivateServer
) -> None:
    """PostgreSQL empties the journal, and loses the last commits. The error says so."""
    project = Project(example, own_server)
    project.isolation = "undo"
    project.built().run("test_next.py", env=project.env({})).expect(passed=3)
    with closing(open_control(own_server.address())) as control:
        env = project.env({"VICTIM": str(control.pid)})
        unverified = replace(project.built().with_files(test_it=WIDE), options=())
        run = unverified.run("test_it.py", env=env)
    run.expect(1, passed=1, errors=1)
    run.says("rows that wider fixtures wrote are lost: the database server has crashed")
    run.says("The server's log says why the server has crashed", "[A501]")


UNLOGGED = """
def test_it(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
"""


@pytest.mark.slow
@pytest.mark.parametrize("victim_name", ["the server", "a process"])
def test_a_template_with_rows_in_an_unlogged_table_is_built_again_after_a_crash(
    example: Example, own_server: PrivateServer, victim_name: str
) -> None:
    """PostgreSQL has emptied the table. A copy of the template would lack the rows."""
    table = '__tablename__ = "dancers"'
    options = '__table_args__ = {"prefixes": ["UNLOGGED"]}'
    insert = "insert into dancers (name) values ('Sand')"
    ddl = f'event.listen(Base.metadata, "after_create", DDL("{insert}"))'
    app = on_postgresql(example, test_it=UNLOGGED)
    app = app.change("app.py", table, f"{table}\n    {options}")
    app = app.change(
        "app.py", "app = FastAPI()", f"from sqlalchemy import DDL, event\n{ddl}\napp = FastAPI()"
    )
    app = app.change("pytest.ini", "arena_seed = seed:seed\n", "")
    app.run(env=own_server.env).expect(passed=1).says("template built")
    app.run(env=own_server.env).expect(passed=1).says("template from the cache")
    is_gone = victim_name == "the server"
    with closing(open_control(own_server.address())) as control:
        victim = server_pid(own_server.folder) if is_gone else control.pid
        os.kill(victim, signal.SIGQUIT if is_gone else KILL)
        until(lambda: not lives(victim), "the process ends")
    if not is_gone:
        until(own_server.is_there, "the server is back")
    app.run(env=own_server.env).expect(passed=1).says("template built")
    app.run(env=own_server.env).expect(passed=1).says("template from the cache")
