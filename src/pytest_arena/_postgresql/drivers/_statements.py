"""Which connections do drivers have that were let through, and what may be sent by them?

Every statement of theirs passes here, those of engines included.
"""

from __future__ import annotations

import re
import weakref
from dataclasses import dataclass, replace
from functools import cache, lru_cache, wraps
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_arena._origin import who_connects
from pytest_arena._postgresql.drivers._test_databases import (
    is_replacement,
    made_or_dropped,
    replacement,
)
from pytest_arena.errors import ProductionDatabaseError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from pytest_arena._product import Aim, Core, Key
    from pytest_arena._values import Address

    FindCore: TypeAlias = Callable[[], Core | None]

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line


@dataclass(frozen=True, slots=True)
class Admitted:
    """Why a connection was let through: to an address of ours, or as ``arena_allow`` has it.

    ``aim`` is set where no engine has led it there, and no pool of an engine has it. Such a one
    belongs to the level in which it was opened, and ends with it: by its backend, since the client
    may be in any thread or loop.
    """

    address: Address | None = None
    aim: Aim | None = None
    serial: int = 0  # of the level in which it was opened


_opened: weakref.WeakKeyDictionary[Any, Admitted] = weakref.WeakKeyDictionary()


def note_opened(core: Core, admitted: Admitted, connection: Any) -> None:
    """Keep in mind why a connection was let through, and use its database if it is ours."""
    _opened[connection] = replace(admitted, serial=core.serial())
    if admitted.aim is not None:
        core.opened_raw(admitted.aim.key)


def admitted(driver_connection: Any) -> Admitted | None:
    """Return why this very connection was let through; None for one that was not seen."""
    try:
        return _opened.get(driver_connection)
    except TypeError:  # an object of somebody's that cannot be looked up
        return None


def pooled(driver_connection: Any) -> None:
    """An engine's pool has this connection from here on: it does not end with a level."""
    opened = _opened.get(driver_connection)
    if opened is not None:
        _opened[driver_connection] = replace(opened, aim=None)


# The driver's connections that are in pools of engines, each with the key of its database.
_idle: weakref.WeakKeyDictionary[Any, Key] = weakref.WeakKeyDictionary()
# A pool sends them to a connection before it hands it out (pool_pre_ping).
_PINGS = {"", "SELECT 1"}


def note_returned(driver_connection: Any, key: Key) -> None:
    """Note that an engine's pool has this connection back."""
    if driver_connection is not None:
        _idle[driver_connection] = key


def note_taken(driver_connection: Any) -> None:
    """Note that an engine's pool has handed out this connection."""
    if driver_connection is not None:
        _idle.pop(driver_connection, None)


def _note_kept(find_core: FindCore, driver_connection: Any, statement: str) -> None:
    """Count the database as used if the connection is in its pool.

    A suite has kept the driver's connection, or a cursor of it. No pool tells of its use, from here
    on.
    """
    key = _idle.get(driver_connection)
    if key is None or statement.strip(" ;").upper() in _PINGS:
        return
    core = find_core()
    if core is not None:
        core.opened_raw(key)


def raw_connections() -> list[tuple[int, Admitted]]:
    """Return those that are open and no pool has, each with its backend; 0: that is not known."""
    return [
        (pid_of(connection), opened)
        for reference in _opened.keyrefs()  # other threads add some and take some away
        if (connection := reference()) is not None
        and (opened := _opened.get(connection)) is not None
        and opened.aim is not None
        and not _is_closed(connection)
    ]


def _is_closed(connection: Any) -> bool:
    ask = getattr(
        connection, "is_closed", None
    )  # asyncpg's; the others have an attribute
    return bool(ask() if ask else connection.closed)


def pid_of(connection: Any) -> int:
    """Return the number of a driver's connection's backend; 0 where it is not open."""
    try:
        ask = getattr(connection, "get_server_pid", None)
        return int(ask() if ask else connection.info.backend_pid)
    except Exception:  # noqa: BLE001 - a driver's own, of one that is not open yet, or not any more
        return 0


# What reaches beyond the database that it is run in?

