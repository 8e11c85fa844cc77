"""Refuses to start a process whose arguments name a database of the app.

pytest-arena does not guard other processes. They inherit the variables of ``arena_env``, which name
the test's database.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._config._supported import product_of
from pytest_arena._databases._app_databases import real
from pytest_arena._gate._engines import known_engines, requested_by_engines
from pytest_arena._gate._gate_notes import error_of_child_naming
from pytest_arena._product import NOWHERE

if TYPE_CHECKING:
    from pytest_arena._databases._app_databases import KnownDatabases
    from pytest_arena._values import Child
    from pytest_arena.errors import RefusedError

_WORD = re.compile(r"[^\s'\"<>()\[\]{}|;`,?&=]+")


def refusal_of(child: Child, known: KnownDatabases) -> RefusedError | None:
    """Return the error for a child whose arguments name a database of the app."""
    of_engines = requested_by_engines(known_engines.find())
    names = {*known.requested, *known.files.of_app}
    names.update(requested.name for requested in of_engines)
    text = " ".join(child.arguments)
    words = [*child.arguments, *_WORD.findall(text)]
    for name in filter(None, names):
        names_it = _names_server if "://" in name else _names_file
        if any(names_it(word, name, child, known) for word in words):
            return error_of_child_naming(name)
    return None


def _names_server(word: str, name: str, child: Child, known: KnownDatabases) -> bool:
    """Return whether a word is the URL of a database, on any host, which has many names."""
    del child
    if "://" not in word or NOWHERE in word or known.files.is_allowed(name):
        return False
    product, _, place = name.partition("://")
    database = place.partition("/")[2]
    return product_of(word) == product_of(product) and word.endswith(f"/{database}")


def _names_file(word: str, name: str, child: Child, known: KnownDatabases) -> bool:
    """Return whether a word is the path of a file, or its URL."""
    if not word.endswith(Path(name).name):
        return False
    if known.at_file(name) is not None or not known.files.belongs_to_app(name):
        return False
    path = Path(child.folder, word.removeprefix("file:").rpartition(":///")[2])
    return real(str(path)) == real(name)
