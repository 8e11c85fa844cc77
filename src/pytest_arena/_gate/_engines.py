"""Which database does an engine mean, or a URL; and what is an engine like the app's?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Dialect, Engine, make_url

from pytest_arena._product import ROOMS, Asked, room

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session


def listen_to_sessions(
    kind: type[Session], name: str, tell: Callable[..., None]
) -> None:
    """Tell of an event of SQLAlchemy's in sessions of this class, for good."""
    event.listen(kind, name, tell)


def describe(dialect: Dialect, cargs: Any, cparams: Any) -> Asked:
    """Say which database the arguments of a connect call mean."""
    product = dialect.name
    if product in ROOMS:
        if (
            asked := room(product).connections.describe(dialect, cargs, cparams)
        ) is not None:
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
    return _asked(engine.url, engine.dialect)


def asked_by_url(url: str | URL) -> Asked | None:
    """Return which database a URL means, None where its driver is not installed."""
    return _asked(make_url(url))


def _asked(url: URL, dialect: Dialect | None = None) -> Asked | None:
    try:
        dialect = dialect or url.get_dialect()()
        return describe(dialect, *dialect.create_connect_args(url))
    # A third-party dialect, or an unknown one, a driver that cannot be imported, a URL that it
    # refuses: the gate decides when it connects.
    except Exception:  # noqa: BLE001 - as said
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
    for listener in engine.pool.dispatch.connect:
        module = str(getattr(listener, "__module__", ""))
        if not module.startswith(("sqlalchemy.", "pytest_arena.")):  # the app's own
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


def _where_it_works(listener: Callable[..., Any]) -> Callable[[Any, Any], None]:
    def connect(dbapi_connection: Any, entry: Any) -> None:
        try:
            listener(dbapi_connection, entry)
        except (AttributeError, TypeError):
            return  # run_async, await_: things that a sync connection does not have

    return connect
