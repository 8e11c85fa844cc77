"""Classifies statements by their effect on the transaction that all clients share."""

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from pytest_arena._postgresql._scripts import statements_of
from pytest_arena._values import without_comments

# Longer texts contain data, so their statements are not cached.
_LONG = 10_000
_NAME = r"""(?P<name>"(?:[^"]|"")+"|[^\W\d][\w$]*)"""
# With a client's values of these settings the server would end the connection that clients share.
ENDING_TIMEOUTS = {
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "transaction_timeout",
}
# Statements that the proxy executes itself, in the order in which they are tried.
_CONTROLS = {
    kind: re.compile(f"(?isx){pattern}")
    for kind, pattern in {
        "begin": r"BEGIN\b (?!\s+ATOMIC) | START\s+TRANSACTION\b",
        "refused": r"PREPARE\b | (?:COMMIT|ROLLBACK)\s+PREPARED\b",
        "rollback_to": rf"""(?:ROLLBACK|ABORT)\s+(?:(?:WORK|TRANSACTION)\s+)?
            TO\s+(?:SAVEPOINT\s+)?{_NAME}""",
        "commit": r"(?:COMMIT|END)\b",
        "rollback": r"(?:ROLLBACK|ABORT)\b",
        "savepoint": rf"SAVEPOINT\s+{_NAME}",
        "release": rf"RELEASE\s+(?:SAVEPOINT\s+)?{_NAME}",
        "mode": rf"""SET\s+(?:LOCAL\s+|SESSION\s+)?
            (?:TRANSACTION|CHARACTERISTICS|{"|".join(ENDING_TIMEOUTS)})\b""",
        "reset_all": r"RESET\s+ALL\b",
        "reset": r"""(?: RESET | SET (?!\s+LOCAL\b) (?=.*(?:=|\b(?:TO|ZONE|AUTHORIZATION)\b)
            \s*DEFAULT\s*;?\s*\Z) (?:\s+SESSION(?!\s+AUTHORIZATION))? )
            \s+ (?P<name> TIME\s+ZONE | SESSION\s+AUTHORIZATION | [\w.]+ )""",
        "discard_all": r"DISCARD\s+ALL\b",
        "nothing": r"(?:DISCARD\s+(?:SEQUENCES|PLANS)|CLOSE\s+ALL|UNLISTEN)\b",
        "deallocate_all": r"DEALLOCATE\s+(?:PREPARE\s+)?ALL\b",
        "deallocate": rf"DEALLOCATE\s+(?:PREPARE\s+)?{_NAME}",
    }.items()
}
_READS = re.compile(
    r"(?is)(?:SELECT|SHOW|VALUES|TABLE|EXPLAIN|WITH)\b|COPY\b.*\bTO\s+STDOUT\b|\(|\Z"
)
# PostgreSQL allows these writes in a read-only transaction.
_WRITES = re.compile(r"\bINTO\b|\blo_\w+\s*\(", re.IGNORECASE)
_SETS = re.compile(
    r"""(?isx) SET\s+(?:SESSION\s+(?!AUTHORIZATION)|(?P<local>LOCAL)\s+)?
    (?P<name> TIME\s+ZONE | SESSION\s+AUTHORIZATION
        | (?!CONSTRAINTS\b)["\w]+(?:\s*\.\s*["\w]+)* )"""
)
_SET_CONFIG = re.compile(
    r"""(?isx) \bset_config"?\s*\(\s* '(?P<name>[\w.]+)' \s*,
    (?:[^()]|\([^()]*\))*? (?: ,\s*(?P<local>true|'t(?:rue)?'|1::bool\w*)\s* )? \)"""
)
# The name is a parameter, or another expression.
_SETS_UNNAMED = re.compile(r"(?is)\bset_config\s*\(\s*[^\s'](?P<rest>.*)")
_LASTS = re.compile(r"(?is),\s*false\s*\)")
_IS_DO = re.compile(r"(?is)DO\b")
_SETS_IN_DO = re.compile(
    r"(?is)\bSET\s+(?:SESSION\s+|(?P<local>LOCAL)\s+)?(?P<name>\w[\w.]*)\s*(?:=|TO\b)"
)
_SETS_INSIDE = re.compile(
    r"(?is)\bSET\s+(?:SESSION\s+|(?P<local>LOCAL)\s+)?(?P<name>\w+\.\w+)\s*(?:=|TO\b)"
)
# PostgreSQL executes these commands only in a transaction block.
_OF_BLOCKS = {
    "LOCK TABLE": re.compile(r"(?is)LOCK\b"),
    "DECLARE CURSOR": re.compile(rf"(?is)DECLARE\s+{_NAME}(?!.*\bWITH\s+HOLD\b)"),
}
_SYNONYMS = {
    "names": "client_encoding",
    "schema": "search_path",
    "time zone": "timezone",
    "session authorization": "session_authorization",
}
_READS_ROWS = re.compile(r"(?is)\A(?!.*\bpg_).*\b(?:FROM|TABLE)\b")
_READ_ONLY = re.compile(r"(?is)\bREAD\s+ONLY\b")
_CHARACTERISTICS = re.compile(r"(?is)\bSESSION\s+CHARACTERISTICS\b.*\bREAD\b")
_CHAINS = re.compile(r"(?is)\bAND\s+CHAIN\b")
_BEGINS_AS = r"(?is)(?:BEGIN|START|SET)\b.*\bISOLATION\s+LEVEL\s+"
# Statements that act differently in the shared transaction, and the notes about them.
_NOT_SHOWN = {
    re.compile(pattern): words
    for pattern, words in {
        r"(?is)(?:LISTEN|NOTIFY)\b|.*\bpg_notify\s*\(": "NOTIFY reaches no listener",
        r"(?is).*\bNOWAIT\b": "NOWAIT waits as a statement without it",
        r"(?is).*\bSKIP\s+LOCKED\b": "SKIP LOCKED skips no row, since all connections have the "
        "same locks",
        r"(?is).*\bpg_(?:try_)?advisory_(?!unlock)": "advisory locks exclude no other connection",
        r"(?is)LOAD\b": "LOAD keeps the library for later tests",
        r"(?is)LOCK\b": "LOCK TABLE excludes no other connection",
        # The name is neither a literal nor a parameter. A CREATE FUNCTION calls no set_config.
        r"(?is)(?!CREATE\b).*\bset_config\"?\s*\(\s*+"
        r"(?!'[\w.]+'\s*,|\$\d+\s*(?:::\s*[\w ]+)?,)": "set_config with a computed name "
        "changes the setting for all connections",
        f"{_BEGINS_AS}SERIALIZABLE": "ISOLATION LEVEL SERIALIZABLE acts as READ COMMITTED",
        f"{_BEGINS_AS}REPEATABLE": "ISOLATION LEVEL REPEATABLE READ acts as READ COMMITTED",
    }.items()
}


