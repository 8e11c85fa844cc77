"""Records the drivers' connections, and checks their statements."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from dataclasses import replace
from functools import cache, lru_cache, partial, wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pytest_arena._origin import cause_of_connection, user_line
from pytest_arena._postgresql.drivers._interrupts import cancelling
from pytest_arena._postgresql.drivers._session_state import (
    NAMES,
    alters_session,
    found_reader,
    reads_setting,
)
from pytest_arena._postgresql.drivers._test_databases import (
    created_or_dropped_database,
    is_replacement,
    replacement,
)
from pytest_arena._product import RawWrites
from pytest_arena._product._raw_connections import ConnectionRecord, ConnectionRecords
from pytest_arena._values import QUOTED, without_comments
from pytest_arena._values import STATEMENT_START as START
from pytest_arena.errors import ArenaError, ProductionDatabaseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from pytest_arena._product import ConnectTarget, Core, Key
    from pytest_arena._product._admission import Admission, FindCore

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line

_Result = TypeVar("_Result")


class DriverConnection(ConnectionRecord):
    """The facts about a connection of a driver."""

    def __init__(self) -> None:
        super().__init__()
        self.names_settings = False  # the session may know custom settings by name
        # Only for a connection that no engine has opened:
        self.is_ended = False  # pytest-arena has ended it
        self.is_pooled = False  # a pool of its driver has opened it
        self.has_temporary = False  # the session may have a temporary table

    def end(self) -> None:
        """Note that pytest-arena has ended the connection, so that no level ends it again."""
        self.is_ended = True
        self.join_pool()

    def note_session(self, statement: str) -> None:
        """Note how a statement changes the session, also for a connection of an engine's pool."""
        effects = session_effects(statement)
        self.session_changes += effects.alters
        self.names_settings |= effects.names
        if effects.alters:
            self.has_temporary |= "TEMP" in statement.upper()
        if effects.reads:
            found_reader.set()

    def note_change(self) -> None:
        """Note that a codec or a listener of asyncpg is set or reset."""
        self.session_changes += 1

    def note_setting_name(self) -> None:
        """Note that a statement sets a custom setting. The session keeps the name until it ends."""
        self.names_settings = True

    def join_drivers_pool(self) -> None:
        """Note that a pool of the driver has opened the connection, and can replace it."""
        self.is_pooled = True

    def begin(self) -> None:
        """Note that the next statement begins a transaction."""
        self.writes = RawWrites()

    def note_text(self, core: Core | None, driver: object, statement: str) -> None:
        """Note a statement if no engine has opened the connection."""
        if self.admission is None or self.admission.target is None:
            return
        serial = core.serial() if core is not None else 0
        if not is_in_transaction(driver):
            self.begin()
        self.writes.note(statement, serial)
        if statement.startswith(_RESET) and "RESET ALL" in statement:
            # asyncpg's pool resets the session. Temporary tables stay.
            if not self.has_temporary:
                self.altered.pop(serial, None)
            return
        if session_effects(statement).alters:
            self.altered[serial] = user_line()

    def forget_changes(self, serial: int) -> None:
        """Note that the session is as it was before a level."""
        super().forget_changes(serial)
        self.has_temporary = False


class _SessionEffects(NamedTuple):
    alters: bool
    names: bool  # sets a custom setting
    reads: bool  # reads a custom setting without nullif
    reads_sequence: bool  # may return a value of a sequence


# Longer statements contain data.
_SHORT = 4096


def _cached_if_short(function: Callable[[str], _Result]) -> Callable[[str], _Result]:
    """Cache the results for short statements, of which an app has a few hundred."""
    cached = lru_cache(maxsize=1024)(function)

    @wraps(function)
    def call(statement: str) -> _Result:
        if len(statement) < _SHORT:
            return cached(statement)
        return function(statement)

    return call


