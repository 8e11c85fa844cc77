"""Imports what an option names, and finds the cause of errors."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import sysconfig
import traceback
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._values import CodeLine
from pytest_arena.errors import ArenaError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import ModuleType

# The place of an option, for a message that does not know it.
SOMEWHERE = "the pytest configuration, the command line or the environment"


def is_import_path(text: str) -> bool:
    """Return whether a text has the form ``package.module:attribute``."""
    module, colon, attribute = text.partition(":")
    names = [*module.split("."), *attribute.split(".")]
    return bool(colon) and all(name.isidentifier() for name in names)


def load_attribute(
    path: str,
    *,
    option: str,
    source: str = SOMEWHERE,
    likely: Callable[[object], bool] = callable,
) -> object:
    """Import the object that ``path`` names, for an option that is set in ``source``.

    ``likely`` selects the other objects of the module that an error proposes.

    Raises:
        ConfigError: the path has another form, the module does not import (with the cause and
            its line), or the module has no such attribute.
    """
    if not is_import_path(path):
        raise ConfigError(
            f"{option} = {path!r} is not of the form package.module:attribute",
            why="the plugin imports what the option names",
            cause=source,
            fix=f"{option} = {_with_colon(path)}",
        )
    module, _, attribute = path.partition(":")
    try:
        imported = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        if _is_absent(module, error):
            cause, fix = _absent(path, option, source)
        else:
            cause, fix = _broken(error, module, source)
        raise ConfigError(
            f"{option} = {path} does not import: {described(error)}",
            why="the plugin cannot use what the option names",
            cause=cause,
            fix=fix,
        ) from error
    try:
        return reduce(getattr, attribute.split("."), imported)
    except AttributeError as error:
        public = sorted(name for name in vars(imported) if not name.startswith("_"))
        own = [name for name in public if _is_defined_in(imported, name)] or public
        proposed = [name for name in own if likely(getattr(imported, name))]
        fix = f"name the module that has {attribute}; {module} has nothing of that kind"
        if proposed:
            fix = f"{option} = {module}:{nearest(attribute, proposed)}"
        raise ConfigError(
            f"{option} = {path}: {error}",
            why="the plugin cannot use what the option names",
            cause=f"{imported.__file__} defines {', '.join(own[:8]) or 'nothing public'}\n"
            f"the option is in {source}",
            fix=fix,
        ) from None


def _with_colon(path: str) -> str:
    """Return the likely import path: ``app.main:app`` for ``app.main.app``, ``app/main.py:app``."""
    module, colon, attribute = path.replace("/", ".").replace(".py", "").partition(":")
    if not colon:
        module, _, attribute = module.rpartition(".")
    likely = f"{module}:{attribute}"
    if not is_import_path(likely):
        return "app.main:app"
    return likely


def _is_absent(module: str, error: BaseException) -> bool:
    """Return whether the module itself, or a package of it, was not found."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return False
    return f"{module}.".startswith(f"{error.name}.")


def _absent(path: str, option: str, source: str) -> tuple[str, str]:
    """Return the cause and the next step for a module that was not found."""
    module, _, attribute = path.partition(":")
    cause = f"no module {module!r} on sys.path; named in {source}"
    top = module.partition(".")[0]
    on_path = {Path(entry).resolve() for entry in sys.path}
    for folder in ("src", "."):
        if top in _modules_in(Path(folder)) and Path(folder).resolve() not in on_path:
            return cause, _add_to_path(folder)
    likely = _close_module(module)
    if likely:
        return cause, f"{option} = {likely}:{attribute}"
    return cause, _add_to_path(f"<the folder of {top}>")


def _add_to_path(folder: str) -> str:
    return f"pythonpath = {folder}   (in the pytest configuration; in TOML a list)"


def _close_module(module: str) -> str:
    """Return the existing module with the most similar name, or ""."""
    parent, _, child = module.rpartition(".")
    package = sys.modules.get(parent)
    if package is not None:
        names = set().union(*(_modules_in(Path(folder)) for folder in package.__path__))
        likely = difflib.get_close_matches(child, sorted(names), n=1)
        return f"{parent}.{likely[0]}" if likely else ""
    top, dot, rest = module.partition(".")
    names = _modules_in(Path.cwd()) | _modules_in(Path("src"))
    likely = difflib.get_close_matches(top, sorted(names - {top}), n=1)
    return f"{likely[0]}{dot}{rest}" if likely else ""


def _modules_in(folder: Path) -> set[str]:
    packages = {file.parent.name for file in folder.glob("*/__init__.py")}
    return packages | {file.stem for file in folder.glob("*.py")}


def _broken(error: BaseException, module: str, source: str) -> tuple[str, str]:
    cause = str(blame(error) or f"the import itself; named in {source}")
    lacking = error.name if isinstance(error, ModuleNotFoundError) else None
    fix = f'mend that line; python -c "import {module}" shows the whole traceback'
    variable = _missing_variable(error)
    if variable:
        fix = f'os.environ.setdefault("{variable}", "…")   in conftest.py, above its imports'
    if lacking and "." not in lacking and not _close_module(lacking):
        fix = f"pip install {lacking}   (or mend that line, if it should be another module)"
    return cause, fix


