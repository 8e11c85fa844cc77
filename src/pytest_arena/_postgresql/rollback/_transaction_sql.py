"""Finds out what a statement means for the transaction that all clients share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from pytest_arena._postgresql._scripts import statements_of
from pytest_arena._values import without_comments

_LONG = (
    10_000  # characters. Longer texts contain data, so their statements are not kept.
)
_NAME = r"""(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)"""
_READS = re.compile(
    r"(?is)(?:SELECT|SHOW|VALUES|TABLE|EXPLAIN|WITH)\b|COPY\b.*\bTO\s+STDOUT\b|\(|\Z"
)
# PostgreSQL allows these in a transaction that only reads.
_WRITES = re.compile(r"\bINTO\b|\blo_\w+\s*\(", re.IGNORECASE)
_CONTROLS = re.compile(
    rf"""(?isx)
    (?P<begin>       BEGIN\b (?!\s+ATOMIC) | START\s+TRANSACTION\b )
  | (?P<prepared>    PREPARE\s+TRANSACTION\b | (?:COMMIT|ROLLBACK)\s+PREPARED\b )
  | (?P<rollback_to> (?:ROLLBACK|ABORT)\s+(?:(?:WORK|TRANSACTION)\s+)? TO\s+(?:SAVEPOINT\s+)?
                     (?P<target>{_NAME}) )
  | (?P<commit>      (?:COMMIT|END)\b )
  | (?P<rollback>    (?:ROLLBACK|ABORT)\b )
  | (?P<savepoint>   SAVEPOINT\s+(?P<new>{_NAME}) )
  | (?P<release>     RELEASE\s+(?:SAVEPOINT\s+)?(?P<old>{_NAME}) )
  | (?P<mode>        SET\s+(?:LOCAL\s+|SESSION\s+)?(?:TRANSACTION\b|CHARACTERISTICS\b) )
  | (?P<reset_all>   RESET\s+ALL\b )
  | (?P<reset>       RESET\s+(?P<setting>TIME\s+ZONE|SESSION\s+AUTHORIZATION|[\w.]+) )
  | (?P<discard_all> DISCARD\s+ALL\b )
  | (?P<discard>     DISCARD\s+(?:SEQUENCES|PLANS)\b )
  | (?P<close_all>   CLOSE\s+ALL\b )
  | (?P<unlisten>    UNLISTEN\b )
  | (?P<deallocate_all> DEALLOCATE\s+(?:PREPARE\s+)?ALL\b )
  | (?P<deallocate>  DEALLOCATE\s+(?:PREPARE\s+)?(?P<statement>{_NAME}) )
    """
)
_SETS = re.compile(
    r"""(?isx) SET\s+(?:SESSION\s+(?!AUTHORIZATION)|(?P<local>LOCAL)\s+)?
    (?P<name> TIME\s+ZONE | SESSION\s+AUTHORIZATION | (?!CONSTRAINTS\b)[\w.]+ )"""
)
_SET_CONFIG = re.compile(
    r"(?is)\bset_config\s*\(\s*'(?P<name>[\w.]+)'\s*,(?P<rest>[^)]*)"
)
_SET_CONFIG_LOCAL = re.compile(r"(?is),\s*(?:true|'t(?:rue)?'|1::bool\w*)\s*$")
_SETS_INSIDE = re.compile(
    r"(?is)\bSET\s+(?:SESSION\s+|(?P<local>LOCAL)\s+)?(?P<name>\w+\.\w+)\s*(?:=|TO\b)"
)
_SYNONYMS = {
    "names": "client_encoding",
    "schema": "search_path",
    "time zone": "timezone",
    "session authorization": "session_authorization",
}
_PREPARES = re.compile(rf"(?is)(?P<verb>PREPARE|EXECUTE)\s+(?P<name>{_NAME})")
_READS_ROWS = re.compile(r"(?is)\A(?!.*\bpg_).*\b(?:FROM|TABLE)\b")
_COPIES_IN = re.compile(r"(?is)COPY\b.*\bFROM\s+STDIN\b")
_DEFERS = re.compile(r"(?is)SET\s+CONSTRAINTS\b")
_ISOLATION = re.compile(
    r"(?is)ISOLATION\s+LEVEL\s+(\w+(?:\s+(?:READ|COMMITTED|UNCOMMITTED))?)"
)
_READ_ONLY = re.compile(r"(?is)\bREAD\s+ONLY\b")
_CHAINS = re.compile(r"(?is)\bAND\s+CHAIN\b")
# What the shared transaction cannot show, and the words for it.
_NOT_SHOWN = (
    (
        re.compile(r"(?is)(?:LISTEN|NOTIFY)\b|.*\bpg_notify\s*\("),
        "NOTIFY reaches no listener",
    ),
    (
        re.compile(r"(?is).*\bSKIP\s+LOCKED\b"),
        "SKIP LOCKED skips no row, since all connections have the same locks",
    ),
    (
        re.compile(r"(?is).*\bpg_(?:try_)?advisory_"),
        "advisory locks exclude no other connection",
    ),
)


@dataclass(frozen=True, slots=True)
class SettingChange:
    """A setting that a statement changes."""

    name: str
    is_local: bool = False


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement, and what it means for the transaction.

    ``kind`` is read, write, or that of a statement which the proxy executes itself: begin, commit,
    rollback, savepoint, and so on. ``name`` is of a savepoint, prepared statement or setting.
    """

    sql: str
    kind: str
    name: str = ""
    settings: tuple[SettingChange, ...] = ()
    is_copy_in: bool = False
    defers: bool = False  # SET CONSTRAINTS
    is_read_only: bool = False
    is_chained: bool = False
    remark: str = ""  # what this isolation cannot show

    @property
    def is_control(self) -> bool:
        """Whether the proxy executes it."""
        return self.kind not in {"read", "write"}

    @property
    def reads_rows(self) -> bool:
        """Whether it may read rows of the app."""
        return _READS_ROWS.search(self.sql) is not None

    @property
    def shown(self) -> str:
        """The statement in one line of a message."""
        line = " ".join(self.sql.split())
        return line if len(line) <= 100 else line[:97] + "..."  # noqa: PLR2004 - fits a line


