"""Show the tests without pytest-arena, and with it, on a real PostgreSQL: `python demo.py`.

The same 20 tests are run twice, each time on a developer's database that the demo has just made:
first with the conftest that the team had arrived at, then with the plugin. The database is read
before and after. `ARENA_DATABASE` says which server is used; else it is a private one of arena's.
"""

import asyncio
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path
from sqlalchemy import URL, NullPool, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

# The plugin's own way to a server, which a team would leave to it.
from pytest_arena._postgresql.servers import Wanted
from pytest_arena._postgresql.servers._find import find_server
from pytest_arena.errors import ServerError

PROJECT = Path(__file__).resolve().parent
TABLES = ("api_keys", "documents", "asked_queries")
TESTS = 20

# The order is part of what is shown, and a plugin for it may be installed.
PYTEST = ("-m", "pytest", "-p", "no:randomly", "-p", "no:random_order", "-p", "no:cacheprovider")
WITHOUT = ("-p", "no:arena", "-p", "without_arena", "-q", "--tb=short", "-W", "ignore")

# What asyncpg says to whoever uses a connection on another event loop than its own.
SYMPTOMS = {
    "attached to a different loop": r"^E .*got Future .* (attached to a different loop)",
    "Event loop is closed": r"^E .*RuntimeError: (Event loop is closed)",
    "another operation is in progress": r"^E +sqlalchemy\.exc.*(another operation is in progress)",
    "session factory not initialized": r"^E .*(session factory not initialized)",
}

INTRODUCTION = """\
The app in this folder makes one global engine when it starts. pytest-asyncio gives every test an
event loop of its own, and a connection of asyncpg belongs to the loop that it was opened on.
"""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a developer's database holds at one moment."""

    rows: dict[str, int]
    sha256: str

    def __str__(self) -> str:
        """Give the two lines that are printed before and after the tests."""
        counts = ", ".join(f"{name} {count}" for name, count in self.rows.items())
        return f"    rows    {counts}\n    sha256  {self.sha256}"


@dataclass(frozen=True, slots=True)
class Run:
    """How the tests ended, and what the developer's database held before and after."""

    status: int
    output: str
    before: Reading
    after: Reading

    @property
    def passed(self) -> int:
        """How many tests have passed?"""
        found = re.search(r"(\d+) passed", self.output)
        return int(found[1]) if found else 0

    @property
    def is_untouched(self) -> bool:
        """Is the developer's database as it was?"""
        return self.before == self.after

    def symptoms(self) -> Iterator[tuple[str, int]]:
        """Give what was said of event loops, and how often."""
        for name, pattern in SYMPTOMS.items():
            if count := len(re.findall(pattern, self.output, re.MULTILINE)):
                yield name, count


def main() -> int:
    """Run the tests in both ways, and judge."""
    _say(INTRODUCTION)
    try:
        with _server() as server:
            return asyncio.run(_show(server))
    except (OSError, DBAPIError, ServerError) as error:
        _say(f"No server can be used: {error}\nARENA_DATABASE=postgresql://... names one.")
        return 2


@contextmanager
def _server() -> Iterator[URL]:
    """Give the URL of a server for both runs, and for the developer's database."""
    if named := os.environ.get("ARENA_DATABASE"):
        yield make_url(named)
        return
    wanted = Wanted(url="", own=True, cache=user_cache_path("pytest-arena"), place="")
    with closing(find_server(wanted)) as server:
        address = server.address
        yield URL.create(
            "postgresql",
            username=address.user,
            port=address.port,
            database=address.database,
            query={"host": address.host},
        )


async def _show(server: URL) -> int:
    _say(f"1. Without pytest-arena, on {server.render_as_string()}\n")
    without = await _run("without", server, *WITHOUT)
    _say(f"{without.passed} of {TESTS} tests have passed. The others were told:")
    for name, count in without.symptoms():
        _say(f"    {count:2} times  {name}")
    _say(f"\n2. With pytest-arena, on {server.render_as_string()}\n")
    within = await _run("with", server, "-v")
    return _judge(without, within)


async def _run(name: str, server: URL, *options: str) -> Run:
    """Run the tests beside a developer's database of their own."""
    async with _developers_database(name, server) as url:
        before = await _read(url)
        _say(f"The developer's database, before the tests:\n{before}\n")
        _say(f"$ python -m pytest {' '.join(options)}")
        show = "-v" in options
        status, output = await _python(*PYTEST, *options, url=url, server=server, show=show)
        after = await _read(url)
        _say(f"\nThe developer's database, after the tests:\n{after}\n")
    return Run(status, output, before, after)


@asynccontextmanager
async def _developers_database(name: str, server: URL) -> AsyncIterator[URL]:
    """Make a database on the server, have the app's own script fill it, and drop it at the end."""
    url = server.set(database=f"api_keys_demo_{os.getpid()}_{name}")
    async with _connected(server) as connection:
        await connection.execute(text(f"CREATE DATABASE {url.database}"))
        try:
            status, output = await _python("-m", "api_keys.dev_data", url=url, server=server)
            if status:
                sys.exit(f"The developer's database could not be made:\n{output}")
            yield url
        finally:
            await connection.execute(text(f"DROP DATABASE {url.database} WITH (FORCE)"))


@asynccontextmanager
async def _connected(url: URL) -> AsyncIterator[AsyncConnection]:
    url = url.set(drivername="postgresql+asyncpg")
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    async with engine.connect() as connection:
        yield connection


async def _read(url: URL) -> Reading:
    """Read each row, with its place and the transaction that wrote it, and every sequence."""
    async with _connected(url) as connection:
        rows = {
            name: await _rows(connection, f"SELECT ctid, xmin, {name}::text FROM {name}")  # noqa: S608 - our own names
            for name in TABLES
        }
        sequences = await _rows(connection, "SELECT sequencename, last_value FROM pg_sequences")
    content = repr((rows, sequences)).encode()
    counts = {name: len(found) for name, found in rows.items()}
    return Reading(counts, hashlib.sha256(content).hexdigest())


async def _rows(connection: AsyncConnection, query: str) -> list[str]:
    found = await connection.execute(text(query))
    return sorted(str(row) for row in found)


async def _python(*arguments: str, url: URL, server: URL, show: bool = False) -> tuple[int, str]:
    """Run Python in the app's folder, as a developer does; give its status and what it writes."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=PROJECT,
        env=_environment(url, server),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    lines = []
    async for line in process.stdout:
        lines.append(line.decode())
        if show:
            _say(lines[-1].rstrip())
    return await process.wait(), "".join(lines)


def _environment(url: URL, server: URL) -> dict[str, str]:
    foreign = ("ARENA_", "PYTEST_", "DATABASE_URL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    given = {
        "ARENA_DATABASE": server.render_as_string(hide_password=False),
        "DATABASE_URL": url.set(drivername="postgresql+asyncpg").render_as_string(
            hide_password=False
        ),
    }
    return {**kept, **given, "PYTHONDONTWRITEBYTECODE": "1"}


def _judge(without: Run, within: Run) -> int:
    seen = without.passed < TESTS and dict(without.symptoms())
    ended = within.status == 0 and within.passed == TESTS and within.is_untouched
    lost = "lost rows" if without.before.rows != without.after.rows else "kept its rows"
    same = "is as it was" if within.is_untouched else "was CHANGED"
    _say("Verdict:")
    _say(f"    without arena {without.passed} of {TESTS} pass, the developer's database {lost}")
    _say(f"    with arena {within.passed} of {TESTS} pass, the developer's database {same}")
    return 0 if seen and ended else 1


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
