"""Small values that packages exchange."""

import hashlib
import linecache
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFormat:
    """The files in which a product stores its databases."""

    header: bytes  # the first bytes of a file
    name: str  # a pattern of the name of such a file
    # The endings of the log files. The first log has changes that the file does not have yet.
    logs: tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductFacts:
    """The facts of a database product that are needed before its package is used."""

    name: str
    """The name of SQLAlchemy's dialect."""
    shown: str
    """The name in a message."""
    other_dialects: tuple[str, ...] = ()
    """Other names of SQLAlchemy's dialects for the product."""
    isolations: tuple[str, ...]
    """The values of ``arena_isolation`` for the product."""
    drivers: tuple[str, ...]
    """Packages whose connections pytest-arena guards."""
    file_format: FileFormat | None = None
    """None if a server stores the databases."""
    sqlstates: Mapping[str, str] = field(default_factory=dict)
    """The kinds of the drivers' errors, by SQLSTATE."""
    error_words: Mapping[str, str] = field(default_factory=dict)
    """The kinds of errors without a SQLSTATE, by words in their messages."""
    is_default_of_own: bool = False
    """Whether ``arena_database = own`` means this product unless an engine shows another one."""
    other_url: str = ""
    """Another beginning of the product's URLs. SQLAlchemy does not accept it."""
    example_url: str
    """A URL for a message."""
    drivers_without_loop: tuple[str, ...] = ()
    """Async drivers whose connections may be used in any event loop."""
    maintenance_database: str = ""
    """The database to which an engine connects that only creates another database."""


def sqlstate(error: object) -> object:
    """Return PostgreSQL's code of an error. psycopg2 has another name for it."""
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)


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
        source = linecache.getline(self.file, self.number).strip()
        return f"{self.short}  {source}".rstrip()

    @property
    def short(self) -> str:
        """The file and the line number."""
        return f"{self.shown_file}:{self.number}"

    @property
    def shown_file(self) -> str:
        """The file, relative to the current folder if it is inside."""
        try:
            folder = Path.cwd()
        except FileNotFoundError:  # the test has removed the current folder
            return self.file
        file = Path(self.file)
        if file.is_relative_to(folder):
            file = file.relative_to(folder)
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
        """The server, as a message shows it: ``host:port``, or a socket."""
        if self.host.endswith(".sock"):
            return self.host
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