# Asked first, since each statement of an app's is: most hold none of these words.
_WORDS = (
    *(
        "alter",
        "drop",
        "grant",
        "revoke",
        "comment",
        "database",
        "tablespace",
        "program",
    ),
    *(
        "dblink",
        "foreign",
        "server",
        "mapping",
        "subscription",
        "pg_terminate",
        "pg_reload",
    ),
    *(
        "pg_rotate",
        "pg_promote",
        "replication_slot",
        "pg_auth",
        "pg_db_role",
        "reassign",
    ),
)
_BEYOND = re.compile(
    r"""(?ix) \b(?:
      (?:CREATE|DROP|ALTER) \s+ (?:DATABASE|TABLESPACE|SERVER|SUBSCRIPTION|USER\s+MAPPING) \b
    | (?:DROP|ALTER) \s+ (?:ROLE|USER|GROUP) \b
    | (?:DROP|REASSIGN) \s+ OWNED \b
    | ALTER \s+ SYSTEM \b
    | IMPORT \s+ FOREIGN \b
    | COMMENT \s+ ON \s+ (?:DATABASE|ROLE|TABLESPACE) \b
    | (?:GRANT|REVOKE) \b [^;]*? \b ON \s+ (?:DATABASE|TABLESPACE|PARAMETER) \b
    | (?:GRANT|REVOKE) \s+ pg_\w+ \b
    | (?:TO|FROM) \s+ PROGRAM \b
    | (?:UPDATE|DELETE\s+FROM|INSERT\s+INTO) \s+ (?:ONLY\s+)? (?:pg_catalog\s*\.\s*)?
        pg_(?:database|authid|auth_members|db_role_setting|tablespace) \b
    | dblink\w* \s* \(
    | pg_(?:reload_conf|rotate_logfile|promote|\w*replication_slot\w*) \s* \(
    )"""
)
_ENDS_OTHERS = re.compile(r"(?is)\bpg_terminate_backend\b.*\bpg_stat_activity\b")
_OWN_ONLY = re.compile(r"(?i)\bcurrent_database\s*\(")
_DO = re.compile(r"(?i)\s*DO\b")
# Remarks, and what stands in quotes: data, and names that may be any words.
_QUOTED = re.compile(
    r"""(?sx) --[^\n]* | /\*.*?\*/ | [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" """
)
_BODIES = re.compile(r"(?s)\$(\w*)\$.*?\$\1\$")


# An engine's statement is read twice, and an app has a few hundred of them. Longer ones are
# somebody's data.
_SHORT = 4096


def reaches_beyond(statement: str) -> str:
    """Return what a statement does to other databases or the whole server, "" for any other.

    Each statement of several is looked at, and the body of a ``DO``; that of a function is not,
    nor is what a statement puts together from parts. ``CREATE ROLE`` is none: apps need their
    roles, and nobody else is harmed. Costs some microseconds, once for each short statement.

    >>> reaches_beyond("SELECT 1; drop database shop")
    'DROP DATABASE'
    """
    return (_remembered if len(statement) < _SHORT else _beyond)(statement)


def _beyond(statement: str) -> str:
    lowered = statement.lower()
    if not any(word in lowered for word in _WORDS):
        return ""
    bare = _QUOTED.sub(" ''", statement)
    if _DO.match(bare) is None:
        bare = _BODIES.sub("''", bare)
    if found := _BEYOND.search(bare):
        return " ".join(found[0].upper().rstrip("(").split())
    if _ENDS_OTHERS.search(bare) and not _OWN_ONLY.search(bare):
        return "PG_TERMINATE_BACKEND of other databases' sessions"
    return ""


_remembered = lru_cache(maxsize=1024)(_beyond)

_STAYS = re.compile(
    r"""(?ix) \b(?:
      (?P<made> CREATE \s+ (?:ROLE|USER|GROUP)) \s+ (?!MAPPING\b)
    | (?P<granted> GRANT|REVOKE) \s+ (?:(?!\bON\b)[^;])+? \s (?:TO|FROM) \b
    )"""
)


def stays_on_server(statement: str) -> str:
    """Return what a statement does to roles that no isolation undoes, "" for any other.

    >>> stays_on_server("CREATE ROLE clerk")
    'CREATE ROLE'
    >>> stays_on_server("GRANT clerk TO me"), stays_on_server("GRANT SELECT ON t TO me")
    ('GRANT of a role', '')
    """
    return (_remembered_roles if len(statement) < _SHORT else _staying)(statement)


