"""Which engines does the process have, and which databases do they mean?"""

from __future__ import annotations

import gc
import itertools
import weakref
from functools import wraps
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Dialect, Engine, make_url

from pytest_arena._gate._owners import drop_quietly
from pytest_arena._product import ROOMS, Asked, room

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import URL
    from sqlalchemy.orm import ORMExecuteState, Session
    from typing_extensions import TypeIs

__all__ = [
    "asked_by_engine",
    "asked_by_url",
    "before_each_execution",
    "describe",
    "described_url",
    "engine_like",
    "engines_in_use",
    "find_engines",
    "remember_engines",
    "sync_twin",
    "used_again",
]


# By their age: a number is given once. Weak, so that an engine ends when its app lets go of it.
_known: weakref.WeakValueDictionary[int, Engine] = weakref.WeakValueDictionary()
_disposed: weakref.WeakSet[Dialect] = weakref.WeakSet()
_ages = itertools.count()


def find_engines() -> list[Engine]:
    """Return the engines that exist now, the oldest first. Costs a microsecond for each."""
    return [engine for one in _known.valuerefs() if (engine := one()) is not None]


def engines_in_use() -> list[Engine]:
    """Return the engines that exist, without those that were disposed of and not used since."""
    return [engine for engine in find_engines() if engine.dialect not in _disposed]


def before_each_execution(kind: type[Session], tell: Callable[[ORMExecuteState], None]) -> None:
    """Tell of what sessions of this class are about to execute, by whichever of their methods."""
    event.listen(kind, "do_orm_execute", tell)


def remember_engines(watch: Callable[[Dialect], None]) -> None:
    """Know all engines from here on: those that exist, and each that is made.

    ``watch`` is told of the dialect of each, which several may have in common.

    SQLAlchemy has no event for a new engine. Its dialect is told of each, which is what is
    wrapped; ``Engine.__init__`` is not, since ``create_engine`` reads its signature.
    """
    for engine in _made_before():
        _remember(engine, watch)
    event.listen(Engine, "engine_disposed", _on_disposed)
    created = vars(Dialect)["engine_created"].__func__

    @wraps(created)
    def engine_created(cls: type[Dialect], engine: Engine) -> None:
        _remember(engine, watch)
        created(cls, engine)

    Dialect.engine_created = classmethod(engine_created)  # type: ignore[assignment,method-assign]  # as said above


def _remember(engine: Engine, watch: Callable[[Dialect], None]) -> None:
    drop_quietly(engine.dialect)
    watch(engine.dialect)
    _known[next(_ages)] = engine


def _on_disposed(engine: Engine) -> None:
    _disposed.add(engine.dialect)


def used_again(dialect: Dialect) -> None:
    """An engine of this dialect connects, whether it was disposed of before or not."""
    _disposed.discard(dialect)


def _made_before() -> list[Engine]:
    """Ask the garbage collector for the engines that exist, which costs some ten milliseconds."""
    # Referrers come generation by generation, the youngest first; within a generation, objects
    # stand in the order in which they were made.
    wanted = {id(found): found for found in gc.get_referrers(Engine) if _is_engine(found)}
    if len(wanted) <= 1:
        return list(wanted.values())
    objects = (found for generation in (2, 1, 0) for found in gc.get_objects(generation))
    found_again = [wanted.pop(id(found)) for found in objects if id(found) in wanted]
    return [*found_again, *wanted.values()]  # a collection meanwhile moves one past the search


def _is_engine(found: object) -> TypeIs[Engine]:
    # Not isinstance, which asks a lazy proxy for its __class__: that may raise, or load something.
    return issubclass(type(found), Engine)


def describe(dialect: Dialect, cargs: Any, cparams: Any) -> Asked:
    """Say which database the arguments of a connect call mean."""
    product = dialect.name
    if product in ROOMS:
        if (asked := room(product).connections.describe(dialect, cargs, cparams)) is not None:
            return asked
        product = f"{product}+{dialect.driver}"  # one of its own, which arena has not
    # One positional argument is a string in the driver's own language (ODBC, libpq): with secrets.
    host = cparams.get("host", "(unknown)" if cargs else "localhost")
    database = cparams.get("database") or cparams.get("dbname") or cparams.get("db", "")
    name = _server_name(dialect.name, host, cparams.get("port", ""), database)
    return Asked(dialect, product, name, database=str(database or ""))


def described_url(url: URL) -> str:
    """Return the name of the database that a server's URL means, if its driver is not to be had."""
    host, port = url.host or "localhost", url.port or ""
    return _server_name(url.get_backend_name(), host, port, url.database)


def _server_name(product: str, host: str, port: int | str, database: str | None) -> str:
    return f"{product}://{host}:{port}/{database}"


def asked_by_engine(engine: Engine) -> Asked | None:
    """Return which database an engine would ask for, None where only a connection can tell."""
    try:
        return describe(engine.dialect, *engine.dialect.create_connect_args(engine.url))
    except Exception:  # noqa: BLE001 - a third-party dialect; the gate decides when it connects
        return None


def asked_by_url(url: str | URL) -> Asked | None:
    """Return which database a URL means, None where its driver is not installed."""
    parsed = make_url(url)
    try:
        dialect = parsed.get_dialect()()
        return describe(dialect, *dialect.create_connect_args(parsed))
    except Exception:  # noqa: BLE001 - an unknown dialect, a driver that cannot be imported, a URL that it refuses
        return None


def engine_like(engine: Engine, url: URL) -> Engine:
    """Return an engine of our own that is just like the app's: same dialect and pool class.

    It has a pool of its own with the same listeners, so that it never takes the app's
    connections, and its connections are set up as theirs are. It shows the URL under which its
    database can be reached, not the app's.
    """
    like = Engine(
        engine.pool.recreate(),
        engine.dialect,
        url,
        execution_options=engine.get_execution_options(),
    )
    _begin_alike(engine, like)
    return like


def sync_twin(engine: Engine, url: URL) -> Engine:
    """Return a sync engine on a URL, whose connections are set up as the app's async ones are.

    Listeners that need the async driver are left out.
    """
    twin = create_engine(url, execution_options=engine.get_execution_options())
    for listener in _own_listeners(engine):
        event.listen(twin, "connect", _where_it_works(listener))
    _begin_alike(engine, twin)
    return twin


# An app that has pysqlite begin nothing by itself begins here. What counts or logs statements
# listens to other events, and is to see the app's own alone.
_TRANSACTIONS = ("begin", "savepoint", "rollback_savepoint", "release_savepoint")


def _begin_alike(engine: Engine, like: Engine) -> None:
    for name in _TRANSACTIONS:
        # Those of the engine itself: its class has the others already.
        for listener in tuple(getattr(engine.dispatch, name).listeners):
            event.listen(like, name, listener)


def _own_listeners(engine: Engine) -> list[Callable[..., Any]]:
    """Return the ``connect`` listeners of the app, without SQLAlchemy's own and ours."""
    libraries = ("sqlalchemy.", "pytest_arena.")
    return [
        listener
        for listener in engine.pool.dispatch.connect
        if not str(getattr(listener, "__module__", "")).startswith(libraries)
    ]


def _where_it_works(listener: Callable[..., Any]) -> Callable[[Any, Any], None]:
    def connect(dbapi_connection: Any, entry: Any) -> None:
        try:
            listener(dbapi_connection, entry)
        except (AttributeError, TypeError):
            return  # run_async, await_: things that a sync connection does not have

    return connect