@_cached_if_short
def session_effects(statement: str) -> _SessionEffects:
    """Return how a statement changes its session."""
    bare = without_comments(statement)
    return _SessionEffects(
        alters=alters_session(bare),
        names=NAMES.search(bare) is not None,
        reads=reads_setting(bare),
        reads_sequence=not _READS_NO_SEQUENCE.match(bare),
    )


# Statements that cannot return a value of a sequence. pytest-arena sends no statement before them:
# SET TRANSACTION must be the first in its transaction, and LOCK must precede the snapshot.
_READS_NO_SEQUENCE = re.compile(
    START + r"(?:SET\b|(?:SELECT|SHOW|LOCK)\b[^(]*\Z)", re.IGNORECASE
)


def _is_closed(connection: Any) -> bool:
    if hasattr(connection, "is_closed"):  # asyncpg
        return bool(connection.is_closed())
    return bool(connection.closed)


RECORDS = ConnectionRecords(DriverConnection, _is_closed)
_connections = RECORDS.by_connection
record_of = RECORDS.of


def record_opened(
    core: Core, admission: Admission, connection: object, *, pool_serial: int
) -> None:
    """Record an admitted connection. Count a test's database as used.

    ``pool_serial`` is the serial of the level that opened the connection's pool, 0 without a pool.
    A connection of a wider fixture's pool stays open as long as the pool.
    """
    serial = pool_serial if pool_serial < 0 else core.serial()
    record = record_of(connection)
    record.admit(replace(admission, serial=serial))
    if admission.target is not None:
        _keep_until_end(record, connection)
        core.opened_raw(admission.target.key)


# By protocol, the records of asyncpg's connections that no engine has opened.
_by_protocol: dict[object, DriverConnection] = {}


def _keep_until_end(record: DriverConnection, connection: Any) -> None:
    """Keep a record until its connection ends.

    The garbage collector clears weak references to a cycle before it calls ``__del__``.
    """
    protocol = getattr(connection, "_protocol", None)  # asyncpg's class has slots
    if protocol is not None:
        _by_protocol[protocol] = record
    else:
        with suppress(AttributeError):  # a class of the app that has slots
            connection.arena_record = record


# A pool sends one of these statements at a checkout (pool_pre_ping).
_PINGS = {"", "SELECT 1"}


def _note_kept(core: Core | None, key: Key, statement: str) -> None:
    """Count the database as used if an idle connection of a pool sends a statement.

    The suite has kept the driver's connection or a cursor, and uses it without a checkout.
    """
    if core is not None and statement.strip(" ;").upper() not in _PINGS:
        core.opened_raw(key)


def pid_of(connection: Any) -> int:
    """Return the pid of a driver connection's backend, 0 if the connection is not open."""
    try:
        if hasattr(connection, "get_server_pid"):  # asyncpg
            return int(connection.get_server_pid())
        return int(connection.info.backend_pid)
    except Exception:  # noqa: BLE001 - each driver has its exceptions for a closed connection
        return 0


_IDLE = 0  # libpq's PQTRANS_IDLE: no transaction is open


def is_in_transaction(connection: Any) -> bool:
    """Return whether a driver's connection has a transaction open, by what the driver knows."""
    if hasattr(connection, "is_in_transaction"):  # asyncpg
        return not connection.is_closed() and bool(connection.is_in_transaction())
    if getattr(connection, "closed", False):
        return False
    info = getattr(connection, "info", None)  # psycopg, psycopg2
    return bool(getattr(info, "transaction_status", _IDLE) != _IDLE)


def has_written(target: ConnectTarget, connection: object) -> bool:
    """Ask the server whether the open transaction of a connection has written."""
    database = target.database
    if database is None or database.isolation is None:
        return False
    if not is_in_transaction(connection):
        return False
    # A `ServerIsolation`, whose module imports this package.
    isolation: Any = database.isolation
    with suppress(ArenaError):  # `leave` reports a server that does not answer
        return pid_of(connection) in isolation.writers()
    return False


# Statements that reach beyond their database

