"""Small values that packages exchange."""

import hashlib
import linecache
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, Self


def digest(text: str) -> str:
    """Return the SHA-256 of a text in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 file``, ``2,000 files``."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}s"


class Stage(Enum):
    """The content of a fresh database."""

    EMPTY = "empty"
    SCHEMA = "schema"
    SEEDED = "seeded"


@dataclass(frozen=True, slots=True)
class CodeLine:
    """A line of code, as a message shows it."""

    file: str
    number: int

    def __str__(self) -> str:
        return f"{self.short}  {linecache.getline(self.file, self.number).strip()}".rstrip()

    @property
    def short(self) -> str:
        """The file and the line number."""
        return f"{self.shown_file}:{self.number}"

    @property
    def shown_file(self) -> str:
        """The file, relative to the current folder if it is inside."""
        file = Path(self.file)
        if file.is_relative_to(Path.cwd()):
            file = file.relative_to(Path.cwd())
        return str(file)

    @classmethod
    def of_test(cls, item: Any) -> Self:
        """Return the line of a test of pytest."""
        _, index, _ = item.location
        return cls(str(item.path), (index or 0) + 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of one test, from its markers and the configuration."""

    name: str
    isolation: str
    keep: str
    stage: Stage
    is_async: bool
    starts_app: bool = False  # whether a fixture of pytest-arena starts the app first
    needs_database: bool = False  # whether the test uses a fixture of pytest-arena


@dataclass(frozen=True, slots=True)
class Child:
    """A process that is about to start, with its arguments."""

    arguments: tuple[str, ...] = ()
    folder: str = ""
    is_fork: bool = False
    environment: Any = None  # that its caller has given


# The user in the URL of an engine that uses pytest-arena's login. The row-level security policies
# of the app do not apply to this login.
PAST_POLICIES = "arena_past_policies"


@dataclass(frozen=True, slots=True)
class ServerLogin:
    """A user and a password for a server. No message shows the password."""

    user: str
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Address:
    """A database on a server, and the login for it. No message shows the password.

    ``host`` is a name, an IP address, the absolute path of a socket (``….sock``), or the folder of
    a socket. In a folder, the port is a part of the socket's name.
    """

    host: str
    port: int
    user: str
    database: str
    password: str = field(default="", repr=False)
    # Seconds that a statement of a redirected connection waits for a lock, 0 for the app's limit.
    lock_timeout: float = field(default=0, compare=False)

    @property
    def is_socket(self) -> bool:
        """Whether ``host`` is the path of a socket on this machine."""
        return self.host.startswith("/")

    @property
    def server(self) -> str:
        """The server, as a message shows it: ``host:port``."""
        return f"{self.host}:{self.port}"

    def as_(self, login: ServerLogin) -> "Address":
        """Return the same database with another login."""
        return replace(self, user=login.user, password=login.password)


# Reports show changes of the schema as rows of this table. A test that expects no change sees them.
SCHEMA = "the schema"


@dataclass(frozen=True, slots=True)
class TableRows:
    """The rows of one table that were removed and added between two moments, without an order.

    An updated row is a removed row with the old values and an added row with the new values. A row
    that was added and removed again is left out.
    """

    # The app's name of the table, with the schema unless it is the default schema.
    table: str
    columns: tuple[str, ...]
    key: tuple[str, ...]  # columns of the primary key, or ()
    # The values have the types of the database's driver.
    removed: tuple[tuple[object, ...], ...]
    added: tuple[tuple[object, ...], ...]
    more: int = 0  # the number of removed and added rows above a limit
