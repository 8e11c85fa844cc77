"""Run the tests under pytest-arena, and print what each test had: `python demo.py`.

The app's engine points at the developer's database. The demo hashes that file before and after.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent
DATABASE = PROJECT / "battle_d.db"


def main() -> int:
    """Run the tests, and compare the developer's database before and after."""
    if not DATABASE.exists() and _python("-m", "app.dev_data"):
        return 1
    before = _hash()
    print("$ python -m pytest -v", flush=True)
    status = _python("-m", "pytest", "-v")
    after = _hash()
    print(f"\nThe developer's database before the tests: sha256 {before}")
    print(f"The developer's database after the tests:  sha256 {after}")
    return status or int(before != after)


def _python(*arguments: str) -> int:
    """Run Python as the developer does: with the app's default database."""
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=PROJECT, env=environment, check=False).returncode


def _hash() -> str:
    return hashlib.sha256(DATABASE.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
