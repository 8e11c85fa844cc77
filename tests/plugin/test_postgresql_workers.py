"""Processes on one server have databases of their own, and share one template."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests.example import WIDE
from tests.plugin.private_server import PrivateServer, on_postgresql

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.example import Example

XDIST = ("-p", "xdist.plugin")

TESTS = (
    WIDE
    + """
import os
import pathlib

@pytest.mark.parametrize("turn", range(4))
async def test_turn(client, turn, arena):
    with pathlib.Path("seen").open("a") as file:
        file.write(f"{os.getpid()} {arena.url.rpartition('/')[2].partition('?')[0]}\\n")
    assert (await client.get("/dancers")).json() == ["Sand"]
    assert (await client.post("/dancers/Dune")).status_code == 201


@pytest.mark.parametrize("turn", range(2))
async def test_wide(wide, client, turn):
    assert (await client.get("/dancers")).json() == ["Sand", "Wide"]
    assert (await client.post("/dancers/Dune")).status_code == 201
"""
)
SEED = """
from app import Dancer

VERSION = "{version}"


async def seed(session):
    with open("built", "a") as file:
        file.write("x")
    session.add(Dancer(name="Sand"))
"""
DYING = """
import os
import signal
import pytest


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_dies(client, number):
    await client.post("/dancers/Dead")
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("turn", range(6))
async def test_after(client, turn):
    assert (await client.get("/dancers")).json() == ["Sand"]
"""


def project(example: Example, version: str, **files: str) -> Example:
    seed = SEED.replace("{version}", version)
    return on_postgresql(example, **{"test_it": TESTS, "seed": seed, **files})


def check_each_has_its_own(folder: Path) -> int:
    """Check that no database was used by two processes. Return the number of processes."""
    found: dict[str, set[str]] = {}
    for line in (folder / "seen").read_text().splitlines():
        pid, name = line.split()
        found.setdefault(name, set()).add(pid)
    assert all(len(pids) == 1 for pids in found.values()), found
    return len(set.union(*found.values()))


def ended(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


def test_workers_build_one_template(example: Example, server: PrivateServer) -> None:
    """Three workers start at the same moment, and each runs all tests."""
    each = project(example, "each")
    run = each.run(*XDIST, "-n", "3", "--dist", "each", env=server.env).expect(passed=18)
    assert (run.folder / "built").read_text() == "x"
    run.says("18 of 18 tests used a database of their own, and 18 changed it", "template built in")
    assert run.output.count("in place of shop (") == 1
    assert check_each_has_its_own(run.folder) == 3
    server.check_clean(run.output)


def test_a_worker_that_dies_is_replaced(example: Example, server: PrivateServer) -> None:
    dying = project(example, "dying", test_it=TESTS, test_dying=DYING)
    run = dying.run(*XDIST, "-n2", env=server.env).expect(1, passed=12, failed=2)
    run.says("replacing crashed worker")
    check_each_has_its_own(run.folder)
    server.wait_until_forgotten()
    server.arena("sweep")
    server.check_clean(run.output)


TOGETHER = """
import os
import pathlib
import time
import pytest


def meet(place):
    # Each run waits for the other.
    pathlib.Path(f"{os.environ['HERE']}.{place}").touch()
    end = time.monotonic() + 60
    while not pathlib.Path(f"{os.environ['OTHER']}.{place}").exists():
        assert time.monotonic() < end, f"the other run is not at {place}"
        time.sleep(0.005)


@pytest.mark.parametrize("turn", range(4))
async def test_beside_another_run(client, turn):
    assert (await client.get("/dancers")).json() == ["Sand"]
    meet(f"before-{turn}")
    assert (await client.post("/dancers/Dune")).status_code == 201
    meet(f"after-{turn}")
    assert (await client.get("/dancers")).json() == ["Sand", "Dune"]
"""
NAME = "name: Mapped[str] = mapped_column(unique=True)"
LOUD = "\n    loud: Mapped[bool] = mapped_column(default=False)"


def test_runs_of_two_versions_of_a_project_at_once(
    example: Example, server: PrivateServer, tmp_path: Path
) -> None:
    """On two machines, which share the URL of a server alone. A sweep drops nothing of them."""
    runs = []
    for name, other in (("a", "b"), ("b", "a")):
        env = {
            "ARENA_DATABASE": server.url,
            "ARENA_CACHE": str(tmp_path / name / "cache"),
            "ARENA_CLUSTERS": str(tmp_path / name / "clusters"),
            "HERE": str(tmp_path / name),
            "OTHER": str(tmp_path / other),
        }
        folder = example.folder.parent / name / "shop"
        copy = replace(project(example, "checkout", test_it=TOGETHER), folder=folder)
        if name == "a":
            copy = copy.change("app.py", NAME, NAME + LOUD)
        runs.append(copy.start(env=env))
    server.arena("sweep")
    for output in [ended(run) for run in runs]:
        assert "4 of 4 tests used a database of their own, and 4 changed it" in output
        assert "template built in" in output
    server.check_clean()
