"""Does a run on a server that cannot be used say why, and leave the server as it was?"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql.servers._programs import folders, read_programs
from tests.example import fastapi_example
from tests.plugin.private_server import PrivateServer, on_postgresql, private_server
from tests.servers.crowded import PASSWORD, Crowded
from tests.servers.stand_ins import StandIn, says
from tests.servers.waiting import end_cluster, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.example import Example, Run

TESTS = """
async def test_async(client):
    await client.get("/dancers")


def test_sync(test_client):
    test_client.get("/dancers")


def test_without():
    pass
"""


@pytest.fixture(scope="module")
def crowded() -> Iterator[Crowded]:
    """A server with passwords and five connections."""
    with server_of(5) as server:
        yield server


@pytest.fixture
def roomy() -> Iterator[Crowded]:
    """One that has some more."""
    with server_of(20) as server:
        yield server


@contextmanager
def server_of(connections: int, *, locks: int = 64) -> Iterator[Crowded]:
    """A server with passwords, and so many connections and locks for each."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
    place = Path(tempfile.mkdtemp(prefix="arena-", dir=memory if memory.exists() else None))
    place.chmod(0o711)
    programs = read_programs(folders()[0], str(folders()[0]))
    try:
        with Crowded(place / "crowded", programs, connections, locks=locks) as server:
            yield server
    finally:
        shutil.rmtree(place)


@pytest.fixture
def untouched(crowded: Crowded) -> Iterator[Crowded]:
    """The server has afterwards what it had before."""
    before = crowded.contents()
    yield crowded
    assert crowded.contents() == before


WAITS = """
from pytest_arena._postgresql import _connections
from pytest_arena._postgresql.servers import _find

_connections.TURN_SECONDS = _find.TURN_SECONDS = {seconds}
"""


def waiting(example: Example, seconds: float) -> Example:
    """Return the example with a run that waits so long while the server has no connection."""
    example = example.with_files(waits=WAITS.format(seconds=seconds))
    return replace(example, options=("-p", "waits"))


def refused(example: Example, url: str) -> Run:
    """Run on that server: the first test that needs it says why, and ends the run."""
    project = waiting(on_postgresql(example, test_it=TESTS), 0)
    run = project.run(env={"ARENA_DATABASE": url})
    run.expect(1, failed=1).says("no test can use PostgreSQL").never_says(
        PASSWORD, "most recent call last"
    )
    parts = re.findall(r"^E? *(?:  )(why|cause|next): ", run.output, re.MULTILINE)
    assert parts[:3] == ["why", "cause", "next"], run.output
    return run.says("[A301]")


@pytest.mark.slow
def test_a_server_that_is_too_old(example: Example) -> None:
    """What arena needs is said."""
    with StandIn(says("PostgreSQL 12.22 on x86_64", "120022", "12.22")) as old:
        run = refused(example, f"postgresql://me@127.0.0.1:{old.port}/shop2")
    run.says("is PostgreSQL 12.22", "arena needs 13 or newer")


@pytest.mark.slow
@pytest.mark.parametrize(
    "login, reason, fix",
    [
        ("maker:wRong-" + PASSWORD, "refuses the password of role maker", ""),
        pytest.param(
            "humble",
            "may not create databases",
            'ALTER ROLE "humble" CREATEDB',
            marks=pytest.mark.slow,
        ),
    ],
    ids=["password", "rights"],
)
def test_a_login_that_does_not_do(
    example: Example, untouched: Crowded, login: str, reason: str, fix: str
) -> None:
    """By its password, or by its rights."""
    run = refused(example, untouched.url(login))
    run.says(reason, fix)


@pytest.mark.slow
def test_no_connection_is_free_pitfall_091(example: Example, untouched: Crowded) -> None:
    """Nothing hangs, and what to raise is named."""
    taken = untouched.fill()
    try:
        run = refused(example, untouched.url(f"maker:{PASSWORD}"))
    finally:
        for control in taken:
            control.close()
    run.says("has no free connection", "max_connections")


CROWD = """
import asyncio


async def test_one(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
    await client.post("/dancers/Dune")


async def test_many_at_once(client):
    # All come to their ends: what asyncio cancels with its loop gives no connection back.
    requests = (client.get("/dancers") for _ in range(8))
    for answer in await asyncio.gather(*requests, return_exceptions=True):
        if isinstance(answer, Exception):
            raise answer
"""


SEED = """
from app import Dancer

VERSION = {version}


async def seed(session):
    session.add(Dancer(name="Sand"))
"""


