"""Adds lines to pytest's configuration file, and changes nothing else of it."""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_arena._cli._file_changes import FileChange
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Values = dict[str, str | list[str]]
Place = tuple[str, int, list[str]]
_TABLES: dict[str, tuple[str, ...]] = {"setup.cfg": ("tool:pytest",)}
_TABLES["pyproject.toml"] = ("tool.pytest.ini_options", "tool.pytest")


def with_values(path: Path, values: Values) -> FileChange:
    """Add values to a configuration file of pytest's; every byte that is there stays.

    The new text is parsed and compared: the old values, these, and nothing else.

    Raises:
        ConfigError: no place was found where that comes true; it has the lines to paste.
    """
    before = path.read_bytes() if path.exists() else None
    is_toml = path.suffix == ".toml"
    lines = [
        line
        for name in values
        for line in _written(name, values[name], is_toml=is_toml)
    ]
    text = (before or b"").decode(errors="surrogateescape")
    old = _parsed(text, is_toml=is_toml)
    for table, at, new in _places(text, _TABLES.get(path.name, ("pytest",)), lines):
        wanted = _merged(
            old, _parsed("\n".join([f"[{table}]", *lines]), is_toml=is_toml)
        )
        after = _inserted(text, at, new)
        if old is not None and _parsed(after, is_toml=is_toml) == wanted:
            return FileChange(path, before, after.encode())
    raise ConfigError(
        f"{path.name}: no place was found where the lines can be added safely",
        why="a configuration is changed only where nothing else of it changes",
        cause=f"{path}: it cannot be parsed, or pytest has no table of its own in it",
        fix="by hand:   " + "   ".join(lines),
    )


def _parsed(text: str, *, is_toml: bool) -> dict[str, Any] | None:
    """What a file says; None where it cannot be read."""
    with suppress(ValueError, configparser.Error):
        if is_toml:
            return tomllib.loads(text.encode().decode().replace("\r\n", "\n"))
        parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
        parser.read_string(text.encode().decode())  # what is no UTF-8 is refused here
        return {name: dict(parser.items(name)) for name in parser.sections()}
    return None


def _merged(old: Any, new: Any) -> Any:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return old | {name: _merged(old.get(name), new[name]) for name in new}


def _places(text: str, tables: tuple[str, ...], lines: list[str]) -> Iterator[Place]:
    """Yield each table, where its values may end, and what is to be written there."""
    for table in tables:
        words = r"\s*\.\s*".join(
            rf"[\"']?{re.escape(word)}[\"']?" for word in table.split(".")
        )
        for head in re.finditer(
            rf"^[ \t]*\[\s*{words}\s*\].*(\n|\Z)", text, re.MULTILINE
        ):
            rest = re.compile(r"^[ \t]*\[", re.MULTILINE).search(text, head.end())
            block = text[head.end() : rest.start() if rest else len(text)].splitlines(
                keepends=True
            )
            # Blank lines and comments before the next table belong to that.
            while block and re.match(r"[#;]|\s*$", block[-1]):
                block.pop()
            yield table, head.end() + sum(map(len, block)), lines
            yield (
                table,
                head.end(),
                lines,
            )  # a value has a line that looks like a table's
    # A table that is there in another form makes a second one invalid, or differ.
    gap = [] if not text or text.endswith(("\n\n", "\n\r\n")) else [""]
    yield tables[0], len(text), [*gap, f"[{tables[0]}]", *lines]


def _inserted(text: str, at: int, lines: list[str]) -> str:
    """Put lines into a text, in its own kind of line ends."""
    end = "\r\n" if "\r\n" in text else "\n"
    gap = end if at and not text[:at].endswith("\n") else ""
    return text[:at] + gap + "".join(line + end for line in lines) + text[at:]


def _written(name: str, value: str | list[str], *, is_toml: bool) -> list[str]:
    several = value if isinstance(value, list) else value.splitlines()
    if is_toml and (isinstance(value, list) or len(several) == 1):
        return [f"{name} = {json.dumps(value, ensure_ascii=False)}"]
    if is_toml:
        return [f'{name} = """', *several, '"""']
    if len(several) == 1:
        return [f"{name} = {several[0]}"]
    return [f"{name} =", *(f"    {one}" for one in several)]
