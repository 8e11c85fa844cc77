"""Finds statements that reach beyond their database, may write, or change the session."""

import re
from collections.abc import Callable
from dataclasses import dataclass
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
_BEYOND = re.compile(
    r"""(?ix) (?:\A|;|\b(?:THEN|BEGIN|ATOMIC|DO|LOOP|REPEAT|ELSE|FOR)\b) \s* (?P<what>
      (?:CREATE(?:\s+OR\s+REPLACE)?|DROP|ALTER) \s+ (?:DATABASE|SCHEMA|SERVER|TABLESPACE|
        LOGFILE\s+GROUP|INSTANCE|RESOURCE\s+GROUP) \b
    | (?:DROP|ALTER|RENAME) \s+ (?:USER|ROLE) \b
    | (?:GRANT|REVOKE) \b (?= [^;]* \b ON \s+ (?:\w+\s+)? (?:\*|`?mysql`?\s*\.) )
    | SET \s+ (?:PASSWORD|DEFAULT\s+ROLE) \b
    | SET \s+ (?:GLOBAL|PERSIST(?:_ONLY)?) \b
    | SET \b (?= [^;]* \b(?:GLOBAL|PERSIST(?:_ONLY)?) \s+ [\w$.`]+ \s* :?= )
    | SET \b (?= [^;]* @@(?:GLOBAL|PERSIST(?:_ONLY)?)\s*\.[^;,]*= )
    | RESET \b | FLUSH \b | PURGE \b | SHUTDOWN \b | INSTALL \b | UNINSTALL \b | BINLOG \b
    | (?:CHANGE|START|STOP) \s+ (?:MASTER|REPLICA|SLAVE|ALL|GROUP_REPLICATION|REPLICATION) \b
    )"""
)
_OUTSIDE_FILE = re.compile(r"(?i)\bINTO\s+(?:OUTFILE|DUMPFILE)\b")
_USE = re.compile(rf"(?i)(?:\A|;)\s*USE\s+(?P<database>{_NAME})")
# SHOW TABLES FROM shop, SHOW INDEX FROM item IN shop
_SHOW = re.compile(
    rf"""(?ix) (?:\A|;)\s*SHOW\b[^;]*? \b(?: TABLES | STATUS | TRIGGERS | EVENTS
    | (?:FROM|IN)\b \s* {_NAME} ) \s* \b(?:FROM|IN)\b \s* (?P<database>{_NAME})"""
)
_GRANT = re.compile(r"(?i)\s*(?:GRANT|REVOKE)\b")
_SYSTEM = {"information_schema", "performance_schema", "sys"}
_READS_MYSQL = re.compile(r"(?i)\s*(?:SELECT|SHOW|DESC|DESCRIBE)\b[^;]*\Z")
_SENDS = rf"(?i:\bEXECUTE\s+IMMEDIATE\b|\bPREPARE\s+{_NAME}\s+FROM\b)"
_SENDS_TEXT = re.compile(_SENDS)
# MariaDB and MySQL have PREPARE s FROM @text. MariaDB also has EXECUTE IMMEDIATE @text.
_SENDS_VARIABLE = re.compile(rf"{_SENDS}\s*(?P<variable>@{_NAME})")
_TEXT = re.compile(r"""(?s)'((?:[^'\\]|\\.|'')*)'|"((?:[^"\\]|\\.|"")*)\"""")

# A name, or a character that is no part of a name.
_TOKEN = re.compile(rf"{_NAME}|\S")
# Tables follow these words, until one of the words that end a list.
_BEFORE_TABLES = frozenset(
    ["FROM", "JOIN", "STRAIGHT_JOIN", "INTO", "UPDATE", "TABLE", "TABLES"]
)
_AFTER_TABLES = frozenset(
    ["SELECT", "WHERE", "SET", "GROUP", "ORDER", "HAVING", "LIMIT", ";"]
)
# A name after one of these words is a column, and not an alias.
_BEFORE_COLUMN = frozenset(
    [
        "ON",
        "AND",
        "OR",
        "XOR",
        "NOT",
        "IN",
        "LIKE",
        "IS",
        "BETWEEN",
        "REGEXP",
        "RLIKE",
        "DIV",
        "MOD",
        "CASE",
        "WHEN",
        "THEN",
        "ELSE",
    ]
)
# EXTRACT(YEAR FROM item.made): a column follows FROM.
_WITH_FROM = frozenset(["EXTRACT", "TRIM", "SUBSTRING", "SUBSTR", "MID"])


