"""The examples' own suites and demonstrations, each in a copy of its folder."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy.engine import make_url

from tests import forks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PATIENCE_SECONDS = 300
EXAMPLES = Path(__file__).parent.parent / "examples"


def copy(name: str, folder: Path) -> Path:
    ignored = shutil.ignore_patterns("*.db", "__pycache__", "node_modules", "test-results")
    return Path(shutil.copytree(EXAMPLES / name, folder / name, ignore=ignored))


def run(
    command: Sequence[str], cwd: Path, env: Mapping[str, str] = {}, **_: object
) -> subprocess.CompletedProcess[str]:
    """Run Python in a fork. Print its output. Stands for `subprocess.run` in demonstrations."""
    status, output = forks.run(command, cwd, {**os.environ, **env}, PATIENCE_SECONDS)
    print(output)
    return subprocess.CompletedProcess(command, status, output, "")


def python(folder: Path, *arguments: str, env: Mapping[str, str] = {}, status: int = 0) -> str:
    done = run([sys.executable, *arguments], folder, env)
    assert done.returncode == status
    return done.stdout


def demo(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    main = runpy.run_path(str(folder / "demo.py"))["main"]
    monkeypatch.setattr(subprocess, "run", run)
    return int(main())


@pytest.fixture
def developers_database() -> Iterator[str]:
    url = make_url(os.environ["TESTS_POSTGRESQL"]).set(drivername="postgresql+asyncpg")
    with psycopg.connect(os.environ["TESTS_POSTGRESQL"], autocommit=True) as connection:
        connection.execute("CREATE DATABASE developer_of_cases")
        yield url.set(database="developer_of_cases").render_as_string(hide_password=False)
        connection.execute("DROP DATABASE developer_of_cases WITH (FORCE)")


def test_battle_d_by_its_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo(copy("battle_d", tmp_path), monkeypatch) == 0
    assert "scenarios: 5 of 5 proven" in capsys.readouterr().out


def test_guestbook(tmp_path: Path) -> None:
    folder = copy("guestbook", tmp_path)
    python(folder, "-m", "pytest", "-W", "error::pytest_arena.ArenaWarning")
    assert not list(folder.rglob("*.db"))


def test_the_cases_are_red_without_the_plugin_and_green_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo compares the two runs."""
    assert demo(copy("cases", tmp_path), monkeypatch) == 0


def test_a_connection_of_another_loop_on_postgresql(
    tmp_path: Path, developers_database: str
) -> None:
    """Asyncpg's own error without the plugin, and none with it."""
    folder = copy("cases", tmp_path)
    env = {"DATABASE_URL": developers_database}
    python(folder, "app.py", env=env)

    # pytest parses modules for its own tracebacks, in which Python 3.11.7 may raise SystemError.
    without = ("-m", "pytest", "--tb=native", "-pno:arena", "-pwithout_arena", "test_loops.py")
    assert "attached to a different loop" in python(folder, *without, env=env, status=1)

    env["ARENA_DATABASE"] = os.environ["TESTS_POSTGRESQL"]
    python(folder, "-m", "pytest", "-W", "error", "test_loops.py", env=env)
