"""Variables of the environment that tests and wide fixtures set."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pytest_arena._interpreter import on_audit_events
from pytest_arena._origin import as_own, is_importing, is_own

if TYPE_CHECKING:
    from collections.abc import Collection

    from pytest_arena._owner import Owner


class Variables:
    """Puts the variables of the environment back at the end of a test or a wide fixture.

    Python reports each change before it happens. So nothing is copied where nothing changes.
    """

    def __init__(self, urls: Collection[str]) -> None:
        # Those of `arena_env`: no import may lead later tests to the developer's database.
        self._urls = urls
        # For each living owner the values before its first change. The last owner runs now.
        self._before: dict[Owner, dict[str, str | None]] = {}
        on_audit_events({"os.putenv": self._note, "os.unsetenv": self._note})

    def _note(self, key: bytes | str, *_value: object) -> None:
        name = os.fsdecode(key)
        # pytest itself names the running test by such a variable.
        if not self._before or name.startswith("PYTEST_") or is_own():
            return
        is_url = name in self._urls and name in os.environ
        if not is_url and is_importing():
            return  # what an import sets stays, because a module is imported once
        *_, values = self._before.values()
        values.setdefault(name, os.environ.get(name))

    def begin(self, owner: Owner) -> None:
        """Note changes for this owner from now on."""
        self._before[owner] = self._before.pop(owner, {})

    def end(self, owner: Owner) -> None:
        """Put back what this owner has changed."""
        values = self._before.pop(owner, {})
        with as_own():
            for name, value in values.items():
                if value is not None:
                    os.environ[name] = value
                else:
                    os.environ.pop(name, None)
