"""Show each fault without pytest-arena, and its end with it: `python demo.py`.

Each test file here is run twice in a temporary folder, beside an app and the database that its
developer works with: once with the plugin off and the fixtures of a usual conftest, once with the
plugin. The files are the same both times.
"""

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
DATABASE = "developer.db"
DATA = "3/40/2"  # users, dancers, tournaments: what app.py makes
PATIENCE_SECONDS = 120

# The order of the tests matters to some faults, and a plugin for it may be installed.
PYTEST = ("-m", "pytest", "-p", "no:randomly", "-p", "no:random_order", "-p", "no:cacheprovider")
WITHOUT = ("-p", "no:arena", "-p", "without_arena")

INTRODUCTION = f"""\
Each fault stands in a small test file in this folder, and each file is run twice: with arena
switched off, and with it. The data of the app's developer is {DATA}: users, dancers, tournaments.
"""
LIMITS = """\
SQLite has no connection that belongs to an event loop: there, a second loop is refused by the
pool's queue ("bound to a different event loop"). "got Future attached to a different loop" is what
asyncpg's connections say, and takes a PostgreSQL to be shown.
"""


@dataclass(frozen=True, slots=True)
class Fault:
    """A test file, and how its fault shows without arena: as text in pytest's output.

    Where the tests pass and nothing is said, the developer's database tells.
    """

    file: str
    name: str
    symptom: str = ""
    told: str = ""


FAULTS = (
    Fault("test_row_of_a_fixture", "a fixture's row, and the request", "404 == 200", "404"),
    Fault(
        "test_factory_of_the_lifespan",
        "a factory made in the lifespan",
        "RuntimeError: Database session factory not initialized",
        "session factory not initialized",
    ),
    Fault(
        "test_another_loop",
        "a pool of another test's loop",
        "is bound to a different event loop",
        "bound to a different event loop",
    ),
    Fault("test_purge", "tests that purge their database"),
    Fault("test_override_left", "an override left behind", "200 == 403", "200, not 403"),
    Fault("test_engine_in_memory", "one engine in memory for all", "2 == 1", "2 rows, not 1"),
    Fault(
        "test_leak_pair",
        "a commit in part 1, read in part 2",
        "assert 'LEAK_CHECK_DANCER' not in",
        "it leaks",
    ),
)
UNTESTED = Fault(
    "test_scenario_without_a_test", "a scenario without a test", "Nobody is registered"
)


@dataclass(frozen=True, slots=True)
class Run:
    """How a run ended, and what it left of the developer's database."""

    status: int
    output: str
    database: str
    untouched: bool

    @property
    def is_clean(self) -> bool:
        """Have all tests passed, and has no byte of the database changed?"""
        return self.status == 0 and self.untouched


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table, and whether it says what it should."""

    cells: tuple[str, str, str]
    is_right: bool


def main() -> int:
    """Run everything, print the table, and say whether each fault was seen and ended."""
    print(INTRODUCTION, flush=True)
    with TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        _make_database(folder)
        with ThreadPoolExecutor() as pool:
            rows = [*pool.map(lambda fault: _compare(fault, folder), FAULTS)]
        rows += _untested(folder)
    for line in _table(rows):
        print(line)
    print(f"\n{LIMITS}")
    return _judge(rows)


def _make_database(folder: Path) -> None:
    """Have the app's own script make the developer's database."""
    shutil.copy(HERE / "app.py", folder)
    subprocess.run([sys.executable, "app.py"], cwd=folder, check=True)


def _compare(fault: Fault, folder: Path) -> Row:
    without = _run(fault, folder, "without", *WITHOUT)
    within = _run(fault, folder, "with")
    seen = fault.symptom in without.output and not without.is_clean
    cells = (fault.name, _said(fault, without), _result(within))
    return Row(cells, is_right=seen and within.is_clean)


def _run(fault: Fault, folder: Path, name: str, *options: str) -> Run:
    """Run one test file in a project of its own, with a fresh copy of the developer's database."""
    project = folder / f"{fault.file}-{name}"
    shutil.copytree(HERE, project, ignore=shutil.ignore_patterns("__pycache__", "*.db"))
    database = Path(shutil.copy(folder / DATABASE, project))
    before = _hash(database)
    command = [sys.executable, *PYTEST, *options, f"{fault.file}.py"]
    done = subprocess.run(
        command,
        cwd=project,
        env=_environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    return Run(done.returncode, done.stdout, _read(database), _hash(database) == before)


def _environment(folder: Path) -> dict[str, str]:
    foreign = ("ARENA_", "PYTEST_", "DATABASE_URL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "ARENA_CACHE": str(folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _read(database: Path) -> str:
    """Count the developer's rows."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        counts = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608  # our own names
            for table in ("users", "dancers", "tournaments")
        ]
    return "/".join(map(str, counts))


def _said(fault: Fault, run: Run) -> str:
    """Say what a run without arena has shown."""
    told = []
    if run.status:
        seen = fault.symptom in run.output
        told.append(f"fails: {fault.told if seen else 'for another reason'}")
    if not run.untouched:
        told.append(f"data {DATA} became {run.database}")
    return ", ".join(told) or "passes"


def _result(run: Run) -> str:
    """Say how a run with arena ended."""
    if run.is_clean:
        return "passes, data untouched"
    return "FAILS" if run.status else "passes, but data has CHANGED"


def _untested(folder: Path) -> Iterator[Row]:
    """A scenario without a test: green without arena, named and red with strict scenarios."""
    if not _knows_scenarios(folder):
        print(f"Not shown: {UNTESTED.name}. This version does not read specifications yet.\n")
        return
    without = _run(UNTESTED, folder, "without", *WITHOUT)
    strict = ("--arena-specs=scenarios.feature", "--scenarios=strict")
    within = _run(UNTESTED, folder, "with", *strict)
    hidden = without.status == 0 and UNTESTED.symptom not in without.output
    named = within.status != 0 and UNTESTED.symptom in within.output and within.untouched
    cells = (
        UNTESTED.name,
        "passes, nobody notices" if hidden else "noticed",
        "fails and names it" if named else "NOT named",
    )
    yield Row(cells, is_right=hidden and named)


def _knows_scenarios(folder: Path) -> bool:
    command = [sys.executable, "-m", "pytest", "--help"]
    told = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return "--arena-specs" in told.stdout


def _table(rows: list[Row]) -> Iterator[str]:
    lines = [("fault", "without arena", "with arena"), *(row.cells for row in rows)]
    first, second = (max(len(line[column]) for line in lines) for column in (0, 1))
    lines.insert(1, ("-" * first, "-" * second, "-" * 22))
    for line in lines:
        yield f"{line[0]:<{first}}  {line[1]:<{second}}  {line[2]}"


def _judge(rows: list[Row]) -> int:
    wrong = [row.cells[0] for row in rows if not row.is_right]
    if wrong:
        print(f"Verdict: NOT as promised: {'; '.join(wrong)}.")
        return 1
    print(f"Verdict: {len(rows)} faults seen without arena, and none of them with it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
