"""Show what pytest-arena does, on a real app: `python demo.py`.

The app is Battle-D, in this folder. Its tests run it unmodified: the engine that they use is the
one that points at the developer's database. The demo reads that database before and after.
"""

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent
DATABASE = PROJECT / "data" / "battle_d.db"
PAGE = PROJECT / "build" / "scenarios.html"
TWINS = PROJECT / "build" / "twins.json"
COUNTED = ("users", "dancers", "tournaments")

INTRODUCTION = """\
pytest-arena gives every test a database of its own, while the app runs as it is.

Battle-D (this folder) is a FastAPI app with one global SQLAlchemy engine, and that engine points
at the developer's database. Its tests write rows in fixtures, make HTTP requests, and let the app
commit. Half of them use the production session maker and drop every table before each test. A few
keep the dependency override that they had. There is no test engine; the four arena_ lines in
pyproject.toml are all it takes.
"""

ABOUT_TWINS = """\
A test can pass and prove nothing. In hollow/ stand nine such tests: each has an honest twin, and
lacks one thing of it. The first five are found by what they never did, the others by sabotage:
they are run again without their seed, with the app's commit taken back, with an empty answer, or
with a server error in its place, and do not notice.
"""


# What is to be said of each of them.
LACKS = {
    "nothing was seeded": "no row was seeded",
    "nothing was requested": "no request reached the app",
    "nothing was asserted": "no assertion after",
    "asserted before the request": "no assertion after",
    "one outcome was forgotten": "no assertion in",
    "the seed does not matter": "still passes with its seed removed",
    "the commit does not matter": "still passes with the app's commit rolled back",
    "the page does not matter": "still passes with the answer emptied",
    "the answer does not matter": "still passes with the answer turned into a 500",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What the developer's database holds at one moment."""

    rows: dict[str, int]
    sha256: str

    def __str__(self) -> str:
        """Give the two lines that are printed before and after the tests."""
        counts = ", ".join(f"{name} {count}" for name, count in self.rows.items())
        return f"    rows    {counts}\n    sha256  {self.sha256}"


def main() -> int:
    """Read, run the tests, read again, and compare."""
    _say(INTRODUCTION)
    _ensure_database()
    before = _read()
    _say(f"The developer's database, before the tests:\n    file    {DATABASE}\n{before}\n")
    options = ["-v", "--scenarios-sabotage", f"--scenarios-out=html:{PAGE.relative_to(PROJECT)}"]
    _say(f"$ python -m pytest {' '.join(options)}")
    status = _run("-m", "pytest", *options)
    all_found = _find_twins()
    after = _read()
    _say(f"\nThe developer's database, after the tests:\n{after}\n")
    _say(f"The specification, with what is proven of it: {PAGE.as_uri()}")
    return _judge(tests_passed=status == 0, all_found=all_found, untouched=before == after)


def _ensure_database() -> None:
    if not DATABASE.exists():
        _say("There is no developer's database yet; the app's own script makes one:")
        _say("$ python -m app.dev_data")
        if _run("-m", "app.dev_data"):
            sys.exit("The developer's database could not be made; the reason stands above.")
        _say("")


def _read() -> Reading:
    """Count the rows over a connection that cannot write, and hash the file."""
    connection = sqlite3.connect(f"{DATABASE.as_uri()}?mode=ro", uri=True)
    try:
        rows = {name: _count(connection, name) for name in COUNTED}
    finally:
        connection.close()
    return Reading(rows, hashlib.sha256(DATABASE.read_bytes()).hexdigest())


def _count(connection: sqlite3.Connection, table: str) -> int:
    [count] = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - the names of our own tables
    return int(count)


def _run(*arguments: str) -> int:
    """Run Python in the app's folder, with the app's default database, as a developer does."""
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=PROJECT, env=environment, check=False).returncode


def _find_twins() -> bool:
    """Run the hollow tests, which pass, and say what is said of them."""
    _say(f"\n{ABOUT_TWINS}")
    options = ["-q", "--arena-specs=hollow/twins.feature", "--scenarios=report"]
    options += ["--scenarios-sabotage", f"--scenarios-out=json:{TWINS.relative_to(PROJECT)}"]
    _say(f"$ python -m pytest hollow {' '.join(options)}")
    status = _run("-m", "pytest", "hollow", *options)
    scenarios = json.loads(TWINS.read_text(encoding="utf-8"))["scenarios"]
    reasons = {one["name"]: one["reason"] for one in scenarios if one["status"] == "HOLLOW"}
    return status == 0 and all(text in reasons.get(name, "") for name, text in LACKS.items())


def _judge(*, tests_passed: bool, all_found: bool, untouched: bool) -> int:
    tests = "The tests passed and prove" if tests_passed else "The tests FAILED to prove"
    twins = "each hollow twin was found" if all_found else "NOT each hollow twin was found"
    database = "has the same bytes as before" if untouched else "was CHANGED"
    _say(f"Verdict: {tests} every scenario; {twins}; the developer's database {database}.")
    return 0 if tests_passed and all_found and untouched else 1


def _say(text: str) -> None:
    """Print now: the tests write to the same terminal from a process of their own."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
