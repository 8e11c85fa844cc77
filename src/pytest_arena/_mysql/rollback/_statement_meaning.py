"""Classifies statements by their effect on the transaction that all connections share."""

import re
from dataclasses import dataclass
from functools import lru_cache

from pytest_arena._mysql._scripts import split_statements
from pytest_arena._mysql.drivers._reach import bare

_LONG = 10_000  # characters. Longer texts contain data, so they are not cached.
_NAME = r"(?P<name>`(?:[^`]|``)+`|[\w$]+)"
# Statements that the proxy executes itself, in the order in which they are tried.
_CONTROLS = {
    kind: re.compile(rf"(?ix)\s*{pattern}")
    for kind, pattern in {
        "begin": r"BEGIN\b(?:\s+WORK\b)?\s*;?\s*\Z | \s*START\s+TRANSACTION\b",
        "rollback_to": rf"ROLLBACK\s+(?:WORK\s+)?TO\s+(?:SAVEPOINT\s+)?{_NAME}",
        "commit": r"COMMIT\b",
        "rollback": r"ROLLBACK\b",
        "savepoint": rf"SAVEPOINT\s+{_NAME}",
        "release": rf"RELEASE\s+SAVEPOINT\s+{_NAME}",
        "next": r"SET\s+TRANSACTION\b",
        "autocommit": r"SET\b.*\bAUTOCOMMIT\b",
        "lock": r"LOCK\s+TABLES?\b",
        "unlock": r"UNLOCK\s+TABLES?\b",
        "use": rf"USE\s+{_NAME}",
        "refused": r"XA\b",
    }.items()
}
_AUTOCOMMIT = re.compile(
    r"""(?isx) (?:\b(?:SESSION|LOCAL)\s+|@@(?:(?:SESSION|LOCAL)\.)?)? \bAUTOCOMMIT\s*:?=\s*
    ['"]?(?P<value>\w+)['"]? \s*,?"""
)
_ON = {"1", "on", "true", "default"}
_LOCKS = re.compile(r"(?i)\bFOR\s+(?:UPDATE|SHARE)\b|\bIN\s+SHARE\s+MODE\b")
_READS_ROWS = re.compile(r"(?i)\b(?:FROM|TABLE|JOIN)\b")
_ROWS_ONLY = re.compile(r"(?i)\s*(?:INSERT|REPLACE|UPDATE|DELETE|SELECT|WITH|LOAD)\b")
# These statements may end the transaction, and the server's answer does not show that.
_PROGRAM = re.compile(r"(?i)\s*(?:CALL|EXECUTE|BEGIN\s+NOT)\b")
_HAS_BODY = re.compile(
    r"(?i)\s*(?:BEGIN\b|CREATE\b.*\b(?:PROCEDURE|FUNCTION|TRIGGER|EVENT|PACKAGE)\b)"
)
_READ_ONLY = re.compile(r"(?i)\bREAD\s+ONLY\b")
_CHAINS = re.compile(r"(?i)\bAND\s+CHAIN\b")
# Statements that act differently in the shared transaction, and the notes about them.
_NOT_SHOWN = {
    re.compile(rf"(?i){pattern}"): words
    for pattern, words in {
        r"\bSKIP\s+LOCKED\b": "SKIP LOCKED skips no row, since all connections have the same locks",
        r"\bGET_LOCK\s*\(": "GET_LOCK excludes no other connection",
        r"\A\s*LOCK\s+TABLES?\b": "LOCK TABLES excludes no other connection",
        r"\A\s*(?:SET|START)\b.*\bSERIALIZABLE\b": "ISOLATION LEVEL SERIALIZABLE does not act",
    }.items()
}


@dataclass(frozen=True, slots=True)
class MySQLStatement:
    """A statement, and its effect on the transaction.

    ``kind`` is the kind of a statement that the proxy executes itself, or "".
    """

    sql: str
    kind: str = ""
    name: str = ""  # the name of a savepoint or a database
    remark: str = ""  # how the statement acts differently in the shared transaction
    locks: bool = False
    reads_rows: bool = False
    is_program: bool = False
    # Whether the statement may change data for which the server counts no rows.
    is_more_than_rows: bool = False

    @property
    def is_read_only(self) -> bool:
        """Whether the statement begins a read-only transaction."""
        return _READ_ONLY.search(self.sql) is not None

    @property
    def is_chained(self) -> bool:
        """Whether the statement begins the next transaction at once."""
        return _CHAINS.search(self.sql) is not None

    @property
    def autocommits(self) -> bool:
        """Whether the session commits each statement from now on."""
        values = [match["value"].lower() for match in _AUTOCOMMIT.finditer(self.sql)]
        return values[-1] in _ON if values else True

    @property
    def without_autocommit(self) -> str:
        """The SET without AUTOCOMMIT, "" if it sets nothing else."""
        rest = _AUTOCOMMIT.sub("", self.sql).strip(" \t\r\n,;")
        return "" if rest.upper() == "SET" else rest


def statements_in(text: str) -> tuple[MySQLStatement, ...]:
    """Return the statements of a text."""
    if len(text) < _LONG:
        return _parse_short(text)
    return _parse(text)


def _parse(text: str) -> tuple[MySQLStatement, ...]:
    shape = bare(text).rstrip("; \t\r\n")
    if ";" not in shape or _HAS_BODY.match(shape):
        return (read_statement(text),)
    return tuple(map(read_statement, split_statements(text)))


_parse_short = lru_cache(maxsize=1000)(_parse)


def read_statement(sql: str) -> MySQLStatement:
    """Classify one statement."""
    shape = bare(sql)
    remark = ""
    for pattern, words in _NOT_SHOWN.items():
        if pattern.search(shape):
            remark = words
    for kind, pattern in _CONTROLS.items():
        match = pattern.match(shape)
        if match is not None:
            name = (match.groupdict().get("name") or "").strip("`")
            return MySQLStatement(sql, kind, name.replace("``", "`"), remark)
    return MySQLStatement(
        sql,
        remark=remark,
        locks=_LOCKS.search(shape) is not None,
        reads_rows=_READS_ROWS.search(shape) is not None,
        is_program=_PROGRAM.match(shape) is not None,
        is_more_than_rows=_ROWS_ONLY.match(shape) is None,
    )
