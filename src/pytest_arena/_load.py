"""From ``package.module:attribute`` to the object, with errors that name the cause."""

from __future__ import annotations

import importlib
import sys
import traceback
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._values import CodeLine
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from types import ModuleType, TracebackType

__all__ = ["blame", "is_import_path", "is_library", "load_attribute"]


def is_import_path(text: str) -> bool:
    """Whether ``text`` has the form ``package.module:attribute``."""
    module, colon, attribute = text.partition(":")
    names = [*module.split("."), *attribute.split(".")]
    return bool(colon) and all(name.isidentifier() for name in names)


def load_attribute(path: str, *, option: str) -> object:
    """Import the object that ``path`` names, for the option ``option``.

    Raises:
        ConfigError: the path has another form, the module does not import (with the cause and
            its line), or the module has no such attribute.
    """
    if not is_import_path(path):
        raise ConfigError(
            f"{option} = {path!r} is not of the form package.module:attribute",
            why="the plugin imports what the option names",
            cause="the pytest configuration, the command line or the environment",
            fix=f"{option} = app.main:app",
        )
    module, _, attribute = path.partition(":")
    return _attribute_of(_import(module, path, option), attribute, path, option)


def _import(module: str, path: str, option: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise ConfigError(
            f"{option} = {path} does not import: {type(error).__name__}: {error}",
            why="the plugin cannot find what the option names",
            cause=str(blame(error) or f"no module {module!r} on sys.path"),
            fix=f'python -c "import {module}" in the root folder shows the same; '
            'pythonpath = ["."] puts that folder on sys.path',
        ) from error


def _attribute_of(module: ModuleType, attribute: str, path: str, option: str) -> object:
    try:
        return reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        names = [name for name in vars(module) if not name.startswith("_")]
        raise ConfigError(
            f"{option} = {path}: {error}",
            why="the plugin cannot find what the option names",
            cause=f"{module.__file__} defines {', '.join(sorted(names)[:8]) or 'nothing public'}",
            fix=f"{option} = {module.__name__}:<one of these names>",
        ) from None


def blame(error: BaseException) -> CodeLine | None:
    """Return the innermost line of the user's own code in the traceback of ``error``."""
    lines = [line for line in _lines(error.__traceback__) if not is_library(line.file)]
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        lines.append(CodeLine(error.filename, error.lineno))
    return lines[-1] if lines else None


def _lines(trace: TracebackType | None) -> list[CodeLine]:
    return [CodeLine(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(trace)]


_HERE = str(Path(__file__).parent)
_STDLIB = str(Path(importlib.__file__).parent.parent)


def is_library(file: str) -> bool:
    """Whether a file is the standard library's, an installed package's, or ours."""
    return (
        file.startswith(("<", _HERE, _STDLIB, sys.prefix + "/lib"))
        or "site-packages" in file
        or "dist-packages" in file
    )
