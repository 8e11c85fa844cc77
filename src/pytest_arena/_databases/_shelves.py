"""The seams: a database in the making, and the shelves where finished templates stand."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from pytest_arena._databases._fingerprint import Digests, first_change

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from pathlib import Path

    from sqlalchemy.engine import Dialect, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from pytest_arena._values import Address
    from pytest_arena.errors import TemplateError

__all__ = ["ContentT", "Manifest", "ScriptError", "Shelves", "Target", "Template", "read_manifest"]

# What a template is to an isolation: a file's path, or a database's name.
ContentT = TypeVar("ContentT")


class ScriptError(Exception):
    """A script failed. ``line`` is 0 where it is not known; ``fix`` is the next step."""

    def __init__(self, message: str, *, line: int, fix: str) -> None:
        super().__init__(message)
        self.line, self.fix = line, fix


class Target(Protocol):
    """A database in the making, or an empty one beside it."""

    @property
    def file(self) -> str:
        """Its file, absolute; "" on a server."""

    @property
    def address(self) -> Address | None:
        """Where it is on a server; None for a file."""

    @property
    def product(self) -> str:
        """How the product is named in a message."""

    @property
    def is_async_only(self) -> bool:
        """Whether a sync function gets its connection over an async driver."""

    @property
    def has_schemas(self) -> bool:
        """Whether tables may be in schemas that have to be made first."""

    def aim_key(self) -> str:
        """Return what tells it from any other."""

    def engine(self) -> AbstractContextManager[Engine]:
        """Give an engine on it, and close it. Not where it ``is_async_only``."""

    def async_engine(self) -> AbstractAsyncContextManager[AsyncEngine]:
        """Give an engine for async functions.

        Raises:
            TemplateError: no driver is installed that can do it.
        """

    def run_script(self, script: str) -> None:
        """Run a script of several statements.

        Raises:
            ScriptError: one of them failed.
        """

    def has_tables(self) -> bool:
        """Whether a table was made in it. False as well where nothing is there yet."""

    def is_being_written(self) -> bool:
        """Whether somebody has a transaction open in which something was written."""

    def beside(self, number: int) -> Target:
        """Return an empty one, for another database of the app's that its builder connects to."""

    def remove(self) -> None:
        """Remove it. Idempotent."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a finished template was made of, and when. No path of this machine is in it."""

    built: float
    files: Digests
    folders: Digests

    @property
    def digest(self) -> str:
        """A digest of what it was made of."""
        content = json.dumps({"files": self.files, "folders": self.folders})
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def change(self, root: Path) -> str:
        """Return what has changed since, "" if nothing has."""
        return first_change(self.files, self.folders, root)

    def text(self) -> str:
        """Return it as it is stored."""
        content = {"built": self.built, "files": self.files, "folders": self.folders}
        return json.dumps(content, indent=1)


def read_manifest(text: str) -> Manifest | None:
    """Return a manifest that was stored, None for another version's, or a broken one."""
    try:
        return Manifest(**json.loads(text))
    except (ValueError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class Template(Generic[ContentT]):
    """A finished one."""

    content: ContentT
    shelf: str
    manifest: Manifest

    @property
    def digest(self) -> str:
        """What it is, to the stage above."""
        return f"{self.shelf}/{self.manifest.digest}"


class Shelves(Protocol[ContentT]):
    """Where the finished templates of one product stand. A shelf is named by a fingerprint.

    Guarantee: a template is either found whole or not at all, whenever its builder was killed.
    """

    @property
    def folder(self) -> Path | None:
        """The folder that they take up; None where they are not files of this machine."""

    @property
    def ddl(self) -> Dialect:
        """Compiles DDL; the same for every driver."""

    def identity(self) -> str:
        """Return what a template depends on beside its recipe: the product, and its version."""

    def templates(self, shelf: str) -> Iterable[Template[ContentT]]:
        """Return the finished templates of a shelf, the newest first."""

    def is_whole(self, template: Template[ContentT]) -> bool:
        """Whether it can be used. Called after ``used``: what is whole by then stays."""

    def used(self, template: Template[ContentT]) -> None:
        """Note that somebody uses it."""

    def locked(self, shelf: str) -> AbstractContextManager[float]:
        """Let nobody else build on a shelf. Gives the time, which no test has changed.

        Raises:
            TemplateError: somebody else's build takes too long.
        """

    def clear(self, shelf: str) -> None:
        """Remove what nobody has used for a long time, and broken builds. Called when locked."""

    def begin(self, shelf: str, below: Template[ContentT] | None) -> Target:
        """Return a new target with the content of the template below."""

    def finish(self, target: Target, shelf: str, manifest: Manifest) -> ContentT:
        """Make a template of what was built. Marked as finished last."""

    def advice(self, error: BaseException) -> str:
        """Return the next step after an error that a build has raised; "" where none is known."""

    def lacks_table(self, error: BaseException) -> bool:
        """Whether the error says that a table is missing."""

    def not_stored(self, error: Exception) -> TemplateError | None:
        """Return what is said of an error of the shelves' own; None for any other."""
