"""Run the tests without pytest-arena, and with it: `python demo.py`.

Both runs are in a temporary folder. Each has a fresh copy of the developer's database.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
FILES = sorted(HERE.glob("test_*.py"))
DEVELOPERS_ROWS = 40  # which app.py makes
# The texts by which pytest's output shows the faults, in the order of the tests.
SYMPTOMS = [
    "404 == 200",
    "is bound to a different event loop",
    "Database session factory not initialized",
    "2 == 1",
    "'Leak Check' not in",
    "200 == 403",
]


def main() -> int:
    """Return 0 if each fault is there without pytest-arena, and none with it."""
    # A run for each file: one file may lock its database for good.
    runs = [_run("-p", "no:arena", "-p", "without_arena", path.name) for path in FILES]
    output = "".join(text for text, _ in runs)
    rows = min(left for _, left in runs)
    seen = [symptom for symptom in SYMPTOMS if symptom in output]
    print(f"without pytest-arena: {' | '.join(seen)}; the developer has {rows} rows")
    is_right = seen == SYMPTOMS and rows != DEVELOPERS_ROWS
    output, rows = _run()
    print(f"with pytest-arena: the developer has {rows} rows\n{output}")
    is_right &= rows == DEVELOPERS_ROWS
    is_right &= "14 passed" in output and "UNMAPPED  A dancer withdraws" in output
    print("The runs were as expected." if is_right else "A run was NOT as expected.")
    return 0 if is_right else 1


def _run(*arguments: str) -> tuple[str, int]:
    """Run pytest in a new copy of this folder. Return its output, and the developer's rows."""
    foreign = ("ARENA_DATABASE", "DATABASE_URL", "PYTEST_ADDOPTS")
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    with TemporaryDirectory(prefix="cases-") as name:
        project = Path(shutil.copytree(HERE, Path(name, "cases")))
        (project / "developer.db").unlink(missing_ok=True)
        subprocess.run([sys.executable, "app.py"], cwd=project, env=environment, check=True)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", *arguments]
        done = subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, check=False
        )
        with closing(sqlite3.connect(project / "developer.db")) as connection:
            [rows] = connection.execute("SELECT count(*) FROM dancers").fetchone()
    return done.stdout + done.stderr, rows


if __name__ == "__main__":
    sys.exit(main())