# Most statements have none of these words, and need no regular expression.
_WORDS = [
    "alter",
    "drop",
    "grant",
    "revoke",
    "comment",
    "database",
    "tablespace",
    "program",
    "dblink",
    "foreign",
    "server",
    "mapping",
    "subscription",
    "pg_terminate",
    "pg_cancel",
    "pg_reload",
    "pg_rotate",
    "pg_promote",
    "replication_slot",
    "replication_origin",
    "pg_auth",
    "pg_db_role",
    "reassign",
]
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
    | dblink (?:_exec|_connect(?:_u)?|_open|_fetch|_send_query|_get_result)? \s* \(
    | pg_(?:reload_conf|rotate_logfile|promote|\w*replication_slot\w*) \s* \(
    | pg_replication_origin_(?:create|drop|advance) \s* \(
    )"""
)
_ENDS_SESSIONS_OF_OTHERS = re.compile(
    r"(?is)\b(?P<function>pg_(?:terminate|cancel)_backend)\b.*\bpg_stat_activity\b"
)
_ENDS_OWN_SESSIONS = re.compile(
    r"(?i)\bcurrent_database\s*\(|\bpid\s*=\s*pg_backend_pid\s*\("
)
_QUOTED = re.compile(QUOTED, re.DOTALL)
# The words between the semicolon before a DO and the text of its block.
_DO = re.compile(r"(?i)\s*DO(?:\s+LANGUAGE\s+\S+)?\s*(?:U&)?")
_DO_TEXT = re.compile(
    r"(?s)[eE]?'(?P<text>.*)'|\$(?P<tag>\w*)\$(?P<body>.*)\$(?P=tag)\$"
)
# The words before a text that a DO block sends as a statement.
_EXECUTE = re.compile(r"(?i)\bEXECUTE\s*\(?\s*(?:format\s*\(\s*)?$")
_EXECUTE_LENGTH = 40
# A place that format() fills, such as the name of the test's database.
_HAS_PARTS = re.compile(r"%(?:\d+\$)?-?\d*[Is]")
_CONTINUES = re.compile(r"\s*\|\|")
# Quoted names of functions and tables that `_BEYOND` may match.
_SERVER_NAME = re.compile(r'"(?:pg_|dblink)\w*"')


# A text or name with escapes: U&"…", U&'…', E'…'.
_ESCAPED = re.compile(
    r"""(?isx) \bU&(?P<unicode>"(?:[^"]|"")*+"|'(?:[^']|'')*+')
        (?:\s*UESCAPE\s*'(?P<mark>.)')?
    | \bE(?P<text>'(?:[^'\\]|\\.|'')*+')"""
)
_ESCAPES = re.compile(
    r"(?s)\\(?:x(?P<hex>[\da-fA-F]{1,2})|u(?P<short>[\da-fA-F]{4})|U(?P<long>[\da-fA-F]{8})"
    r"|(?P<octal>[0-7]{1,3})|(?P<other>.))"
)


def _unescaped(statement: str) -> str:
    """Return a statement with its escapes in texts and names decoded."""
    lowered = statement.lower()
    if "u&" in lowered or ("\\" in lowered and "e'" in lowered):
        return _ESCAPED.sub(_plain, statement)
    return statement


def _plain(escaped: re.Match[str]) -> str:
    if escaped["text"] is None:
        mark = re.escape(escaped["mark"] or "\\")
        code = rf"{mark}(?:([\da-fA-F]{{4}})|\+([\da-fA-F]{{6}}))"
        return re.sub(code, _character, escaped["unicode"])
    return _ESCAPES.sub(_character, escaped["text"])


def _character(code: re.Match[str]) -> str:
    """Return the character of an escape. A quote is doubled, as SQL requires."""
    codes = code.groupdict()
    character = codes.get("other")
    if not character:
        base = 8 if codes.get("octal") else 16
        number = int(next(filter(None, code.groups())), base)
        character = chr(min(number, sys.maxunicode))
    return character * 2 if character in {"'", '"'} else character


