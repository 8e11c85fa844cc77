"""From ``package.module:attribute`` to the object, with errors that name the cause."""

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
from typing import TYPE_CHECKING, Any

from pytest_arena._values import CodeLine
from pytest_arena.errors import ArenaError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType

# Where an option was given, for a message that cannot know it.
SOMEWHERE = "the pytest configuration, the command line or the environment"


def is_import_path(text: str) -> bool:
    """Whether ``text`` has the form ``package.module:attribute``."""
    module, colon, attribute = text.partition(":")
    names = [*module.split("."), *attribute.split(".")]
    return bool(colon) and all(name.isidentifier() for name in names)


def load_attribute(
    path: str,
    *,
    option: str,
    source: str = SOMEWHERE,
    likely: Callable[[Any], bool] = callable,
) -> object:
    """Import the object that ``path`` names, for the option ``option``, given in ``source``.

    ``likely`` says of what the module has beside it whether it may have been meant.

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
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        name = error.name or "" if isinstance(error, ModuleNotFoundError) else ""
        is_absent = bool(name) and f"{module}.".startswith(f"{name}.")
        cause, fix = (
            _absent(path, option, source)
            if is_absent
            else _broken(error, module, source)
        )
        raise ConfigError(
            f"{option} = {path} does not import: {described(error)}",
            why="the plugin cannot use what the option names",
            cause=cause,
            fix=fix,
        ) from error
    try:
        return reduce(getattr, attribute.split("."), found)
    except AttributeError as error:
        public = sorted(name for name in vars(found) if not name.startswith("_"))
        own = [name for name in public if _is_defined_in(found, name)] or public
        meant = [name for name in own if likely(getattr(found, name))]
        raise ConfigError(
            f"{option} = {path}: {error}",
            why="the plugin cannot use what the option names",
            cause=f"{found.__file__} defines {', '.join(own[:8]) or 'nothing public'}\n"
            f"the option is in {source}",
            fix=f"{option} = {module}:{nearest(attribute, meant)}"
            if meant
            else f"name the module that has {attribute}; {module} has nothing of that kind",
        ) from None


def _with_colon(path: str) -> str:
    """The likeliest meaning: ``app.main.app`` and ``app/main.py:app`` for ``app.main:app``."""
    module, colon, attribute = path.replace("/", ".").replace(".py", "").partition(":")
    if not colon:
        module, _, attribute = module.rpartition(".")
    likely = f"{module}:{attribute}"
    return likely if is_import_path(likely) else "app.main:app"


def _absent(path: str, option: str, source: str) -> tuple[str, str]:
    """The cause and the next step where a module is not there."""
    module, _, attribute = path.partition(":")
    cause = f"no module {module!r} on sys.path; named in {source}"
    top = module.partition(".")[0]
    on_path = {Path(entry).resolve() for entry in sys.path}
    for folder in ("src", "."):
        if top in _modules_in(Path(folder)) and Path(folder).resolve() not in on_path:
            return (
                cause,
                f"pythonpath = {folder}   (in the pytest configuration; in TOML a list)",
            )
    if likely := _close_module(module):
        return cause, f"{option} = {likely}:{attribute}"
    folder = f"<the folder of {top}>"
    return (
        cause,
        f"pythonpath = {folder}   (in the pytest configuration; in TOML a list)",
    )


def _close_module(module: str) -> str:
    """The module that is most like this one, which is not there; "" if none is."""
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
    if lacking and "." not in lacking and not _close_module(lacking):
        return (
            cause,
            f"pip install {lacking}   (or mend that line, if it should be another module)",
        )
    return (
        cause,
        f'mend that line; python -c "import {module}" shows the whole traceback',
    )


def _is_defined_in(module: ModuleType, name: str) -> bool:
    """Whether a public name is the module's own: no module, and no class or function of another."""
    value = getattr(module, name)
    home = (
        getattr(value, "__module__", module.__name__)
        if callable(value)
        else module.__name__
    )
    is_foreign_instance = not inspect.isroutine(value) and not inspect.isclass(value)
    return not inspect.ismodule(value) and (
        is_foreign_instance or home == module.__name__
    )


def nearest(text: str, names: Iterable[str]) -> str:
    """Return the name that is most like ``text``; the first one if none is."""
    names = list(names)
    return (difflib.get_close_matches(text, names, n=1, cutoff=0.3) or names)[0]


def load_function(
    path: str, *arguments: str, option: str, source: str = SOMEWHERE
) -> Callable[..., Any]:
    """Import something that can be called with these arguments by position.

    Raises:
        ConfigError: as ``load_attribute``, or it cannot be called like that.
    """
    found = load_attribute(path, option=option, source=source, likely=inspect.isroutine)
    if callable(found) and accepts(found, *arguments):
        return found
    what = f"is of type {type(found).__name__}"
    if callable(found):
        what = f"takes {inspect.signature(found)}"
    raise ConfigError(
        f"{option} = {path} {what}, and is called with ({', '.join(arguments)})",
        why="the plugin calls it, and the tests rely on what it does",
        cause=str(home_of(found) or source),
        fix=f"def {path.rpartition(':')[2]}({', '.join(arguments)}): …   (async def as well)",
    )


def accepts(function: Callable[..., Any], *arguments: str) -> bool:
    """Whether it can be called with so many arguments by position."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # written in C, without a signature
        pass
    return True


def home_of(thing: object) -> CodeLine | None:
    """Return the line where a function or class is defined, None for anything else."""
    try:
        thing = inspect.unwrap(thing)  # type: ignore[arg-type]  # anything without __wrapped__ is itself
        lines, number = inspect.getsourcelines(thing)  # type: ignore[arg-type]  # TypeError if not
        file = inspect.getsourcefile(thing)  # type: ignore[arg-type]  # as above
    except (OSError, TypeError):
        return None
    heads = (i for i, line in enumerate(lines) if line.lstrip().startswith(_HEADS))
    return CodeLine(file or "", number + next(heads, 0))


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
    """Return the innermost line of the user's own code in the traceback of ``error``."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return CodeLine(error.filename, error.lineno)
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if not is_library(f.filename)
    ]
    return CodeLine(frames[-1].filename, frames[-1].lineno or 0) if frames else None


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
    """Whether a file is the standard library's, an installed package's, or ours."""
    is_compiled = file.endswith((".pyx", ".pxd", ".pxi"))  # Cython's, of no folder
    return (
        is_compiled
        or file.startswith(_LIBRARIES)
        or any(name in file for name in _INSTALLED)
    )


def package_of(file: str) -> str:
    """Return the package that a library's file belongs to, or "" for the standard library."""
    for folder in _INSTALLED:
        _, is_installed, inside = file.rpartition(folder)
        if is_installed:
            return inside.partition(os.sep)[0].removesuffix(".py")
    return "pytest_arena" if file.startswith(_OURS) else ""