def _staying(statement: str) -> str:
    lowered = statement.lower()
    if not any(word in lowered for word in ("create", "grant", "revoke")):
        return ""
    bare = _QUOTED.sub(" ''", statement)
    if _DO.match(bare) is None:
        bare = _BODIES.sub("''", bare)
    found = _STAYS.search(bare)
    if found is None:
        return ""
    if found["made"]:
        return " ".join(found["made"].upper().split())
    return f"{found['granted'].upper()} of a role"


_remembered_roles = lru_cache(maxsize=1024)(_staying)


def _note_staying(core: Core, key: Key | None, statement: str) -> None:
    """Note a role that a test or a fixture makes or grants. A template's builder may do so."""
    does = stays_on_server(statement)
    if (
        does
        and key is not None
        and core.serial() > 0
        and core.database_at(key) is not None
    ):
        core.ledger.note(
            f"{{test}} sends {does}, which stays on the server for later tests and runs: "
            f"{who_connects()}. "
            "Next: arena_roles = <the role>   (and GRANT it in the schema)"
        )


_ANSWERED = (
    "pytest-arena did not send it: engines on any database reach the "
    "test's. Delete the fixture, and name what fills the database: arena_schema = <module>:<Base>"
)


def statement_to_send(core: Core, key: Key | None, statement: str) -> str:
    """Return the statement to send. One that makes nothing replaces a test database's set-up.

    Raises:
        ProductionDatabaseError: the statement reaches beyond its database, and is no such set-up.
    """
    beyond = reaches_beyond(statement)
    if not beyond or is_replacement(statement):
        _note_staying(core, key, statement)
        return statement
    name = made_or_dropped(statement)
    if not name or not core.sets_up(key, name):
        raise core.ledger.refused(refused_beyond(beyond))
    if not any(note.endswith(_ANSWERED) for note in core.ledger.notes):
        core.ledger.note(
            f"a fixture makes or drops a test database: {who_connects()}. {_ANSWERED}"
        )
    return replacement(statement)


def _to_send(core: FindCore, connection: Any, statement: str | bytes) -> str | bytes:
    """Return the statement that a connection into the arena may send.

    Connections that ``arena_allow`` lets through may send anything, and so may the arena's.

    Raises:
        ProductionDatabaseError: it reaches beyond the database that it is run in.
    """
    text = (
        statement if isinstance(statement, str) else statement.decode(errors="replace")
    )
    _note_kept(core, connection, text)
    if not reaches_beyond(text):
        return statement
    why = admitted(connection)
    now = core()
    if why is None or why.address is None or now is None:
        return statement
    key = why.aim.key if why.aim else None
    return statement_to_send(now, key, text)


_DEFAULT = (
    "a role's default, in this database alone:\n"
    "DO $$ BEGIN EXECUTE format('ALTER ROLE … IN DATABASE %I SET …', current_database()); END $$"
)
# What does the same, and reaches no further.
INSTEAD = {"ALTER ROLE": _DEFAULT, "ALTER USER": _DEFAULT}
_FILL = (
    "delete the fixture that makes a test database, and name what fills one:\n"
    "arena_schema = <module>:<Base>"
)
_IN_SCHEMA = (
    "send it in a migration or in arena_schema, for the database that it runs in:\n"
    "DO $$ BEGIN EXECUTE format('… DATABASE %I …', current_database()); END $$"
)
_EACH_OBJECT = (
    "name each object of the test's database: ALTER TABLE … OWNER TO …, DROP TABLE …"
)
_OWN_SESSIONS = (
    "end sessions of the test's database: WHERE datname = current_database()"
)
_ANOTHER_ENGINE = (
    "read the other database through an engine: each test has a database for it"
)
_LEAVE_OUT = "send it by hand, before the tests; leave it out while tests run"
_NEXT_STEPS = {
    "(CREATE|DROP) DATABASE": _FILL,
    ".* DATABASE": _IN_SCHEMA,
    ".* OWNED": _EACH_OBJECT,
    "PG_TERMINATE_BACKEND .*": _OWN_SESSIONS,
    "DBLINK.*": _ANOTHER_ENGINE,
}


