"""Has each process on one server databases of its own, and one template with all others?"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.plugin.private_server import PrivateServer, on_postgresql, private_server
from tests.servers.postgresql import address
from tests.servers.waiting import until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.example import Example

XDIST = ("-p", "xdist.plugin")

TESTS = """
import os
import pathlib
import pytest


@pytest.mark.parametrize("turn", range(6))
async def test_turn(client, turn, arena):
    with pathlib.Path("seen").open("a") as file:
        file.write(f"{os.getpid()} {arena.url.rpartition('/')[2].partition('?')[0]}\\n")
    assert (await client.get("/dancers")).json() == ["Sand"]
    assert (await client.post("/dancers/Dune")).status_code == 201
"""

WIDE = """
import pytest
from app import Dancer


@pytest.fixture(scope="module")
def wide(arena):
    with arena.session() as session:
        session.add(Dancer(name="Wide"))
        session.commit()


@pytest.mark.xdist_group("one")
async def test_wide(wide, client):
    assert (await client.get("/dancers")).json() == ["Sand", "Wide"]
    assert (await client.post("/dancers/Dune")).status_code == 201


@pytest.mark.xdist_group("one")
def test_wide_again(wide, test_client):
    assert test_client.get("/dancers").json() == ["Sand", "Wide"]
"""

SEED = """
import pathlib
from app import Dancer

VERSION = "{version}"


async def seed(session):
    with pathlib.Path("built").open("a") as file:
        file.write("x")
    session.add(Dancer(name="Sand"))
"""

DYING = """
import signal


async def test_exit(client):
    await client.post("/dancers/Dead")
    os._exit(3)


async def test_kill(client):
    await client.post("/dancers/Dead")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("turn", range(6))
async def test_after(client, turn):
    assert (await client.get("/dancers")).json() == ["Sand"]
    assert (await client.post("/dancers/Dune")).status_code == 201
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    """One for all tests here."""
    with private_server() as found:
        yield found


def project(example: Example, version: str, **files: str) -> Example:
    """Tests, with a template that nobody has built before."""
    seed = SEED.replace("{version}", version)
    return on_postgresql(example, **{"test_it": TESTS, "seed": seed, **files})


def databases_of_processes(folder: Path) -> dict[str, set[str]]:
    """Which process has had which live databases."""
    found: dict[str, set[str]] = {}
    for line in (folder / "seen").read_text().splitlines():
        pid, name = line.split()
        found.setdefault(pid, set()).add(name)
    return found


def check_each_has_its_own(folder: Path, *, processes: int) -> None:
    """No database was two processes'."""
    found = databases_of_processes(folder)
    assert len(found) == processes, found
    names = [name for names in found.values() for name in names]
    assert len(set(names)) == len(names), found
    assert all(name.startswith("arena_live_") for name in names), found


@pytest.mark.slow
def test_the_template_is_built_once_for_all_workers_pitfall_074(
    example: Example, server: PrivateServer
) -> None:
    """P2: three at the same moment, and each of them runs all tests."""
    each = project(example, "each", test_wide=WIDE)
    run = each.run(*XDIST, "-n", "3", "--dist", "each", env=server.env).expect(passed=24)
    assert (run.folder / "built").read_text() == "x"
    run.says("24 of 24 tests had a separate database", "template built in")
    check_each_has_its_own(run.folder, processes=3)
    server.check_clean(run.output)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        "-n2 --dist loadscope",
        "-n2 --dist loadfile",
        "-n2 --dist loadgroup",
        "-n2 --dist worksteal",
        "-n4 --maxprocesses=2",
        "-n1",
        "-n0",
    ],
)
def test_ways_to_distribute_pitfall_075(example: Example, server: PrivateServer, how: str) -> None:
    """Whichever worker gets a test, in whichever order: the same as without workers."""
    run = project(example, how, test_wide=WIDE).run(*XDIST, *how.split(), env=server.env)
    run.expect(passed=8).says("8 of 8 tests had a separate database")
    assert (run.folder / "built").read_text() == "x"
    server.check_clean(run.output)


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_pitfall_075(
    example: Example, server: PrivateServer
) -> None:
    """P7: its number is used again, its database is not; a sweep takes away what it left."""
    dying = project(example, "dying", test_it=TESTS + DYING, test_wide=WIDE)
    run = dying.run(*XDIST, "-n2", env=server.env).expect(1, passed=14, failed=2)
    run.says("replacing crashed worker")
    check_each_has_its_own(run.folder, processes=len(databases_of_processes(run.folder)))
    server.wait_until_forgotten()
    server.arena("sweep")
    server.check_clean(run.output)


# Runs that know nothing of each other

TOGETHER = """
import os
import pathlib
import time
import pytest

HERE, OTHER = os.environ["HERE"], os.environ["OTHER"]


def meet(place):
    # Each says that it is there, and waits for the other.
    pathlib.Path(f"{HERE}.{place}").touch()
    end = time.monotonic() + 60
    while not pathlib.Path(f"{OTHER}.{place}").exists():
        assert time.monotonic() < end, f"the other one is not at {place}"
        time.sleep(0.005)


@pytest.mark.parametrize("turn", range(4))
async def test_beside_another_run(client, turn):
    assert (await client.get("/dancers")).json() == ["Sand"]
    meet(f"before-{turn}")
    assert (await client.post("/dancers/Dune")).status_code == 201
    meet(f"after-{turn}")
    assert (await client.get("/dancers")).json() == ["Sand", "Dune"]
"""

