"""pytest-postgresql: each test gets a copy of a template database, by the names in the app's URLs.

https://pypi.org/project/pytest-postgresql/ (noproc, `load`)
The app's engines lead there unchanged: more than its example for SQLAlchemy does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pytest_postgresql import factories

from bench.ways.common import create_tables_on, forget_connections, sync_url
from bench.zoo.shop import METADATA

if TYPE_CHECKING:
    from collections.abc import Iterator


def _template(variable: str) -> Any:
    url = sync_url(variable)

    def load(*, dbname: str, **_login: Any) -> None:
        create_tables_on(variable, url.set(database=dbname))

    login = {"host": url.host, "port": url.port, "user": url.username, "password": url.password}
    return factories.postgresql_noproc(dbname=url.database, load=[load], **login)


server = _template("DATABASE_URL")
postgresql = factories.postgresql("server")
reports_server = _template("REPORTS_URL")
reports = factories.postgresql("reports_server")


@pytest.fixture(autouse=True)
def database(request: pytest.FixtureRequest, postgresql: Any) -> Iterator[None]:
    """Have the databases made, and open new connections in the next test."""
    if "REPORTS_URL" in METADATA:
        request.getfixturevalue("reports")
    yield
    forget_connections()
