"""Which engines does the process have, and which databases do they mean?"""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine, make_url

from pytest_arena._gate._listeners import describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import URL, Dialect
    from typing_extensions import TypeIs

    from pytest_arena._gate._base import Asked

__all__ = [
    "asked_by_engine",
    "asked_by_url",
    "described_url",
    "engine_like",
    "find_engines",
    "oldest_first",
    "sync_twin",
    "when_gone",
]


def find_engines() -> list[Engine]:
    """Return the engines that exist now, in no order.

    SQLAlchemy has no event for a new engine, so that the garbage collector is asked for the
    instances of the class; that costs some milliseconds.
    """
    return [found for found in gc.get_referrers(Engine) if _is_engine(found)]


def oldest_first(engines: list[Engine]) -> list[Engine]:
    """Return engines in the order in which they were made. Costs some ten milliseconds."""
    # Referrers come generation by generation, the youngest first; within a generation, objects
    # stand in the order in which they were made.
    objects = (found for generation in (2, 1, 0) for found in gc.get_objects(generation))
    ages = {id(found): age for age, found in enumerate(objects) if _is_engine(found)}
    return sorted(engines, key=lambda engine: ages.get(id(engine), 0))


def _is_engine(found: object) -> TypeIs[Engine]:
    # Not isinstance, which asks a lazy proxy for its __class__: that may raise, or load something.
    return issubclass(type(found), Engine)


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


def described_url(url: URL) -> str:
    """Return the name of the database that a server's URL means, if its driver is not to be had."""
    return f"{url.get_backend_name()}://{url.host or 'localhost'}:{url.port or ''}/{url.database}"


def when_gone(dialect: Dialect, call: Callable[[], object]) -> None:
    """Have something called when the engine of this dialect is disposed of, or is no more.

    Either is the end of a memory database. It may be called in any thread, and twice.
    """
    for engine in find_engines():
        if engine.dialect is dialect:
            event.listen(engine, "engine_disposed", lambda _: call())
            weakref.finalize(engine, call).atexit = False


def engine_like(engine: Engine, url: URL) -> Engine:
    """Return an engine of our own that is just like the app's: same dialect and pool class.

    It has a pool of its own with the same listeners, so that it never takes the app's
    connections, and its connections are set up as theirs are. It shows the URL under which its
    database can be reached, not the app's.
    """
    return Engine(engine.pool.recreate(), engine.dialect, url)


def sync_twin(engine: Engine, url: URL) -> Engine:
    """Return a sync engine on a URL, whose connections are set up as the app's async ones are.

    Listeners that need the async driver are left out.
    """
    twin = create_engine(url)
    for listener in _own_listeners(engine):
        event.listen(twin, "connect", _where_it_works(listener))
    return twin


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
