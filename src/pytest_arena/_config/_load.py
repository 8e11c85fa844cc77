"""Imports what an option names, and finds the cause of errors."""

import difflib
import importlib
import inspect
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from functools import cache, reduce
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from pytest_arena._values import CodeLine
from pytest_arena.errors import ArenaError, ConfigError, in_words

if sys.version_info >= (3, 14):
    from annotationlib import Format


def is_import_path(text: str) -> bool:
    """Return whether a text has the form ``package.module:attribute``."""
    module, colon, attribute = text.partition(":")
    names = [*module.split("."), *attribute.split(".")]
    return bool(colon) and all(name.isidentifier() for name in names)


def load_attribute(path: str, *, option: str, source: str) -> object:
    """Import the object that ``path`` names, for an option that is set in ``source``."""
    if not is_import_path(path):
        raise ConfigError(
            f"{option} = {path!r} is not of the form package.module:attribute",
            why="pytest-arena imports what the option names",
            cause=source,
            fix=f"{option} = app.main:app",
        )
    module_name, _, attribute = path.partition(":")
    try:
        return reduce(getattr, attribute.split("."), importlib.import_module(module_name))
    except (Exception, SystemExit) as error:
        problem = f" does not import: {described(error)}"
        cause = str(blame(error) or source)
        fix = next_step(error) or f'correct that line; python -c "import {module_name}" shows more'
        if isinstance(error, AttributeError) and module_name in sys.modules:
            problem = f": {error}"
            cause = f"{sys.modules[module_name].__file__}; named by {source}"
            fix = f"name the module that has {attribute}"
        elif isinstance(error, ModuleNotFoundError):
            fix = f"install what has the module {error.name!r}, or {fix}"
            if f"{module_name}.".startswith(f"{error.name}."):
                cause = f"no module {error.name!r} on sys.path; named by {source}"
                fix = f"pythonpath = <folder>   in pytest's configuration, or correct {error.name}"
        raise ConfigError(
            f"{option} = {path}{problem}",
            why="pytest-arena cannot use what the option names",
            cause=cause,
            fix=fix,
        ) from error


def next_step(error: BaseException) -> str:
    """Return the next step for an error: its own, or for a variable that is not set, or ""."""
    if isinstance(error, ArenaError):
        return error.fix
    place = f"{blame(error)} {traceback.extract_tb(error.__traceback__)}"
    if re.search(r"environ\[|pydantic_settings", place):
        found = re.search(r"^KeyError: '(\w+)'|\n(\w+)\n  Field required", in_words(error))
        if found:
            name = found[1] or f"<env_prefix>{found[2]}".upper()
            return (
                f"os.environ[{name!r}] = …   in the root conftest.py. Tests never open a URL there"
            )
    return ""


def nearest(text: str, names: Iterable[str]) -> str:
    """Return the name that is most similar to a text."""
    return difflib.get_close_matches(text, names, n=1, cutoff=0)[0]


def check_function(function: object, *arguments: str, setting: str, source: str) -> None:
    """Check that an object takes these arguments by position."""
    problem = problem_of_call(function, *arguments)
    if problem:
        name = setting.rpartition(":")[2]
        parameters = ", ".join(arguments)
        raise ConfigError(
            f"{setting} {problem}, and is called with ({parameters})",
            why="the plugin calls it, and the tests rely on what it does",
            cause=str(line_of_function(function) or source),
            fix=f"def {name}({parameters}): …   (async def as well)",
        )


def problem_of_call(function: object, *arguments: str) -> str:
    """Return why a call with these arguments by position does nothing useful, "" if it does."""
    if not callable(function) or isinstance(function, type):
        return f"is of type {type(function).__name__}"
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return "is a generator function"
    try:
        signature(function).bind(*arguments)
    except TypeError:
        return f"takes {signature(function)}"
    return ""


def signature(function: Any) -> inspect.Signature:
    """Return how to call it. Its annotations may name what only type checkers import."""
    if sys.version_info >= (3, 14):
        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)


def line_of_function(function: object) -> CodeLine | None:
    """Return the first line of a function of the user's code. None for any other callable."""
    # A `partial` and a decorator's wrapper name the function.
    function = getattr(function, "func", getattr(function, "__wrapped__", function))
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType) or is_library(code.co_filename):
        return None
    return CodeLine(code.co_filename, code.co_firstlineno)


def described(error: BaseException) -> str:
    """Name an error in at most three lines, without the statement that SQLAlchemy adds."""
    if isinstance(error, ArenaError):
        return f"{type(error).__name__}: {error.what}"
    return "\n".join([*filter(str.strip, in_words(error).partition("\n[SQL")[0].splitlines())][:3])


def blame(error: BaseException) -> CodeLine | None:
    """Return the innermost line of the user's code in the traceback of an error."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return CodeLine(error.filename, error.lineno)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not is_library(frame.filename):
            return CodeLine(frame.filename, frame.lineno or 0)
    return None


ARENA = str(Path(__file__).parent.parent) + os.sep
# The folder of scripts has the command `pytest`.
_PYTHON = [sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "scripts")]
_LIBRARIES = ("<", "lib/sqlalchemy/", ARENA, *_PYTHON)
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


@cache
def is_library(file: str) -> bool:
    """Return whether a file is of the standard library, an installed package, or pytest-arena."""
    # Files of Cython have no folder, and those of SQLAlchemy a relative one.
    if file.endswith((".pyx", ".pxd", ".pxi")) or file.startswith(_LIBRARIES):
        return True
    return any(folder in file for folder in _INSTALLED)


def project_modules() -> Iterator[tuple[ModuleType, Path]]:
    """Yield the project's loaded modules and their files."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and not is_library(file):
            yield module, Path(file)
