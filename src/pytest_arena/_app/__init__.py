"""How does a test talk to the app?"""

from __future__ import annotations

from pytest_arena._app._kin import Made, frameworks, handlers, is_own, kinship
from pytest_arena._app._kind import ASGIApp, build_app, check_app, is_factory, may_be_app
from pytest_arena._app._login import is_logging_in
from pytest_arena._app._messages import no_asyncio
from pytest_arena._app._reached import (
    Door,
    Reached,
    Saboteur,
    is_by_itself,
    is_watchable,
    request_now,
    unwrapped,
)
from pytest_arena._app._records import Hooks, Request
from pytest_arena._app._run import AppRun
from pytest_arena._app._session_lifespan import SessionLifespan

__all__ = [
    "ASGIApp",
    "AppRun",
    "Door",
    "Hooks",
    "Made",
    "Reached",
    "Request",
    "Saboteur",
    "SessionLifespan",
    "build_app",
    "check_app",
    "frameworks",
    "handlers",
    "is_by_itself",
    "is_factory",
    "is_logging_in",
    "is_own",
    "is_watchable",
    "kinship",
    "may_be_app",
    "no_asyncio",
    "request_now",
    "unwrapped",
]
