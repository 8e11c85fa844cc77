"""The texts of the gate's errors and notes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._config._supported import (
    DRIVERS,
    FILES,
    SHOWN,
    SUPPORTED,
    kind_of_error,
)
from pytest_arena._origin import REQUEST, cause_of_connection, user_line
from pytest_arena._product import NOWHERE, UNNAMED, raw_transactions
from pytest_arena.errors import (
    AfterSessionError,
    ConfigError,
    LateWorkError,
    ProductionDatabaseError,
    UnknownDatabaseError,
)

if TYPE_CHECKING:
    from pytest_arena._gate._connections import PooledConnection, Registry
    from pytest_arena._owner import Owner
    from pytest_arena._values import CodeLine
    from pytest_arena.errors import ArenaError


def explain_lock(
    registry: Registry, error: BaseException, own: PooledConnection | None
) -> None:
    """Add a note to the error of a lock timeout: the transactions that may hold the lock."""
    if kind_of_error(error) != "lock timeout":
        return
    lines = [f"the statement waited too long for a lock at {user_line()}"]
    for pooled in registry.checked_out():
        if pooled is own or pooled.handle is None or not pooled.handle.is_begun:
            continue
        holds = f"an open transaction, and was checked out at {pooled.line}"
        if pooled.pending_writes is not None:
            holds = str(pooled.pending_writes)
        lines.append(f"another connection has {holds}")
    for line in raw_transactions():
        lines.append(f"a connection without an engine is in a transaction: {line}")
    lines.append(
        "next: commit it first: session.commit(), with await if it is async   "
        "(or a longer arena_lock_timeout, if the engine sets no timeout)"
    )
    error.add_note("\n".join(lines))


def unknown_connection(
    description: str, *, driver: str = "", drivers: str = "", left_out_by: str = ""
) -> UnknownDatabaseError:
    """Return the error for a database that pytest-arena does not replace."""
    if NOWHERE in description:
        why = (
            "the environment names a database of this product, which this version cannot isolate. "
            "pytest-arena replaced its host by a host that does not exist, so that no test reaches "
            "the database"
        )
        fix = (
            f"DATABASE_URL={FILES.example_url} pytest …\n(or arena_allow = "
            "<dialect>://<host>:<port>/<name> of the real database, if tests may reach it)"
        )
    elif left_out_by:
        why = (
            f"with {left_out_by}, pytest-arena does not replace databases of this product. It may "
            "be a real database"
        )
        fix = "remove that option: pytest-arena can isolate this product"
    elif drivers:
        description += f" by {driver}"
        why = "pytest-arena does not know this driver. It may be a real database"
        fix = f"use an engine with one of these drivers: {drivers}"
    else:
        why = (
            "it is no test database, and pytest-arena cannot redirect this product or driver. The "
            "test's changes would stay in a database that may be a real one"
        )
        fix = (
            f"use an engine with a URL of {' or '.join(SHOWN)}, which pytest-arena redirects to "
            "the test's database"
        )
        # A name without its server would allow other databases too.
        if UNNAMED not in description:
            fix += f". Or, if tests may reach this one:\narena_allow = {description}"
    what = f"refused: a connection to {description}"
    return UnknownDatabaseError(what, why=why, cause=cause_of_connection(), fix=fix)


def another_product_in_build(name: str, product: str) -> UnknownDatabaseError:
    """Return the error for a builder that connects to another product than it builds."""
    shown = SUPPORTED[product].shown
    return UnknownDatabaseError(
        f"refused: a connection to {name}, because the tests' database is on {shown}",
        why="the tables would be created in that database, which may be a real one, and not in the "
        "tests' database",
        cause=cause_of_connection(),
        fix="use the app's engine there. For migrations, a function that runs them on it:\n"
        'arena_schema = <module>:<function>   (with <function>.arena_files = ["migrations"])',
    )


def lost_transaction(line: object) -> str:
    """Return the note for a wider fixture that was in a transaction when its connection ended."""
    return (
        f"a fixture keeps a transaction open during its tests ({line}). After a test that wrote, "
        "the fixture must roll back before it can use the connection again. Commit or roll back "
        "before the fixture's `yield`"
    )


def late_work(owner: Owner) -> LateWorkError:
    """Return the error for work that continues after its owner is over."""
    if not owner.is_test:
        work = f"a task, a thread or a timer that {owner.name} had started"
        fix = f"cancel it, or stop and join it, in {owner.advice}"
    elif REQUEST.get() is not None:
        work = "work that a request of an earlier test had begun"
        fix = (
            "arena.settled()   in that test, before it ends (or a longer arena_settle)"
        )
    else:
        work = "a thread, a job or a task that an earlier test had begun"
        fix = (
            f"{owner.advice}\nor begin it in the lifespan or in a session fixture, if it is a "
            "worker of all tests"
        )
    return LateWorkError(
        f"refused: a connection for {work}",
        why="that test is over. The write would be in the next test's database",
        cause=cause_of_connection(),
        fix=fix,
    )


def in_one_line(error: ArenaError) -> str:
    """Return the note for an error that the app may catch."""
    cause = error.cause.replace("\n", "; ")
    steps = [" ".join(line.split()) for line in error.fix.splitlines()]
    fix = "; ".join(steps)
    return f"{error.what}: {cause}; next: {fix}"


def commit_outside_of_levels(line: CodeLine | None) -> str:
    """Return the note for rows that neither a test nor a fixture writes."""
    return (
        f"{line or 'a line that cannot be seen'} writes rows outside of tests and fixtures. "
        "The rows stay for the whole run. Next: write them in a fixture or in arena_seed"
    )


def forked_before(name: str) -> UnknownDatabaseError:
    """Return the error for a fork that needs a database which its parent did not have."""
    return UnknownDatabaseError(
        f"refused: a connection to {name} in a process that was forked before it existed",
        why="the fork would fill a separate database, which no test sees or restores",
        cause=cause_of_connection(),
        fix="start the workers in a fixture or a test, and not when a file is imported",
    )


def after_session(name: str) -> AfterSessionError:
    """Return the error for a connection after the end of the test session."""
    return AfterSessionError(
        f"refused: a connection to {name or 'a memory database'} after the test session",
        why="pytest-arena has closed the tests' databases. The connection would have reached the "
        "app's database",
        cause=cause_of_connection(),
        fix="stop its threads and atexit handlers in a session fixture's tear-down",
    )


def error_of_child_naming(name: str) -> ProductionDatabaseError:
    """Return the error for a process whose arguments name the app's database."""
    return ProductionDatabaseError(
        f"refused: a process whose arguments name {name}, a database of the app",
        why="the process would open that database itself. Its writes would stay there, and this "
        "test would not see them",
        cause=cause_of_connection(),
        fix="give it the test's database, by its arguments or its environment: arena.url\n"
        f"or, if tests may reach this one:\narena_allow = {name}",
    )


def changed_file(file: str, action: str) -> ProductionDatabaseError:
    """Return the error for a file of the app that a test removes or renames."""
    return ProductionDatabaseError(
        f"refused: {action} {file}, a database file of the app that is older than the run",
        why="the test's database is in another file. This file has the app's data",
        cause=cause_of_connection(),
        fix="delete the line: each test starts with a fresh database. If tests may change this "
        f"file:\narena_allow = {file}",
    )


def unknown_product(tried: str, engines: str) -> ConfigError:
    """Return the error for a test whose database has no known product."""
    why = (
        f"pytest-arena isolates {', '.join(SHOWN)}, and does not guess. In a database of another "
        "product, the test would not see the app's changes"
    )
    if engines:
        return ConfigError(
            f"there is no database for this test: the app's engines are on {engines}",
            why=why,
            cause="this version of pytest-arena cannot isolate that product or driver",
            fix=f"in tests, an engine with one of these drivers: {', '.join(DRIVERS)}",
        )
    return ConfigError(
        "there is no database for this test: no engine is known",
        why=why,
        cause=tried,
        fix="import the module with the app's engine in conftest.py, or name the variable that has "
        "its URL: arena_env = DATABASE_URL",
    )
