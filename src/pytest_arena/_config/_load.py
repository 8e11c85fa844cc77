"""Imports what an option names, and finds the cause of errors."""

import difflib
import importlib
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import cache, reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from pytest_arena._values import CodeLine
from pytest_arena.errors import ArenaError, ConfigError

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
    likely_import: Callable[[object], bool] | None = None,
) -> object:
    """Import the object that ``path`` names, for an option that is set in ``source``.

    ``likely`` selects the other objects of the module that an error proposes. If there is none,
    ``likely_import`` selects objects that the module imports.

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
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        if _is_absent(module_name, error):
            cause, fix = _explain_absence(path, option, source)
        else:
            cause, fix = _explain_failure(error, module_name, source)
        raise ConfigError(
            f"{option} = {path} does not import: {described(error)}",
            why="the plugin cannot use what the option names",
            cause=cause,
            fix=fix,
        ) from error
    try:
        return reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        names = _public_names(module)
        defined = ", ".join(names[:8]) or "nothing public"
        proposed = [name for name in names if likely(getattr(module, name))]
        if not proposed and likely_import is not None:
            held = vars(module)
            proposed = [name for name in held if likely_import(held[name])]
        fix = f"name the module that has {attribute}; {module_name} has nothing of that kind"
        if proposed:
            fix = f"{option} = {module_name}:{nearest(attribute, proposed)}"
        raise ConfigError(
            f"{option} = {path}: {error}",
            why="the plugin cannot use what the option names",
            cause=f"{module.__file__} defines {defined}\nthe option is in {source}",
            fix=fix,
        ) from None


def _with_colon(path: str) -> str:
    """Return the likely import path: ``app.main:app`` for ``app.main.app``, ``app/main.py:app``."""
    dotted = path.replace("/", ".").replace(".py", "")
    module, colon, attribute = dotted.partition(":")
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


def _explain_absence(path: str, option: str, source: str) -> tuple[str, str]:
    """Return the cause and the next step for a module that was not found."""
    module, _, attribute = path.partition(":")
    cause = f"no module {module!r} on sys.path; named in {source}"
    top = module.partition(".")[0]
    on_path = {Path(entry).resolve() for entry in sys.path}
    for folder in (Path("src"), Path()):
        is_on_path = folder.resolve() in on_path
        if top in _modules_in(folder) and not is_on_path:
            return cause, _add_to_path(str(folder))
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
        names = set()
        for folder in package.__path__:
            names |= _modules_in(Path(folder))
        similar = difflib.get_close_matches(child, sorted(names), n=1)
        return f"{parent}.{similar[0]}" if similar else ""
    top, dot, rest = module.partition(".")
    names = _modules_in(Path.cwd()) | _modules_in(Path("src"))
    similar = difflib.get_close_matches(top, sorted(names - {top}), n=1)
    return f"{similar[0]}{dot}{rest}" if similar else ""


def _modules_in(folder: Path) -> set[str]:
    packages = {file.parent.name for file in folder.glob("*/__init__.py")}
    return packages | {file.stem for file in folder.glob("*.py")}


def _explain_failure(error: BaseException, module: str, source: str) -> tuple[str, str]:
    cause = str(blame(error) or f"the import itself; named in {source}")
    lacking = error.name if isinstance(error, ModuleNotFoundError) else None
    fix = f'correct that line; python -c "import {module}" shows the whole traceback'
    variable = _missing_variable(error)
    if variable:
        fix = f'os.environ.setdefault("{variable}", "…")   in conftest.py, above its imports'
    if lacking and "." not in lacking and not _close_module(lacking):
        fix = f"pip install {lacking}   (or correct that line, if it should be another module)"
    return cause, fix


def _missing_variable(error: BaseException) -> str:
    """Return the environment variable that is not set, if that is the error, or ""."""
    if isinstance(error, KeyError):
        frames = traceback.extract_tb(error.__traceback__)
        # os.environ[…]
        if frames and frames[-1].filename in {os.__file__, "<frozen os>"}:
            return str(error.args[0])
    kinds = {kind.__name__ for kind in type(error).__mro__}
    title = str(error).partition("\n")[0]
    if "ValidationError" not in kinds or "Settings" not in title:
        return ""
    # pydantic-settings reads a field without a value from a variable of this name.
    try:
        [first, *_] = error.errors()  # type: ignore[attr-defined] # of pydantic
        if first["type"] == "missing":
            return str(first["loc"][0]).upper()
    except (AttributeError, LookupError, TypeError, ValueError):
        pass
    return ""


def _public_names(module: ModuleType) -> list[str]:
    """Return the public names that a module defines, or all public names if it defines none."""
    names = sorted(name for name in vars(module) if not name.startswith("_"))
    defined = [name for name in names if _is_defined_in(module, name)]
    return defined or names


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
    return similar[0] if similar else names[0]


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
    problem = f"is of type {type(function).__name__}"
    if callable(function):
        problem = f"takes {inspect.signature(function)}"
    name = path.rpartition(":")[2]
    parameters = ", ".join(arguments)
    raise ConfigError(
        f"{option} = {path} {problem}, and is called with ({parameters})",
        why="the plugin calls it, and the tests rely on what it does",
        cause=str(home_of(function) or source),
        fix=f"def {name}({parameters}): …   (async def as well)",
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


_DEFINITIONS = ("def ", "async def ", "class ")


def home_of(definition: Any) -> CodeLine | None:
    """Return the line that defines a function or class, None for another object."""
    try:
        definition = inspect.unwrap(definition)
        lines, first_number = inspect.getsourcelines(definition)
        file = inspect.getsourcefile(definition) or ""
    except (OSError, TypeError):
        return None
    for number, line in enumerate(lines, start=first_number):
        if line.lstrip().startswith(_DEFINITIONS):  # below its decorators
            return CodeLine(file, number)
    return CodeLine(file, first_number)


def described(error: BaseException) -> str:
    """Name an error in at most three lines, without the statement that SQLAlchemy adds."""
    if isinstance(error, ArenaError):
        return f"{type(error).__name__}: {error.what}"
    kind = type(error).__name__
    text = str(error).partition("\n[SQL")[0]
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return kind
    text = "\n".join(lines[:3])
    return f"{kind}: {text}"


def blame(error: BaseException) -> CodeLine | None:
    """Return the innermost line of the user's code in the traceback of an error."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return CodeLine(error.filename, error.lineno)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not is_library(frame.filename):
            return CodeLine(frame.filename, frame.lineno or 0)
    return None


_ARENA = str(Path(__file__).parent.parent) + os.sep
# The folder of scripts has the command `pytest`.
_PYTHON = [
    sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "scripts")
]
_LIBRARIES = ("<", "lib/sqlalchemy/", _ARENA, *_PYTHON)
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


def package_of(file: str) -> str:
    """Return the package of a library's file, "" for the standard library."""
    for folder in _INSTALLED:
        _, is_installed, inside = file.rpartition(folder)
        if is_installed:
            return inside.partition(os.sep)[0].removesuffix(".py")
    return "pytest_arena" if file.startswith(_ARENA) else ""
