"""Finds the database that a client program such as mysql opens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._mysql import FACTS
from pytest_arena._mysql._arguments import MySQLTarget, option_file, target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# With these options the program prints a text and ends.
_WITHOUT_CONNECTION = {"--help", "--version", "-V", "-?"}
_SHORT = {"h": "host", "P": "port", "u": "user", "S": "socket", "D": "database"}
_TAKE_VALUES = {
    "host",
    "port",
    "user",
    "socket",
    "database",
    "execute",
    "defaults-file",
}
# The first word of these programs is the name of a database.
_NAME_FIRST = {*FACTS.clients} - {*FACTS.creating_clients, "mysqlslap", "mariadb-slap"}


def client_target(
    program: str, arguments: Sequence[str], variables: Mapping[str, str]
) -> MySQLTarget | None:
    """Return the database that a program would connect to, None if it connects to no database."""
    if _WITHOUT_CONNECTION.intersection(arguments):
        return None
    settings = {}
    if variables.get("MYSQL_HOST"):
        settings["host"] = variables["MYSQL_HOST"]
    if variables.get("MYSQL_TCP_PORT"):
        settings["port"] = variables["MYSQL_TCP_PORT"]
    options, names = _read(arguments)
    file = options.get("defaults-file", "~/.my.cnf")
    settings |= option_file(file, "client")
    settings |= options
    if names and program in _NAME_FIRST and "database" not in options:
        settings["database"] = names[0]
    return target({**settings})


def _read(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the options that have a value, and the other words."""
    options = {}
    names = []
    words = iter(arguments)
    for word in words:
        if word.startswith("--"):
            name, has_value, value = word[2:].partition("=")
            if not has_value and name in _TAKE_VALUES:
                value = next(words, "")
            options[name] = value
        elif word.startswith("-") and len(word) > 1:
            name = _SHORT.get(word[1], "")
            value = word[2:]
            if name or word[1] == "e":
                value = value or next(words, "")
            if name:
                options[name] = value
        else:
            names.append(word)
    return options, names
