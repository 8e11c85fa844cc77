"""Reads the options of the project in this folder."""

import configparser
import os
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path

from pytest_arena._config._read import Config, load_config
from pytest_arena.errors import ConfigError

_DATABASE = "arena_database"
_VARIABLES = ("ARENA_DATABASE", "ARENA_CACHE")
# In pytest's order. pytest reads the first file that has a section for it.
_TOML = {"pytest.toml": ("pytest",), ".pytest.toml": ("pytest",)}
_SECTIONS = {
    "pytest.ini": "pytest",
    ".pytest.ini": "pytest",
    "pyproject.toml": "",
    "tox.ini": "pytest",
    "setup.cfg": "tool:pytest",
}


def read_options(database: str | None) -> Config:
    """Read the options that name the place of the databases.

    Raises:
        ConfigError: a value is wrong. The error names its place.
    """
    path, values = pytest_file()
    return load_config(
        flags={} if database is None else {"database": database},
        environ={name: os.environ[name] for name in _VARIABLES if name in os.environ},
        ini=lambda name: values.get(name, "") if name == _DATABASE else "",
        # The user may run this command inside the cache.
        root=Path(Path.cwd().anchor),
        inipath=path,
    )


def read_project() -> Config:
    """Read all options of the project.

    Raises:
        ConfigError: a value is wrong. The error names its place.
    """
    path, values = pytest_file()
    return load_config(
        flags={},
        environ=os.environ,
        ini=lambda name: values.get(name, ""),
        root=path.parent if path else Path.cwd(),
        inipath=path,
    )


def read_setting(name: str) -> tuple[str, ...]:
    """Return the words of a setting of pytest."""
    _, values = pytest_file()
    value = values.get(name, "")
    if isinstance(value, list):
        return tuple(map(str, value))
    return tuple(shlex.split(str(value)))


def pytest_file() -> tuple[Path | None, Mapping[str, object]]:
    """Return pytest's configuration file and its values. It is searched from here upwards.

    Raises:
        ConfigError: a file cannot be read or parsed. pytest reports it, too.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        for name in (*_TOML, *_SECTIONS):
            path = folder / name
            if not path.is_file():
                continue
            try:
                values = _read(path)
            except (OSError, ValueError, configparser.Error) as error:
                raise ConfigError(
                    f"{path} cannot be read: {error}",
                    why="it may have the options of pytest-arena, and pytest cannot read it either",
                    cause=str(path),
                    fix="correct the file, then call the command again",
                ) from error
            if values is not None:
                return path, values
    return None, {}


def _read(path: Path) -> Mapping[str, object] | None:
    """Return the values in a file, None for a file without a section for pytest."""
    if path.suffix == ".toml":
        return _from_toml(path)
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    parser.read_string(path.read_text(encoding="utf-8"))
    section = _SECTIONS[path.name]
    if parser.has_section(section):
        return {name: value or "" for name, value in parser.items(section)}
    return {} if path.name.endswith("pytest.ini") else None


def _from_toml(path: Path) -> Mapping[str, object] | None:
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    if path.name in _TOML:
        return _table(content, "pytest")
    tool = _table(content, "tool")
    if "pytest" not in tool:
        return None
    pytest = _table(tool, "pytest", "tool.")
    return {**_table(pytest, "ini_options", "tool.pytest."), **pytest}


def _table(
    content: Mapping[str, object],
    name: str,
    above: str = "",
) -> Mapping[str, object]:
    """Return a table of a TOML file, an empty one if it is missing.

    Raises:
        ValueError: the name has another value.
    """
    table = content.get(name, {})
    if not isinstance(table, dict):
        raise ValueError(f"{above}{name} is no table")  # noqa: TRY004 - as the parser raises
    return table
