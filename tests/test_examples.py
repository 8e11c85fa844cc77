"""The examples' own suites and demonstrations, each in a copy of its folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy.engine import make_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

EXAMPLES = Path(__file__).parent.parent / "examples"


def copy(name: str, folder: Path) -> Path:
    """Copy an example without files that a developer has made."""
    ignored = shutil.ignore_patterns("*.db", "__pycache__", "node_modules", "test-results")
    return Path(shutil.copytree(EXAMPLES / name, folder / name, ignore=ignored))


def python(folder: Path, *arguments: str, env: Mapping[str, str] = {}, status: int = 0) -> str:
    """Run Python in a folder, assert its exit status, and return its output."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


@pytest.fixture
def developers_database() -> Iterator[str]:
    """The URL of a new database on the suite's server."""
    url = make_url(os.environ["TESTS_POSTGRESQL"]).set(drivername="postgresql+asyncpg")
    with psycopg.connect(os.environ["TESTS_POSTGRESQL"], autocommit=True) as connection:
        connection.execute("CREATE DATABASE developer_of_cases")
        yield url.set(database="developer_of_cases").render_as_string(hide_password=False)
        connection.execute("DROP DATABASE developer_of_cases WITH (FORCE)")


def test_battle_d_by_its_demo(tmp_path: Path) -> None:
    """P1, P2, P3, P4, P9: each scenario is proven, and the developer's file is unchanged."""
    assert "scenarios: 5 of 5 proven" in python(copy("battle_d", tmp_path), "demo.py")


def test_guestbook(tmp_path: Path) -> None:
    """P1, P2: a Flask app passes its suite, and no developer's database is made."""
    folder = copy("guestbook", tmp_path)
    python(folder, "-m", "pytest", "-W", "error::pytest_arena.ArenaWarning")
    assert not list(folder.rglob("*.db"))


def test_the_cases_are_red_without_the_plugin_and_green_with_it(tmp_path: Path) -> None:
    """P1, P2, P4, P5, P9: the demo compares each file's two runs."""
    python(copy("cases", tmp_path), "demo.py")


def test_a_connection_of_another_loop_on_postgresql(
    tmp_path: Path, developers_database: str
) -> None:
    """P5: asyncpg's own error without the plugin, and none with it."""
    folder = copy("cases", tmp_path)
    env = {"DATABASE_URL": developers_database}
    python(folder, "app.py", env=env)

    without = ("-m", "pytest", "-p", "no:arena", "-p", "without_arena", "test_loops.py")
    assert "attached to a different loop" in python(folder, *without, env=env, status=1)

    env["ARENA_DATABASE"] = os.environ["TESTS_POSTGRESQL"]
    assert "14 passed" in python(folder, "-m", "pytest", "-W", "error", env=env)
