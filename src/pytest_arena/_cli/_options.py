"""Which server would a run in this folder use, and where is its cache?"""

from __future__ import annotations

import configparser
import os
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._config import Config, load_config

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["read_options"]

_NAME = "arena_database"
# In pytest's order; the first that has a section of pytest's is the one.
_TOML = {"pytest.toml": ("pytest",), ".pytest.toml": ("pytest",)}
_SECTIONS = {
    "pytest.ini": "pytest",
    ".pytest.ini": "pytest",
    "pyproject.toml": "",
    "tox.ini": "pytest",
    "setup.cfg": "tool:pytest",
}


@dataclass(frozen=True, slots=True)
class _File:
    path: Path | None
    database: str


def read_options(database: str | None) -> Config:
    """Read the options that matter here, as a run in this folder reads them.

    Raises:
        ConfigError: a value that cannot be right; it names where the value stands.
    """
    file = next(_files(), _File(None, ""))
    names = ("ARENA_DATABASE", "ARENA_CACHE")
    return load_config(
        flags={} if database is None else {"database": database},
        environ={name: os.environ[name] for name in names if name in os.environ},
        ini=lambda name: file.database if name == _NAME else "",
        # The command is no run of a project: it may be called inside the cache.
        root=Path(Path.cwd().anchor),
        inipath=file.path,
    )


def _files() -> Iterator[_File]:
    """Pytest's configuration files, from this folder upwards."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        for name in (*_TOML, *_SECTIONS):
            path = folder / name
            if path.is_file() and (value := _read(path)) is not None:
                yield _File(path, value)


def _read(path: Path) -> str | None:
    """Return the value in a file, "" where it has none; None for a file that is not pytest's."""
    # What pytest cannot read either, it says.
    with suppress(OSError, ValueError, configparser.Error):
        if path.suffix == ".toml":
            return _from_toml(path)
        parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
        parser.read_string(path.read_text(encoding="utf-8"))
        section = _SECTIONS[path.name]
        if parser.has_section(section):
            return parser.get(section, _NAME, fallback="") or ""
        return "" if path.name.endswith("pytest.ini") else None
    return None


def _from_toml(path: Path) -> str | None:
    told = tomllib.loads(path.read_text(encoding="utf-8"))
    if path.name in _TOML:
        return str(told.get("pytest", {}).get(_NAME, ""))
    pytest = told.get("tool", {}).get("pytest")
    if pytest is None:
        return None
    return str(pytest.get(_NAME) or pytest.get("ini_options", {}).get(_NAME, ""))
