"""Finds apps in the project's modules."""

from __future__ import annotations

from pytest_arena._app._app_state import OTHER_APPS
from pytest_arena._app._kind import is_frameworks_app
from pytest_arena._config._load import project_modules


def note_other_apps(named: object) -> None:
    """Note the apps in the project's modules, also in modules of tests, without the named one."""
    apps = {}
    for module, _ in project_modules():
        for value in [*vars(module).values()]:
            if value is not named and is_frameworks_app(value):
                apps[id(value)] = value
    OTHER_APPS[:] = apps.values()
