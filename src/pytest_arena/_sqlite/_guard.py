"""May this connection be opened, and may it attach this file? Which one is put in its place?"""

from __future__ import annotations

import _sqlite3
import os
import re
import sqlite3
import sqlite3.dbapi2
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache, partial, wraps
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena import _process
from pytest_arena._origin import frames
from pytest_arena._sqlite import _messages as messages
from pytest_arena._sqlite import _sql as sql
from pytest_arena._sqlite._sql import OwnConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from pytest_arena._product import Aim, Core
    from pytest_arena.errors import RefusedError

__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line

_MOST_ATTACHED = (
    125  # SQLite takes its own maximum, 10 unless it was compiled otherwise
)
_BEFORE_FACTORY = 5  # how many parameters of sqlite3.connect stand before `factory`
_TOKEN = re.compile(
    r"""
      (?P<comment> \ufeff | --[^\n]* | /\*.*?(?:\*/|$) )
    | (?P<name> '(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\] )
    | (?P<bound> [?:@$][\w:]* )
    | (?P<word> \w+ )
    | (?P<end> ; )
    | (?P<other> \S )
    """,
    re.DOTALL | re.VERBOSE,
)
_WORD = re.compile(r"\b(?:attach|vacuum)\b")  # a table of attachments is none


def _in_turn(method: Callable[..., Any], turn: str = "arena_turn") -> Any:
    """Have nobody else inside of a connection meanwhile. Costs 0.2 µs.

    SQLite waits for itself; but a connection that one thread closes while another one is about to
    enter it crashes the process.
    """
    turn_of = attrgetter(turn)

    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with turn_of(self):
            return method(self, *args, **kwargs)

    return call


class GuardedConnection(sqlite3.Connection):
    """What everybody gets in the place of a plain connection: its cursors look at each ATTACH.

    The statement and its parameters are seen, which SQLite's own authorizer would not show. On an
    engine's connection the file is replaced by the arena's, elsewhere one of the app's is refused.
    A statement that comes another way (a cursor that was made from its class) finds SQLite
    attaching no file at all.
    """

    # Of the class until somebody sets them: a connection made before the gate knows nothing.
    arena_core: Core | None = None
    arena_outside: str | None = (
        None  # the real path of a file that was nobody's when it was opened
    )
    arena_made_table: Callable[[float, float], None] | None = None
    arena_leads: Callable[[str], Aim | None] | None = (
        None  # where a file lands that it attaches
    )
    arena_aims: tuple[Aim, ...] = ()  # of what it has attached
    arena_authorizer: Callable[..., int] | None = None  # the app's own
    arena_settings: tuple[Any, ...] | None = (
        None  # None: it is new; (): some may have changed
    )
    arena_turn = (
        threading.RLock()
    )  # who is inside of it has this lock: each has one of its own

    commit = _in_turn(sqlite3.Connection.commit)
    rollback = _in_turn(sqlite3.Connection.rollback)
    close = _in_turn(sqlite3.Connection.close)

    def cursor(self, factory: Any = sqlite3.Cursor) -> Any:
        """As ``sqlite3.Connection.cursor``."""
        return super().cursor(
            _guarded_cursor(factory) if isinstance(factory, type) else factory
        )

    # sqlite3's own three make their cursors without asking cursor().

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """As ``sqlite3.Connection.execute``."""
        return self.cursor().execute(*args, **kwargs)

    def executemany(self, *args: Any, **kwargs: Any) -> Any:
        """As ``sqlite3.Connection.executemany``."""
        return self.cursor().executemany(*args, **kwargs)

    def executescript(self, *args: Any, **kwargs: Any) -> Any:
        """As ``sqlite3.Connection.executescript``."""
        return self.cursor().executescript(*args, **kwargs)

    def set_authorizer(self, authorizer_callback: Any) -> None:
        """As ``sqlite3.Connection.set_authorizer``."""
        self.arena_authorizer = authorizer_callback
        super().set_authorizer(authorizer_callback)


