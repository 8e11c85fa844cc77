"""What a database product says of itself. A run without a database loads this, too."""

from collections.abc import Mapping
from dataclasses import dataclass, field


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
