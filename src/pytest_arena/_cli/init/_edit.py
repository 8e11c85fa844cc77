"""Adds lines to pytest's configuration file."""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from typing import TYPE_CHECKING

from pytest_arena._cli._file_changes import FileChange
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Values = dict[str, str | list[str]]
_NEXT_TABLE = re.compile(r"(?m)^(?=[ \t]*\[)")
_LAST_COMMENTS = re.compile(r"(?m)(?:^(?:[#;].*|[ \t\r]*)\n?)+\Z")
_TABLES = {
    "setup.cfg": ("tool:pytest",),
    "pyproject.toml": ("tool.pytest.ini_options", "tool.pytest"),
}


def with_values(path: Path, values: Values) -> FileChange:
    """Add values to a configuration file of pytest.

    The function parses the new text. It must have the old values, the new values, and no others.

    Raises:
        ConfigError: the lines cannot be added safely. The error has the lines to paste.
    """
    before = path.read_bytes() if path.exists() else None
    is_toml = path.suffix == ".toml"
    lines: list[str] = []
    for name, value in values.items():
        if is_toml:
            lines += _toml_lines(name, value)
        else:
            lines += _ini_lines(name, value)
    text = (before or b"").decode(errors="surrogateescape")
    old = _parsed(text, is_toml=is_toml)
    tables = _TABLES.get(path.name, ("pytest",))
    for table, position, new_lines in _places(text, tables, lines):
        addition = "\n".join([f"[{table}]", *lines])
        expected = _merged(old, _parsed(addition, is_toml=is_toml))
        end = "\r\n" if "\r\n" in text else "\n"
        start = text[:position]
        if start and not start.endswith("\n"):
            start += end
        after = start + end.join([*new_lines, ""]) + text[position:]
        is_right = _parsed(after, is_toml=is_toml) == expected
        if is_right and old is not None:
            return FileChange(path, before, after.encode())
    raise ConfigError(
        f"{path.name}: the lines cannot be added safely",
        why="pytest-arena adds lines only if nothing else of the configuration changes",
        cause=f"{path}: it cannot be parsed, or its settings of pytest are not in a table",
        fix="by hand:   " + "   ".join(lines),
    )


def _parsed(text: str, *, is_toml: bool) -> dict[str, object] | None:
    """Return the values of a file, or None if it cannot be parsed."""
    try:
        text.encode()  # refuses bytes that are not UTF-8
        if is_toml:
            return tomllib.loads(text.replace("\r\n", "\n"))
        parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
        parser.read_string(text)
    except (ValueError, configparser.Error):
        return None
    return {name: dict(parser.items(name)) for name in parser.sections()}


def _merged(old: object, new: object) -> object:
    """Return tables that have the values of both. A new value replaces an old value."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    both = dict(old)
    for name, value in new.items():
        both[name] = _merged(old.get(name), value)
    return both


def _places(
    text: str, tables: tuple[str, ...], lines: list[str]
) -> Iterator[tuple[str, int, list[str]]]:
    """Yield possible places: a table, a position in the text, and the lines to insert there.

    A new table at the end is the last place.
    """
    for table in tables:
        words = [re.escape(word) for word in table.split(".")]
        quoted = [rf"[\"']?{word}[\"']?" for word in words]
        name = r"\s*\.\s*".join(quoted)
        header = rf"(?m)^[ \t]*\[\s*{name}\s*\].*(\n|\Z)"
        for match in re.finditer(header, text):
            start = match.end()
            body, *_ = _NEXT_TABLE.split(text[start:])
            # Blank lines and comments before the next table belong to that table.
            values = _LAST_COMMENTS.sub("", body)
            yield table, start + len(values), lines
            # A value may contain a line that looks like the next table.
            yield table, start, lines
    new_table = [f"[{tables[0]}]", *lines]
    if text and not text.endswith(("\n\n", "\n\r\n")):
        new_table.insert(0, "")
    yield tables[0], len(text), new_table


def _toml_lines(name: str, value: str | list[str]) -> list[str]:
    if isinstance(value, str) and "\n" in value:
        return [f'{name} = """', *value.splitlines(), '"""']
    literal = json.dumps(value, ensure_ascii=False)
    return [f"{name} = {literal}"]


def _ini_lines(name: str, value: str | list[str]) -> list[str]:
    lines = value.splitlines() if isinstance(value, str) else value
    if len(lines) == 1:
        return [f"{name} = {lines[0]}"]
    indented = [f"    {line}" for line in lines]
    return [f"{name} =", *indented]
