"""What does each combination of database, isolation and driver keep? Tried out, and written down.

``python -m tests.conformance.capabilities docs/reference/capabilities.md`` runs the stories for
each row of the table, and writes the page. Costs about ten minutes.
"""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from importlib.metadata import version
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.conformance.products import lacks_of, product_of
from tests.conformance.setting import CAPABILITIES, Setting
from tests.conformance.trial import Trial
from tests.servers.beside import ServerBeside

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.conformance.verdict import Verdict

__all__ = ["PROMISES", "Row", "page", "rows", "tried"]

PROMISES = ("P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P10")

_DRIVERS = {
    "aiosqlite": "aiosqlite",
    "pysqlite": "sqlite3",
    "asyncpg": "asyncpg",
    "psycopg_async": "psycopg, async",
    "psycopg": "psycopg",
    "psycopg2": "psycopg2",
    "asyncmy": "asyncmy",
    "aiomysql": "aiomysql",
    "pymysql": "PyMySQL",
    "mysqldb": "mysqlclient",
}
_SHOWN = ("pytest", "sqlalchemy", "aiosqlite", "asyncpg", "psycopg", "psycopg2-binary")


@dataclass(frozen=True, slots=True)
class Row:
    """One row: what it is about, and the settings that are tried for it."""

    database: str
    isolation: str
    driver: str
    settings: tuple[Setting, ...]


def rows() -> list[Row]:
    """Return all rows, in the order of the page."""
    return [*_on_sqlite(), *_on_postgresql(), *_on_mysql()]


def _on_sqlite() -> Iterator[Row]:
    for journal, words in (("wal", "WAL"), ("delete", "rollback journal")):
        for engine in ("aiosqlite", "pysqlite"):
            settings = _by_runners(engine, journal=journal)
            yield Row(f"SQLite, {words}", "copy", _DRIVERS[engine], settings)
    for engine in ("aiosqlite", "pysqlite"):
        settings = _by_runners(engine, isolation="rollback")
        yield Row("SQLite, either journal", "rollback", _DRIVERS[engine], settings)


_ON_POSTGRESQL = (("undo", "all"), ("undo", "few"), ("clone", "few"), ("rollback", "few"))


def _on_postgresql() -> Iterator[Row]:
    for isolation, rights in _ON_POSTGRESQL:
        words = f"{isolation}, few rights" if (isolation, rights) == ("undo", "few") else isolation
        for engine in ("asyncpg", "psycopg_async", "psycopg", "psycopg2"):
            settings = _by_runners(
                engine, database="postgresql", isolation=isolation, rights=rights
            )
            yield Row("PostgreSQL", words, _DRIVERS[engine], settings)


def _on_mysql() -> Iterator[Row]:
    # The last one needs `pip install --group mysqlclient`.
    engines = ("asyncmy", "aiomysql", "pymysql", "mysqldb")
    for isolation in ("undo", "clone", "rollback"):
        for engine in engines:
            settings = _by_runners(engine, database="mysql", isolation=isolation)
            yield Row("MariaDB", isolation, _DRIVERS[engine], settings)


def _by_runners(engine: str, **values: Any) -> tuple[Setting, ...]:
    usual = Setting(engine=engine, **values)
    runners = ("asyncio", "anyio") if usual.is_async else ("plain", "asyncio")
    return tuple(Setting(engine=engine, runner=runner, **values) for runner in runners)


def tried(row: Row, folder: Path) -> Verdict:
    """Run the stories for a row: all of them with its first runner, what goes well with others."""
    first, *others = (
        Trial(setting, folder / str(number)) for number, setting in enumerate(row.settings)
    )
    whole = first.kept(("shuffle:1",)) + first.killed() + first.told() + first.cheap()
    return reduce(add, (one.kept(("shuffle:2",)) for one in others), whole)


def page(found: Sequence[tuple[Row, Verdict]], about: str) -> str:
    """Return the page; ``about`` says when it was tried, and on which versions."""
    names = ("database", "isolation", "drivers", "promises", *CAPABILITIES)
    lines = [_INTRODUCTION.format(about=about), _line(names), _line(["---"] * len(names))]
    lines += [_line(cells) for cells in _table(found)]
    reasons = dict.fromkeys(reason for row, _ in found for reason in _reasons(row))
    return "\n".join([*lines, "", "## Not promised, and why", "", *reasons, _PROMISES])


