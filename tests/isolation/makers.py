"""Makes a world with each isolation of each product."""

from __future__ import annotations

import random
import tempfile
from contextlib import ExitStack, closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._mysql._server_registry import MySQLRegistry
from tests.conformance.story_mysql_server import StoryMySQLServer
from tests.isolation.random_schema import Schema
from tests.isolation.world_postgresql import ROLE, PostgreSQLWorld, filled
from tests.isolation.world_sqlite import SQLiteWorld
from tests.mysql.level_world import LevelWorld, made_template
from tests.mysql.server import address_of
from tests.servers.postgresql import own_databases, own_registry, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._postgresql._server_registry import ServerRegistry
    from tests.isolation.world import World

KINDS = (
    "copy on sqlite",
    "copy on sqlite in wal",
    "undo on postgresql",
    "clone on postgresql",
    "undo on mysql",
    "clone on mysql",
)


class Makers:
    """Makes worlds. All of a product are on one server."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def close(self) -> None:
        self._stack.close()

    @contextmanager
    def world(self, kind: str, chance: random.Random | None = None) -> Iterator[World]:
        """Make a database. With ``chance`` it can be used by random work."""
        name, _, product = kind.partition(" on ")
        with ExitStack() as stack:
            world: World
            if product == "postgresql":
                schema = Schema(chance) if chance else None
                template = filled(self.postgresql, schema) if schema else self._template
                world = PostgreSQLWorld(self.postgresql, template, name, schema)
            elif product == "mysql":
                template = made_template(self._mysql)
                world = LevelWorld(self._mysql, template, name)
            else:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                mode = "wal" if product.endswith("wal") else "delete"
                world = SQLiteWorld(folder, mode, chance or random.Random(0))  # noqa: S311 - repeatable
            stack.enter_context(closing(world))
            yield world

    @cached_property
    def postgresql(self) -> ServerRegistry:
        """The databases of a login on PostgreSQL."""
        run(f"DROP ROLE IF EXISTS {ROLE}", f"CREATE ROLE {ROLE}")
        self._stack.callback(run, f"DROP ROLE {ROLE}")
        return self._stack.enter_context(own_databases(self._stack.enter_context(own_registry())))

    @cached_property
    def _template(self) -> str:
        return filled(self.postgresql)

    @cached_property
    def _mysql(self) -> MySQLRegistry:
        address = address_of(StoryMySQLServer().entrance)
        return self._stack.enter_context(closing(MySQLRegistry(address)))
