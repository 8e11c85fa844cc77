"""Small values that packages exchange, and copies of containers."""

from __future__ import annotations

import linecache
import re
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from operator import is_
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# A pattern of the blanks and comments before a statement's first word. It matches in one way only:
# if a comment could extend past its end, the regex would try many combinations.
# PostgreSQL reads a comment inside of a comment. SQLite ends a comment at the first `*/`.
_IN_COMMENT = r"[^*/]++|\*(?!/)|/(?!\*)"
_COMMENT = rf"/\*(?>{_IN_COMMENT})*+\*/"
_NESTED = rf"/\*(?>{_IN_COMMENT}|{_COMMENT})*+\*/"
_DEEPER = rf"/\*(?>{_IN_COMMENT}|{_NESTED})*+\*/"
_UNNESTED = r"/\*(?:[^*]++|\*(?!/))*\*/"
STATEMENT_START = rf"\s*(?>--[^\n]*\n\s*|(?>{_DEEPER}|{_UNNESTED})\s*)*"

# A string literal, a quoted name or a dollar-quoted string. These have no comments.
QUOTED = r"""(?<![\w$])[eE]'(?:[^'\\]|\\.|'')*+'|'(?:[^']|'')*+'|"(?:[^"]|"")*+"
|(?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$""".replace("\n", "")
_QUOTED_OR_COMMENT = re.compile(rf"(?s){QUOTED}|--[^\n\r]*|/\*")
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_SHORT = (
    4096  # characters. Longer statements contain data, so their results are not kept.
)


def without_comments(statement: str) -> str:
    """Return a statement with a blank for each comment, in 0.1 µs if it has no comment.

    >>> without_comments("UPDATE/* the /* whole */ stock */item SET note = '-- none' -- all")
    "UPDATE item SET note = '-- none'  "
    """
    if "--" not in statement and "/*" not in statement:
        return statement
    if len(statement) < _SHORT:
        return _without_comments_kept(statement)
    return _without_comments(statement)


def _without_comments(statement: str) -> str:
    parts = []
    kept = 0
    position = 0
    while match := _QUOTED_OR_COMMENT.search(statement, position):
        position = match.end()
        if match[0] == "/*":
            position = _comment_end(statement, position)
        elif not match[0].startswith("--"):
            continue
        if position == -1:
            break
        parts.append(statement[kept : match.start()])
        kept = position
    return " ".join([*parts, statement[kept:]])


_without_comments_kept = lru_cache(maxsize=1024)(_without_comments)


def _comment_end(statement: str, start: int) -> int:
    """Return where the comment ends that is open at ``start``, or -1 if it has no end."""
    depth = 1
    for edge in _COMMENT_EDGE.finditer(statement, start):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    # SQLite reads no comment inside of a comment.
    first_end = statement.find("*/", start)
    return first_end + 2 if first_end != -1 else -1


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
        """The file, relative to the current folder if it is inside, and the line number."""
        try:
            folder = Path.cwd()
        except FileNotFoundError:  # the test has removed the current folder
            return f"{self.file}:{self.number}"
        file = Path(self.file)
        if file.is_relative_to(folder):
            file = file.relative_to(folder)
        return f"{file}:{self.number}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of one test, from its markers and the configuration."""

    name: str
    isolation: str
    keep: str
    stage: Stage
    is_async: bool
    has_examples: bool = False  # whether Hypothesis runs it
    starts_app: bool = False  # whether a fixture of pytest-arena starts the app first


@dataclass(frozen=True, slots=True)
class Child:
    """A process that is about to start, with its arguments and environment.

    ``variables`` is None if the child inherits the environment of this process.
    """

    arguments: tuple[str, ...] = ()
    folder: str = ""
    variables: Mapping[str, str] | None = None
    is_fork: bool = False


# A user in an engine's URL: the engine uses pytest-arena's login, to which no row-level security
# policy of the app applies.
PAST_POLICIES = "arena_past_policies"


@dataclass(frozen=True, slots=True)
class ServerLogin:
    """A user and a password for a server. No message shows the password."""

    user: str
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Address:
    """A database on a server, and the login for it. No message shows the password.

    ``host`` is a name, a number, or the absolute path of the folder in which the socket is.
    """

    product: str  # postgresql
    host: str
    port: int
    user: str
    database: str
    password: str = field(default="", repr=False)
    # Seconds to wait if other runs use all connections.
    patience: float = field(default=0.0, compare=False)
    # The log file of a private server, "" for any other server.
    log: str = field(default="", compare=False)

    @property
    def is_socket(self) -> bool:
        """Whether ``host`` is the folder of a socket on this machine."""
        return self.host.startswith("/")

    @property
    def server(self) -> str:
        """The server, as a message shows it: ``host:port``."""
        return f"{self.host}:{self.port}"

    def as_(self, login: ServerLogin) -> Address:
        """Return the same database with another login."""
        return replace(self, user=login.user, password=login.password)


