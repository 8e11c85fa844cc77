"""Finds the database that a client program such as psql opens."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from pytest_arena._config._supported import with_dialect
from pytest_arena._postgresql._arguments import libpq_target

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pytest_arena._product._server_targets import ServerTarget

# The short options that take a value. `pgbench -d` takes none before PostgreSQL 17.
_TAKE_VALUES = {
    "psql": "cdfFhLopPRTUv",
    "pgcli": "dDhpRu",
    "pgbench": "bcDfFhjLMpPRstTU",
    "pg_dump": "dDeEfFhjnNpStTUZ",
    "pg_dumpall": "dEfhlpSU",
    "pg_restore": "dfFhIjLnNpPStTU",
    "createdb": "DEhlOpSTU",
    "dropdb": "hpU",
    "createuser": "acghmpUv",
    "dropuser": "hpU",
    "vacuumdb": "dhjnNpPtU",
    "reindexdb": "dhijpStU",
    "clusterdb": "dhptU",
}
# An unknown long option takes no value here. Its value then counts as the name of the database,
# so the program is refused.
_LONG = {
    "host",
    "port",
    "username",
    "dbname",
    "command",
    "file",
    "variable",
    "set",
    "table",
    "schema",
    "format",
    "jobs",
    "role",
    "maintenance-db",
    "owner",
    "template",
    "encoding",
    "database",
    "user",
}
_KEYS = {
    "h": "host",
    "p": "port",
    "U": "user",
    "u": "user",
    "username": "user",
    "d": "dbname",
    "l": "dbname",  # of pg_dumpall
}
_INFORMATION_ONLY = {"--version", "-V", "--help", "-?"}
# A line of a psql script such as `\connect shop`, which `pg_dump --create` writes.
_CONNECT = re.compile(r"\s*\\c(?:onnect)?\s+(?:-reuse-previous=\S+\s+)?(.+)")
_SETTING = re.compile(r"(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|\S*)")


def client_target(
    program: str, arguments: Sequence[str], variables: Mapping[str, str]
) -> ServerTarget | None:
    """Return the database that a program would connect to, None if it connects to no database."""
    if _INFORMATION_ONLY.intersection(arguments):
        return None
    pairs, names = _read(arguments, _TAKE_VALUES[program])
    options = dict(pairs)
    settings: dict[str, str] = {
        key: options[key] for key in ("host", "port", "user") if key in options
    }
    database = _database(program, options, names)
    if database is None:
        return None
    if program == "psql" and names[1:]:
        settings["user"] = names[1]
    if database:
        settings |= _connection_string(database)
    if program == "psql":
        for connected in _connected_databases(pairs):
            settings |= _connection_string(connected)
    return libpq_target(settings, variables)


def _connected_databases(options: Iterable[tuple[str, str]]) -> Iterator[str]:
    r"""Yield the databases to which the commands and files of psql switch by ``\connect``.

    pytest-arena reads neither files that such a file includes nor psql's standard input.
    """
    for name, value in options:
        lines: Iterable[str] = ()
        if name in {"c", "command"}:
            lines = value.splitlines()
        elif name in {"f", "file"}:
            lines = _lines_of(Path(value))
        for line in lines:
            connect = _CONNECT.match(line)
            if connect is None:
                continue
            database = connect[1].strip().strip("\"'")
            if "=" not in database:
                database = database.split()[0]  # a user and a host may follow
            if not database.startswith("-"):  # `-` keeps the database
                yield database


def _lines_of(script: Path) -> list[str]:
    """Return the lines of a script that contain a backslash, or none if it cannot be read."""
    if not script.is_file():
        return []
    with suppress(OSError), script.open(encoding="utf-8", errors="replace") as lines:
        return [line for line in lines if "\\" in line]
    return []


def _database(
    program: str, options: Mapping[str, str], names: Sequence[str]
) -> str | None:
    """Return the database's name or connection string, "" for the default database.

    None: the program connects to no database.
    """
    first = names[0] if names else ""
    if program in {"createdb", "dropdb"}:
        return first
    if program in {"createuser", "dropuser"}:
        return "postgres"
    if program == "pg_restore":
        return options.get("dbname")  # without it, pg_restore writes a script
    if program == "pg_dumpall":
        return options.get("dbname") or "postgres"
    return options.get("dbname") or first


def _read(
    arguments: Sequence[str], take_values: str
) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the options that have a value, and the other words."""
    options = []
    names = []
    words = iter(arguments)
    for word in words:
        if word.startswith("--"):
            name, has_value, value = word[2:].partition("=")
            if not has_value and name in _LONG:
                value = next(words, "")
            options.append((_KEYS.get(name, name), value))
        elif word.startswith("-") and len(word) > 1:
            letter, value = _short_option(word, take_values)
            if letter:
                value = value or next(words, "")
                options.append((_KEYS.get(letter, letter), value))
        else:
            names.append(word)
    return options, names


def _short_option(word: str, take_values: str) -> tuple[str, str]:
    """Return the option of a word like ``-Xdshop`` that takes a value, and the rest: d, shop."""
    for position, letter in enumerate(word):
        if position and letter in take_values:
            return letter, word[position + 1 :]
    return "", ""


def _connection_string(text: str) -> dict[str, str]:
    """Return the settings of a URL, a libpq string or a name."""
    if re.match(r"postgres(?:ql)?://", text):
        with suppress(ArgumentError, ValueError):
            return _of_url(text)
    if "=" in text:
        return {name: value.strip("'") for name, value in _SETTING.findall(text)}
    return {"dbname": text}


def _of_url(text: str) -> dict[str, str]:
    url = make_url(with_dialect(text))
    parts = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "dbname": url.database,
    }
    settings = {name: str(value) for name, value in parts.items() if value}
    for name, value in url.query.items():
        settings[name] = value if isinstance(value, str) else ",".join(value)
    return settings