STAYING = """
import os
import pathlib
import time


async def test_stays_while_another_run_comes_and_goes(client):
    assert (await client.post("/dancers/Dune")).status_code == 201
    pathlib.Path(os.environ["HERE"] + ".began").touch()
    end = time.monotonic() + 100
    while not pathlib.Path(os.environ["OTHER"] + ".ended").exists():
        assert time.monotonic() < end, "the other one does not end"
        time.sleep(0.005)
    assert (await client.get("/dancers")).json() == ["Sand", "Dune"]


async def test_goes_on(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
    assert (await client.post("/dancers/Dune")).status_code == 201
"""

NAME = "name: Mapped[str] = mapped_column(unique=True)"
LOUD = "\n    loud: Mapped[bool] = mapped_column(default=False)"


def checkout(example: Example, name: str, *, is_loud: bool, **files: str) -> Example:
    """A copy of the project in a folder of its own, one of them with another model."""
    folder = example.folder.parent / name / "shop"
    copy = replace(project(example, "checkout", **files), folder=folder)
    return copy.change("app.py", NAME, NAME + LOUD) if is_loud else copy


def ended(process: subprocess.Popen[str]) -> str:
    """Its output, once it has ended, and well."""
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


@pytest.mark.slow
def test_two_checkouts_at_once_pitfall_076(
    example: Example, server: PrivateServer, tmp_path: Path
) -> None:
    """Two models, two templates, in step: neither sees or drops what is the other's."""
    tests = {"test_it": TOGETHER}
    runs = []
    for name, other in (("a", "b"), ("b", "a")):
        env = {"HERE": str(tmp_path / name), "OTHER": str(tmp_path / other)}
        files = checkout(example, f"checkout_{name}", is_loud=name == "a", **tests)
        runs.append(files.start(env={**server.env, **env}))
    for output in [ended(run) for run in runs]:
        assert "4 passed" in output
        assert "template built in" in output
        assert "4 of 4 tests had a separate database, and 4 changed it" in output
    server.check_clean()


@pytest.mark.slow
def test_another_run_comes_and_goes_pitfall_076(
    example: Example, server: PrivateServer, tmp_path: Path
) -> None:
    """It starts, sweeps and ends while the first is in the middle of a test; then it is killed."""
    env = {**server.env, "HERE": str(tmp_path / "a"), "OTHER": str(tmp_path / "b")}
    first = checkout(example, "first", is_loud=True, test_it=STAYING).start(env=env)
    until((tmp_path / "a.began").exists, "the first run begins")
    other = checkout(example, "other", is_loud=False).run(env=server.env).expect(passed=6)
    server.arena("sweep")
    (tmp_path / "b.ended").touch()
    assert "2 passed" in ended(first), other.output
    server.check_clean(other.output)


COUNTED = """

import os

put = seed


async def seed(session):
    await put(session)
    with open(os.environ["SEEDED"], "a") as file:
        file.write("seeded ")
"""
COUNTED_SCHEMA = """

def create(connection):
    import os

    with open(os.environ["SEEDED"], "a") as file:
        file.write("made ")
    Base.metadata.create_all(connection)


create.arena_files = []
"""


def shard(example: Example, number: int, url: str) -> subprocess.Popen[str]:
    """Start a run that has nothing in common with others but the server's URL and the code."""
    home = example.folder.parent / f"machine{number}"
    counted = {
        "app.py": example.files["app.py"] + COUNTED_SCHEMA,
        "seed.py": example.files["seed.py"] + COUNTED,
        "pytest.ini": example.files["pytest.ini"].replace("app:Base", "app:create"),
    }
    folder = home / ("deep" * number) / "work"
    files = replace(example, folder=folder, files={**example.files, **counted})
    (home / "tmp").mkdir(parents=True)
    env = {
        "ARENA_DATABASE": url,
        "ARENA_CACHE": str(home / "cache"),
        "ARENA_CLUSTERS": str(home / "clusters"),
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "SEEDED": str(example.folder.parent / "seeded"),
    }
    return files.start(*XDIST, env=env)


def check_shards(example: Example, url: str) -> None:
    """Start three at the same moment."""
    outputs = [ended(one) for one in [shard(example, number, url) for number in (1, 2, 3)]]
    built = (example.folder.parent / "seeded").read_text().split()
    # The schema may be there already: another project has the same.
    assert built.count("made") <= 1, outputs
    assert built.count("seeded") == 3, outputs
    for text in ("8 passed", "8 of 8 tests had a separate database"):
        assert all(text in output for output in outputs), outputs


@pytest.mark.slow
def test_shards_that_share_a_url_alone_pitfall_074(example: Example, server: PrivateServer) -> None:
    """One of them builds the template for all; nothing is left but that."""
    project(example, "start").run("-k", "0", env=server.env).expect(passed=1)  # it is there now
    check_shards(project(example, "shards", test_wide=WIDE), server.url)
    server.check_clean()


@pytest.mark.slow
def test_shards_on_a_service_pitfall_074(example: Example) -> None:
    """As above, on a server that is not arena's, by TCP."""
    to = address()
    login = f"{to.user}:{to.password}" if to.password else to.user
    url = f"postgresql://{login}@{to.host}:{to.port}/postgres"
    check_shards(project(example, f"service {secrets.token_hex(4)}", test_wide=WIDE), url)