@dataclass(frozen=True, slots=True)
class TableRows:
    """The rows of one table that were removed and added between two moments, without an order.

    An updated row is removed with its old values and added with its new values. A row that was
    added and removed again is left out.
    """

    # The app's name of the table, with its schema if that is not the default schema.
    table: str
    columns: tuple[str, ...]
    key: tuple[str, ...]  # columns of the primary key, or ()
    # The values have the types of the database's driver.
    removed: tuple[tuple[object, ...], ...]
    added: tuple[tuple[object, ...], ...]
    more: int = 0  # the number of removed and added rows above a limit


# Copies of containers

PLAIN: set[type] = {
    dict,
    defaultdict,
    OrderedDict,
    Counter,
    list,
    deque,
    set,
}
_MOST_ITEMS = 10_000  # to copy a larger container takes longer than most tests
_MOST_CONTAINERS = 1_000


class Contents:
    """A copy of a container, and of the plain containers and objects inside it.

    ``is_restorable`` says whether an object's attributes are copied. Without it none are. A copy of
    an empty dict and the comparison with it take 2 µs.
    """

    __slots__ = ("_attributes", "_containers")

    def __init__(
        self,
        container: Any,
        is_restorable: Callable[[object], bool] | None = None,
    ) -> None:
        self._containers: list[tuple[Any, Any]] = []
        self._attributes: list[tuple[dict[str, object], dict[str, object]]] = []
        known: set[int] = set()
        waiting = [container]
        while waiting:
            container = waiting.pop()
            is_plain = type(container) in PLAIN
            inside = container
            if not is_plain and is_restorable and is_restorable(container):
                inside = vars(container)
            is_known = id(inside) in known
            if is_known or len(inside) > _MOST_ITEMS:
                continue
            if len(known) >= _MOST_CONTAINERS:
                break
            known.add(id(inside))
            copy = _copied(inside)
            if inside is container:
                self._containers.append((inside, copy))
            else:
                self._attributes.append((inside, copy))
            values = copy.values() if isinstance(copy, dict) else copy
            for value in values:
                kind = type(value)
                if kind in PLAIN or (
                    is_restorable and kind not in _DATA and is_restorable(value)
                ):
                    waiting.append(value)

    def is_changed(self) -> bool:
        """Whether a container or an object has other objects now."""
        copies = [*self._containers, *self._attributes]
        return any(_differ(container, before) for container, before in copies)

    def restore(self) -> bool:
        """Put the former objects back. Return whether a container had other objects."""
        is_changed = False
        for attributes, before in self._attributes:
            is_changed |= _restore_attributes(attributes, before)
        for container, before in self._containers:
            if not _differ(container, before):
                continue
            is_changed = True
            container.clear()
            if isinstance(container, list | deque):
                container.extend(before)
            else:
                container.update(before)
        return is_changed


# Values of attributes that are restored.
_DATA = {
    *(bool, int, float, complex, str, bytes, type(None), tuple, frozenset),
    *(date, datetime, time, timedelta, Decimal, UUID),
}
_MISSING = object()


def _restore_attributes(
    attributes: dict[str, object], before: dict[str, object]
) -> bool:
    """Put the former attributes of an object back. Return whether any were different.

    If one of them is no data, such as a connection, a thread or a client, all keep their values:
    they belong together.
    """
    changed = []
    for name in {**before, **attributes}:
        value = attributes.get(name, _MISSING)
        former = before.get(name, _MISSING)
        if value is former:
            continue
        if not (_is_data(value) and _is_data(former)):
            return False
        changed.append(name)
    # One by one: a thread may use the object meanwhile.
    for name in changed:
        if name in before:
            attributes[name] = before[name]
        else:
            del attributes[name]
    return bool(changed)


def _is_data(value: object) -> bool:
    kind = type(value)
    is_data = kind in _DATA or kind in PLAIN or isinstance(value, Enum)
    return is_data or value is _MISSING


def _copied(container: Any) -> Any:
    if isinstance(container, dict):
        return dict(container)
    if isinstance(container, set):
        return set(container)
    return list(container)


def _differ(now: Any, before: Any) -> bool:
    """Compare by identity, because the ``==`` of an app's object may return an array."""
    if len(now) != len(before):
        return True
    if isinstance(now, set):
        return bool(now != before)
    if isinstance(now, dict):
        if now.keys() != before.keys():
            return True
        return any(now[key] is not before[key] for key in before)
    return not all(map(is_, now, before))
