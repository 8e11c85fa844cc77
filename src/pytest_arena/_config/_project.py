"""Reads the options of the project in this folder, for commands that do not run pytest."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

import iniconfig

from pytest_arena._config._read import Config, load_config
from pytest_arena.errors import ConfigError

# In pytest's order, each with its table or section. pytest reads the first file that has it.
_FILES = {
    "pytest.toml": "pytest",
    "pytest.ini": "pytest",
    "pyproject.toml": "tool.pytest",
    "tox.ini": "pytest",
    "setup.cfg": "tool:pytest",
}
_ONLY_FOR_PYTEST = {"pytest.toml", "pytest.ini"}


def read_project(*, database: str | None = None) -> Config:
    """Read all options of the project.

    Args:
        database: the value of ``--database``, which replaces ``arena_database``.

    Raises:
        ConfigError: a value is wrong.
    """
    path, values = pytest_file()
    return load_config(
        flags={"database": database},
        environ=os.environ,
        ini=lambda name: values.get(name, ""),
        root=path.parent if path else Path.cwd(),
        file=path,
    )


def pytest_file() -> tuple[Path | None, Mapping[str, object]]:
    """Return pytest's configuration file and its values. It is searched from here upwards.

    Raises:
        ConfigError: a file cannot be read or parsed. pytest reports it, too.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        for name, section in _FILES.items():
            path = folder / name
            if not path.is_file():
                continue
            try:
                values = _read(path, section)
            except (OSError, TypeError, ValueError, iniconfig.ParseError) as error:
                raise ConfigError(
                    f"{path} cannot be read: {error}",
                    why="it may have the options of pytest-arena",
                    cause=str(path),
                    fix="correct the file, then call the command again",
                ) from error
            if values is not None or name in _ONLY_FOR_PYTEST:
                return path, values or {}
    return None, {}


def _read(path: Path, section: str) -> Mapping[str, object] | None:
    """Return the values in a file, None for a file without a section for pytest."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".toml":
        table = tomllib.loads(text)
        for name in section.split("."):
            if name not in table:
                return None
            table = dict(table[name])
        return {**table.get("ini_options", {}), **table}
    parser = iniconfig.IniConfig(path, text)
    return dict(parser[section].items()) if section in parser else None
