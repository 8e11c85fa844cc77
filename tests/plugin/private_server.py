"""A private PostgreSQL of some tests' own: what is on it is theirs, and it goes with them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena._postgresql import _clusters as clusters
from pytest_arena._postgresql._control import open_control
from pytest_arena._values import Address
from tests.servers.crowded import folder_in_memory, newest_programs
from tests.servers.waiting import end_cluster, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_arena._postgresql._clusters import ServerFolder
    from tests.example import Example

PRODUCTION = "postgresql+asyncpg://me:s3cret@db.example.org/shop"


class PrivateServer:
    """A place where the runs of some tests start their server, and what is to be seen of it."""

    def __init__(self, place: Path) -> None:
        self.place = place

    @property
    def env(self) -> dict[str, str]:
        """What a run is told, to start it there."""
        return {
            "ARENA_DATABASE": "own",
            "ARENA_CLUSTERS": str(self.place / "c"),
            "ARENA_CACHE": str(self.place / "cache"),
        }

    @property
    def folder(self) -> ServerFolder:
        # Not rglob: the server takes databases away while its data are walked through.
        [path] = self.place.glob("c/pytest-arena-pg-*/*/")
        return clusters.ServerFolder(path)

    def address(self, database: str = "postgres") -> Address:
        return Address(str(self.folder.path), 5432, "postgres", database)

    @property
    def url(self) -> str:
        """As somebody would write it who knows the server and nothing else."""
        return f"postgresql://postgres@/postgres?host={self.folder.path}"

    def rows(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        with closing(open_control(self.address(database))) as control:
            return control.rows(sql)

    def names(self, *, but: tuple[str, ...] = ()) -> list[str]:
        found = self.rows(
            "SELECT datname::text FROM pg_database "
            "WHERE datname NOT IN ('postgres', 'template0', 'template1') ORDER BY 1"
        )
        begins = tuple(f"arena_{kind}" for kind in but)
        return [name for (name,) in found if not name.startswith(begins)]

    def of_runs(self) -> list[str]:
        """Return the databases that no run may leave, if it is not killed."""
        return self.names(but=("template_",))

    def check_clean(self, text: object = "") -> None:
        left = self.of_runs()
        assert left == [], f"{left}\n{text}"

    def arena(self, *words: str) -> str:
        others = ("PG", "ARENA_", "PYTEST_")
        env = {name: text for name, text in os.environ.items() if not name.startswith(others)}
        done = subprocess.run(
            [sys.executable, "-c", _COMMAND, "databases", *words, "--database", "own"],
            env={**env, **self.env, "TMPDIR": str(self.place)},
            cwd=self.place,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def listed(self) -> list[dict[str, Any]]:
        told = json.loads(self.arena("list", "--json"))
        things = [thing for place in told["places"] for thing in place["things"]]
        return [thing for thing in things if thing["name"].startswith("arena_")]

    def wait_until_forgotten(self) -> None:
        """Wait until the server has noticed that pytest-arena's clients are dead."""
        until(lambda: not self.rows(_OTHERS), "the server notices that a run has died")


_OTHERS = (
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' "
    "UNION SELECT pid FROM pg_stat_activity WHERE query ~ '^(CREATE|ALTER|DROP) DATABASE'"
)


# The files of other runs, and of tests of the suite, are not looked at.
_COMMAND = (
    "import sys; from pytest_arena._cli import main; from pytest_arena._sqlite import _product; "
    "_product.homes = list; sys.exit(main(sys.argv[1:]))"
)


@contextmanager
def private_server() -> Iterator[PrivateServer]:
    """A place for one; where it was started, it is ended."""
    place = folder_in_memory()
    server = PrivateServer(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARENA_CLUSTERS", server.env["ARENA_CLUSTERS"])
        held = clusters.find(newest_programs(), cache=place / "cache")
    try:
        with closing(held):  # the server runs after each run, so that a test can look at it
            yield server
    finally:
        end_cluster(held.folder)
        shutil.rmtree(place, ignore_errors=True)


def on_postgresql(example: Example, **files: str) -> Example:
    """The example's app, with a production URL in its code."""
    return example.change("app.py", "sqlite+aiosqlite:///dev.db", PRODUCTION).with_files(**files)
