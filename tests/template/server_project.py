"""A small project whose templates are databases on a server, without the gate."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import create_engine
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from pytest_arena._databases._template import Recipe, Store
from pytest_arena._postgresql._control import open_control
from pytest_arena._postgresql._templates import DatabaseTemplates
from pytest_arena._values import Stage
from tests.template.project import Project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Dialect

    from pytest_arena._postgresql._server_registry import ServerRegistry
    from pytest_arena._product import Database
    from pytest_arena._values import Address


@dataclass(frozen=True)
class TemplatesOfOneTest(DatabaseTemplates):
    """Tests that run beside each other have the same files, and would share their templates."""

    project: str = ""

    def identity(self) -> str:
        """Of this project alone."""
        return f"{super().identity()} {self.project}"


@dataclass
class ServerProject(Project):
    """As a project, on PostgreSQL."""

    own: ServerRegistry = field(kw_only=True)
    driver: str = "psycopg"

    def __post_init__(self) -> None:
        self._before = {one.name for one in self.own.listed()}

    @property
    def template_store(self) -> TemplatesOfOneTest:
        """Those that an app with this driver has."""
        return TemplatesOfOneTest(self.own, _dialect(self.driver), project=self.name)

    def ensure(self, *, newer_than: float = 0.0, stage: Stage = Stage.SEEDED) -> Any:
        """Return the template's name, found or built."""
        store = Store(self.template_store, self.root, newer_than)
        template = store.ensure(Recipe(self.schema, self.seed), stage, cast("Database", None))
        assert template is not None
        return template.content

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What a copy of the template answers: nobody connects to a template itself."""
        copy = self.own.create("live", template=self.ensure())
        control = open_control(self.own.address_of(copy))
        try:
            return control.rows(sql)
        finally:
            control.close()
            self.own.drop(copy)

    def names(self) -> list[str]:
        """The seeded rows."""
        return [name for (name,) in self.rows("select name from dancers order by id")]

    @contextlib.contextmanager
    def on_a_copy(self) -> Iterator[Any]:
        """An engine on a copy of the template, as an app has it in a test."""
        copy = self.own.create("live", template=self.ensure())
        engine = create_engine(_url(self.own.address_of(copy), "psycopg"), poolclass=NullPool)
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


def _url(address: Address, driver: str) -> URL:
    return URL.create(
        f"postgresql+{driver}",
        username=address.user,
        password=address.password or None,
        host=address.host,
        port=address.port,
        database=address.database,
    )