def crowd(example: Example, server: Crowded, *, version: int = 0) -> Run:
    """Run tests that need many connections, and build a template before."""
    env = {"ARENA_DATABASE": server.url(f"maker:{PASSWORD}")}
    seed = SEED.replace("{version}", str(version))
    project = waiting(on_postgresql(example, test_it=CROWD, seed=seed), 0)
    return project.run("--tb=short", env=env).never_says(PASSWORD, "INTERNALERROR")


@pytest.mark.slow
def test_the_apps_own_pool_is_too_large_pitfall_091(example: Example, crowded: Crowded) -> None:
    """The server's words, and what they mean here; what was made is dropped all the same."""
    run = crowd(example, crowded).expect(1, passed=1, failed=1)
    run.says("too many clients already", "all connections of the server are taken")
    assert not [name for name in crowded.databases() if name.startswith("arena_live")]


@pytest.mark.slow
@pytest.mark.parametrize("free", [1, 2, 3])
def test_few_connections_are_free_pitfall_091(
    example: Example, crowded: Crowded, free: int
) -> None:
    """Whichever of arena's connections is the one too many."""
    taken = crowded.fill()
    try:
        for control in taken[: 1 + free]:  # one is for superusers
            control.close()
        run = crowd(example, crowded, version=free)
    finally:
        for control in taken:
            control.close()
    assert run.status == pytest.ExitCode.TESTS_FAILED, run.output
    run.says("all connections of the server are taken", "max_connections")
    run.never_says("Exception ignored")
    assert not [name for name in crowded.databases() if name.startswith("arena_live")]


CHECKOUT = """
import asyncio
import os
import pytest
from sqlalchemy import func, select
from app import Dancer


@pytest.mark.parametrize("turn", range(6))
async def test_one(client, db_session, turn):
    assert (await client.get("/dancers")).json() == ["Sand"]
    await asyncio.gather(*(client.post(f"/dancers/{number}") for number in range(4)))
    assert await db_session.scalar(select(func.count(Dancer.id))) == 5
    while not os.path.exists(os.environ["CROWDED"]):  # its connections stay in the pool
        await asyncio.sleep(0.01)
"""


@pytest.mark.slow
def test_three_checkouts_at_once_pitfall_091(tmp_path: Path, roomy: Crowded) -> None:
    """P3, P7: of one project, two by two workers, on a server that has room for two processes.

    They wait for their turns, and say so; nothing is shared by name, and nothing stays.
    """
    crowded = tmp_path / "crowded"
    env = {"ARENA_DATABASE": roomy.url(f"maker:{PASSWORD}")}
    workers = ["-p", "xdist.plugin", "-n", "2"]
    processes = []
    for number, options in enumerate([workers, workers, []]):
        example = fastapi_example(tmp_path / str(number))
        checkout = on_postgresql(example, test_it=CHECKOUT, seed=SEED.replace("{version}", "9"))
        processes.append(
            waiting(checkout, 120).start(*options, env={**env, "CROWDED": str(crowded)})
        )
    until(roomy.has_refused, "one of them is told that there is no room")
    crowded.touch()
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert all("6 passed" in output for output in outputs), "\n".join(outputs)
    assert any("had no free connection for a while" in output for output in outputs), "\n".join(
        outputs
    )
    assert not any(PASSWORD in output for output in outputs)
    assert not [name for name in roomy.databases() if name.startswith("arena_live")]


FULL = """
import os
from pathlib import Path
import pytest

BALLAST = Path(os.environ["ARENA_CLUSTERS"], "ballast")


async def test_writes(client):
    await client.post("/dancers/Dune")
    room = os.statvfs(BALLAST.parent)
    with BALLAST.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, (room.f_bavail - 100) * room.f_frsize))


@pytest.mark.parametrize("turn", range(3))
async def test_has_no_room(client, turn):
    await client.post("/dancers/Dune")


async def test_goes_on(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
"""


MAKES_ROOM = """
import os
from pathlib import Path


def pytest_runtest_logfinish(nodeid):
    if "has_no_room[2]" in nodeid:
        Path(os.environ["ARENA_CLUSTERS"], "ballast").unlink()
"""


@pytest.fixture
def small_disk() -> Iterator[PrivateServer]:
    """A server on a disk of its own, which is full soon."""
    with private_server() as server:
        disk = server.place / "c"
        disk.mkdir()
        disk.chmod(0o711)
        mount = ["mount", "-t", "tmpfs", "-o", "size=200m,mode=711", "tmpfs", str(disk)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("only root may mount a disk")
        try:
            yield server
            end_cluster(server.folder)
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)  # noqa: S607 - wherever it is


