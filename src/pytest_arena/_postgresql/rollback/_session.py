"""A connection of the app to the proxy, and its settings."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pytest_arena._postgresql.rollback._transaction_sql import setting_name

_OPTION = re.compile(r"(?:-c\s*|--)([\w.\-]+)=((?:\\.|[^\s\\])*)")
_DURATION = re.compile(r"\s*([\d.]+)\s*(us|ms|s|min|h|d|)\s*")
_FIRST_PID = 1_000_000_000  # no process of the server has such a number
_ON = {"on", "true", "yes", "1"}
_UNITS = {"": 1e-3, "us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400}


def _with_value(values: dict[str, str], name: str, value: str | None) -> dict[str, str]:
    others = {key: text for key, text in values.items() if key != name}
    return others if value is None else {**others, name: value}


@dataclass(slots=True)
class Savepoint:
    """A savepoint of the app. The real connection opens it at the next write."""

    name: str
    backend_name: str
    # The session's settings, which a rollback to it restores.
    settings: tuple[dict[str, str], dict[str, str]]


@dataclass(eq=False, slots=True)
class Session:
    """A connection of the app to the proxy, with its settings.

    ``note`` notes a difference between this isolation and real connections. ``end_connection`` ends
    the connection with an error.
    """

    number: int
    note: Callable[[str], None]
    end_connection: Callable[[str], None]
    is_begun: bool = False
    is_implicit: bool = False  # whether its transaction ends with the present messages
    is_read_only: bool = False
    first_write: str = ""  # the first statement that changed something
    savepoints: list[Savepoint] = field(default_factory=list)
    # The settings at the login, now, and after a COMMIT, which ends SET LOCAL.
    startup: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    _lasting: dict[str, str] = field(default_factory=dict, init=False)
    _before: dict[str, str] = field(default_factory=dict, init=False)
    has_failed: bool = False  # a statement of the transaction has failed

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
        return self.is_begun and not self.is_implicit

    @property
    def state(self) -> str:
        """The state for ReadyForQuery: idle, in a transaction, or in a failed transaction."""
        if not self.is_begun:
            return "I"
        return "E" if self.has_failed else "T"

    # Settings

    def start(self, parameters: Mapping[str, str]) -> None:
        """Note the settings of the login."""
        for name, value in _OPTION.findall(parameters.get("options", "")):
            unescaped = re.sub(r"\\(.)", r"\1", value)
            self.startup[setting_name(name.replace("-", "_"))] = unescaped
        for name, value in parameters.items():
            is_setting = name not in {"", "user", "database", "options", "replication"}
            if is_setting and not name.startswith("_pq_"):
                self.startup[setting_name(name)] = value
        self.reset_all()

    def add_defaults(self, settings: Mapping[str, str]) -> None:
        """Note further settings of the login. Settings that the client has set precede them."""
        self.startup = {**settings, **self.startup}
        self.reset_all()

    def lock_timeout(self, default: float | None) -> float | None:
        """Return the seconds to wait for another transaction, None for no limit."""
        match = _DURATION.fullmatch(self.values.get("lock_timeout", ""))
        if match is None:
            return default
        return float(match[1]) * _UNITS[match[2]] or None

    def set(self, name: str, value: str | None, *, is_local: bool = False) -> None:
        """Note the value that a statement has given to a setting."""
        if name == "session_authorization":
            # Only a superuser may change the user. Such an app connects without this setting.
            value = self.startup.get(name, value)
        self.values = _with_value(self.values, name, value)
        if not is_local:
            self._lasting = _with_value(self._lasting, name, value)

    def reset(self, name: str) -> None:
        """Reset a setting to its value at the login."""
        self.set(name, self.startup.get(name))

    def reset_all(self, *, keeps_role: bool = False) -> None:
        """Reset all settings to their values at the login."""
        role = self.values.get("role")
        self.values = self.startup
        self._lasting = self.startup
        if keeps_role:
            self.set("role", role)

    # The transaction

    def begin(self, *, is_implicit: bool = False, is_read_only: bool = False) -> None:
        """Begin a transaction, or turn an implicit transaction into a block."""
        if not self.is_begun:
            self._before = self.values
        default = self.values.get("default_transaction_read_only", "off")
        is_read_only |= default.lower() in _ON
        self.is_begun = True
        self.is_implicit = is_implicit
        self.is_read_only = is_read_only

    def forbid_writes(self) -> None:
        """Refuse writes from now on."""
        self.is_read_only = True

    def fail(self) -> None:
        """Note that a statement has failed."""
        self.has_failed = self.is_begun

    def end(self, *, is_committed: bool) -> None:
        """Note that the transaction has ended."""
        if self.is_begun:
            self.values = self._lasting if is_committed else self._before
            self._lasting = self.values
        self.has_failed = False
        self.is_begun = False
        self.is_implicit = False
        self.is_read_only = False
        self.first_write = ""
        self.savepoints = []

    def cut_off(self) -> None:
        """Note that the level of the transaction was left. Its next statements fail."""
        was_begun = self.is_begun
        was_implicit = self.is_implicit
        self.end(is_committed=False)
        self._before = self.values
        self.is_begun = was_begun
        self.is_implicit = was_implicit
        self.has_failed = was_begun

    def note_write(self, statement: str) -> None:
        """Note a statement that has changed something."""
        self.first_write = self.first_write or statement

    # Savepoints of the app

    # Savepoints of the app

    def add_savepoint(self, name: str) -> None:
        """Note a new savepoint."""
        backend_name = f"{self.savepoint}_{len(self.savepoints)}"
        self.savepoints.append(
            Savepoint(name, backend_name, (self.values, self._lasting))
        )

    def find_savepoint(self, name: str) -> Savepoint | None:
        """Return the last savepoint of a name."""
        for savepoint in reversed(self.savepoints):
            if savepoint.name == name:
                return savepoint
        return None

    def release(self, savepoint: Savepoint) -> None:
        """Forget a savepoint and all later ones."""
        del self.savepoints[self.savepoints.index(savepoint) :]

    def roll_back_to(self, savepoint: Savepoint) -> None:
        """Roll back to a savepoint, with its settings. Forget all later ones."""
        del self.savepoints[self.savepoints.index(savepoint) + 1 :]
        self.values, self._lasting = savepoint.settings
        self.has_failed = False
