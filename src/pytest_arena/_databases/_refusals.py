"""What the guard says when it refuses. The class of an error has its code."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pytest_arena._config._supported import DRIVERS
from pytest_arena._databases._app_databases import Whose
from pytest_arena._origin import REQUEST
from pytest_arena._owner import cause_of_connection
from pytest_arena._product import NOWHERE
from pytest_arena.errors import (
    AfterSessionError,
    ArenaError,
    LateWorkError,
    ProductionDatabaseError,
    TemplateError,
    UnknownDatabaseError,
)

if TYPE_CHECKING:
    from pytest_arena._owner import Owner
    from pytest_arena._product._statements import Statement, Words


class Refusal(NamedTuple):
    """The class of an error and its text, with values in braces."""

    kind: type[ArenaError]
    what: str
    why: str
    fix: str
    is_to_allow: bool = False  # whether `arena_allow` is another next step

    def of(self, whose: Whose) -> Refusal:
        """Return it with the class of errors for a database of the app, if it is one."""
        return self._replace(kind=ProductionDatabaseError) if whose is Whose.APP else self

    def error(self, name: str, **values: str) -> ArenaError:
        """Return the error for a database of this name, and for the line that connects."""
        values["name"] = name
        fix = self.fix.format_map(values)
        # A name without its real server would allow another database.
        if self.is_to_allow and NOWHERE not in name:
            fix += f". Or, if tests may reach it:\narena_allow = {name}"
            if values.get("allowed"):
                fix += f"   (it is not in arena_allow = {values['allowed']})"
        return self.kind(
            self.what.format_map(values),
            why=self.why.format_map(values),
            cause=cause_of_connection(),
            fix=fix,
        )


# A connection that is to be opened.

AFTER_SESSION = Refusal(
    AfterSessionError,
    "refused: a connection to {name} after the test session",
    why="pytest-arena has closed the tests' databases. The connection would have reached the "
    "app's database",
    fix="delete it if it drops tables, because the test databases are gone. Else do it in a "
    "session fixture's tear-down",
)
OTHER_DATABASE_IN_BUILD = Refusal(
    TemplateError,
    "refused: the build of {built} connects to another database: {name}",
    why="it may be a real one. Each database of the app has a separate build of its template",
    fix="use the app's engine there, or arena_schema =   (a line for each, and for arena_seed)\n"
    "    {built} = module:its_function\n"
    "    {name} = module:its_function",
)
IN_FORK = Refusal(
    UnknownDatabaseError,
    "refused: a connection to {name} in a process that was forked before it existed",
    why="the fork would fill a separate database, which no test sees or restores",
    fix="start the workers in a fixture or a test, and not when a file is imported",
)
UNKNOWN_DATABASE = Refusal(
    UnknownDatabaseError,
    "refused: a connection to {name} by {driver}",
    why="it is no test database, and with arena_database = {option} pytest-arena does not redirect "
    "this product or driver. The test's changes would stay in a database that may be a real one",
    fix=f"arena_database = auto, and an engine with one of these drivers: {', '.join(DRIVERS)}",
    is_to_allow=True,
)
_DELETE = "delete what makes or drops a test database: each test has one (the app's: by hand)"
WITHOUT_ENGINE = Refusal(
    UnknownDatabaseError,
    "refused: a connection to {name} by {driver}, and not by the app's engine",
    why="no engine and no variable of arena_env names this database, so pytest-arena does not "
    "redirect a driver. Its writes would stay in a database that may be a real one",
    fix="arena_env = <the variable with its URL>   (the driver opens the test's database)\n"
    "or use the app's engine, db_session or arena.url",
    is_to_allow=True,
)
REFUSED_DRIVER = WITHOUT_ENGINE._replace(
    kind=ProductionDatabaseError,
    why="arena_drivers is refuse. The writes of this connection would stay in your database",
    fix="arena_drivers = redirect   (the driver opens the test's database)\n"
    "or use the app's engine, db_session or arena.url",
)
FOR_DATABASES = WITHOUT_ENGINE._replace(
    why="programs create and drop databases from there, and one of them may be yours",
    fix=_DELETE,
)
FILE_WITHOUT_ENGINE = Refusal(
    ProductionDatabaseError,
    "refused: a connection to {name}, a database file of the app",
    why="it does not use the app's engine, so pytest-arena cannot redirect it to the test's "
    "database. Its changes would stay in the app's data",
    fix="use the app's engine, db_session or arena.url",
    is_to_allow=True,
)
PAST_TRANSACTION = Refusal(
    UnknownDatabaseError,
    "refused: a connection to {name} that no engine opens, with rollback",
    why="it would not see the tests' one transaction, which is never committed",
    fix="use the app's engine, db_session or arena.session()\nor arena_isolation = undo",
)

# A connection that is open.

CHOSEN_BY_APP = Refusal(
    UnknownDatabaseError,
    "refused: an engine's connection to {name}, which is no test database",
    why="the engine's creator=, async_creator=, pool=, connection_factory or do_connect listener "
    "chose it, or the engine connected before pytest began. The test's changes would stay there",
    fix="give the engine a URL, or open arena.url there; or engine.dispose() before pytest begins",
    is_to_allow=True,
)
_LEAVE_OUT = (
    "send it by hand before the tests, and not while tests run\n"
    "CREATE ROLE and GRANT may also be in a migration or in arena_schema"
)


def beyond_database(meaning: Statement, words: Words) -> ProductionDatabaseError:
    """Return the error for a statement that would change another database or the server."""
    fix = _LEAVE_OUT
    if meaning.beyond.endswith(("DATABASE", "SCHEMA")):
        fix = _DELETE
    return ProductionDatabaseError(
        f"refused: {meaning.beyond or meaning.shared}, which reaches beyond the test's database",
        why="the server may have databases of yours. pytest-arena does not undo changes to them or "
        "to the server",
        cause=cause_of_connection(),
        fix=words.instead.get(meaning.beyond, fix),
    )


# Another program, or the file system.

NAMED_BY_CHILD = Refusal(
    ProductionDatabaseError,
    "refused: a process whose arguments name {name}, a database of the app or a client's path",
    why="the process would open that database itself. Its writes would stay there, and this test "
    "would not see them",
    fix="give it the test's database, by its arguments or its environment: arena.url\n"
    "or start a client, such as psql, by its name and without a URL: it uses the test's database",
    is_to_allow=True,
)
REMOVED_FILE = Refusal(
    ProductionDatabaseError,
    "refused: {action} {name}, a database file of the app that is older than the run",
    why="the test's database is in another file. This file has the app's data",
    fix="delete the line: each test starts with a fresh database",
    is_to_allow=True,
)


def late_work(owner: Owner) -> LateWorkError:
    """Return the error for work that continues after its owner is over."""
    work = f"a thread, a job or a task that {owner.name} had begun"
    fix = f"cancel it, or stop and join it, in {owner.advice}"
    if owner.is_test and REQUEST.get() is not None:
        work = "work that a request of an earlier test had begun"
        fix = "arena.settled()   in that test, before it ends (or a longer arena_settle)"
    elif owner.is_test:
        fix = f"{owner.advice}\nor begin it in the lifespan or in a session fixture"
    return LateWorkError(
        f"refused: a connection for {work}",
        why="that test is over. The write would be in the next test's database",
        cause=cause_of_connection(),
        fix=fix,
    )
