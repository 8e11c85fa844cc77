"""One connection of an app: its settings, and the transaction that it believes to have."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_arena._postgresql.rollback._transaction_sql import setting_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_arena._postgresql.rollback._transaction_sql import Statement

_FIRST_PID = 1_000_000_000  # no process has such a number
_OPTION = re.compile(r"(?:-c\s*|--)([\w.\-]+)=((?:\\.|[^\s\\])*)")
_DURATION = re.compile(r"\s*([\d.]+)\s*(us|ms|s|min|h|d|)\s*")
_ON = {"on", "true", "yes", "1"}
_UNITS = {"": 1e-3, "us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400}


def _with_value(values: dict[str, str], name: str, value: str | None) -> dict[str, str]:
    others = {key: text for key, text in values.items() if key != name}
    return others if value is None else {**others, name: value}


@dataclass(slots=True)
class Savepoint:
    """A savepoint of the app. The backend opens it at the next write."""

    name: str
    backend_name: str
    values: dict[str, str]
    lasting: dict[str, str]


@dataclass(eq=False, slots=True)
class Session:
    """One connection of the app.

    ``note`` reports what this isolation cannot show. ``end_connection`` ends it with an error.
    """

    number: int
    note: Callable[[str], None]
    end_connection: Callable[[str, str], None]
    # Settings: with which it connected, now, and after a COMMIT, which ends those of SET LOCAL.
    startup: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    _lasting: dict[str, str] = field(default_factory=dict, init=False)
    _before: dict[str, str] = field(default_factory=dict, init=False)
    state: str = "I"  # as in ReadyForQuery: idle, in a transaction, in a failed one
    is_implicit: bool = False  # its transaction ends with the present messages
    is_read_only: bool = False
    first_write: str = ""  # the statement that first changed something
    savepoints: list[Savepoint] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """The number by which a driver cancels its statement."""
        return _FIRST_PID + self.number

    @property
    def savepoint(self) -> str:
        """The name of the savepoint of its transaction."""
        return f"arena_client_{self.number}"

    @property
    def in_block(self) -> bool:
        """Whether the app has begun a transaction."""
        return self.state != "I" and not self.is_implicit

    # Settings

    def start(self, parameters: Mapping[str, str]) -> None:
        """Note the settings with which it connects."""
        for name, value in _OPTION.findall(parameters.get("options", "")):
            unescaped = re.sub(r"\\(.)", r"\1", value)
            self.startup[setting_name(name.replace("-", "_"))] = unescaped
        for name, value in parameters.items():
            is_setting = name not in {"", "user", "database", "options", "replication"}
            if is_setting and not name.startswith("_pq_"):
                self.startup[setting_name(name)] = value
        self.reset_all()

    def add_defaults(self, settings: Mapping[str, str]) -> None:
        """Note settings with which it connects, unless it has set them itself."""
        self.startup = {**settings, **self.startup}
        self.reset_all()

    def lock_timeout(self, default: float | None) -> float | None:
        """Return the seconds to wait for another transaction. None: without a limit."""
        match = _DURATION.fullmatch(self.values.get("lock_timeout", ""))
        if match is None:
            return default
        return float(match[1]) * _UNITS[match[2]] or None

    def set(self, name: str, value: str | None, *, is_local: bool = False) -> None:
        """Note the value that a statement has given to a setting."""
        if name == "role" and value == "none":
            value = self.startup.get("role")
        self.values = _with_value(self.values, name, value)
        if not is_local:
            self._lasting = _with_value(self._lasting, name, value)

    def reset(self, name: str) -> None:
        """Give a setting the value with which it connected."""
        self.set(name, self.startup.get(name))

    def reset_all(self, *, keeps_role: bool = False) -> None:
        """Give all settings the values with which it connected."""
        role = self.values.get("role")
        self.values = self.startup
        self._lasting = self.startup
        if keeps_role:
            self.set("role", role)

    # The transaction

    def begin(self, *, is_implicit: bool = False, is_read_only: bool = False) -> None:
        """Begin a transaction. The messages so far are part of it."""
        if self.state == "I":
            self.state = "T"
            self._before = self.values
        self.is_implicit = is_implicit
        default = self.values.get("default_transaction_read_only", "off")
        self.is_read_only = is_read_only or default.lower() in _ON

    def be_read_only(self) -> None:
        """Refuse to write from now on."""
        self.is_read_only = True

    def fail(self) -> None:
        """Note that a statement has failed."""
        if self.state == "T":
            self.state = "E"

    def end(self, *, is_committed: bool) -> None:
        """Note that the transaction has ended."""
        if self.state != "I":
            self.values = self._lasting if is_committed else self._before
            self._lasting = self.values
        self.state = "I"
        self.is_implicit = False
        self.is_read_only = False
        self.first_write = ""
        self.savepoints = []

    def cut_off(self) -> None:
        """Note that the level of its transaction was left, and with it the transaction."""
        state = "I" if self.state == "I" else "E"
        is_implicit = self.is_implicit
        self.end(is_committed=False)
        self._before = self.values
        self.state = state
        self.is_implicit = is_implicit

    def note_write(self, statement: Statement) -> None:
        """Note a statement that has changed something."""
        self.first_write = self.first_write or statement.shown

    # Savepoints of the app

    def add_savepoint(self, name: str) -> None:
        """Note a new savepoint."""
        backend_name = f"{self.savepoint}_{len(self.savepoints)}"
        self.savepoints.append(
            Savepoint(name, backend_name, self.values, self._lasting)
        )

    def find_savepoint(self, name: str) -> Savepoint | None:
        """Return the last savepoint of a name."""
        for savepoint in reversed(self.savepoints):
            if savepoint.name == name:
                return savepoint
        return None

    def release(self, savepoint: Savepoint) -> None:
        """Forget a savepoint, and those after it."""
        del self.savepoints[self.savepoints.index(savepoint) :]

    def go_back_to(self, savepoint: Savepoint) -> None:
        """Return to a savepoint. Forget those after it."""
        del self.savepoints[self.savepoints.index(savepoint) + 1 :]
        self.values = savepoint.values
        self._lasting = savepoint.lasting
        self.state = "T"