def reaches_beyond(
    statement: str, database: str, is_database: Callable[[str], bool]
) -> str:
    """Return what a statement does to other databases or the whole server, "" for nothing.

    ``is_database`` returns whether the server or a URL of the app has a database, by its name in
    lower case. Texts in variables are not checked here, see `variables_sent`.

    >>> reaches_beyond("DROP DATABASE shop", "arena_live_1", {"shop"}.__contains__)
    'DROP DATABASE'
    >>> reaches_beyond("SELECT 1 FROM shop.item", "arena_live_1", {"shop"}.__contains__)
    'a name in the database shop'
    """
    text = bare(statement)
    reach = _reach(text)
    if reach.beyond:
        return reach.beyond
    if reach.used and reach.used.lower() != database.lower():
        return f"USE {reach.used}"
    for name in reach.names:
        is_outside = name != database.lower() and name not in _SYSTEM
        if is_outside and (reach.is_grant or name == "mysql" or is_database(name)):
            return f"a name in the database {name}"
    if not reach.sends_text:
        return ""
    texts = _TEXT.findall(statement)
    sent = "".join(single or double for single, double in texts)
    sent = re.sub(r"\\(.)|''", lambda match: match[1] or "'", sent)
    return reaches_beyond(sent, database, is_database)


def variables_sent(statement: str) -> tuple[str, ...]:
    """Return the variables of the session whose texts a statement sends as statements.

    >>> variables_sent("PREPARE s FROM @made; EXECUTE IMMEDIATE 'SELECT @x'")
    ('@made',)
    """
    return _variables(bare(statement))


@lru_cache(maxsize=1024)
def _variables(text: str) -> tuple[str, ...]:
    matches = _SENDS_VARIABLE.finditer(text)
    return tuple(match["variable"] for match in matches)


@dataclass(frozen=True, slots=True)
class _Reach:
    """How a statement may reach other databases, and the names in it that may be databases."""

    beyond: str = ""
    used: str = ""  # by USE
    names: tuple[str, ...] = ()
    is_grant: bool = False  # a name in a grant is a pattern
    sends_text: bool = False  # a text in the statement is a statement, too


@lru_cache(maxsize=1024)
def _reach(text: str) -> _Reach:
    beyond = _BEYOND.search(text)
    if beyond is not None:
        return _Reach(" ".join(beyond["what"].upper().split()))
    if _OUTSIDE_FILE.search(text):
        return _Reach("INTO OUTFILE")
    use = _USE.search(text)
    names = [_key(show["database"]) for show in _SHOW.finditer(text)]
    if "." in text:
        names += _qualifiers(_TOKEN.findall(text))
    if _READS_MYSQL.match(text):
        names = [name for name in names if name != "mysql"]
    return _Reach(
        used=unquoted(use["database"]) if use is not None else "",
        names=tuple(dict.fromkeys(names)),
        is_grant=_GRANT.match(text) is not None,
        sends_text=_SENDS_TEXT.search(text) is not None,
    )


def _qualifiers(tokens: list[str]) -> list[str]:
    """Return the names before a dot that are no tables or aliases of the statement.

    Directly after FROM, JOIN, INTO, UPDATE or TABLE, and in a call, a name before a dot is always a
    database.
    """
    certain: list[str] = []
    possible: list[str] = []
    tables: set[str] = set()
    is_list = False  # of tables
    # For each open bracket, `is_list` and the word before it.
    outer = []
    before = ""
    for position, token in enumerate(tokens):
        word = token.upper()
        after = tokens[position + 1 : position + 4]
        if token == "(":  # noqa: S105 - no password
            outer.append((is_list, before))
            is_list = is_list and before in {"FROM", "JOIN", "(", ","}
        elif token == ")" and outer:  # noqa: S105 - no password
            is_list, _ = outer.pop()
        elif word in _AFTER_TABLES or (word == "UPDATE" and before == "KEY"):
            is_list = False
        elif word in _BEFORE_TABLES:
            is_list = True
        elif before in {".", "@"} or token.isdigit() or not _IS_NAME.match(token):
            pass
        elif after[:1] == ["."]:
            is_in_call = bool(outer) and outer[-1][1] in _WITH_FROM
            is_place = is_list and before in _BEFORE_TABLES and not is_in_call
            is_call = after[2:] == ["("]
            (certain if is_place or is_call else possible).append(_key(token))
        elif is_list and _may_precede_table(before):
            tables.add(_key(token))
        before = word
    return certain + [name for name in possible if name not in tables]


_IS_NAME = re.compile(r"[`\w$]")


def _may_precede_table(word: str) -> bool:
    if word in {",", "(", ")"}:
        return True
    return _IS_NAME.match(word) is not None and word not in _BEFORE_COLUMN


def _key(name: str) -> str:
    """Return a name for comparison. A grant escapes ``_``, which is a wildcard in its patterns."""
    return unquoted(name).replace(r"\_", "_").lower()


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


_CHANGES_ACCOUNTS = re.compile(
    r"(?i)(?:\A|;)\s*(?P<what>CREATE\s+(?:OR\s+REPLACE\s+)?(?:USER|ROLE)|GRANT|REVOKE)\b"
)


def account_change(statement: str) -> str:
    """Return the verb of a statement that changes users or rights, or "".

    No isolation undoes such a change.

    >>> account_change("CREATE USER clerk"), account_change("SELECT 'GRANT'")
    ('CREATE USER', '')
    """
    return _account_change(bare(statement))


@lru_cache(maxsize=1024)
def _account_change(text: str) -> str:
    change = _CHANGES_ACCOUNTS.search(text)
    if change:
        return " ".join(change["what"].upper().split())
    return ""


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
