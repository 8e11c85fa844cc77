"""Which database is the app's? On a server each worker of a run has one of its own."""

from __future__ import annotations

import os

from sqlalchemy import URL, Engine, create_engine, make_url

__all__ = ["on_server", "sync_engine", "url"]

_URLS = "BENCH_URLS"
_SYNC = {"sqlite+aiosqlite": "sqlite", "postgresql+asyncpg": "postgresql+psycopg"}


def on_server() -> bool:
    """Whether this run was given databases on a server."""
    return _URLS in os.environ


def url() -> URL:
    """The URL that the app's engine is made from."""
    if not on_server():
        return make_url(os.environ["DATABASE_URL"])
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    return make_url(os.environ[_URLS].split()[int(worker.removeprefix("gw"))])


def sync_engine() -> Engine:
    """An engine on the same database, for what is done before the first test."""
    return create_engine(url().set(drivername=_SYNC[url().drivername]))