class _GuardedCursor:
    """The cursor of a guarded connection. Costs 1-2 µs a statement.

    An app's own cursor has the parameters that it likes: all are handed on as they came.
    """

    connection: GuardedConnection

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        connection, statement = self.connection, _statement(args, kwargs)
        if connection.arena_outside is not None:
            _check_file(connection.arena_core, connection.arena_outside)
        run = super().execute  # type: ignore[misc]  # the mixed-in one
        is_long = len(statement) > _LONG_STATEMENT
        if (
            way := _way_to_run.__wrapped__(statement)
            if is_long
            else _way_to_run(statement)
        ):
            return way(connection, run, args, kwargs)
        with connection.arena_turn:
            return run(*args, **kwargs)

    def executemany(self, *args: Any, **kwargs: Any) -> Any:
        # An ATTACH is refused here by sqlite3 itself.
        _check_file(self.connection.arena_core, self.connection.arena_outside)
        with self.connection.arena_turn:
            return super().executemany(*args, **kwargs)  # type: ignore[misc]  # the mixed-in one

    def executescript(self, *args: Any, **kwargs: Any) -> Any:
        _check_file(self.connection.arena_core, self.connection.arena_outside)
        run = super().executescript  # type: ignore[misc]  # the mixed-in one
        way = _run_attaching if _may_attach(_statement(args, kwargs)) else _run_setting
        return way(self.connection, run, args, kwargs)


def _check_file(core: Core | None, outside: str | None) -> None:
    if core is not None and outside is not None and core.files.stands_for(outside):
        raise core.ledger.refused(messages.production_file(outside))


@cache
def _guarded_cursor(base: type[sqlite3.Cursor]) -> Any:
    fetches = ("fetchone", "fetchmany", "fetchall", "__next__")
    in_turn = {
        name: _in_turn(getattr(base, name), "connection.arena_turn") for name in fetches
    }
    return type(f"Guarded{base.__name__}", (_GuardedCursor, base), in_turn)


@cache
def _guarded(factory: Any) -> Any:
    """Return an app's own class that is guarded below: what it overrides is called as before."""
    is_kind = isinstance(factory, type) and issubclass(factory, sqlite3.Connection)
    if not is_kind or issubclass(factory, GuardedConnection):
        return factory
    bases = (
        (GuardedConnection,)
        if factory is sqlite3.Connection
        else (factory, GuardedConnection)
    )
    return type(factory.__name__, bases, {"__module__": factory.__module__})


def _statement(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    first = args[0] if args else next(iter(kwargs.values()), "")
    return first if isinstance(first, str) else ""


# An app has few statements, and sends each of them often. A script with data in it is not kept.
_KEPT_STATEMENTS, _LONG_STATEMENT = 500, 5_000


@lru_cache(_KEPT_STATEMENTS)
def _way_to_run(statement: str) -> Callable[..., Any] | None:
    """Return what is to be done around a statement; None: nothing."""
    if _may_attach(statement):
        return _run_attaching
    if "PRAGMA" in statement or "pragma" in statement:
        return _run_setting
    return _run_making if statement.lstrip()[:12].upper() == "CREATE TABLE" else None


def _run_making(connection: GuardedConnection, run: Any, args: Any, kwargs: Any) -> Any:
    """Run a statement that makes a table, and say how long it took."""
    started = _process.seconds()
    try:
        with connection.arena_turn:
            return run(*args, **kwargs)
    finally:
        if connection.arena_made_table is not None:
            connection.arena_made_table(started, _process.seconds())


def _run_attaching(
    connection: GuardedConnection, run: Any, args: Any, kwargs: Any
) -> Any:
    """Run a script whose files are led, and let SQLite attach them meanwhile.

    It names each file that it attaches: also the one that VACUUM INTO writes.
    """
    core, own = connection.arena_core, connection.arena_authorizer
    if core is None:
        return run(*args, **kwargs)
    refusals: list[RefusedError] = []

    def authorize(action: int, name: str | None, *rest: Any) -> int:
        if action == sqlite3.SQLITE_ATTACH and name and _is_the_apps(core, name):
            refusals.append(
                core.ledger.refused(messages.vacuumed_into(sql.file_of(name)))
            )
            return sqlite3.SQLITE_DENY
        return own(action, name, *rest) if own else sqlite3.SQLITE_OK

    args, kwargs = _led(core, connection, args, kwargs)
    sqlite3.Connection.set_authorizer(connection, authorize)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, _MOST_ATTACHED)
    try:
        with connection.arena_turn:
            return run(*args, **kwargs)
    except sqlite3.Error:
        if refusals:
            raise refusals[0] from None  # rather than SQLite's "not authorized"
        raise
    finally:
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        sqlite3.Connection.set_authorizer(connection, own)