def parsed(sql: str) -> list[Statement]:
    """Return the statements of a text. Statements that need no attention stay together."""
    if len(sql) > _LONG:
        return list(_parse(sql))
    return list(_parse_short(sql))


@lru_cache(maxsize=1000)
def _parse_short(sql: str) -> tuple[Statement, ...]:
    return _parse(sql)


def _parse(sql: str) -> tuple[Statement, ...]:
    if ";" not in sql.rstrip().rstrip(";"):
        return (_classify(sql),)
    statements: list[Statement] = []
    for text in statements_of(sql):
        statement = _classify(text)
        last = statements[-1] if statements else None
        if last is None or last.is_control or statement.is_control:
            statements.append(statement)
        else:
            statements[-1] = _joined(last, statement)
    return tuple(statements) or (_classify(sql),)


def _joined(first: Statement, second: Statement) -> Statement:
    is_read = first.kind == second.kind == "read"
    return Statement(
        f"{first.sql.rstrip().rstrip(';')}; {second.sql}",
        "read" if is_read else "write",
        settings=first.settings + second.settings,
        is_copy_in=first.is_copy_in or second.is_copy_in,
        defers=first.defers or second.defers,
        remark=first.remark or second.remark,
    )


def _classify(sql: str) -> Statement:
    bare = without_comments(sql).strip()
    control = _CONTROLS.match(bare)
    if control is not None:
        return _control(bare, control)
    remark = ""
    for pattern, words in _NOT_SHOWN:
        if pattern.match(bare):
            remark = words
    setting = _SETS.match(bare)
    if setting is not None:
        local = setting["local"] is not None
        settings = (SettingChange(setting_name(setting["name"]), local),)
        return Statement(sql, "read", settings=settings, remark=remark)
    kind = "write"
    if _READS.match(bare) and not _WRITES.search(bare):
        kind = "read"
    return Statement(
        sql,
        kind,
        settings=_set_by_functions(bare),
        is_copy_in=_COPIES_IN.match(bare) is not None,
        defers=_DEFERS.match(bare) is not None,
        remark=remark,
    )


def _control(sql: str, match: re.Match[str]) -> Statement:
    kind = str(match.lastgroup)
    for group in ("target", "new", "old", "setting", "statement"):
        if match[group] is not None:
            kind = _KIND_OF_NAME[group]
    name = match["target"] or match["new"] or match["old"] or match["statement"] or ""
    name = _unquoted(name)
    if match["setting"]:
        name = setting_name(match["setting"])
    isolation = _ISOLATION.search(sql)
    remark = ""
    if isolation is not None and isolation[1].upper() not in {
        "READ COMMITTED",
        "READ UNCOMMITTED",
    }:
        level = " ".join(isolation[1].upper().split())
        remark = f"ISOLATION LEVEL {level} acts as READ COMMITTED"
    return Statement(
        sql,
        kind,
        name,
        is_read_only=_READ_ONLY.search(sql) is not None,
        is_chained=_CHAINS.search(sql) is not None,
        remark=remark,
    )


_KIND_OF_NAME = {
    "target": "rollback_to",
    "new": "savepoint",
    "old": "release",
    "setting": "reset",
    "statement": "deallocate",
}


def _unquoted(name: str) -> str:
    if name.startswith('"'):
        return name[1:-1].replace('""', '"')
    return name.lower()


def setting_name(name: str) -> str:
    """Return the server's name of a setting."""
    lower = " ".join(name.lower().split())
    return _SYNONYMS.get(lower, lower)


def settings_in(source: str) -> tuple[SettingChange, ...]:
    """Return the custom settings, and those of ``set_config``, that a function changes."""
    settings = [*_set_by_functions(source)]
    for match in _SETS_INSIDE.finditer(source):
        is_local = match["local"] is not None
        settings.append(SettingChange(match["name"].lower(), is_local))
    return tuple(settings)


def _set_by_functions(sql: str) -> tuple[SettingChange, ...]:
    if "set_config" not in sql.lower():
        return ()
    settings = []
    for call in _SET_CONFIG.finditer(sql):
        is_local = _SET_CONFIG_LOCAL.search("," + call["rest"]) is not None
        settings.append(SettingChange(call["name"].lower(), is_local))
    return tuple(settings)


def with_own_names(sql: str, prefix: str) -> str:
    """Return a PREPARE or EXECUTE with the client's prefix before the statement's name."""
    match = _PREPARES.match(sql.lstrip())
    if match is None:
        return sql
    name = f"{prefix}{_unquoted(match['name'])}"
    return f'{match["verb"]} "{name}"{sql.lstrip()[match.end() :]}'


def prepared_name(sql: str) -> str:
    """Return the name of the statement that a PREPARE makes, "" for another statement."""
    match = _PREPARES.match(sql.lstrip())
    if match is None or match["verb"].upper() != "PREPARE":
        return ""
    return _unquoted(match["name"])
