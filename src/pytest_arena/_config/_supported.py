"""The supported database products: what is known of each before its package is used."""

from __future__ import annotations

import importlib
import os
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from struct import unpack_from
from typing import TYPE_CHECKING, cast

from pytest_arena._facts import sqlstate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_arena._facts import FileFormat, ProductFacts


def package_of(product: str) -> str:
    """Return the name of a product's package."""
    return f"pytest_arena._{product}"


# By the names of SQLAlchemy's dialects.
SUPPORTED: dict[str, ProductFacts] = {}
for _name in ("sqlite", "postgresql", "mysql"):
    SUPPORTED[_name] = importlib.import_module(package_of(_name)).FACTS

DRIVERS: dict[str, str] = {}  # the product of each driver's package
WITHOUT_LOOP: set[str] = set()  # async drivers
for _facts in SUPPORTED.values():
    WITHOUT_LOOP.update(_facts.drivers_without_loop)
    DRIVERS.update(dict.fromkeys(_facts.drivers, _facts.name))

# The product whose databases are files.
[FILES] = [facts for facts in SUPPORTED.values() if facts.file_format]
FILE_PRODUCTS = {FILES.name}
FILE_FORMAT = cast("FileFormat", FILES.file_format)


def is_database(file: str | Path) -> bool:
    """Return whether a file has the format of a database. An empty file has none."""
    with suppress(OSError, ValueError), open(file, "rb", buffering=0) as opened:  # noqa: PTH123 - faster
        return opened.read(len(FILE_FORMAT.header)) == FILE_FORMAT.header
    return False


def database_of(path: str) -> str:
    """Return the file to which a file belongs, if it is the log of a database."""
    for suffix in FILE_FORMAT.logs:
        path = path.removesuffix(suffix)
    return path


def is_old_database(file: str, began: float) -> bool:
    """Return whether a file is a database that was there when the run began."""
    return os.path.isfile(file) and is_database(file) and birth(file) <= began  # noqa: PTH113 - pathlib is slower


def file_at_stake(path: str, began: float, files: Callable[[], Iterable[str]]) -> str | None:
    """Return the file of these that a change at this path would lose, "" for another database.

    It is older than the run, and is at the path, behind a link, or below the folder.
    """
    path = database_of(path)
    if not is_old_database(path, began) and not os.path.isdir(path):  # noqa: PTH112 - as above
        return None
    folder = os.path.realpath(path) + os.sep
    for file in files():
        is_meant = file.startswith(folder) or reached(path, [file])
        if is_meant and is_old_database(file, began):
            return file
    return ""


def reached(path: str, files: Iterable[str]) -> str:
    """Return the file of these, by its real path, that a path or a link leads to, or ""."""
    real = os.path.realpath(path)
    for file in files:
        with suppress(OSError):
            if real == file or Path(path).samefile(file):
                return file
    return ""


def birth(file: str) -> float:
    """Return when a file was created, because a server may write to it. Else when it changed."""
    import ctypes  # noqa: PLC0415 - few runs change such files

    status = Path(file).stat()
    created: float = getattr(status, "st_birthtime", status.st_ctime)
    answer = ctypes.create_string_buffer(256)
    with suppress(AttributeError, TypeError):  # https://man7.org/linux/man-pages/man2/statx.2.html
        if ctypes.CDLL(None).statx(-100, os.fsencode(file), 0, 0x800, answer) == 0:
            seconds, nanoseconds = unpack_from("=qI", answer, 80)
            created = seconds + nanoseconds / 1e9 or created
    return created


REDIS = {"redis", "rediss"}  # the schemes of its URLs
SHOWN = [facts.shown for facts in SUPPORTED.values()]


def redis_name(host: object, port: object, number: object) -> str:
    """Return what ``arena_allow`` compares for a database of Redis, also for one with TLS."""
    return f"redis://{host or 'localhost'}:{port or 6379}/{number or 0}"


def allows(patterns: Iterable[str], name: str) -> bool:
    """Return whether a value of ``arena_allow`` is this name, or a pattern of it."""
    names = [name]
    if "://" not in name:  # a file has several names
        names.append(os.path.realpath(name))
        names += [f"{FILES.name}:///{each}" for each in names]
    return any(name == each or fnmatch(name, each) for each in patterns for name in names)


_OTHER_DIALECTS = {
    dialect: facts.name for facts in SUPPORTED.values() for dialect in facts.other_dialects
}
NAMES = (*SUPPORTED, *_OTHER_DIALECTS)  # of products in `arena_database`


def product_of_dialect(name: str) -> str:
    """Return the product of one of SQLAlchemy's dialects; another dialect is its own product."""
    return _OTHER_DIALECTS.get(name, name)


def product_of(value: str) -> str:
    """Return the product that a value of ``arena_database`` names, "" if it names none."""
    for facts in SUPPORTED.values():
        if facts.other_url and value.startswith(facts.other_url):
            return facts.name
    name, _, _ = value.partition("://")[0].partition("+")
    product = product_of_dialect(name)
    return product if product in SUPPORTED else ""


def facts_of_driver(error: object) -> ProductFacts | None:
    """Return the facts of the product whose driver defines the class of an object."""
    for kind in type(error).__mro__:
        product = DRIVERS.get(kind.__module__.partition(".")[0])
        if product is not None:
            return SUPPORTED[product]
    return None


def kind_of_error(error: BaseException) -> str:
    """Return the kind of a driver's error by the facts of its product, "" for any other error."""
    # SQLAlchemy's error has the driver's.
    original = getattr(error, "orig", None) or error
    state = sqlstate(original)
    if state is not None:
        for facts in SUPPORTED.values():
            kind = facts.sqlstates.get(str(state))
            if kind is not None:
                return kind
    # MySQL's drivers have HY000 for most errors.
    facts_of_error = facts_of_driver(original)
    if facts_of_error is None:
        return ""  # `str` of a user's error may fail
    text = str(original)
    for sign, kind in facts_of_error.error_words.items():
        if sign in text:
            return kind
    return ""