_SETS_JOURNAL_MODE = re.compile(r"journal_mode\s*[=(]", re.IGNORECASE)


def _run_setting(
    connection: GuardedConnection, run: Any, args: Any, kwargs: Any
) -> Any:
    """Run a script that may set something. A new connection's settings are the app's own."""
    if connection.arena_settings is not None:
        connection.arena_settings = ()
        if _SETS_JOURNAL_MODE.search(_statement(args, kwargs)):
            sql.note_switched(connection)
    with connection.arena_turn:
        return run(*args, **kwargs)


def _led(
    core: Core, connection: GuardedConnection, args: Any, kwargs: Any
) -> tuple[Any, Any]:
    """The arguments, with the arena's files in the places of those that the script attaches."""
    leads = connection.arena_leads

    def lead(name: str | None) -> str | None:
        if name is None:
            raise core.ledger.refused(messages.attached_unread())
        file = sql.file_of(name)
        if file and leads and (aim := leads(file)):
            connection.arena_aims = (*connection.arena_aims, aim)
            return sql.renamed(name, aim.file, uri=sql.is_read_only(name, uri=True))
        if _is_the_apps(core, name):
            raise core.ledger.refused(messages.attached(file))
        return None

    values = [*args, *kwargs.values()]
    parameters = values[1] if len(values) > 1 else ()
    values[:2] = lead_attached(values[0], parameters, lead)[: len(values)]
    return tuple(values[: len(args)]), dict(
        zip(kwargs, values[len(args) :], strict=True)
    )


def is_outside(core: Core, file: str) -> bool:
    """Whether a file is neither the arena's nor one that tests may open themselves."""
    return bool(file) and not core.is_inside(file) and not core.files.is_free(file)


def _is_the_apps(core: Core, name: str) -> bool:
    file = sql.file_of(name)
    return bool(file) and not core.is_inside(file) and core.files.belongs_to_app(file)


def _guard(core: Core, connection: sqlite3.Connection) -> None:
    """Look at what an open connection attaches; arena's own need not be.

    One that is not of our class may attach nothing: its statements cannot be read. What the app
    then sees is SQLite's own error; the refusal is kept, and reported.
    """
    if isinstance(connection, GuardedConnection):
        connection.arena_core, connection.arena_turn = core, threading.RLock()
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        return

    def authorize(action: int, name: str | None, *_: Any) -> int:
        if action != sqlite3.SQLITE_ATTACH:
            return sqlite3.SQLITE_OK
        core.ledger.refused(messages.attached_unseen(sql.file_of(name or "")))
        return sqlite3.SQLITE_DENY

    if not isinstance(connection, OwnConnection):
        connection.set_authorizer(authorize)


@dataclass(frozen=True, slots=True)
class EngineFactory:
    """What ``sqlite3.connect(factory=…)`` calls: it checks the file before it opens it.

    ``base`` is the app's own ``factory``, ``aim`` what the engine's connection aims at.
    """

    core: Core
    aim: Aim | None
    base: Any
    made: Callable[[sqlite3.Connection], None]

    def __call__(self, database: Any, *args: Any, **kwargs: Any) -> sqlite3.Connection:
        """Open the file."""
        core = self.core
        file = sql.file_of(os.fsdecode(database), uri=bool(kwargs.get("uri")))
        if not (self.aim and file == self.aim.file) and is_outside(core, file):
            of_app = core.files.belongs_to_app(file)
            raise core.ledger.refused(messages.unknown_file(file, of_app=of_app))
        kwargs.pop("factory", None)
        connection: sqlite3.Connection = _guarded(self.base)(database, *args, **kwargs)
        _guard(core, connection)
        if isinstance(connection, GuardedConnection):
            connection.arena_made_table = core.ledger.made_table if self.aim else None
            connection.arena_leads = partial(core.aim_attached, beside=self.aim)
        self.made(connection)
        return connection


