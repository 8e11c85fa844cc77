"""pytest-arena: end-to-end tests of web apps. Each test gets a separate database.

The plugin registers itself with pytest, so a test needs no import. This module has the names for
type annotations, such as :class:`Arena`, :class:`AsyncClient` and :class:`Changes`. It also has the
functions for expected changes, and the classes of errors and warnings.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from pytest_arena.errors import (
    ArenaError,
    ConfigError,
    IsolationError,
    LeakError,
    RefusedError,
    TemplateError,
)
from pytest_arena.warnings import (
    AccessWarning,
    ArenaWarning,
    LateCommitWarning,
    LateWorkWarning,
    LeakWarning,
    LostWriteWarning,
    MigrationDriftWarning,
    RaceWarning,
    TornWriteWarning,
)

if TYPE_CHECKING:
    from pytest_arena._app._clients import AsyncClient, ClientAs, TestClient
    from pytest_arena._app._live_server import LiveServer
    from pytest_arena._changes import Change, Changes
    from pytest_arena._ledger import Request
    from pytest_arena._run._arena import Arena
    from pytest_arena._run._expect import deleted, inserted, updated
    from pytest_arena._run._processes import Process
    from pytest_arena.scenarios._blocks import Scenario

__all__ = [
    "AccessWarning",
    "Arena",
    "ArenaError",
    "ArenaWarning",
    "AsyncClient",
    "Change",
    "Changes",
    "ClientAs",
    "ConfigError",
    "IsolationError",
    "LateCommitWarning",
    "LateWorkWarning",
    "LeakError",
    "LeakWarning",
    "LiveServer",
    "LostWriteWarning",
    "MigrationDriftWarning",
    "Process",
    "RaceWarning",
    "RefusedError",
    "Request",
    "Scenario",
    "TemplateError",
    "TestClient",
    "TornWriteWarning",
    "deleted",
    "inserted",
    "updated",
]

# The modules of lazy imports. The command `arena` imports this package, and needs no SQLAlchemy.
# pytest imports it for each run, which may use none of them.
_MODULES = {
    "Arena": "_run._arena",
    "AsyncClient": "_app._clients",
    "Change": "_changes",
    "Changes": "_changes",
    "ClientAs": "_app._clients",
    "LiveServer": "_app._live_server",
    "Process": "_run._processes",
    "Request": "_ledger",
    "Scenario": "scenarios._blocks",
    "TestClient": "_app._clients",
    "deleted": "_run._expect",
    "inserted": "_run._expect",
    "updated": "_run._expect",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