def _missing_variable(error: BaseException) -> str:
    """Return the environment variable whose absence an error is about, else ""."""
    if isinstance(error, KeyError):
        frames = traceback.extract_tb(error.__traceback__)
        # os.environ[…]
        if frames and frames[-1].filename in {os.__file__, "<frozen os>"}:
            return str(error.args[0])
    # pydantic-settings reads a field without a value from a variable of this name.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if (
        "ValidationError" not in kinds
        or "Settings" not in str(error).partition("\n")[0]
    ):
        return ""
    try:
        [first, *_] = error.errors()  # type: ignore[attr-defined] # of pydantic
        if first["type"] == "missing":
            return str(first["loc"][0]).upper()
    except (AttributeError, LookupError, TypeError, ValueError):
        pass
    return ""


def _is_defined_in(module: ModuleType, name: str) -> bool:
    """Return whether a module defines a public name. Instances of imported classes count."""
    value = getattr(module, name)
    if inspect.ismodule(value):
        return False
    if not inspect.isroutine(value) and not inspect.isclass(value):
        return True
    return getattr(value, "__module__", module.__name__) == module.__name__


def nearest(text: str, names: Iterable[str]) -> str:
    """Return the name that is most similar to a text, the first name if none is similar."""
    names = list(names)
    similar = difflib.get_close_matches(text, names, n=1, cutoff=0.3)
    return [*similar, *names][0]


def load_function(
    path: str, *arguments: str, option: str, source: str = SOMEWHERE
) -> Callable[..., object]:
    """Import an object that takes these arguments by position.

    Raises:
        ConfigError: as ``load_attribute``, or the object does not take these arguments.
    """
    function = load_attribute(
        path, option=option, source=source, likely=inspect.isroutine
    )
    if callable(function) and accepts(function, *arguments):
        return function
    what = f"is of type {type(function).__name__}"
    if callable(function):
        what = f"takes {inspect.signature(function)}"
    raise ConfigError(
        f"{option} = {path} {what}, and is called with ({', '.join(arguments)})",
        why="the plugin calls it, and the tests rely on what it does",
        cause=str(home_of(function) or source),
        fix=f"def {path.rpartition(':')[2]}({', '.join(arguments)}): …   (async def as well)",
    )


def accepts(function: Callable[..., object], *arguments: str) -> bool:
    """Return whether a function takes so many arguments by position."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # written in C, without a signature
        pass
    return True


def home_of(thing: object) -> CodeLine | None:
    """Return the line that defines a function or class, None for another object."""
    try:
        thing = inspect.unwrap(thing)  # type: ignore[arg-type]  # returns an object without __wrapped__
        lines, number = inspect.getsourcelines(thing)  # type: ignore[arg-type]  # TypeError if not
        file = inspect.getsourcefile(thing)  # type: ignore[arg-type]  # as above
    except (OSError, TypeError):
        return None
    for offset, line in enumerate(lines):
        if line.lstrip().startswith(_HEADS):  # below its decorators
            return CodeLine(file or "", number + offset)
    return CodeLine(file or "", number)


_HEADS = ("def ", "async def ", "class ")


def described(error: BaseException) -> str:
    """Name an error in at most three lines, without the statement that SQLAlchemy adds."""
    if isinstance(error, ArenaError):
        return f"{type(error).__name__}: {error.what}"
    lines = [
        line for line in str(error).split("\n[SQL")[0].splitlines() if line.strip()
    ]
    text = "\n".join(lines[:3])
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def blame(error: BaseException) -> CodeLine | None:
    """Return the innermost line of the user's code in the traceback of an error."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return CodeLine(error.filename, error.lineno)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not is_library(frame.filename):
            return CodeLine(frame.filename, frame.lineno or 0)
    return None


_OURS = str(Path(__file__).parent.parent) + os.sep
_LIBRARIES = (
    "<",
    _OURS,
    sysconfig.get_path("stdlib") + os.sep,
    sysconfig.get_path("platstdlib") + os.sep,
    sysconfig.get_path("scripts") + os.sep,  # the command `pytest` itself
)
_INSTALLED = tuple(
    f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages")
)


def is_library(file: str) -> bool:
    """Return whether a file is of the standard library, an installed package, or pytest-arena."""
    # Files of Cython have no folder, and those of SQLAlchemy one of its source.
    if file.endswith((".pyx", ".pxd", ".pxi")) or file.startswith("lib/sqlalchemy/"):
        return True
    return file.startswith(_LIBRARIES) or any(name in file for name in _INSTALLED)


def project_modules() -> Iterator[tuple[ModuleType, Path]]:
    """Yield the project's loaded modules and their files."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and not is_library(file):
            yield module, Path(file)


def package_of(file: str) -> str:
    """Return the package of a library's file, "" for the standard library."""
    for folder in _INSTALLED:
        _, is_installed, inside = file.rpartition(folder)
        if is_installed:
            return inside.partition(os.sep)[0].removesuffix(".py")
    return "pytest_arena" if file.startswith(_OURS) else ""