@cache
def watch_raw_connections(core: Callable[[], Core | None]) -> None:
    """Watch every ``sqlite3.connect`` of the process, until the process ends.

    An audit hook sees the file before it is opened, and can refuse; it can never be removed:
    https://docs.python.org/3/library/sys.html#sys.addaudithook. It cannot set up the connection
    (for which it is too early), and that is what ``sqlite3.connect`` is wrapped for.
    """

    def connecting(database: Any, *_: object) -> None:
        if (now := core()) is not None:
            _admit(now, database)

    connect = sqlite3.connect

    @wraps(connect)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        factory = kwargs.get("factory", GuardedConnection)
        if isinstance(factory, EngineFactory):
            return connect(*args, **kwargs)
        # Whoever asks for sqlite3's very own class gets it.
        if len(args) <= _BEFORE_FACTORY and factory is not sqlite3.Connection:
            kwargs["factory"] = _guarded(factory)
        connection = connect(*args, **kwargs)
        if isinstance(connection, sqlite3.Connection) and (now := core()):
            _guard(now, connection)
            if isinstance(connection, GuardedConnection):
                _place(now, connection, args[0] if args else kwargs["database"])
        return connection

    _process.hear(
        {
            "sqlite3.connect": connecting,
            "open": partial(_admit_open, core),
            "os.remove": partial(_admit_removal, core),
            "os.rename": partial(_admit_renaming, core),
            "os.truncate": partial(_admit_truncation, core),
        }
    )
    for module in (
        sqlite3,
        sqlite3.dbapi2,
        _sqlite3,
    ):  # the last is what a reload takes it from
        vars(module)["connect"] = guarded


def _place(core: Core, connection: GuardedConnection, database: Any) -> None:
    """Say what stands behind a raw connection: a file of the arena's, or one of somebody's."""
    file = _raw_file(database)
    if file and core.is_inside(file):
        connection.arena_leads = partial(core.aim_attached, beside=core.aim_at(file))
    elif file:  # an engine may turn out to mean it
        connection.arena_outside = core.files.see(file)


def _raw_file(database: Any) -> str:
    name = os.fsdecode(database)
    return sql.file_of(name, uri=name.startswith("file:"))


def _admit(core: Core, database: Any) -> None:
    """Refuse a raw connection to what may not be opened."""
    if not isinstance(database, str | bytes | os.PathLike):
        return  # SQLite's own words for it are the best
    file = _raw_file(database)
    if not is_outside(core, file):
        core.refuse_late()
        return
    of_app = core.files.belongs_to_app(file)
    if _an_engine_opens():
        raise core.ledger.refused(messages.unknown_file(file, of_app=of_app))
    if of_app:
        raise core.ledger.refused(messages.production_file(file))


def _admit_open(core: Callable[[], Core | None], name: Any, *_: object) -> None:
    """Refuse to let a test open a database file of the app by its path. Costs 0.5 µs.

    The test's database is another file: the app would read or overwrite the developer's file.
    """
    now = core()
    if (
        now is None
        or not now.ledger.test
        or not isinstance(name, str | bytes | os.PathLike)
    ):
        return
    file = os.fsdecode(name)
    if file.endswith(now.files.names) and now.files.stands_for(os.path.realpath(file)):
        raise now.ledger.refused(messages.opened_file(file))


def _admit_removal(
    core: Callable[[], Core | None], name: Any, folder: int = -1, *_: object
) -> None:
    """Refuse to let a test remove a database file of the app. A file must be there."""
    file = _entry(name, folder)
    _admit_change(core, file, f"removing {file}", is_there=os.path.lexists(file))


def _admit_renaming(
    core: Callable[[], Core | None],
    old: Any,
    new: Any,
    old_folder: int = -1,
    new_folder: int = -1,
) -> None:
    """Refuse to let a test rename a database file of the app, or put another in its place."""
    source = _entry(old, old_folder)
    target = _entry(new, new_folder)
    _admit_change(core, source, f"renaming {source}", is_there=os.path.lexists(source))
    _admit_change(core, target, f"renaming {source} to {target}")


def _admit_truncation(core: Callable[[], Core | None], name: Any, *_: object) -> None:
    """Refuse to let a test truncate a database file of the app."""
    file = "" if isinstance(name, int) else os.path.realpath(os.fsdecode(name))
    _admit_change(core, file, f"truncating {file}", is_there=Path(file).is_file())


def _admit_change(
    core: Callable[[], Core | None], file: str, action: str, *, is_there: bool = True
) -> None:
    now = core()
    if now is None or not now.ledger.test or not is_there:
        return
    database = _without_log(file)
    if database.endswith(now.files.names) and now.files.stands_for(database):
        raise now.ledger.refused(messages.changed_file(database, action))


_LOGS = ("-wal", "-journal")  # SQLite keeps what was written last beside the file


