"""Finds statements that reach beyond their database, may write, or change the session."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Texts, names, comments and numbers. A comment with `!` has statements that the server executes.
# `"` quotes a text, unless the app sets ANSI_QUOTES. Each begins with a fixed character, which is
# what makes the search quick.
_PART = re.compile(
    r"""(?sx) '[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*+' | "[^"\\]*+(?:(?:\\.|"")[^"\\]*+)*+"
    | `[^`]*+(?:``[^`]*+)*+` | --(?=\s|\Z)[^\n]* | \#[^\n]* | /\*M?!\d* | /\*.*?\*/ | \*/
    | \d+(?:\.\d+)?"""
)
# The rows of an INSERT of many rows.
_EQUAL_ROWS = re.compile(r"(?P<row>\([^()]*\))(?:\s*,\s*(?P=row))+")
_SHORT = (
    4096  # characters. Longer statements contain data, so their results are not kept.
)


def bare(statement: str) -> str:
    """Return a statement without comments, with '' for each text and 0 for each number.

    The drivers send values as a part of the statement. Without them an app has some hundred.

    >>> bare("UPDATE `a` SET b2 = 'x; y', c = 17 -- all")
    "UPDATE `a` SET b2 = '', c = 0  "
    >>> bare("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    "INSERT INTO t VALUES (0, '')"
    """
    return (_bare_kept if len(statement) < _SHORT else _bare_last)(statement)


def _bare(statement: str) -> str:
    return _EQUAL_ROWS.sub(r"\g<row>", _PART.sub(_without, statement))


_bare_kept = lru_cache(maxsize=1024)(_bare)
_bare_last = lru_cache(maxsize=2)(_bare)  # several functions ask for it in turn


def _without(match: re.Match[str]) -> str:
    text = match[0]
    first = text[0]
    if first in "'\"":
        return "''"
    if first == "`":
        return text
    if not first.isdigit():
        return " "
    before = match.string[max(0, match.start() - 1) : match.start()]
    return text if before.isalnum() or before in {"_", "$"} else "0"


_NAME = r"(?:`(?:[^`]|``)+`|[\w$]+)"
_BEYOND = re.compile(
    r"""(?ix) (?:\A|;|\bTHEN\b|\bBEGIN\b|\bDO\b|\bELSE\b) \s* (?P<what>
      (?:CREATE(?:\s+OR\s+REPLACE)?|DROP|ALTER) \s+ (?:DATABASE|SCHEMA|SERVER|TABLESPACE|
        LOGFILE\s+GROUP|INSTANCE|RESOURCE\s+GROUP) \b
    | (?:DROP|ALTER|RENAME) \s+ (?:USER|ROLE) \b
    | (?:GRANT|REVOKE) \b (?= [^;]* \b ON \s+ (?:\w+\s+)? (?:\*|`?mysql`?\s*\.) )
    | SET \s+ PASSWORD \b
    | SET \s+ (?:GLOBAL|PERSIST(?:_ONLY)?) \b
    | SET \b (?= [^;]* @@(?:GLOBAL|PERSIST(?:_ONLY)?)\s*\.[^;,]*= )
    | RESET \b | FLUSH \b | PURGE \b | SHUTDOWN \b | INSTALL \b | UNINSTALL \b | BINLOG \b
    | (?:CHANGE|START|STOP) \s+ (?:MASTER|REPLICA|SLAVE|ALL|GROUP_REPLICATION|REPLICATION) \b
    )"""
)
_OUTSIDE_FILE = re.compile(r"(?i)\bINTO\s+(?:OUTFILE|DUMPFILE)\b")
_USE = re.compile(rf"(?i)(?:\A|;)\s*USE\s+(?P<database>{_NAME})")
# In these places a name with a dot begins with that of a database.
_TABLE_PLACE = re.compile(
    rf"""(?ix) \b(?: (?:FROM|JOIN|INTO) \s+ \(* | (?<!\bKEY\s)UPDATE\s+
      (?:LOW_PRIORITY\s+)?(?:IGNORE\s+)?
    | (?:TABLES?|VIEW|TRIGGER|PROCEDURE|FUNCTION|EVENT|SEQUENCE|CALL|TRUNCATE|REFERENCES|EXISTS|
        DESC|DESCRIBE|TO) \s+ )
    (?P<database>{_NAME}) \s* \. \s* {_NAME}"""
)
# In these it begins with that of a table, if the statement names the table elsewhere.
_MAYBE_PLACE = re.compile(
    rf"(?i)(?:\b(?:LIKE|INSERT|REPLACE|IGNORE)\s+|(?P<comma>,\s*))"
    rf"(?P<database>{_NAME})\s*\.\s*{_NAME}"
)
_GRANT_PLACE = re.compile(
    rf"(?i)(?:\A|;)\s*(?:GRANT|REVOKE)\b[^;]*?\bON\s+(?:\w+\s+){{0,2}}?"
    rf"(?P<database>{_NAME})\s*\.\s*(?:\*|{_NAME})"
)
# EXTRACT(YEAR FROM item.made): a column follows.
_FROM_IN_CALL = re.compile(
    r"(?i)\b(?:EXTRACT|TRIM|SUBSTRING|SUBSTR|MID)\s*\((?:[^()]|\([^()]*\))*\)"
)
_CALL = re.compile(rf"(?i)(?<![\w$`.])(?P<database>{_NAME})\s*\.\s*{_NAME}\s*\(")
_COMMA_LIST = re.compile(
    rf"(?i)\b(?:FROM|UPDATE)\s+{_NAME}(?:\s*\.\s*{_NAME})?(?:\s+(?:AS\s+)?{_NAME})?\s*,"
)
_SYSTEM = {"information_schema", "performance_schema", "sys"}
_READS_MYSQL = re.compile(r"(?i)\s*(?:SELECT|SHOW|DESC|DESCRIBE)\b[^;]*\Z")


def reaches_beyond(statement: str, database: str) -> str:
    """Return what a statement does to other databases or the whole server, "" for nothing.

    Bodies of programs, and SQL that is built from parts, are not read.

    >>> reaches_beyond("DROP DATABASE shop", "arena_live_1")
    'DROP DATABASE'
    >>> reaches_beyond("SELECT 1 FROM shop.item", "arena_live_1")
    'a name in the database shop'
    """
    return _beyond(bare(statement), database)


@lru_cache(maxsize=1024)
def _beyond(text: str, database: str) -> str:
    beyond = _BEYOND.search(text)
    if beyond is not None:
        return " ".join(beyond["what"].upper().split())
    if _OUTSIDE_FILE.search(text):
        return "INTO OUTFILE"
    use = _USE.search(text)
    if use is not None and _unquoted(use["database"]) != database:
        return f"USE {_unquoted(use['database'])}"
    if "." not in text:
        return ""
    outside = next(_outside_names(text, database), "")
    return f"a name in the database {outside}" if outside else ""


def _outside_names(text: str, database: str) -> Iterator[str]:
    """Yield the other databases that qualified names name."""
    for match in _GRANT_PLACE.finditer(text):
        name = _unquoted(match["database"])
        if name.replace(r"\_", "_") != database:
            yield name
    for match in _CALL.finditer(text):
        if _is_outside(match, database, text):
            yield _unquoted(match["database"])
    text = _FROM_IN_CALL.sub(" ", text)
    for match in _TABLE_PLACE.finditer(text):
        if _is_outside(match, database, text):
            yield _unquoted(match["database"])
    has_list = _COMMA_LIST.search(text) is not None
    for match in _MAYBE_PLACE.finditer(text):
        if match["comma"] and not has_list:
            continue
        if _is_outside(match, database, text) and not _names_table(match, text):
            yield _unquoted(match["database"])


def _is_outside(match: re.Match[str], database: str, text: str) -> bool:
    name = _unquoted(match["database"])
    if name == database or name.lower() in _SYSTEM or name.isdigit():
        return False
    return name.lower() != "mysql" or not _READS_MYSQL.match(text)


def _names_table(match: re.Match[str], text: str) -> bool:
    """Return whether the statement has the name before a dot elsewhere, as a table or an alias."""
    name = re.escape(_unquoted(match["database"]))
    return re.search(rf"(?i)(?<![\w$.`])`?{name}`?(?!\s*\.|[\w$`])", text) is not None


def _unquoted(name: str) -> str:
    if name.startswith("`"):
        return name[1:-1].replace("``", "`")
    return name


_READ = re.compile(
    r"(?i)\s*\(*\s*(?:SELECT|SHOW|BEGIN|START|SAVEPOINT|RELEASE|ROLLBACK|COMMIT|EXPLAIN|"
    r"DESC|DESCRIBE|USE|SET|KILL|UNLOCK|LOCK\s+TABLES?|HELP|CHECKSUM|PREPARE|DEALLOCATE|"
    r"VALUES|TABLE)\b"
)
_WITH = re.compile(
    r"(?i)\s*WITH\b(?!.*\b(?:UPDATE|DELETE|INSERT|REPLACE)\b)", re.DOTALL
)


@lru_cache(maxsize=1024)
def _is_plain_read(text: str) -> bool:
    text = text.rstrip("; \t\r\n")
    if ";" in text:
        return False
    return bool(_READ.match(text) or _WITH.match(text))


def may_write(statement: str, names_that_write: tuple[str, ...]) -> bool:
    """Return whether a statement may change rows or definitions.

    ``names_that_write`` are the functions and sequences of the database. Costs 1 µs if the
    statement was seen before.

    >>> may_write("SELECT * FROM t", ()), may_write("SELECT f(1)", ("f",))
    (False, True)
    """
    if not _is_plain_read(bare(statement)):
        return True
    lowered = statement.lower()
    return any(name.lower() in lowered for name in names_that_write)


_ALTERS = re.compile(
    r"(?ix) (?:\A|;)\s* (?: SET \b (?!\s+(?:TRANSACTION)\b) | PREPARE\b | DEALLOCATE\b "
    r"| USE\b | LOCK\s+TABLES?\b | CREATE\s+(?:OR\s+REPLACE\s+)?TEMPORARY\b "
    r"| HANDLER\b | XA\b ) | :=  | \b(?:GET_LOCK|RELEASE_ALL_LOCKS)\s*\( | \bINTO\s+@"
)


def alters_session(statement: str) -> bool:
    """Return whether a statement may change the session beyond its transaction."""
    return _alters(bare(statement))


@lru_cache(maxsize=1024)
def _alters(text: str) -> bool:
    return _ALTERS.search(text) is not None


_ENDS = re.compile(
    r"""(?ix) \s* (?: COMMIT\b | ROLLBACK\b (?!\s+(?:WORK\s+)?TO\b) | SET\s+[\w@.\s]*AUTOCOMMIT\b
    | (?:CREATE|DROP) \s+ (?!TEMPORARY\b) | ALTER\b | RENAME\b | TRUNCATE\b | GRANT\b | REVOKE\b
    | (?:LOCK|UNLOCK)\s+TABLES?\b | (?:ANALYZE|CHECK|OPTIMIZE|REPAIR)\s+ )"""
)
_BEGINS = re.compile(r"(?i)\s*(?:BEGIN|START\s+TRANSACTION)\b")
_OPENS_NO_TABLE = re.compile(
    r"(?is)\s*(?:SET|SHOW|USE|DO|KILL)\b|\s*SELECT\b(?!.*\bFROM\b)"
)


def begins_transaction(statement: str, *, autocommits: bool) -> bool | None:
    """Return whether a transaction is open after a statement, None if that has not changed.

    >>> begins_transaction("INSERT INTO t VALUES (1)", autocommits=False)
    True
    >>> begins_transaction("ALTER TABLE t ADD a INT", autocommits=False)
    False
    """
    return _begins(bare(statement), autocommits)


@lru_cache(maxsize=1024)
def _begins(text: str, autocommits: bool) -> bool | None:  # noqa: FBT001 - a key of the cache
    if _ENDS.match(text):
        return False
    if _BEGINS.match(text):
        return True
    if autocommits or _OPENS_NO_TABLE.match(text):
        return None
    return True


_STAYS = re.compile(
    r"(?i)(?:\A|;)\s*(?P<what>CREATE\s+(?:OR\s+REPLACE\s+)?(?:USER|ROLE)|GRANT|REVOKE)\b"
)


def stays_on_server(statement: str) -> str:
    """Return what a statement does to users, which no isolation undoes. "" for nothing.

    >>> stays_on_server("CREATE USER clerk"), stays_on_server("SELECT 'GRANT'")
    ('CREATE USER', '')
    """
    return _staying(bare(statement))


@lru_cache(maxsize=1024)
def _staying(text: str) -> str:
    stays = _STAYS.search(text)
    return " ".join(stays["what"].upper().split()) if stays else ""


_MAKES = re.compile(
    rf"(?is)\s*(?P<verb>CREATE|DROP)\s+(?:DATABASE|SCHEMA)\s+"
    rf"(?:IF\s+(?:NOT\s+)?EXISTS\s+)?(?P<name>{_NAME})[^;]*;?\s*\Z"
)


def made_or_dropped(statement: str) -> str:
    """Return the test database that a statement makes or drops, or "".

    >>> made_or_dropped("CREATE DATABASE `shop-test` CHARACTER SET = 'utf8mb4'")
    'shop-test'
    """
    makes = _MAKES.match(bare(statement))
    return _unquoted(makes["name"]) if makes is not None else ""
