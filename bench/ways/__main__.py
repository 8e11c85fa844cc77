"""Run each app of the zoo in each way, and write docs/explanation/zoo.md: `python -m bench.ways`.

BENCH_POSTGRESQL is the URL of a server whose user is a superuser: else a local one. A cell is one
process of pytest that runs the tests of one app twice. `python -m bench.ways WORD…` runs the cells
whose test, file or way is one of the words. It prints their output, and writes no page.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import create_engine, make_url, text

from bench.__main__ import place, table, write_page
from bench.ways.process import run

ROOT = Path(__file__).parents[2]
APPS = ROOT / "bench" / "zoo"
PAGE = ROOT / "docs" / "explanation" / "zoo.md"
SERVER = make_url(os.environ.get("BENCH_POSTGRESQL", "postgresql+psycopg://postgres@127.0.0.1"))
MIGRATIONS = APPS / "migrations" / "alembic.ini"
PATIENCE_SECONDS = 120
LIBRARIES = ("pytest", "SQLAlchemy", "asyncpg", "FastAPI", "pytest-postgresql", "pytest-sqla")
ARENA = "pytest-arena"
# The plugins of each way. A user gets the first one by installing it.
WAYS = {
    ARENA: ["arena"],
    "rollback recipe": ["bench.ways.common", "bench.ways.rollback"],
    "create_all, drop_all": ["bench.ways.common", "bench.ways.create_drop"],
    "TRUNCATE": ["bench.ways.common", "bench.ways.truncate"],
    "pytest-postgresql": ["pytest_postgresql", "bench.ways.common", "bench.ways.postgresql"],
    "pytest-sqla": ["sqla", "bench.ways.common", "bench.ways.pytest_sqla"],
}
PLUGINS = ["asyncio", "repeat"]
RECORDER = "tests.suites.recorder"  # pytest-arena refuses a plugin before it
# What a user of pytest-arena adds for an app, by the app's file.
OPTIONS = {
    "migrated": {"arena_schema": str(MIGRATIONS)},
    "engines": {
        "arena_env": "DATABASE_URL REPORTS_URL",
        "arena_schema": "\n zoo = bench.zoo.shop:Base\n zoo_reports = bench.zoo.engines:Reports",
    },
}
VERDICTS = ("right", "wrong green", "wrong red", "state leaks", "refused")
# The reason of a wrong cell, by a part of the message of its test.
REASONS = {
    "deferred_constraint": "no commit, so no check",
    "read_replica": "one connection for both engines",
    "savepoint|transaction is aborted": "requests at once on one connection",
    "'a', 'a'": "both workers on one connection",
    "isolation_level": "the transaction has begun",
    "failed: ann": "both sessions in one transaction",
    "CancelledError": "no commit, so no NOTIFY",
    "items_name_key|sales_pkey": "a connection outside of the transaction commits",
    "currencies": "the models lack the migration's table",
    "acme": "the schema stays",
    "colour": "the column stays",
    "429": "the module's memory stays",
    "'2026-2'|assert 2 == 1": "the sequence goes on",
    "'a', 'b'": "the time stands still in a transaction",
    "add_listener": "a listener on the driver's connection",
    "provisioning": "the test uses `db_session` while a request begins",
}


@dataclass(frozen=True)
class App:
    """A test function, with the endpoints that it calls."""

    file: str
    test: str
    about: str

    def __str__(self) -> str:
        return f"{self.test.removeprefix('test_').replace('_', ' ')}: {self.about}"


@dataclass
class Cell:
    """The facts of an app's tests in one way."""

    app: App
    way: str
    output: str
    tests: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # their phases

    def verdict(self) -> tuple[str, str]:
        """Return the worst verdict of the tests, with the message of the first such test."""
        found = {test: verdict_of(phases) for test, phases in self.tests.items()}
        wrong = {test: each for test, each in found.items() if each[0] != "right"}
        if not self.tests:
            return "wrong red", self.output
        worst = min(wrong.values(), key=lambda each: VERDICTS.index(each[0]), default=("right", ""))
        verdict, message = worst
        if verdict == "wrong red" and all("2-2]" in test for test in wrong):
            verdict = "state leaks"
        return verdict, message

    def __str__(self) -> str:
        verdict, message = self.verdict()
        reasons = [reason for part, reason in REASONS.items() if re.search(part, message)]
        return f"{verdict}: {[*reasons, message][0]}" if message else verdict


def verdict_of(phases: list[dict[str, Any]]) -> tuple[str, str]:
    """Compare the outcome of one test with the right one."""
    failed = [phase for phase in phases if phase["outcome"] == "failed"]
    expected = phases[0]["expected"]
    if phases[-1]["phase"] != "teardown":
        return "wrong red", "does not end"
    if not failed:
        return ("wrong green", phases[0]["test"]) if expected else ("right", "")
    if expected and [(each["phase"], each["error"]) for each in failed] == [("call", expected[0])]:
        return "right", ""
    lines = [line[4:].strip() for line in failed[0]["text"].splitlines() if line.startswith("E  ")]
    message = f"{failed[0]['phase']}: {' '.join(lines[:1])}"
    is_refused = failed[0]["codes"] or re.search("pytest.sqla", message)
    return "refused" if is_refused else "wrong red", message