@dataclass(frozen=True, slots=True)
class SettingChange:
    """A setting that a statement changes."""

    name: str
    is_local: bool


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement, and its effect on the transaction.

    ``kind`` is read, write, or the kind of a statement that the proxy executes itself: begin,
    commit, rollback, savepoint, and so on. ``name`` is the name of a savepoint, prepared statement,
    setting or cursor.
    """

    sql: str
    kind: str
    name: str = ""
    settings: tuple[SettingChange, ...] = ()
    remark: str = ""  # how the statement acts differently in the shared transaction
    unnamed_setting: SettingChange | None = None  # a setting whose name is a parameter
    command_of_blocks: str = ""  # the command, if it needs a transaction block

    @property
    def is_control(self) -> bool:
        """Whether the proxy executes the statement itself."""
        return self.kind in _CONTROLS

    @property
    def ends_failed_transaction(self) -> bool:
        """Whether PostgreSQL executes the statement in a failed transaction."""
        return self.kind in {"commit", "rollback", "rollback_to"}

    @property
    def is_read_only(self) -> bool:
        """Whether the statement makes a transaction read-only."""
        return _READ_ONLY.search(self.sql) is not None

    @property
    def is_of_all_transactions(self) -> bool:
        """Whether the statement also sets the mode of the session's later transactions."""
        return _CHARACTERISTICS.search(self.sql) is not None

    @property
    def is_chained(self) -> bool:
        """Whether the statement begins the next transaction at once."""
        return _CHAINS.search(self.sql) is not None

    @property
    def reads_rows(self) -> bool:
        """Whether the statement may read rows of the app."""
        return _READS_ROWS.search(self.sql) is not None

    def settings_named_by(self, parameters: bytes) -> list[SettingChange]:
        """Return the settings that ``set_config`` may change if a parameter is the name.

        ``parameters`` is a message with the parameters. Each word in it may be the name.
        """
        if self.unnamed_setting is None:
            return []
        words = re.findall(rb"[A-Za-z_][\w.]*", parameters)
        names = {setting_name(word.decode()) for word in words}
        return [replace(self.unnamed_setting, name=name) for name in sorted(names)]


