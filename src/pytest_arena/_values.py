"""Small frozen values that cross rooms."""

from __future__ import annotations

import linecache
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# A pattern of the blanks and comments before a statement's first word. There is one way only to
# read them: if a comment could go on after its end, many would be tried in any combination.
# PostgreSQL reads a comment inside of a comment. SQLite ends a comment at the first `*/`.
_IN_COMMENT = r"[^*/]++|\*(?!/)|/(?!\*)"
_COMMENT = rf"/\*(?>{_IN_COMMENT})*+\*/"
_NESTED = rf"/\*(?>{_IN_COMMENT}|{_COMMENT})*+\*/"
_DEEPER = rf"/\*(?>{_IN_COMMENT}|{_NESTED})*+\*/"
_UNNESTED = r"/\*(?:[^*]++|\*(?!/))*\*/"
STATEMENT_START = rf"\s*(?>--[^\n]*\n\s*|(?>{_DEEPER}|{_UNNESTED})\s*)*"


class Stage(Enum):
    """How full a fresh database is."""

    EMPTY = "empty"
    SCHEMA = "schema"
    SEEDED = "seeded"


@dataclass(frozen=True, slots=True)
class CodeLine:
    """A line of somebody's code, as a message shows it."""

    file: str
    number: int

    def __str__(self) -> str:
        source = linecache.getline(self.file, self.number).strip()
        return f"{self.file}:{self.number}" + (f"  {source}" if source else "")

    @property
    def short(self) -> str:
        """The file, relative to the current folder if it is inside, and the line number."""
        file = Path(self.file)
        if file.is_relative_to(Path.cwd()):
            file = file.relative_to(Path.cwd())
        return f"{file}:{self.number}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What one test asked for, by its marker and the configuration."""

    name: str
    isolation: str
    keep: str
    stage: Stage
    is_async: bool
    has_examples: bool = False  # Hypothesis'
    starts_app: bool = False  # whether a fixture of ours starts the app before the test


@dataclass(frozen=True, slots=True)
class Child:
    """A process that is about to start, with its arguments and environment.

    ``variables`` is None if the child inherits the environment of this process.
    """

    arguments: tuple[str, ...] = ()
    folder: str = ""
    variables: Mapping[str, str] | None = None
    is_fork: bool = False


# The user in the URL of an engine that uses arena's login, past the app's policies.
PAST_POLICIES = "arena_past_policies"


@dataclass(frozen=True, slots=True)
class ServerLogin:
    """As whom one logs in to a server. The password is shown to nobody."""

    user: str
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Address:
    """A database on a server, and how one logs in there. Its password is shown to nobody.

    ``host`` is a name, a number, or the absolute path of the folder in which the socket is.
    """

    product: str  # postgresql
    host: str
    port: int
    user: str
    database: str
    password: str = field(default="", repr=False)
    patience: float = field(
        default=0.0, compare=False
    )  # seconds, where others have all there is

    @property
    def is_socket(self) -> bool:
        """Whether it is reached by a socket of this machine's file system."""
        return self.host.startswith("/")

    @property
    def server(self) -> str:
        """Where the server is, as a message shows it: ``host:port``."""
        return f"{self.host}:{self.port}"

    def as_(self, login: ServerLogin) -> Address:
        """The same database for somebody else."""
        return replace(self, user=login.user, password=login.password)


@dataclass(frozen=True, slots=True)
class TableRows:
    """Rows of one table that have gone and come between two moments: whole rows, net.

    They are in no order. A row that was updated has gone as it was and come as it is.
    """

    table: str  # as the app names it; with its schema where that is not the default one
    columns: tuple[str, ...]
    key: tuple[str, ...]  # names of the primary key's columns, () where there is none
    gone: tuple[tuple[object, ...], ...]  # values as the database's driver gives them
    come: tuple[tuple[object, ...], ...]
    more: int = 0  # rows that a limit has cut off, gone and come together
