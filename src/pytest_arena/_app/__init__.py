"""How does a test talk to the app?"""

from __future__ import annotations

from pytest_arena._app._app_errors import no_asyncio
from pytest_arena._app._app_run import AppRun
from pytest_arena._app._client import Door, Hooks, request_sent
from pytest_arena._app._kind import ASGIApp, build_app, check_app, may_be_app
from pytest_arena._app._lifespan import session_lifespan
from pytest_arena._app._login import is_logging_in

__all__ = [
    "ASGIApp",
    "AppRun",
    "Door",
    "Hooks",
    "build_app",
    "check_app",
    "is_logging_in",
    "may_be_app",
    "no_asyncio",
    "request_sent",
    "session_lifespan",
]
