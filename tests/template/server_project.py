"""A small project whose templates are databases on a server, without the gate."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from pytest_arena._databases._template import Store
from pytest_arena._postgresql._server_registry import ServerRegistry
from tests.template.project import Project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Dialect


@dataclass
class ServerProject(Project):
    own: ServerRegistry = field(kw_only=True)
    driver: str = "psycopg"

    def __post_init__(self) -> None:
        self._before = {one.name for one in self.own.listed()}
        # Tests that run beside each other have the same files, and would share their templates.
        identity = f"{ServerRegistry.identity(self.own)} {self.name}"
        vars(self.own)["identity"] = lambda: identity

    def store(self, newer_than: float) -> Store:
        return Store(self.own, self.root, newer_than)

    @property
    def dialect(self) -> type[Dialect]:
        return _dialect(self.driver)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with self.on_a_copy() as engine, engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(sql)]

    def names(self) -> list[str]:
        return [name for (name,) in self.rows("select name from dancers order by id")]

    @contextlib.contextmanager
    def on_a_copy(self) -> Iterator[Any]:
        """An engine on a copy of the template, as an app has it in a test."""
        copy = self.own.create("live", template=self.ensure())
        url = self.own.url_of(self.own.address_of(copy), "postgresql", "psycopg")
        engine = create_engine(url, poolclass=NullPool)
        try:
            yield engine
        finally:
            engine.dispose()
            self.own.drop(copy)

    def databases(self) -> list[str]:
        """Those that have come to the server since the test began."""
        return [one.name for one in self.own.listed() if one.name not in self._before]

    @property
    def name(self) -> str:
        """It tells its databases from those of other runs on this server."""
        return str(self.root)


def _dialect(driver: str) -> type[Dialect]:
    url = URL.create(f"postgresql+{driver}")
    return url.get_dialect(_is_async=True) if driver.endswith("_async") else url.get_dialect()
