"""The examples' own suites and demonstrations, each in a copy of its folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy.engine import make_url

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parent.parent / "examples"
PRODUCTION = "postgresql+asyncpg://me:s3cret@db.example.org/app"
WITHOUT = ("-p", "no:arena", "-p", "without_arena")


def copy(name: str, folder: Path) -> Path:
    """Copy an example without files that a developer has made."""
    ignored = shutil.ignore_patterns("*.db", "__pycache__", "node_modules", "test-results")
    return Path(shutil.copytree(EXAMPLES / name, folder / name, ignore=ignored))


def python(folder: Path, *arguments: str, **env: str) -> tuple[int, str]:
    """Run Python in a folder. Return the exit status and the output."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "200", "PYTHONDONTWRITEBYTECODE": "1", **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.fixture
def developers_database() -> Iterator[str]:
    """The URL of a database on the suite's server, as an app of a developer has it."""
    server = make_url(os.environ["TESTS_POSTGRESQL"])
    name = f"developer_{uuid4().hex[:8]}"
    with psycopg.connect(os.environ["TESTS_POSTGRESQL"], autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        url = server.set(drivername="postgresql+asyncpg", database=name)
        yield url.render_as_string(hide_password=False)
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_battle_d_by_its_demo(tmp_path: Path) -> None:
    """P1, P2, P3, P4, P9: each scenario is proven, and the developer's file is unchanged."""
    status, output = python(copy("battle_d", tmp_path), "demo.py")

    assert status == 0, output
    assert "scenarios: 5 of 5 proven" in output


def test_battle_d_on_postgresql(tmp_path: Path) -> None:
    """P1, P2, P3: the app's URL names a server that no test may reach."""
    server = os.environ["TESTS_POSTGRESQL"]
    status, output = python(
        copy("battle_d", tmp_path), "-m", "pytest", ARENA_DATABASE=server, DATABASE_URL=PRODUCTION
    )

    assert status == 0, output
    assert "scenarios: 5 of 5 proven" in output


def test_guestbook(tmp_path: Path) -> None:
    """P1, P2: a Flask app passes its suite, and no database of a developer is made."""
    folder = copy("guestbook", tmp_path)

    status, output = python(folder, "-m", "pytest")

    assert status == 0, output
    assert not list(folder.rglob("*.db"))


def test_each_fault_of_the_cases_without_the_plugin_and_none_with_it(tmp_path: Path) -> None:
    """P1, P2, P4, P5, P9: the same files are red without the plugin, and green with it."""
    status, output = python(copy("cases", tmp_path), "demo.py")

    assert status == 0, output


def test_a_connection_of_another_loop_on_postgresql(
    tmp_path: Path, developers_database: str
) -> None:
    """P5: asyncpg's own error without the plugin, and none with it."""
    folder = copy("cases", tmp_path)
    url = {"DATABASE_URL": developers_database}
    assert python(folder, "app.py", **url) == (0, "")

    status, output = python(folder, "-m", "pytest", *WITHOUT, "test_loops.py", **url)
    assert status == 1
    assert "attached to a different loop" in output, output

    server = os.environ["TESTS_POSTGRESQL"]
    status, output = python(folder, "-m", "pytest", ARENA_DATABASE=server, **url)
    assert status == 0, output
    assert "14 passed" in output