def find_apps() -> list[App]:
    """Return the apps: each test function of the files, and what its docstring says."""
    found: list[App] = []
    for path in sorted(APPS.glob("*.py")):
        tests = re.findall(r'def (test_\w+).*?"""(.*?)"""', path.read_text("utf-8"), re.DOTALL)
        found += [App(path.stem, test, about) for test, about in tests]
    return found


def run_cell(number: int, app: App, way: str) -> Cell:
    """Run the tests of an app twice in a new process."""
    names = ["zoo", "zoo_reports"] if way == ARENA else [f"zoo_{number}", f"zoo_{number}_reports"]
    templates = [f"{name}_tmpl" for name in names]  # pytest-postgresql makes them
    drop = [f"DROP DATABASE IF EXISTS {name} WITH (FORCE)" for name in (*names, *templates)]
    with TemporaryDirectory(prefix="zoo-") as folder:
        execute(drop)
        if way not in {ARENA, "pytest-postgresql"}:
            execute([f"CREATE DATABASE {name}" for name in names])
        cell = Cell(app, way, run_pytest(Path(folder), app, way, names))
        execute(drop)
        for line in (Path(folder) / "facts.jsonl").read_text(encoding="utf-8").splitlines():
            fact = json.loads(line)
            if "phase" in fact:
                cell.tests.setdefault(fact["test"], []).append(fact)
    return cell


def run_pytest(folder: Path, app: App, way: str, names: list[str]) -> str:
    """Run pytest. Return its output."""
    # The README of pytest-arena has a loop for each test. The others keep the app's pool in one.
    loop = "function" if way == ARENA else "session"
    options = {
        "asyncio_mode": "auto",
        "asyncio_default_test_loop_scope": loop,
        "asyncio_default_fixture_loop_scope": loop,
    }
    if way == ARENA:
        options["arena_app"] = "bench.zoo.shop:app"
        options["arena_schema"] = "bench.zoo.shop:Base"
        options["arena_database"] = url("postgresql", "postgres")
        options |= OPTIONS.get(app.file, {})
    lines = [f"{name} = {value}" for name, value in options.items()]
    (folder / "pytest.ini").write_text("\n".join(["[pytest]", *lines]), encoding="utf-8")
    environment = {
        "ARENA_CACHE": str(folder / "cache"),
        "DATABASE_URL": url("postgresql+asyncpg", names[0]),
        "REPORTS_URL": url("postgresql+asyncpg", names[1]),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "SUITE_FACTS": str(folder / "facts.jsonl"),
    }
    if app.file == "migrated":
        environment["ZOO_MIGRATIONS"] = str(MIGRATIONS)
    plugins = [f"-p{name}" for name in (*PLUGINS, *WAYS[way], RECORDER, "no:cacheprovider")]
    chosen = [f"-c{folder}/pytest.ini", f"--rootdir={ROOT}", f"{APPS / app.file}.py::{app.test}"]
    return run([*plugins, "--count=2", *chosen], folder, environment, PATIENCE_SECONDS)


def url(driver: str, database: str) -> str:
    """Return the URL of a database of the server."""
    return SERVER.set(drivername=driver, database=database).render_as_string(hide_password=False)


def execute(statements: list[str]) -> None:
    """Execute statements on the server."""
    engine = create_engine(SERVER, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def tables(cells: list[Cell]) -> str:
    """Return the tables of the page."""
    counts = Counter((cell.way, cell.verdict()[0]) for cell in cells)
    totals = [(verdict, *(str(counts[way, verdict]) for way in WAYS)) for verdict in VERDICTS]
    rows: dict[App, list[str]] = {}
    for cell in cells:
        rows.setdefault(cell.app, [str(cell.app)]).append(str(cell))
    first = table("Totals", place(LIBRARIES), ("apps", *WAYS), totals)
    second = table("The apps", "", ("app", *WAYS), [*rows.values()], "---")
    return f"{first}\n{second}"


def main() -> None:
    """Run all cells, and write the page."""
    words = {*sys.argv[1:]}
    pairs = [(app, way) for app in find_apps() for way in WAYS]
    chosen = [(app, way) for app, way in pairs if not words or {app.test, app.file, way} & words]
    cells: list[Cell] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for cell in pool.map(run_cell, range(len(chosen)), *zip(*chosen, strict=True)):
            print(
                cell.app.test, cell.way, cell, cell.output if words else "", sep=" | ", flush=True
            )
            cells.append(cell)
    if not words:
        write_page(tables(cells), PAGE)


if __name__ == "__main__":
    main()