def parsed(sql: str) -> tuple[Statement, ...]:
    """Return the statements of a text."""
    if len(sql) > _LONG:
        return _parse(sql)
    return _parse_short(sql)


def _parse(sql: str) -> tuple[Statement, ...]:
    if ";" not in sql.rstrip().rstrip(";"):
        return (_classify(sql),)
    return tuple(map(_classify, statements_of(sql))) or (_classify(sql),)


_parse_short = lru_cache(maxsize=1000)(_parse)


def _classify(sql: str) -> Statement:
    bare = without_comments(sql).strip()
    remark = ""
    for pattern, words in _NOT_SHOWN.items():
        if pattern.match(bare):
            remark = words
    for kind, pattern in _CONTROLS.items():
        match = pattern.match(bare)
        if match is not None:
            name = match.groupdict().get("name") or ""
            name = setting_name(name) if kind == "reset" else _unquoted(name)
            return Statement(bare, kind, name, remark=remark)
    setting = _SETS.match(bare)
    if setting is not None:
        return Statement(
            sql,
            "read",
            settings=(_change(setting),),
            remark=remark,
        )
    is_read = _READS.match(bare) and not _WRITES.search(bare)
    settings = tuple(map(_change, _SET_CONFIG.finditer(bare)))
    if _IS_DO.match(bare):
        settings += tuple(map(_change, _SETS_IN_DO.finditer(bare)))
    unnamed = _SETS_UNNAMED.search(bare)
    unnamed_setting = None
    if unnamed is not None:
        unnamed_setting = SettingChange("", _LASTS.search(unnamed["rest"]) is None)
    command_of_blocks = ""
    cursor = ""
    for command, pattern in _OF_BLOCKS.items():
        match = pattern.match(bare)
        if match is not None:
            command_of_blocks = command
            cursor = _unquoted(match.groupdict().get("name") or "")
    return Statement(
        sql,
        "read" if is_read else "write",
        cursor,
        settings=settings,
        remark=remark,
        unnamed_setting=unnamed_setting,
        command_of_blocks=command_of_blocks,
    )


def _change(match: re.Match[str]) -> SettingChange:
    return SettingChange(setting_name(match["name"]), match["local"] is not None)


def _unquoted(name: str) -> str:
    if name.startswith('"'):
        return name[1:-1].replace('""', '"')
    return name.lower()


def setting_name(name: str) -> str:
    """Return the server's name of a setting."""
    spaced = name.lower().replace('"', "").replace(".", " . ")
    lower = " ".join(spaced.split()).replace(" . ", ".")
    return _SYNONYMS.get(lower, lower)


def settings_in(source: str) -> list[SettingChange]:
    """Return the custom settings that a function changes, and the settings of ``set_config``."""
    matches = [*_SET_CONFIG.finditer(source), *_SETS_INSIDE.finditer(source)]
    return [_change(match) for match in matches]
