"""How does an engine's own connection come to be one whose statements are looked at?"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_arena._sqlite import _messages
from pytest_arena._sqlite import _names as names
from pytest_arena._sqlite._guarded import GuardedConnection, guard, guarded_class

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._product import Aim, Core

__all__ = ["EngineFactory"]


@dataclass(frozen=True, slots=True)
class EngineFactory:
    """What ``sqlite3.connect(factory=…)`` calls: it checks the file before it opens it.

    ``base`` is the app's own ``factory``, ``aim`` what the engine's connection aims at.
    """

    core: Core
    aim: Aim | None
    base: Any
    made: Callable[[sqlite3.Connection], None]

    def __call__(self, database: Any, *args: Any, **kwargs: Any) -> sqlite3.Connection:
        """Open the file."""
        __tracebackhide__ = True
        core = self.core
        file = names.file_of(os.fsdecode(database), uri=bool(kwargs.get("uri")))
        if file and not core.is_inside(file) and not core.files.is_free(file):
            of_app = core.files.belongs_to_app(file)
            raise core.ledger.refused(_messages.unknown_file(file, of_app=of_app))
        kwargs.pop("factory", None)
        connection: sqlite3.Connection = self._class()(database, *args, **kwargs)
        guard(core, connection, of_engine=True)
        if isinstance(connection, GuardedConnection):
            connection.arena_made_table = partial(core.made_table, file)
            connection.arena_leads = partial(core.aim_attached, beside=self.aim)
        self.made(connection)
        return connection

    def _class(self) -> Any:
        is_class = isinstance(self.base, type) and issubclass(self.base, sqlite3.Connection)
        return guarded_class(self.base) if is_class else self.base