@_cached_if_short
def reaches_beyond(statement: str) -> str:
    """Return what a statement does to other databases or the whole server, "" for nothing.

    It reads each of several statements, the body of a ``DO``, and whole texts that the body
    executes. It does not read bodies of functions, nor SQL that is built from parts. It allows
    ``CREATE ROLE``, because apps need their roles. A short statement costs some microseconds once.

    >>> reaches_beyond("SELECT 1; drop database shop")
    'DROP DATABASE'
    """
    statement = _unescaped(statement)
    lowered = statement.lower()
    if not any(word in lowered for word in _WORDS):
        return ""
    bare = _bare(statement)
    beyond = _BEYOND.search(bare)
    if beyond is not None:
        return " ".join(beyond[0].upper().rstrip("(").split())
    ends = _ENDS_SESSIONS_OF_OTHERS.search(bare)
    if ends is not None and not _ENDS_OWN_SESSIONS.search(bare):
        return f"{ends['function'].upper()} of other databases' sessions"
    return ""


def _bare(statement: str) -> str:
    """Return a statement without comments and quoted text. The text of a DO block is kept."""
    return _QUOTED.sub(_without_quoted, without_comments(statement))


def _without_quoted(quoted: re.Match[str]) -> str:
    text = quoted[0]
    if _SERVER_NAME.fullmatch(text):
        return text[1:-1]
    block = _DO_TEXT.fullmatch(text)
    if block is None or not (_is_do_block(quoted) or _is_executed(quoted)):
        return " ''"
    body = block["body"]
    if body is None:
        body = block["text"].replace("''", "'")
    return f" {_bare(body)} "


def _is_do_block(quoted: re.Match[str]) -> bool:
    start = quoted.string.rfind(";", 0, quoted.start()) + 1
    return _DO.fullmatch(quoted.string, start, quoted.start()) is not None


def _is_executed(quoted: re.Match[str]) -> bool:
    """Return whether a DO block executes a text that is a whole statement."""
    start = max(0, quoted.start() - _EXECUTE_LENGTH)
    if not _EXECUTE.search(quoted.string[start : quoted.start()]):
        return False
    if _CONTINUES.match(quoted.string, quoted.end()):
        return False
    return not _HAS_PARTS.search(quoted[0])


_ROLE_CHANGE = re.compile(
    r"""(?ix) \b(?:
      (?P<made> CREATE \s+ (?:ROLE|USER|GROUP)) \s+ (?!MAPPING\b)
    | (?P<granted> GRANT|REVOKE) \s+ (?:(?!\bON\b)[^;])+? \s (?:TO|FROM) \b
    )"""
)


@_cached_if_short
def role_change(statement: str) -> str:
    """Return how a statement changes roles, which no isolation undoes. "" if it does not.

    >>> role_change("CREATE ROLE clerk")
    'CREATE ROLE'
    >>> role_change("GRANT clerk TO me"), role_change("GRANT SELECT ON t TO me")
    ('GRANT of a role', '')
    """
    lowered = statement.lower()
    if not any(word in lowered for word in ("create", "grant", "revoke")):
        return ""
    match = _ROLE_CHANGE.search(_bare(statement))
    if match is None:
        return ""
    if match["made"]:
        return " ".join(match["made"].upper().split())
    return f"{match['granted'].upper()} of a role"


def _note_role_change(core: Core, target: ConnectTarget | None, statement: str) -> None:
    """Note that a test or a fixture creates or grants a role. A template's builder may do so."""
    does = role_change(statement)
    if not does or core.serial() == 0:
        return
    if target is None or target.database is None:
        return
    core.ledger.note(
        f"{{test}} sends {does}, which stays on the server for later tests and runs: "
        f"{cause_of_connection()}. "
        "Next: arena_roles = <the role>   (and GRANT it in the schema)"
    )


_REPLACED = (
    "pytest-arena did not send the statement, because an engine on any database reaches the test's "
    "database. Delete the fixture, and name the source of the tables by"
)


