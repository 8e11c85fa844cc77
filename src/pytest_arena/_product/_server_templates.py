"""Templates that are databases on a server, which all its clients share."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from pytest_arena.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from pytest_arena._product import Template
    from pytest_arena._product._databases_command import RegistryRow

_LOCK_SECONDS = 600  # longer than a build takes; a dead process has no lock


class TemplateRegistry(Protocol):
    """The registry of a server, as far as it is about templates."""

    def templates(self, fingerprint: str) -> list[tuple[str, str]]:
        """Return the names and manifests of finished templates, the newest first."""

    def used(self, name: str) -> None:
        """Record that this run uses a template."""

    def lock(self, fingerprint: str, *, seconds: int) -> AbstractContextManager[None]:
        """Hold the lock of a fingerprint. Raise TimeoutError after so many seconds."""

    def listed(self) -> list[RegistryRow]:
        """Return the registry's rows, the oldest database first."""


RegistryT = TypeVar("RegistryT", bound=TemplateRegistry)


@dataclass(frozen=True)
class ServerTemplates(Generic[RegistryT]):
    """The templates of a server, with their manifests in the registry.

    Several machines share them.
    """

    own: RegistryT

    @property
    def folder(self) -> None:
        """None: the templates are no files."""
        return None

    @property
    def has_schema(self) -> bool:
        """Return False: a template of the seed has a copy of the schema's template."""
        return False

    @property
    def words(self) -> str:
        """Return "": the summary says whether a template was built."""
        return ""

    def is_whole(self, template: Template[str]) -> bool:
        """Return whether no process has dropped the template. Nothing connects to a template."""
        return any(
            name == template.content
            for name, _ in self.own.templates(template.fingerprint)
        )

    def used(self, template: Template[str]) -> None:
        """Note the use in the registry."""
        self.own.used(template.content)

    @contextmanager
    def locked(self, fingerprint: str) -> Iterator[float]:
        """Lock a fingerprint on the server, for all machines. Yield the time."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self.own.lock(fingerprint, seconds=_LOCK_SECONDS))
            except TimeoutError:
                raise self._waited_too_long() from None
            yield now()

    def _waited_too_long(self) -> TemplateError:
        builders = {
            f"process {row.pid} on {row.host}, {row.project}"
            for row in self.own.listed()
            if row.kind == "building" and row.alive
        }
        return TemplateError(
            f"another process has been building a template for {_LOCK_SECONDS} s",
            why="a template is built once for all processes, so that this process waits",
            cause="\n".join(builders)
            or "the process that holds the lock on the server",
            fix="end that process; its lock is free at once",
        )


def now() -> float:
    """Return the time of a new file, because a test may have changed the clock."""
    with tempfile.TemporaryFile() as file:
        return os.fstat(file.fileno()).st_mtime
