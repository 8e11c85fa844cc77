"""The bench runs each of its suites. Its times are no matter of tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_every_suite_runs_and_gives_a_time() -> None:
    """On the suite's PostgreSQL server too."""
    server = os.environ["TESTS_POSTGRESQL"].replace("postgresql:", "postgresql+psycopg:", 1)
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--rounds=1", "--tests=1"],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "BENCH_POSTGRESQL": server},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| **pytest-arena") >= 2
