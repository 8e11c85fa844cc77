"""A server or an option that cannot be used, a full server, a restart: the run says why."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql import _clusters as clusters
from tests.plugin.private_server import PRODUCTION, on_postgresql, private_server
from tests.servers.crowded import PASSWORD, Crowded
from tests.servers.restarts import restarting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.example import Example, Run

SEED = """
import os
from app import Dancer

VERSION = "{version}"


async def seed(session):
    session.add(Dancer(name="Sand"))
    await session.flush()
    {last}
"""
TESTS = """
async def test_one(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
    await client.post("/dancers/Dune")


async def test_another(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
"""


@pytest.fixture(scope="module")
def crowded() -> Iterator[Crowded]:
    with Crowded(5) as server:
        yield server


def run_on(server: Crowded, example: Example, login: str, *, last: str = "", **files: str) -> Run:
    """Run on the server, with a template that no other test has built."""
    seed = SEED.replace("{version}", example.folder.parent.name).replace("{last}", last)
    env = {"ARENA_DATABASE": server.url(login), "DATABASE_URL": files.pop("url", PRODUCTION)}
    example = on_postgresql(example, **{"test_it": TESTS, "seed": seed, **files})
    return example.run("--tb=short", env=env)


def check_left(server: Crowded) -> None:
    names = " ".join(server.databases())
    assert "arena_live" not in names
    assert "arena_building" not in names


CROWD = """
import asyncio


async def test_one(client):
    assert (await client.get("/dancers")).json() == ["Sand"]


async def test_many_at_once(client):
    requests = (client.get("/dancers") for _ in range(8))
    for answer in await asyncio.gather(*requests, return_exceptions=True):
        if isinstance(answer, Exception):
            raise answer
"""


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_a_pool_that_is_too_large(example: Example, crowded: Crowded, driver: str) -> None:
    """The test fails with the server's message, and the report explains it."""
    url = PRODUCTION.replace("asyncpg", driver)
    run = run_on(crowded, example, f"maker:{PASSWORD}", url=url, test_it=CROWD)
    run.expect(1, passed=1, failed=1).says("too many clients already")
    run.says("all connections of the server are taken. Each test process")
    check_left(crowded)


@pytest.mark.parametrize("free", [0, 2])
def test_a_server_with_few_free_connections(example: Example, crowded: Crowded, free: int) -> None:
    with crowded.filled(free=free + 1 if free else 0):  # one is for superusers
        run = run_on(crowded, example, f"maker:{PASSWORD}", test_it=CROWD)
    assert run.status == pytest.ExitCode.TESTS_FAILED, run.output
    run.says("max_connections").never_says(PASSWORD, "INTERNALERROR", "Exception ignored")
    check_left(crowded)


def test_a_local_service_without_a_free_connection_is_left(
    example: Example, crowded: Crowded
) -> None:
    host = {"PGHOST": "127.0.0.1", "PGPORT": str(crowded.port), "PGUSER": "boss"}
    with crowded.filled(), private_server() as private:
        env = {**private.env, **host, "ARENA_DATABASE": "postgresql"}
        run = on_postgresql(example, test_it=TESTS).run(env=env)
    run.expect(passed=2).says("a private server from")
    check_left(crowded)


def test_a_build_that_fails_or_dies_leaves_nothing_after_the_next_run(example: Example) -> None:
    """The error names the builder's line. A killed run's connections end a moment later."""
    with Crowded(20) as server:
        run = run_on(server, example, "boss", last="session.add(Dancer(name='Sand'))")
        run.expect(1, failed=2).says("seed.py").never_says("Exception ignored")
        check_left(server)
        run = run_on(server, example, "boss", last="os.kill(os.getpid(), 9)")
        assert run.status == -signal.SIGKILL
        assert "arena_building" in " ".join(server.databases())
        run_on(server, example, "boss").expect(passed=2)
        check_left(server)


def test_a_server_that_restarts_fails_only_the_test_whose_transaction_it_ends(
    example: Example,
) -> None:
    with Crowded(30) as server:
        data = Path(server.command[2])
        example = restarting(
            example,
            server.by_socket,
            command=server.command,
            pid_file=str(data / "postmaster.pid"),
            socket=f"{server.by_socket.host}/.s.PGSQL.{server.port}",
            control="pytest_arena._postgresql._control",
            options={"cwd": str(data), **clusters.account()},
            signals=(signal.SIGINT, signal.SIGQUIT),
        )
        run = run_on(server, example, "boss", test_it=example.files["test_it.py"])
        assert run.outcomes["passed"] == 4, run.output
        run.says("test_in_a_transaction")
        check_left(server)


OWN = "[pytest]\narena_database = own"


@pytest.mark.parametrize(
    "option,says",
    [
        (
            "--arena-database=sqlite",
            "with arena_database = sqlite pytest-arena does not redirect this product",
        ),
        ("--arena-database=postgresql://nobody:pw@127.0.0.1:1/x", "cannot be used"),
    ],
)
def test_what_cannot_be_on_postgresql_is_said_once(
    example: Example, option: str, says: str
) -> None:
    """In four parts, at the first connection. Without a server the run ends."""
    test = "async def test_one(client): await client.get('/dancers')\n"
    project = on_postgresql(example, test_it=test + test.replace("one", "two"))
    run = project.change("pytest.ini", "[pytest]", OWN).run(option)
    run.expect(1, failed=1 if "postgresql://" in option else 2)
    run.says(says, "why:", "cause:", "next:")
    run.never_says("s3cret", "nobody:pw")


def test_without_psycopg_one_error_says_what_to_install(example: Example) -> None:
    """pytest-arena needs psycopg, whichever driver the app has. asyncpg and psycopg2 do not do."""
    without = on_postgresql(
        example,
        conftest='import sys\n\nsys.modules["psycopg"] = None\n',
        test_it="async def test_it(client):\n    await client.get('/dancers')\n",
    )
    run = without.change("pytest.ini", "[pytest]", OWN).run()
    run.expect(status=1, failed=1).says("ConfigError: psycopg cannot be imported").says(
        "why:", "cause:", "pip install 'pytest-arena[postgresql]'"
    )


ASYNC_SESSION = """
from sqlalchemy.ext.asyncio import AsyncSession

async def test_it(db_session):
    assert isinstance(db_session, AsyncSession)
"""


def test_the_session_of_a_variable_by_psycopg_is_async_in_an_async_test(example: Example) -> None:
    """The driver has a sync and an async dialect, and the app has no engine yet."""
    project = example.with_files(test_it=ASYNC_SESSION).with_paths(
        {"pytest.ini": "[pytest]\nasyncio_mode = auto\narena_database = own\n"}
    )
    project.run(env={"DATABASE_URL": PRODUCTION.replace("asyncpg", "psycopg")}).expect(passed=1)
