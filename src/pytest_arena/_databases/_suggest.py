"""What do the modules that are loaded say of the app's databases?"""

from __future__ import annotations

import inspect
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import MetaData

from pytest_arena._config._load import is_library

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from types import ModuleType


def suggested_schema(root: Path) -> str:
    """Return the only likely value: its migrations, or the base of its models; "" without one.

    Where tables belong to several bases, nobody but the user knows which database has which.
    """
    if is_alembic(root / "alembic.ini"):
        return "alembic.ini"
    every = list(_candidates())
    near = [each for each in every if root in each.file.parents] or every
    best = min(near, key=lambda it: (not it.is_at_home, it.name.count("."), it.name), default=None)
    return best.name if best and all(each.metadata is best.metadata for each in near) else ""


def is_alembic(ini: Path) -> bool:
    """Whether a file configures Alembic: it has a section ``[alembic]``."""
    lines = ini.read_text(encoding="utf-8", errors="replace").splitlines() if ini.is_file() else []
    return any(line.strip() == "[alembic]" for line in lines)


def is_schema(value: Any) -> bool:
    """Whether this may stand after ``arena_schema =``: a base, a metadata, a function."""
    return inspect.isroutine(value) or _metadata_of(value) is not None


@dataclass(frozen=True, slots=True)
class _Candidate:
    name: str
    metadata: MetaData
    file: Path
    is_at_home: bool  # made in this module, and not imported there


def _candidates() -> Iterator[_Candidate]:
    """Whatever makes tables in the modules that are loaded."""
    for module, file in _modules():
        for name, value in list(vars(module).items()):
            metadata = _metadata_of(value)
            if metadata is not None and metadata.tables and not name.startswith("_"):
                at_home = getattr(value, "__module__", "") == module.__name__
                yield _Candidate(f"{module.__name__}:{name}", metadata, file, at_home)


def _metadata_of(value: Any) -> MetaData | None:
    if isinstance(value, type) and "__table__" in vars(value):
        return None  # a model; its base is meant
    metadata = getattr(value, "metadata", None) if isinstance(value, type) else value
    return metadata if isinstance(metadata, MetaData) else None


_URL = re.compile(r"\b(sqlite|postgresql)(?:\+\w+)?://|\b(postgres)://")


def guessed_product(known: Collection[str]) -> str:
    """Return the only product that URLs in the app's code name; "" if there is none or several.

    An app that makes its engine when it starts up has no engine before its first client. What
    stands in the modules that are loaded is read, settings and default values among it. Costs
    some milliseconds, once.
    """
    found: set[str] = set()
    for _, file in _modules():
        with suppress(OSError):  # in a zip, or gone
            text = (
                file.read_text(encoding="utf-8", errors="replace") if file.suffix == ".py" else ""
            )
            found |= {match[1] or "postgresql" for match in _URL.finditer(text)}
    likely = found & set(known)
    return likely.pop() if len(likely) == 1 else ""


def _modules() -> Iterator[tuple[ModuleType, Path]]:
    """The modules of the project that are loaded, with their files."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and not is_library(file):
            yield module, Path(file)