def _without_log(file: str) -> str:
    for suffix in _LOGS:
        file = file.removesuffix(suffix)
    return file


def _entry(name: Any, folder: int) -> str:
    """Return the path of an entry of a folder. An entry that is a link is not followed.

    ``shutil.rmtree`` names a file by an open folder. Linux knows the path of that.
    """
    path = Path(os.fsdecode(name))
    if folder >= 0:
        with suppress(OSError):
            path = Path(f"/proc/self/fd/{folder}").readlink() / path
    return str(path.absolute().parent.resolve() / path.name)


def _an_engine_opens() -> bool:
    """Whether a pool opens the connection, by a creator of the app's own."""
    inner: FrameType | None = None
    for frame in frames():
        if (
            _module(frame) == "sqlalchemy.pool.base"
            and frame.f_code.co_name == "__connect"
        ):
            return inner is not None and not _is_aside(inner)
        # The pool calls a creator that takes no arguments by a function of its own.
        if _module(frame) != "sqlalchemy.pool.base":
            inner = frame
    return False


def _is_aside(frame: FrameType) -> bool:
    """Whether what a pool calls here opens a connection for itself, and not the engine's.

    That is a handler of its log, a listener, and what a ``do_connect`` listener does before the
    engine's own connection is opened, which has a check of its own.
    """
    module = _module(frame)
    is_own = module == "sqlalchemy.engine.create" and frame.f_code.co_name == "connect"
    return is_own or module.startswith(
        ("logging", "sqlalchemy.log", "sqlalchemy.event.")
    )


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _may_attach(script: str) -> bool:
    """Whether a script attaches a file: VACUUM does so, too. Costs 0.2 µs where neither word is."""
    lowered = script.lower()
    if ("attach" not in lowered and "vacuum" not in lowered) or not _WORD.search(
        lowered
    ):
        return False
    return any(
        tokens[0][0].upper() in {"ATTACH", "VACUUM"} for tokens in _statements(script)
    )


def lead_attached(
    script: str, parameters: Any, lead: Callable[[str | None], str | None]
) -> tuple[str, Any]:
    """Put other files in the places of those that a script attaches.

    ``lead`` is asked for each: it is given the name, None where only SQLite can work it out, and
    returns the name to put in its place, None to leave it. It is asked for the last one first.
    """
    for tokens in reversed([*_statements(script)]):
        words = [token[0].upper() for token in tokens]
        if words[0] != "ATTACH":
            continue
        at = 2 if words[1:2] == ["DATABASE"] else 1
        name = (
            tokens[at] if words[at + 1 : at + 2] == ["AS"] else None
        )  # else an expression
        file = lead(_value_of(name, parameters) if name else None)
        if name is None or file is None:
            continue
        if name.lastgroup == "bound":
            parameters = _with_value(name[0], parameters, file)
        else:
            doubled = file.replace("'", "''")
            script = f"{script[: name.start()]}'{doubled}'{script[name.end() :]}"
    return script, parameters


def _statements(script: str) -> Iterator[list[re.Match[str]]]:
    """Split a script at its semicolons; comments and empty statements are left out."""
    statement: list[re.Match[str]] = []
    for match in _TOKEN.finditer(script):
        if match.lastgroup not in {"end", "comment"}:
            statement.append(match)
        elif match.lastgroup == "end" and statement:
            yield statement
            statement = []
    if statement:
        yield statement


def _value_of(token: re.Match[str], parameters: Any) -> str | None:
    text, kind = token[0], token.lastgroup
    if kind == "name":
        return text[1:-1].replace(text[-1] * 2, text[-1])
    if kind != "bound":
        return text if kind == "word" and not text.isdigit() else None
    try:
        by_name = hasattr(parameters, "keys")
        value = parameters[text[1:]] if by_name else list(parameters)[_index_of(text)]
    except (LookupError, TypeError):
        return None
    return (
        ""
        if value is None
        else os.fsdecode(value)
        if isinstance(value, bytes)
        else str(value)
    )


def _with_value(name: str, parameters: Any, value: str) -> Any:
    if hasattr(parameters, "keys"):
        return {**parameters, name[1:]: value}
    values = list(parameters)
    values[_index_of(name)] = value
    return values


def _index_of(name: str) -> int:
    return int(name[1:]) - 1 if name[1:].isdigit() else 0
