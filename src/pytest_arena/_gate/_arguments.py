"""Which database do the arguments of a connect call mean, and how are they led elsewhere?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pytest_arena._dialects import _sqlite_names as names
from pytest_arena._gate._base import Asked

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Dialect

    from pytest_arena._gate._base import Aim

__all__ = ["describe", "described_url", "redirect"]


def describe(dialect: Dialect, cargs: Any, cparams: Any) -> Asked:
    """Say which database the arguments of a connect call mean."""
    if dialect.name == "sqlite":
        database, uri = _sqlite_database(cargs, cparams)
        file, memory = names.file_of(database, uri=uri), names.memory_of(database, uri=uri)
        return Asked(dialect, "sqlite", file, memory)
    # One positional argument is a string in the driver's own language (ODBC, libpq): with secrets.
    host = cparams.get("host", "(unknown)" if cargs else "localhost")
    database = cparams.get("database") or cparams.get("dbname") or cparams.get("db", "")
    name = _server_name(dialect.name, host, cparams.get("port", ""), database)
    return Asked(dialect, dialect.name, name)


def described_url(url: URL) -> str:
    """Return the name of the database that a server's URL means, if its driver is not to be had."""
    host, port = url.host or "localhost", url.port or ""
    return _server_name(url.get_backend_name(), host, port, url.database)


def _server_name(product: str, host: str, port: int | str, database: str | None) -> str:
    return f"{product}://{host}:{port}/{database}"


def redirect(aim: Aim, cargs: list[Any], cparams: dict[str, Any]) -> None:
    """Put the arena's file in the place of the app's; all else stays as the app wants it."""
    database, uri = _sqlite_database(cargs, cparams)
    cparams.pop("database", None)
    cargs[:1] = [names.renamed(database, aim.file, uri=uri)]  # uri stays: the app may attach by URI


def _sqlite_database(cargs: Any, cparams: Any) -> tuple[str, bool]:
    database = cargs[0] if cargs else cparams.get("database", "")
    return os.fsdecode(database), bool(cparams.get("uri"))