def _next_step(statement: str) -> str:
    """Return what to do instead of a statement that reaches beyond its database."""
    if statement in INSTEAD:
        return INSTEAD[statement]
    for pattern, step in _NEXT_STEPS.items():
        if re.fullmatch(pattern, statement):
            return step
    return _LEAVE_OUT


def refused_beyond(statement: str) -> ProductionDatabaseError:
    """A statement that would touch another database of the server, or all of it."""
    return ProductionDatabaseError(
        f"refused: {statement}, which reaches beyond the test's database",
        why="the server may have databases of yours; what is done to them, and to the server, is "
        "not taken back after the test",
        cause=who_connects(),
        fix=_next_step(statement),
    )


def replace_function(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Put what ``make`` returns in the place of a function of a driver's, once and for all.

    ``owner`` is a module or a class, which may have it from one that it is made from.

    Raises:
        KeyError: this version of the driver has no such function.
    """
    owner = next(
        (kind for kind in getattr(owner, "__mro__", ()) if name in vars(kind)), owner
    )
    original = vars(owner)[name]
    function = getattr(original, "__func__", original)
    if not hasattr(function, "arena_guards"):
        guarded: Any = wraps(function)(make(function))
        guarded.arena_guards = True
        setattr(
            owner, name, classmethod(guarded) if function is not original else guarded
        )


def _guard_asyncpg(core: FindCore, module: ModuleType) -> None:
    def make(original: Any) -> Any:
        async def ask_first(
            connection: Any, query: str, *args: Any, **kwargs: Any
        ) -> Any:
            sent = _to_send(core, connection, query)
            return await original(connection, sent, *args, **kwargs)

        return ask_first

    # Without parameters; all others, prepared ones, cursors; and COPY, out of a query and in.
    for name in ("execute", "_get_statement", "_copy_out", "_copy_in"):
        replace_function(module.Connection, name, make)


def _guard_psycopg(core: FindCore, module: ModuleType) -> None:
    def make(original: Any) -> Any:
        def _convert_query(cursor: Any, *args: Any, **kwargs: Any) -> Any:
            converted = original(cursor, *args, **kwargs)
            sent = _to_send(core, cursor._conn, converted.query)  # noqa: SLF001 - `connection` is the same, slower
            return converted if sent is converted.query else original(cursor, sent)

        return _convert_query

    # Of all cursors, sync, async and on the server, and of COPY: they have nothing else in common.
    replace_function(module.Cursor, "_convert_query", make)


def guard_cursors(core: FindCore, extensions: Any, connection: Any) -> None:
    """Have a connection of psycopg2's make cursors that ask first.

    Its own class of cursors is C's and cannot be changed. A connection whose class makes its
    cursors its own way is left alone.
    """
    kind = connection.cursor_factory or extensions.cursor
    has_own_way = type(connection).cursor is not extensions.connection.cursor
    if isinstance(kind, type) and not (
        has_own_way and connection.cursor_factory is None
    ):
        connection.cursor_factory = _asking_cursor(core, kind)


# The methods of psycopg2's cursors that send something, and what they call it.
_PSYCOPG2 = {
    "execute": "query",
    "executemany": "query",
    "copy_expert": "sql",
    "callproc": "procname",
}


@cache
def _asking_cursor(core: FindCore, kind: Any) -> Any:
    """A class made from whichever the app has chosen."""

    def make(name: str, parameter: str) -> Any:
        def ask_first(self: Any, *args: Any, **kwargs: Any) -> Any:
            sent = args[0] if args else kwargs.get(parameter, "")
            if name == "callproc":
                sent = f"{sent}("
            elif not isinstance(sent, str | bytes):
                # Of psycopg2.sql: it is put together by the connection's own rules.
                sent = sent.as_string(self)
            to_send = _to_send(core, self.connection, sent)
            if to_send is not sent:
                return super(asking, self).execute(to_send)
            return getattr(super(asking, self), name)(*args, **kwargs)

        return ask_first

    methods = {name: make(name, parameter) for name, parameter in _PSYCOPG2.items()}
    asking: Any = type(
        kind.__name__, (kind,), {**methods, "__qualname__": kind.__qualname__}
    )
    return asking


SEAMS = {"asyncpg.connection": _guard_asyncpg, "psycopg.cursor": _guard_psycopg}
