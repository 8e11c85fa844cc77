"""Finds statements that may write, change the session, or begin a transaction."""

import re
from functools import lru_cache

# Texts, names, comments and numbers. A comment with `!` has statements that the server executes.
# `"` quotes a text, unless the app sets ANSI_QUOTES. The search is fast because each alternative
# begins with a fixed character.
_PART = re.compile(
    r"""(?sx) '[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*+' | "[^"\\]*+(?:(?:\\.|"")[^"\\]*+)*+"
    | `[^`]*+(?:``[^`]*+)*+` | --(?=\s|\Z)[^\n]* | \#[^\n]* | /\*M?!\d* | /\*.*?\*/ | \*/
    | \d++(?:\.\d++)?+(?![\w$])"""
)
# The rows of an INSERT of many rows.
_EQUAL_ROWS = re.compile(r"(?P<row>\([^()]*\))(?:\s*,\s*(?P=row))+")
# MariaDB's settings for one statement: SET STATEMENT max_statement_time = 100 FOR DELETE FROM t
_SET_FOR_ONE = re.compile(r"(?i)(?<![^;])\s*SET\s+STATEMENT\b[^;(]*?\bFOR\b\s*")
# Characters. Longer statements contain data, so their results are not cached.
_SHORT = 4096


def bare(statement: str) -> str:
    """Return a statement without comments, with '' for each text and 0 for each number.

    The drivers send values inside the statement. Without values an app has some hundred statements.

    >>> bare("UPDATE `a` SET b2 = 'x; y', c = 17 -- all")
    "UPDATE `a` SET b2 = '', c = 0  "
    >>> bare("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    "INSERT INTO t VALUES (0, '')"
    """
    return (_bare_kept if len(statement) < _SHORT else _bare_last)(statement)


def _bare(statement: str) -> str:
    shape = _EQUAL_ROWS.sub(r"\g<row>", _PART.sub(_without, statement))
    return _SET_FOR_ONE.sub("", shape)


_bare_kept = lru_cache(maxsize=1024)(_bare)
_bare_last = lru_cache(maxsize=2)(
    _bare
)  # several functions need the same result in turn


def _without(match: re.Match[str]) -> str:
    text = match[0]
    first = text[0]
    if first == '"' and match.string[match.end() :].lstrip().startswith("."):
        name = text[1:-1].replace("`", "``")
        return f"`{name}`"  # with ANSI_QUOTES
    if first in "'\"":
        return "''"
    if first == "`":
        return text
    if not first.isdigit():
        return " "
    before = match.string[max(0, match.start() - 1) : match.start()]
    if before.isalnum() or before in {"_", "$"}:
        return text
    return "0"


_NAME = r"(?:`(?:[^`]|``)+`|[\w$]+)"


def unquoted(name: str) -> str:
    """Return a name without its quotes."""
    if name.startswith("`"):
        return name[1:-1].replace("``", "`")
    return name


_READ = re.compile(
    r"(?i)\s*\(*\s*(?:SELECT|SHOW|BEGIN|START|SAVEPOINT|RELEASE|ROLLBACK|COMMIT|EXPLAIN|"
    r"DESC|DESCRIBE|USE|SET(?!\s+STATEMENT\b)|KILL|UNLOCK|LOCK\s+TABLES?|HELP|CHECKSUM|PREPARE|DEALLOCATE|"
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

    ``names_that_write`` are the functions and sequences of the database. Costs 1 µs if the result
    is cached.

    >>> may_write("SELECT * FROM t", ()), may_write("SELECT f(1)", ("f",))
    (False, True)
    """
    if not _is_plain_read(bare(statement)):
        return True
    if not names_that_write:
        return False
    return _words(names_that_write).search(statement) is not None


@lru_cache(maxsize=16)
def _words(names: tuple[str, ...]) -> re.Pattern[str]:
    """Return the pattern of these names as whole words."""
    alternatives = "|".join(map(re.escape, names))
    return re.compile(rf"(?i)(?<![\w$])(?:{alternatives})(?![\w$])")


_ALTERS = re.compile(
    r"(?ix) (?:\A|;)\s* (?: SET \b (?!\s+(?:TRANSACTION)\b) | PREPARE\b | DEALLOCATE\b "
    r"| USE\b | LOCK\s+TABLES?\b | CREATE\s+(?:OR\s+REPLACE\s+)?TEMPORARY\b "
    r"| HANDLER\b | XA\b | EXECUTE\s+IMMEDIATE\b | BEGIN\s+NOT\s+ATOMIC\b )"
    r"| := | \b(?:GET_LOCK|RELEASE_ALL_LOCKS)\s*\( | \bINTO\s+@"
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
    """Return whether a transaction is open after a statement, None if that does not change.

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


_CREATES_OR_DROPS = re.compile(
    rf"(?is)\s*(?P<verb>CREATE|DROP)\s+(?:DATABASE|SCHEMA)\s+"
    rf"(?:IF\s+(?:NOT\s+)?EXISTS\s+)?(?P<name>{_NAME})[^;]*;?\s*\Z"
)


def created_or_dropped_database(statement: str) -> str:
    """Return the name of the database that a statement creates or drops, or "".

    >>> created_or_dropped_database("CREATE DATABASE `shop-test` CHARACTER SET = 'utf8mb4'")
    'shop-test'
    """
    match = _CREATES_OR_DROPS.match(bare(statement))
    return unquoted(match["name"]) if match is not None else ""
