"""Time whole suites side by side: `python -m bench [--rounds N] [--tests N] [--only PRODUCT]`.

BENCH_POSTGRESQL and BENCH_MYSQL name servers by URLs whose users may create databases. Without a
server the product's table is left out. A full run writes its tables to docs/explanation/speed.md.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from platform import python_version
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sqlalchemy import create_engine, make_url, text

from bench.pictures import draw_bench
from bench.runs import Suite, Variant

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "speed.md"
BEGIN = "<!-- written by `make`, from here -->"
END = "<!-- to here -->"
LIBRARIES = ("SQLAlchemy", "aiosqlite", "asyncpg", "asyncmy", "FastAPI", "httpx2", "pytest")

FLOOR = "no isolation"
SQLITE = {
    FLOOR: Variant("floor"),
    "**pytest-arena, `copy`**": Variant("", {"arena_isolation": "copy"}),
    "a copied file, an engine for each test": Variant("file_copy"),
    "rollback with savepoints": Variant("rollback"),
    "`create_all` and `drop_all`, an engine for each test": Variant("recipe"),
}
POSTGRESQL = {
    FLOOR: Variant("floor"),
    "**pytest-arena, `undo`**": Variant("", {"arena_isolation": "undo"}),
    "pytest-arena, `clone`": Variant("", {"arena_isolation": "clone"}),
    "rollback with savepoints": Variant("rollback"),
    "`TRUNCATE` of all tables": Variant("truncate"),
    "`create_all` and `drop_all`, an engine for each test": Variant("recipe"),
}
if find_spec("pytest_postgresql"):
    name = "pytest-postgresql's fixture, an engine for each test"
    needs = ("-p", "pytest_postgresql.plugin")
    POSTGRESQL[name] = Variant("pytest_postgresql", needs=needs)
MYSQL = {
    FLOOR: Variant("floor"),
    "**pytest-arena, `undo`**": Variant("", {"arena_isolation": "undo"}),
    "pytest-arena, `clone`": Variant("", {"arena_isolation": "clone"}),
    "`TRUNCATE` of all tables": Variant("truncate"),
}
PRODUCTS = {
    "SQLite": (SQLITE, "", "sqlite+aiosqlite"),
    "PostgreSQL": (POSTGRESQL, "BENCH_POSTGRESQL", "postgresql+asyncpg"),
    "MySQL": (MYSQL, "BENCH_MYSQL", "mysql+asyncmy"),
}
LOOPS = {
    "one loop for all": "session",
    "a loop for each test": "function",
}


def main() -> None:
    """Measure, print, and write the page after a full run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each suite")
    parser.add_argument("--tests", type=int, default=100, help="tests that a suite counts")
    parser.add_argument("--only", choices=[*PRODUCTS, "replay", "start"], help="one table")
    arguments = parser.parse_args()
    tables = [place()]
    for product in PRODUCTS:
        if arguments.only in {None, product}:
            tables.append(measure_product(product, arguments.rounds, arguments.tests))
            print(tables[-1])
    if arguments.only in {None, "replay"}:
        tables.append(measure_replay(arguments.rounds))
        print(tables[-1])
    if arguments.only in {None, "start"}:
        tables.append(measure_start(arguments.rounds))
        print(tables[-1])
    if arguments.only is None and arguments.tests == parser.get_default("tests"):
        write_page("\n".join(tables))


def place(libraries: Sequence[str] = LIBRARIES) -> str:
    """Return a line about the machine and the libraries."""
    names = ", ".join(f"{name} {version(name)}" for name in libraries)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    return f"{today}, {os.cpu_count()} cores, Python {python_version()}, {names}.\n"


def measure_product(product: str, rounds: int, tests: int) -> str:
    """Run the suites of a product in turns, with one loop and with a loop for each test."""
    variants, variable, driver = PRODUCTS[product]
    if variable and variable not in os.environ:
        return f"### {product}\n\n{variable} names no server: left out.\n"
    times: dict[tuple[str, str], list[float]] = {}
    with TemporaryDirectory(prefix="bench-", dir=memory()) as folder:
        suite = Suite(Path(folder), tests)
        for _ in range(rounds):
            for name, loop in in_random_order(variants):
                variant = variants[name]
                with database(driver, variable, Path(folder)) as url:
                    settings = server_settings(variant, variable)
                    samples = suite.run(variant, url, LOOPS[loop], settings)
                times.setdefault((name, loop), []).extend(samples)
    rows = []
    for name in variants:
        rows.append((name, *(f"{median(times[name, loop]):.2f}" for loop in LOOPS)))
    title = f"A test with three requests on {product}"
    return table(title, "Median times in milliseconds.", ("", *LOOPS), rows)


