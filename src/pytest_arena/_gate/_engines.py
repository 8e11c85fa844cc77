"""Finds the database that an engine or a URL requests, and creates engines like the app's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import URL, Dialect, Engine, make_url
from sqlalchemy.pool import QueuePool

from pytest_arena._config._supported import SUPPORTED, product_of_dialect
from pytest_arena._product import RequestedDatabase, product_package
from pytest_arena._product._connection_loop import connection_loop, for_sync_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy.orm import Session
    from sqlalchemy.pool import ConnectionPoolEntry


def listen_to_sessions(
    kind: type[Session], name: str, listener: Callable[..., object]
) -> None:
    """Call a listener at an event of SQLAlchemy in sessions of a class."""
    event.listen(kind, name, listener)


def describe(dialect: Dialect, cargs: object, cparams: Any) -> RequestedDatabase:
    """Return the database that the arguments of a connect call request."""
    product = product_of_dialect(dialect.name)
    if product in SUPPORTED:
        requested = product_package(product).connections.describe(
            dialect, cargs, cparams
        )
        if requested is not None:
            return requested
        # pytest-arena does not know the driver.
        product = f"{product}+{dialect.driver}"
    # A positional argument is a connection string (ODBC, libpq) and may have a password.
    default_host = "(unknown)" if cargs else "localhost"
    host = cparams.get("host", default_host)
    port = cparams.get("port", "")
    database = ""
    for parameter in ("database", "dbname", "db"):
        database = database or cparams.get(parameter) or ""
    name = _server_name(dialect.name, host, port, database)
    return RequestedDatabase(dialect, product, name, database=str(database))


def described_url(url: URL) -> str:
    """Return the name of the database in a server's URL. The driver need not be installed."""
    host = url.host or "localhost"
    port = url.port or ""
    return _server_name(url.get_backend_name(), host, port, url.database)


def _server_name(product: str, host: str, port: int | str, database: str | None) -> str:
    return f"{product}://{host}:{port}/{database}"


def requested_by_engine(engine: Engine) -> RequestedDatabase | None:
    """Return the database that an engine requests. None if only a connection can show it."""
    arguments = _arguments_of(engine)
    if arguments is None:
        return _requested(engine.url, engine.dialect)
    try:
        return describe(engine.dialect, *arguments)
    except Exception:  # noqa: BLE001 - as in `_requested`
        return None


def _arguments_of(engine: Engine) -> tuple[object, object] | None:
    """Return the arguments with which an engine calls its driver, None if the app has a creator.

    They include ``connect_args``, which only the closure in ``create_engine`` knows.
    """
    creator: Any = getattr(engine.pool, "_creator", None)
    code = getattr(creator, "__code__", None)
    if code is None or creator.__module__ != "sqlalchemy.engine.create":
        return None
    cells = dict(zip(code.co_freevars, creator.__closure__, strict=True))
    if not {"cargs_tup", "cparams"} <= cells.keys():
        return None
    return cells["cargs_tup"].cell_contents, cells["cparams"].cell_contents


def requested_by_engines(engines: Iterable[Engine]) -> list[RequestedDatabase]:
    """Return the databases of engines. Skip an engine whose database only a connection shows."""
    requested = map(requested_by_engine, engines)
    return [database for database in requested if database is not None]


def requested_by_url(url: str | URL | None) -> RequestedDatabase | None:
    """Return the database that a URL requests. None if there is no URL or no driver."""
    if url is None:
        return None
    return _requested(make_url(url))


def _requested(url: URL, dialect: Dialect | None = None) -> RequestedDatabase | None:
    try:
        dialect = dialect or url.get_dialect()()
        return describe(dialect, *dialect.create_connect_args(url))
    # A third-party or unknown dialect, a driver that cannot be imported, or a URL that it refuses.
    # The gate decides when the engine connects.
    except Exception:  # noqa: BLE001 - a dialect of any author may raise anything
        return None


def engine_like(engine: Engine, url: URL) -> Engine:
    """Create an engine with the dialect, the pool class and the listeners of an app's engine.

    It never uses a connection of the app. It shows the URL of the test's database.
    """
    like = Engine(
        engine.pool.recreate(),
        engine.dialect,
        url,
        execution_options=engine.get_execution_options(),
    )
    _copy_transaction_listeners(engine, like)
    return like


def sync_engine_of_async(engine: Engine, url: URL) -> Engine:
    """Create an engine for sync code of pytest-arena with the dialect of an async engine."""
    creator: Any = engine.pool._invoke_creator  # noqa: SLF001 - as in `_arguments_of`

    def connect(rec: ConnectionPoolEntry) -> Any:
        return for_sync_code(creator, rec)

    pool = QueuePool(connect, dialect=engine.dialect)
    for listener in engine.pool.dispatch.connect:
        if not str(getattr(listener, "__module__", "")).startswith("pytest_arena."):
            event.listen(pool, "connect", _in_loop(listener))
    options = engine.get_execution_options()
    like = Engine(pool, engine.dialect, url, execution_options=options)
    _copy_transaction_listeners(engine, like)
    return like


def _in_loop(listener: Callable[..., object]) -> Callable[[object, object], None]:
    def connect(dbapi_connection: object, entry: object) -> None:
        connection_loop().call(listener, dbapi_connection, entry)

    return connect


# An app that follows SQLAlchemy's recipe for pysqlite begins transactions in these events. Its
# listeners that count or log statements use other events, and see only the app's statements.
_TRANSACTIONS = ("begin", "savepoint", "rollback_savepoint", "release_savepoint")


def _copy_transaction_listeners(engine: Engine, like: Engine) -> None:
    for name in _TRANSACTIONS:
        # Only the engine's listeners: those of the class `Engine` apply to both engines.
        for listener in tuple(getattr(engine.dispatch, name).listeners):
            event.listen(like, name, listener)