@pytest.mark.slow
def test_a_full_disk(example: Example, small_disk: PrivateServer) -> None:
    """The tests without a copy say it; when there is room again, they go on.

    By clones: what is undone in place asks for no room, or for some only where the server has
    come to the end of a segment of its log.
    """
    full = on_postgresql(example, test_it=FULL, conftest=MAKES_ROOM)
    env = {**small_disk.env, "PYTEST_ADDOPTS": "--arena-isolation=clone"}
    run = full.run(env=env).expect(1, passed=2, errors=4)
    run.says("the disk of the server is full", "why:", "next:", "No space left on device")
    run.never_says("most recent call last", "Exception ignored")
    small_disk.check_clean(run.output)


FAILING_SEED = """
from app import Dancer


async def seed(session):
    session.add_all([Dancer(name="One"), Dancer(name="One")])
"""


@pytest.mark.slow
def test_a_build_that_fails_leaves_nothing(example: Example) -> None:
    """The message is the builder's; the schema's template stays, as that was built."""
    with private_server() as server:
        files = {"test_it": TESTS, "seed": FAILING_SEED}
        run = on_postgresql(example, **files).run(env=server.env).expect(1, passed=1, failed=2)
        run.says("seed.py:5", "why:", "cause:", "next:").never_says("most recent call last")
        server.check_clean(run.output)


MANY_TABLES = """
CREATE TABLE dancers (id serial PRIMARY KEY, name text UNIQUE);
INSERT INTO dancers (name) VALUES ('Sand');
"""
ADDS_A_ROW = """
import pytest

@pytest.mark.parametrize("turn", range(2))
def test_it(test_client, turn):
    assert test_client.get("/dancers").json() == ["Sand"]
    assert test_client.post("/dancers/Dune").status_code == 201
"""


@pytest.mark.slow
def test_too_few_locks_for_undo_and_many_tables(example: Example) -> None:
    """A copy needs none of them: `auto` takes clone, and says why; `undo` says what would do."""
    tables = [f"CREATE TABLE t{number} (id serial PRIMARY KEY);" for number in range(700)]
    script = "\n".join([MANY_TABLES, *tables])
    project = on_postgresql(example, test_it=ADDS_A_ROW).with_paths({"schema.sql": script})
    project = project.change("pytest.ini", "arena_schema = app:Base", "arena_schema = schema.sql")
    project = project.change("pytest.ini", "arena_seed = seed:seed\n", "")
    with server_of(20, locks=10) as server:
        env = {"ARENA_DATABASE": server.url("boss")}
        project = waiting(project, 0)
        run = project.run(env=env).expect(passed=2)
        run.says(
            "isolated by clone, since max_locks_per_transaction = 10 is too small for so many",
            "For undo: a larger max_locks_per_transaction on the server",
        )
        run = project.run("--arena-isolation=undo", env=env).expect(1, failed=2)
        run.says("arena_isolation = undo: max_locks_per_transaction = 10 is too small")


NAMES_A_SETTING = """
from app import engine
from sqlalchemy import NullPool, text
from sqlalchemy.ext.asyncio import create_async_engine

counts = []

async def count():
    other = create_async_engine(engine.url, poolclass=NullPool)
    taken = []
    try:
        while True:
            taken.append(await other.connect())
    except Exception as error:
        assert "too many clients" in str(error) or "connection slots" in str(error)
    finally:
        for connection in taken:
            await connection.close()
    counts.append(len(taken))

async def test_before():
    await count()

async def test_names_it():
    async with engine.connect() as connection:
        await connection.execute(text("SET LOCAL app.tenant = '7'"))

async def test_after():
    await count()
    assert counts[0] == counts[1] > 0
"""


@pytest.mark.slow
def test_a_connection_that_its_pool_will_replace_takes_no_slot_pitfall_091(
    example: Example, crowded: Crowded
) -> None:
    """It is idle, and another engine needs its slot."""
    env = {"ARENA_DATABASE": crowded.url("boss")}
    app = on_postgresql(example, test_it=NAMES_A_SETTING)
    # A template that the first test built would be built again.
    app = app.change("pytest.ini", "[pytest]", "[pytest]\nusefixtures = arena")
    waiting(app, 1).run("-p", "no:randomly", env=env).expect(passed=3)