def in_random_order(variants: dict[str, Variant]) -> list[tuple[str, str]]:
    """Return each variant with each kind of loop: a slow minute of the machine then hits any."""
    pairs = [(name, loop) for name in variants for loop in LOOPS]
    return random.sample(pairs, len(pairs))


def memory() -> Path | None:
    """Return the folder in memory, where pytest-arena has its files as well."""
    path = Path("/dev/shm")  # noqa: S108 - a folder with a random name is made in it
    return path if path.is_dir() else None


def server_settings(variant: Variant, variable: str) -> dict[str, str]:
    """Return pytest-arena's option that names the server."""
    if variant.plugin or not variable:
        return {}
    return {"arena_database": os.environ[variable]}


@contextmanager
def database(driver: str, variable: str, folder: Path) -> Iterator[str]:
    """Give the URL of an empty database, and drop it."""
    if not variable:
        file = folder / "bench.db"
        yield f"{driver}:///{file}"
        file.unlink(missing_ok=True)
        return
    server = make_url(os.environ[variable])
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE DATABASE bench"))
    try:
        url = server.set(drivername=driver, database="bench")
        yield url.render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text("DROP DATABASE bench"))
        engine.dispose()


def measure_replay(rounds: int) -> str:
    """Time the replays of one route with two statements: an INSERT and a COMMIT."""
    rows = []
    for product, (_, variable, driver) in PRODUCTS.items():
        if variable and variable not in os.environ:
            continue
        runs = []
        with TemporaryDirectory(prefix="bench-", dir=memory()) as folder:
            suite = Suite(Path(folder), 0)
            for _ in range(rounds):
                with database(driver, variable, Path(folder)) as url:
                    runs.append(suite.replay(url, server_settings(Variant(""), variable)))
        [number] = {count for count, _ in runs}
        seconds = median(each for _, each in runs)
        rows.append((product, str(number), f"{seconds:.2f}", f"{seconds / number * 1e3:.1f}"))
    title = "`--arena-replay` of one route"
    about = "The request has two statements. The seconds have one more run of its test."
    return table(title, about, ("", "replays", "seconds", "milliseconds for each"), rows)


def measure_start(rounds: int) -> str:
    """Time runs of one test that uses no database, with the plugin and without it."""
    without: list[float] = []
    with_plugin: list[float] = []
    with TemporaryDirectory(prefix="bench-") as folder:
        suite = Suite(Path(folder), 0)
        for _ in range(rounds * 3):
            without.append(suite.start(with_plugin=False))
            with_plugin.append(suite.start(with_plugin=True))
    first = median(without)
    second = median(with_plugin)
    title = "The start of a run"
    about = "CPU time in seconds of a run with one test that uses no database."
    row = (f"{first:.2f}", f"{second:.2f}", f"{second / first:.2f}")
    return table(title, about, ("without the plugin", "with it", "ratio"), [row])


def table(
    title: str,
    about: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    align: str = "---:",
) -> str:
    """Return a table in Markdown."""
    line = ("---", *(align for _ in header[1:]))
    body = "\n".join("| " + " | ".join(cells) + " |" for cells in (header, line, *rows))
    return f"### {title}\n\n{about}\n\n{body}\n"


def write_page(tables: str, page: Path = PAGE) -> None:
    """Replace the tables of the page."""
    old = page.read_text(encoding="utf-8")
    between = re.compile(f"(?<={re.escape(BEGIN)}\n).*?(?={re.escape(END)})", re.DOTALL)
    page.write_text(between.sub(lambda _: f"\n{tables}\n", old), encoding="utf-8")
    draw_bench()
    sys.stdout.write(f"written to {page}\n")


if __name__ == "__main__":
    main()