def _table(found: Sequence[tuple[Row, Verdict]]) -> Iterator[list[str]]:
    """Yield a line for all drivers of a database and isolation that have the same cells."""
    drivers: dict[tuple[str, ...], list[str]] = {}
    for row, verdict in found:
        drivers.setdefault((row.database, row.isolation, *_cells(row, verdict)), []).append(
            row.driver
        )
    for (database, isolation, *cells), names in drivers.items():
        yield [database, isolation, " / ".join(names), *cells]


def _cells(row: Row, verdict: Verdict) -> list[str]:
    lacks = lacks_of(row.settings[0])
    broken = [promise for promise in PROMISES if promise in verdict.promises]
    promises = f"broken: {', '.join(broken)}" if broken else "kept"
    return [promises, *("no" if name in lacks else "yes" for name in CAPABILITIES)]


def _reasons(row: Row) -> Iterator[str]:
    for name, reason in lacks_of(row.settings[0]).items():
        yield f"- {row.database}, {row.isolation}, *{name}*: {reason}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


_INTRODUCTION = """\
# Capabilities: which promises hold for which database

`make capabilities` tests the [promises](#the-promises) of pytest-arena for each combination of
database, [isolation](../glossary.md) and driver, and writes this page.

{about}

Words in the table:

- *kept*: all tests of the promises passed. They do not test capabilities with a *no*.
- *no*: pytest-arena does not promise this capability. The reason is below the table.
- *few rights*: pytest-arena's role may only create databases and set
  `session_replication_role` ([Rights](rights.md)).
- *several connections*: a test may have several transactions open at once.
- *moving time*: `now()` differs between the transactions of a test.
- *ddl*: a test may change the schema (DDL statements).
- *other processes*: another process may use the test's database by its URL.
- *writing by changes*, *reading by changes*: after a test that changed one row, pytest-arena writes
  or reads only a part of the database to restore it.
"""

_PROMISES = """
## The promises

- P1 visible: a row that a fixture, the test or a request has committed is visible to the others.
- P2 isolated: each test begins with the same rows, sequences and schema.
- P3 real: connections, commits, rollbacks and constraints are real, and the app is not patched.
  Under `rollback` a commit is a savepoint that is released.
- P4 guarded: no connection reaches the developer's database.
- P5 loop-proof: the app works in any event loop and thread, and with any client.
- P6 wide fixtures: the rows of a fixture with class, module or session scope exist until the
  fixture ends.
- P7 nothing left: no transaction stays open after a test. No test database remains after a run. If
  a run is killed, the next run removes its databases.
- P8 explained: an error says what happened, where, why, and what to do.
- P10 cheap: the time to restore a database depends on the size of the test's changes.
"""


def _about() -> str:
    day = datetime.now(tz=UTC).strftime("%-d %B %Y")
    python = ".".join(map(str, sys.version_info[:3]))
    settings = (Setting(), Setting(database="postgresql"), Setting(database="mysql"))
    servers = [product_of(setting).version(setting) for setting in settings]
    packages = [f"{name} {version(name)}" for name in _SHOWN]
    return f"Last run on {day}, with {', '.join([*servers, f'Python {python}', *packages])}."


def main(place: str) -> int:
    """Try all rows, write the page, and return how many broke a promise."""
    found: list[tuple[Row, Verdict]] = []
    server = ServerBeside()
    server.start()
    atexit.register(server.stop)
    os.environ["TESTS_POSTGRESQL"] = server.url
    with tempfile.TemporaryDirectory(prefix="arena-capabilities-") as folder:
        for number, row in enumerate(rows()):
            found.append((row, tried(row, Path(folder) / str(number))))
            sys.stdout.write(f"{row.database}: {found[-1][1]}\n")
            sys.stdout.flush()
    Path(place).write_text(page(found, _about()), encoding="utf-8")
    return sum(bool(verdict.broken) for _, verdict in found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