def statement_to_send(core: Core, target: ConnectTarget | None, statement: str) -> str:
    """Return the statement to send. Replace a fixture's statement that sets up a test database.

    Raises:
        ProductionDatabaseError: the statement reaches beyond its database for another purpose.
    """
    beyond = reaches_beyond(statement)
    if not beyond or is_replacement(statement):
        _note_role_change(core, target, statement)
        return statement
    name = created_or_dropped_database(statement)
    key = target.key if target else None
    if not name or not core.accept_fixture_database(key, name):
        raise core.ledger.refused(refused_beyond(beyond))
    if not any(_REPLACED in note for note in core.ledger.notes):
        core.ledger.note(
            f"a fixture creates or drops a test database: {cause_of_connection()}. {_REPLACED} "
            f"a line `{name} = <module>:<Base>` in arena_schema"
        )
    return replacement(statement)


def _checked(core: FindCore, connection: object, statement: str | bytes) -> str | bytes:
    """Check a statement of a connection to a test's database. Return the statement to send.

    pytest-arena's connections, and those that ``arena_allow`` admits, may send any statement.

    Raises:
        ProductionDatabaseError: the statement reaches beyond its database.
    """
    text = statement
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    known = _connections.get(connection)
    if known is None:
        return statement
    known.note_session(text)
    if known.idle_key is not None:
        _note_kept(core(), known.idle_key, text)
    admission = known.admission
    if admission is not None and admission.target is not None:
        known.note_text(core(), connection, text)
    if not reaches_beyond(text):
        return statement
    now = core()
    if admission is None or admission.address is None or now is None:
        return statement
    return statement_to_send(now, admission.target, text)


def _note_rows(connection: object, rows: int) -> None:
    """Note how many rows the last statement of a connection has changed."""
    known = _connections.get(connection)
    if known is not None:
        known.writes.ran(rows)


# Drivers and pools send these statements after pytest-arena has refused work.
_RESET = "SELECT pg_advisory_unlock_all()"

