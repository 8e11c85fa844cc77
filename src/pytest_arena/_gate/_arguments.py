"""Which database do the arguments of a connect call mean, and how are they led elsewhere?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_arena._gate._base import Asked
from pytest_arena._postgresql import _arguments as postgresql
from pytest_arena._sqlite import _arguments as sqlite

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Dialect

    from pytest_arena._gate._base import Aim

__all__ = ["describe", "described_url", "redirect"]


def describe(dialect: Dialect, cargs: Any, cparams: Any) -> Asked:
    """Say which database the arguments of a connect call mean."""
    if dialect.name == "sqlite":
        return sqlite.describe(dialect, cargs, cparams)
    if dialect.name == "postgresql" and postgresql.knows(dialect.driver):
        return postgresql.describe(dialect, cargs, cparams)
    # One positional argument is a string in the driver's own language (ODBC, libpq): with secrets.
    host = cparams.get("host", "(unknown)" if cargs else "localhost")
    database = cparams.get("database") or cparams.get("dbname") or cparams.get("db", "")
    name = _server_name(dialect.name, host, cparams.get("port", ""), database)
    # A driver whose arguments nobody can rewrite: a product of its own, which arena has not.
    product = f"postgresql+{dialect.driver}" if dialect.name == "postgresql" else dialect.name
    return Asked(dialect, product, name, database=str(database or ""))


def described_url(url: URL) -> str:
    """Return the name of the database that a server's URL means, if its driver is not to be had."""
    host, port = url.host or "localhost", url.port or ""
    return _server_name(url.get_backend_name(), host, port, url.database)


def _server_name(product: str, host: str, port: int | str, database: str | None) -> str:
    return f"{product}://{host}:{port}/{database}"


def redirect(aim: Aim, cargs: list[Any], cparams: dict[str, Any], *, driver: str = "") -> None:
    """Put the arena's database in the place of the app's; all else stays as the app wants it.

    ``driver`` is the dialect's; SQLite's arguments are the same for all of its drivers.
    """
    if aim.address is not None:
        postgresql.lead(driver, aim.address, cargs, cparams)
    else:
        sqlite.redirect(aim, cargs, cparams)
