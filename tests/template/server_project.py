"""A small project whose templates are databases on a server, without the gate."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, make_url
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from pytest_arena._dialects._postgresql_control import open_control
from pytest_arena._servers._own import OwnDatabases
from pytest_arena._template import DatabaseShelves, Recipe, Store
from pytest_arena._template._stage import StageBuild
from pytest_arena._values import Address, Stage
from tests.template.project import REPOSITORY, Project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Dialect

    from pytest_arena._template import Target

__all__ = ["SERVER", "ServerProject"]

SERVER = make_url(os.environ.get("ARENA_TEST_POSTGRESQL", "postgresql://postgres@127.0.0.1:5432"))

# What another process does with the same project.
ENSURE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.template.server_project import ServerProject, new_own
own = new_own(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
print(ServerProject(Path.cwd(), Path("."), own=own).ensure())
own.close()
"""


def new_own(project: str) -> OwnDatabases:
    """Return a run of its own on the server."""
    address = Address(
        "postgresql",
        SERVER.host or "127.0.0.1",
        SERVER.port or 5432,
        SERVER.username or "postgres",
        SERVER.database or "postgres",
        str(SERVER.password or ""),
    )
    return OwnDatabases(address, project=project)


@dataclass
class ServerProject(Project):
    """As a project, on PostgreSQL."""

    own: OwnDatabases = field(kw_only=True)
    driver: str = ""

    @property
    def shelves(self) -> DatabaseShelves:
        """Those that an app with this driver has."""
        return DatabaseShelves(self.own, _dialect(self.driver) if self.driver else None)

    def ensure(self, *, newer_than: float = 0.0, stage: Stage = Stage.SEEDED) -> Any:
        """Return the template's name, found or built."""
        store = Store(self.shelves, self.root, newer_than)
        template = store.ensure(Recipe(self.schema, self.seed), stage, self._aimed)
        assert template is not None
        return template

    @contextlib.contextmanager
    def _aimed(self, target: Target) -> Iterator[None]:
        """What the gate does for engines of the builder's own."""
        assert target.address is not None
        url = _url(target.address, "psycopg").render_as_string(hide_password=False)
        os.environ["SHOP_URL"] = url
        yield

    def shelf(self) -> str:
        """Where the template of the schema stands."""
        recipe = Recipe(self.schema, self.seed)
        return StageBuild(recipe, Stage.SCHEMA, None, self.root, self.shelves).fingerprint()

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
        """Those that stand on the server because of this project."""
        return [one.name for one in self.own.listed() if one.project == self.name]

    @property
    def name(self) -> str:
        """It tells its databases from those of other runs on this server."""
        return str(self.root)

    def in_another_process(self) -> subprocess.Popen[str]:
        """Have another process find or build the same template, as soon as it is told to."""
        process = subprocess.Popen(
            [sys.executable, "-c", ENSURE, str(REPOSITORY), self.name],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(["", *sys.path])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process


def _dialect(driver: str) -> Dialect:
    url = URL.create(f"postgresql+{driver}")
    kind = url.get_dialect(_is_async=True) if driver.endswith("_async") else url.get_dialect()
    return kind()


def _url(address: Address, driver: str) -> URL:
    return URL.create(
        f"postgresql+{driver}",
        username=address.user,
        password=address.password or None,
        host=address.host,
        port=address.port,
        database=address.database,
    )