_DEFAULT = (
    "set the role's default in this database alone:\n"
    "DO $$ BEGIN EXECUTE format('ALTER ROLE … IN DATABASE %I SET …', current_database()); END $$"
)
# For a refused statement, what to send instead.
INSTEAD = {"ALTER ROLE": _DEFAULT, "ALTER USER": _DEFAULT}
_FILL = (
    "delete the fixture that creates a test database, and name the source of its tables:\n"
    "arena_schema =\n"
    "    <name of the database> = <module>:<Base>"
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
_LEAVE_OUT = "send it by hand before the tests, and not while tests run"
_NEXT_STEPS = {
    "(CREATE|DROP) DATABASE": _FILL,
    ".* DATABASE": _IN_SCHEMA,
    ".* OWNED": _EACH_OBJECT,
    "PG_(TERMINATE|CANCEL)_BACKEND .*": _OWN_SESSIONS,
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
    """Return the error for a statement that would change another database or the server."""
    return ProductionDatabaseError(
        f"refused: {statement}, which reaches beyond the test's database",
        why="the server may have databases of yours. pytest-arena does not undo changes to them "
        "or to the server",
        cause=cause_of_connection(),
        fix=_next_step(statement),
    )


def replace_function(
    owner: object,
    name: str,
    make: Callable[[Callable[..., Any]], Callable[..., object]],
) -> None:
    """Replace a driver's function, once, by the function that ``make`` returns.

    ``owner`` is a module, or a class that may inherit the function.

    Raises:
        KeyError: this version of the driver has no such function.
    """
    for kind in getattr(owner, "__mro__", ()):
        if name in vars(kind):
            owner = kind
            break
    original = vars(owner)[name]
    is_classmethod = isinstance(original, classmethod)
    function = original.__func__ if is_classmethod else original
    if hasattr(function, "arena_guards"):
        return
    guarded: Any = wraps(function)(make(function))
    guarded.arena_guards = True
    setattr(owner, name, classmethod(guarded) if is_classmethod else guarded)


def _guard_asyncpg(core: FindCore, module: ModuleType) -> None:
    def make(original: Callable[..., Any]) -> Callable[..., object]:
        async def send_checked(
            connection: object, query: str, *args: object, **kwargs: object
        ) -> object:
            sent = _checked(core, connection, query)
            answer = await original(connection, sent, *args, **kwargs)
            if isinstance(answer, str) and answer.endswith(" 0"):  # as "UPDATE 0"
                _note_rows(connection, 0)
            return answer

        return send_checked

    def note_copy(original: Callable[..., Any]) -> Callable[..., object]:
        async def copy_records_to_table(
            connection: object, table_name: str, **kwargs: object
        ) -> object:
            schema = kwargs.get("schema_name")
            table = f"{schema}.{table_name}" if schema else table_name
            _checked(core, connection, f"COPY {table} FROM STDIN")
            answer = await original(connection, table_name, **kwargs)
            if answer == "COPY 0":
                _note_rows(connection, 0)
            return answer

        return copy_records_to_table

    # These four methods send statements without parameters, other statements, and COPY.
    for name in ("execute", "_get_statement", "_copy_out", "_copy_in"):
        replace_function(module.Connection, name, make)
    # asyncpg builds this method's statement from its arguments.
    replace_function(module.Connection, "copy_records_to_table", note_copy)
    replace_function(module.Connection, "close", partial(_noting_lost_writes, core))
    replace_function(module.Connection, "terminate", partial(_noting_lost_writes, core))
    collected = partial(_noting_lost_writes, core, is_collected=True)
    replace_function(module.Connection, "__del__", collected)
    replace_function(module.Connection, "_cleanup", _forgetting_record)
    for name in _OF_CONNECTION:
        replace_function(module.Connection, name, _noting_change)


# No simple attribute of a connection shows the effect of these methods of asyncpg.
_OF_CONNECTION = (
    "set_type_codec",
    "reset_type_codec",
    "set_builtin_type_codec",
    "add_listener",
)


def _noting_change(original: Callable[..., Any]) -> Callable[..., object]:
    """Return a method that notes that it changes the connection."""

    async def change(connection: object, *args: object, **kwargs: object) -> object:
        record_of(connection).note_change()
        return await original(connection, *args, **kwargs)

    return change


def _guard_asyncpg_pools(core: FindCore, module: ModuleType) -> None:
    make = partial(_noting_lost_writes, core, find=lambda holder, *_, **__: holder._con)  # noqa: SLF001 - it has no public name
    replace_function(module.PoolConnectionHolder, "release", make)


def _forgetting_record(original: Callable[[Any], object]) -> Callable[..., object]:
    """Return asyncpg's method for the end of a connection. It also discards the record."""

    def _cleanup(connection: Any) -> object:
        _by_protocol.pop(connection._protocol, None)  # noqa: SLF001 - see `_keep_until_end`
        return original(connection)

    return _cleanup


def _noting_lost_writes(
    core: FindCore,
    original: Callable[..., Any],
    *,
    find: Callable[..., object] = lambda connection, *_, **__: connection,
    is_collected: bool = False,
) -> Callable[..., object]:
    """Return a method that ends a connection, and first notes the writes that are lost.

    ``find`` returns the connection from the arguments of the method.
    """

    def end(*args: object, **kwargs: object) -> object:
        give_up(core, find(*args, **kwargs), is_collected=is_collected)
        return original(*args, **kwargs)

    return end


def give_up(core: FindCore, connection: object, *, is_collected: bool = False) -> None:
    """Note the writes of an open transaction whose connection is about to end.

    pytest-arena asks the server whether the transaction has written. The garbage collector may run
    while pytest-arena waits for the server. Then only the statements count.
    """
    # The garbage collector may have found the connection.
    known = (
        _connections.get(connection)
        or getattr(connection, "arena_record", None)
        or _by_protocol.get(getattr(connection, "_protocol", None))
    )
    if known is None or known.admission is None or not known.writes.statements:
        return
    target = known.admission.target
    now = core()
    if target is None or now is None or not is_in_transaction(connection):
        return
    writes = known.writes
    known.begin()
    if is_collected or has_written(target, connection):
        now.lost_raw(writes, is_collected=is_collected)


def _guard_psycopg(core: FindCore, module: ModuleType) -> None:
    def make(original: Any) -> Any:
        def _convert_query(cursor: Any, *args: object, **kwargs: object) -> Any:
            converted = original(cursor, *args, **kwargs)
            sent = _checked(core, cursor._conn, converted.query)  # noqa: SLF001 - `connection` is the same, slower
            if sent is converted.query:
                return converted
            return original(cursor, sent)

        return _convert_query

    def count(original: Any) -> Any:
        def _set_results(cursor: Any, results: Any) -> None:
            original(cursor, results)
            if cursor._execmany_returning is None:  # noqa: SLF001 - otherwise these are not all rows
                _note_rows(cursor._conn, cursor.rowcount)  # noqa: SLF001 - `connection` is slower

        return _set_results

    # All cursors and COPY call these methods, sync and async.
    replace_function(module.Cursor, "_convert_query", make)
    replace_function(module.Cursor, "_set_results", count)


def _guard_psycopg_ends(core: FindCore, module: ModuleType, *, kind: str) -> None:
    """Note the end of each connection, and the start of each transaction."""

    def make(original: Callable[..., Any]) -> Callable[..., object]:
        def _start_query(connection: Any) -> object:
            known = _connections.get(connection)
            if known is not None and not is_in_transaction(connection):
                known.begin()
            return original(connection)

        return _start_query

    owner = vars(module)[kind]
    # `_start_query` begins a transaction, before psycopg calls `_convert_query`.
    replace_function(owner, "_start_query", make)
    replace_function(owner, "close", partial(_noting_lost_writes, core))
    replace_function(
        owner, "__del__", partial(_noting_lost_writes, core, is_collected=True)
    )


def _guard_psycopg_savepoints(core: FindCore, module: ModuleType) -> None:
    """Note the savepoints of ``connection.transaction()``, which no cursor sets."""

    def make(original: Callable[..., Any]) -> Callable[..., object]:
        def commands(transaction: Any) -> Iterator[bytes]:
            for command in original(transaction):
                known = _connections.get(transaction.connection)
                if known is not None:
                    known.note_text(core(), transaction.connection, command.decode())
                yield command

        return commands

    for name in ("_get_enter_commands", "_get_rollback_commands"):
        replace_function(module.BaseTransaction, name, make)


def _guard_psycopg_pools(core: FindCore, module: ModuleType, *, kind: str) -> None:
    def skip(original: Callable[..., Any]) -> Callable[..., object]:
        def _getconn_unchecked(pool: Any, timeout: float) -> Any:
            connection = original(pool, timeout)
            while _is_ended(connection):
                connection.pgconn.finish()  # the pool then opens another one
                pool._putconn(connection, from_getconn=True)  # noqa: SLF001 - `putconn` counts it as used
                connection = original(pool, timeout)
            return connection

        async def _agetconn_unchecked(pool: Any, patience: float) -> Any:
            connection = await original(pool, patience)
            while _is_ended(connection) and not _has_lost_its_loop(pool):
                connection.pgconn.finish()
                await pool._putconn(connection, from_getconn=True)  # noqa: SLF001 - `putconn` counts it as used
                connection = await original(pool, patience)
            return connection

        is_async = iscoroutinefunction(original)
        return _agetconn_unchecked if is_async else _getconn_unchecked

    owner = vars(module)[kind]
    make = partial(_noting_lost_writes, core, find=lambda _pool, conn: conn)
    replace_function(owner, "putconn", make)
    replace_function(owner, "_getconn_unchecked", skip)


def _is_ended(connection: object) -> bool:
    """Return whether pytest-arena has ended a connection that its pool still has.

    A pool's task may open a connection while pytest-arena replaces the database, which ends it.
    """
    known = _connections.get(connection)
    return known is not None and (known.is_ended or known.is_stale)


def _has_lost_its_loop(pool: Any) -> bool:
    """Return whether the tasks that open the connections of an async pool have ended."""
    workers = pool._workers  # noqa: SLF001 - it has no public name
    return all(worker.done() for worker in workers)


@cache
def watching_class(core: FindCore, kind: Any) -> Any:
    """Return a subclass of a connection class of psycopg2, which is written in C."""

    def close(self: Any) -> None:
        give_up(core, self)
        kind.close(self)

    def rollback(self: Any) -> None:
        # A pool rolls back what its user has not committed.
        if sys._getframe(1).f_globals.get("__name__") == "psycopg2.pool":  # noqa: SLF001 - the documented way
            give_up(core, self)
        kind.rollback(self)

    def delete(self: Any) -> None:
        give_up(core, self, is_collected=True)

    methods = {
        "cancel": cancelling(kind.cancel),
        "close": close,
        "rollback": rollback,
        "__del__": delete,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
    }
    return type(kind.__name__, (kind,), methods)


def guard_cursors(core: FindCore, extensions: Any, connection: Any) -> None:
    """Make a psycopg2 connection create cursors that check their statements.

    psycopg2's cursor class is written in C and cannot be changed. A connection whose class defines
    a ``cursor`` method stays as it is.
    """
    factory = connection.cursor_factory
    if factory is None:
        if type(connection).cursor is not extensions.connection.cursor:
            return
        factory = extensions.cursor
    if isinstance(factory, type):
        connection.cursor_factory = _checking_cursor(core, factory)


# The methods of psycopg2's cursors that send a statement, and the names of its argument.
_PSYCOPG2 = {
    "execute": "query",
    "executemany": "query",
    "copy_expert": "sql",
    "callproc": "procname",
}


@cache
def _checking_cursor(core: FindCore, kind: Any) -> Any:
    """Return a subclass of the app's cursor class."""

    def make(name: str, parameter: str) -> object:
        def send_checked(self: Any, *args: Any, **kwargs: Any) -> object:
            sent = args[0] if args else kwargs.get(parameter, "")
            if name == "callproc":
                sent = f"{sent}("
            elif not isinstance(sent, str | bytes):
                # A statement that psycopg2.sql has composed.
                sent = sent.as_string(self)
            to_send = _checked(core, self.connection, sent)
            if to_send is not sent:
                return super(asking, self).execute(to_send)
            answer = getattr(super(asking, self), name)(*args, **kwargs)
            if name == "execute":
                _note_rows(self.connection, self.rowcount)
            return answer

        return send_checked

    def copy_from(
        self: Any, file: object, table: str, *args: object, **kwargs: object
    ) -> object:
        _checked(core, self.connection, f"COPY {table} FROM STDIN")
        return super(asking, self).copy_from(file, table, *args, **kwargs)

    methods = {name: make(name, parameter) for name, parameter in _PSYCOPG2.items()}
    members = {**methods, "copy_from": copy_from, "__qualname__": kind.__qualname__}
    asking: Any = type(kind.__name__, (kind,), members)
    return asking


SEAMS: dict[str, Callable[[FindCore, Any], None]] = {
    "asyncpg.connection": _guard_asyncpg,
    "asyncpg.pool": _guard_asyncpg_pools,
    "psycopg.cursor": _guard_psycopg,
    "psycopg.transaction": _guard_psycopg_savepoints,
    "psycopg.connection": partial(_guard_psycopg_ends, kind="Connection"),
    "psycopg.connection_async": partial(_guard_psycopg_ends, kind="AsyncConnection"),
    "psycopg_pool.pool": partial(_guard_psycopg_pools, kind="ConnectionPool"),
    "psycopg_pool.pool_async": partial(
        _guard_psycopg_pools, kind="AsyncConnectionPool"
    ),
}
