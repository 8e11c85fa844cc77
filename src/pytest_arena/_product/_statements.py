"""The one classifier of SQL statements, by their texts. Each product has its ``Words``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

# String literals, comments, and what is neither: quoted names and dollar-quoted strings.
_PARTS = re.compile(
    r"""(?s)(?P<text>(?<![\w$])[eE]'(?:[^'\\]|\\.|'')*+'|'(?:[^']|'')*+')"""
    r"""|(?P<name>"(?:[^"]|"")*+"|(?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$)"""
    r"""|(?P<comment>--[^\n\r]*|/\*(?:[^*]++|\*(?!/))*\*/)"""
)
_NEVER = re.compile(r"(?!)")
_END = re.compile(r"(?is)\s*(?:COMMIT|END|ROLLBACK(?!.*\bTO\b)|ABORT)\b")


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """The patterns of a product's statements.

    ``altering``: statements that may change the session beyond its transaction. A connection with
    an altered session is dropped when the level ends. ``beyond``: statements that reach other
    databases or the server, by a named group. ``instead``: what to send instead of them.
    ``shared``: the same, but a build may send them. ``ending``: statements that end the present
    transaction. ``parts``: the texts and comments in a statement.
    """

    altering: re.Pattern[str]
    beyond: re.Pattern[str] = _NEVER
    instead: Mapping[str, str] = field(default_factory=dict)
    shared: re.Pattern[str] = _NEVER
    ending: re.Pattern[str] = _END
    parts: re.Pattern[str] = _PARTS


class Reach(Enum):
    """What a statement may write."""

    NOTHING = "nothing"
    TABLE = "rows of one table, and of those that foreign keys reach from it"
    ROWS = "rows of any table"
    SCHEMA = "the schema, or it is unknown"


class Statement(NamedTuple):
    """What is known of a statement by its text."""

    words: tuple[str, ...]  # the first three and the last, in upper case
    table: str  # the first table that it writes, as the app names it, or ""
    reach: Reach
    alters_session: bool
    ends_transaction: bool
    beyond: str  # what it does to other databases or the server: DROP DATABASE
    shared: str  # the same, if a build may do it: CREATE ROLE


_NAME = r'(?:"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|[\w$]+)'
_OPTIONS = r"(?:(?:LOW_PRIORITY|HIGH_PRIORITY|DELAYED|QUICK|IGNORE|ONLY|OR\s+\w+)\b\s*)*+"
_WRITES = (
    rf"(?P<verb>(?:INSERT|REPLACE)\b\s*{_OPTIONS}(?:INTO\b\s*)?+|MERGE\s+INTO\b\s*"
    rf"|DELETE\b\s*{_OPTIONS}(?:{_NAME}(?:\s*[.,]\s*{_NAME})*\s+)??FROM\b\s*(?:ONLY\b\s*)?+"
    rf"|UPDATE\b\s*{_OPTIONS}"
    rf"|TRUNCATE\b\s*(?:TABLE\b\s*)?+{_OPTIONS})"
    rf"(?P<table>{_NAME}(?:\s*\.\s*{_NAME})*)"
)
_WRITE = re.compile(rf"(?i)\s*{_WRITES}")
_INSIDE = re.compile(rf"(?i)(?<!FOR )(?<!KEY )\b{_WRITES}")
# The text after the table, if the statement writes no other table.
_ALONE = {
    "UPDATE": re.compile(rf"(?i)(?:\s+(?:AS\s+)?(?!SET\b){_NAME})?\s+SET\b"),
    "DELETE": re.compile(r"(?i)\s*(?:\Z|(?:WHERE|ORDER|LIMIT|RETURNING)\b)"),
    "TRUNCATE": re.compile(r"\s*\Z"),
}
_READS = re.compile(
    r"(?is)\s*(?:\(*\s*(?:SELECT|SHOW|BEGIN|START|SAVEPOINT|RELEASE|ROLLBACK|COMMIT|DESC"
    r"|DESCRIBE|USE|SET(?!\s+STATEMENT\b)|KILL|UNLOCK|LOCK\s+TABLES?|HELP|CHECKSUM|PREPARE"
    r"|DEALLOCATE|VALUES|TABLE|(?:EXPLAIN|WITH)(?!.*\b(?:UPDATE|DELETE|INSERT|MERGE|REPLACE)\b))\b"
    r"|(?:CREATE(?:\s+OR\s+REPLACE)?|DROP)\s+TEMPORARY\b)[^;]*\Z"
)
_ROWS = re.compile(
    r"(?i)\s*(?:INSERT|REPLACE|UPDATE|DELETE|TRUNCATE|EXPLAIN|WITH|LOAD|DO|HANDLER|SELECT)\b[^;]*\Z"
)
_WITH = re.compile(r"(?i)\s*WITH\b")
_PART = re.compile(_NAME)
_DEFAULT_SCHEMAS = ("main", "public")
# The rows of a temporary table end with the connection.
_TEMPORARY_SCHEMAS = ("temp", "pg_temp")


def bare(text: str, words: Words) -> str:
    """Return a statement without its comments and values.

    Some drivers send values inside the statement. Without values an app has some hundred
    statements.
    """
    return words.parts.sub(_without, text)


def _without(match: re.Match[str]) -> str:
    kind = match.lastgroup
    if kind == "text":
        return "''"
    if kind == "number":
        return "0"
    return match[0] if kind == "name" else " "


@lru_cache(maxsize=1024)
def classify(text: str, words: Words) -> Statement:
    """Classify a statement of a product.

    >>> classify("/* the old ones */ DELETE FROM public.orders", Words(_NEVER)).table
    'orders'
    """
    sql = bare(text, words).rstrip("; \t\r\n")
    upper = sql.upper().split()
    table, reach = _written(sql)
    return Statement(
        (*upper[:3], *upper[-1:]),
        table,
        reach,
        words.altering.search(sql) is not None,
        words.ending.match(sql) is not None,
        _beyond_of(sql, words.beyond),
        _beyond_of(sql, words.shared),
    )


def _beyond_of(sql: str, pattern: re.Pattern[str]) -> str:
    """Return the words of bare SQL that a pattern names, or ""."""
    beyond = pattern.search(sql)
    return " ".join(beyond[beyond.lastgroup or 0].upper().split()) if beyond else ""


def _written(sql: str) -> tuple[str, Reach]:
    """Return the first table that a statement writes, and what else it may write."""
    write = _WRITE.match(sql)
    if write is None and _WITH.match(sql):
        write = _INSIDE.search(sql)
    table = _named(write["table"]) if write is not None else ""
    if _READS.match(sql):
        return table, Reach.NOTHING
    if not _ROWS.match(sql):
        return table, Reach.SCHEMA
    if write is not None and write.start() == 0:
        alone = _ALONE.get(write["verb"].split()[0].upper())
        if alone is None or alone.match(sql, write.end()):
            return table, Reach.TABLE
    return table, Reach.ROWS


def _named(place: str) -> str:
    """Return a table as the app names it, "" for a temporary one."""
    parts = [_without_quotes(part) for part in _PART.findall(place)]
    if len(parts) > 1:
        if parts[0] in _TEMPORARY_SCHEMAS:
            return ""
        if parts[0] in _DEFAULT_SCHEMAS:
            del parts[0]
    return ".".join(parts)


def _without_quotes(name: str) -> str:
    if name[0] not in '"`[':
        return name
    return name[1:-1].replace(name[0] * 2, name[0])
