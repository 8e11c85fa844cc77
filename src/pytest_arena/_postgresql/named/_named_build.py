"""Builds schema and seed in the transaction that tests share."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import identifier
from pytest_arena._postgresql._templates import (
    DatabaseTarget,
    DatabaseTemplates,
    drivers_of,
    sqlstate_of,
)
from pytest_arena._product import ScriptError, Template
from pytest_arena._product._server_templates import now

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._postgresql.named._named_server import NamedServer
    from pytest_arena._product import BuildTarget, Manifest

# SQLSTATEs of statements that need a commit: CREATE INDEX CONCURRENTLY, a new value of an enum.
_NEED_COMMIT = ("25001", "2D000", "55P04")


@dataclass(frozen=True, slots=True)
class NamedTarget(DatabaseTarget):
    """The transaction that a build fills. ``address`` is the proxy's."""

    registry: NamedServer

    def run_script(self, script: str) -> None:
        """Run a script. Some of its statements may need a commit."""
        try:
            DatabaseTarget.run_script(self, script)
        except ScriptError as error:
            error.suggest(_advice(error.__cause__, self.address.user))
            raise

    def is_being_written(self) -> bool:
        """Return whether a connection of the build is inside a transaction with changes."""
        return bool(self.registry.transaction().writers())

    def remove(self) -> None:
        """Roll back."""
        self.registry.end_transaction()


@dataclass(frozen=True)
class NamedTemplates(DatabaseTemplates):
    """The stages that this run has built. Each run builds them, because no run commits them."""

    registry: NamedServer
    built: dict[str, Template[str]] = field(default_factory=dict)

    @property
    def keeps(self) -> bool:
        """Return False: no run commits the stages."""
        return False

    @property
    def has_schema(self) -> bool:
        """Whether the database has tables, which tests use as they are."""
        return self.registry.has_schema

    @property
    def words(self) -> str:
        """The summary's text about the content."""
        if not self.built:
            return "unchanged" if self.has_schema else ""
        return "schema or seed built in this run, and never committed"

    def templates(self, fingerprint: str) -> Iterator[Template[str]]:
        """Yield the stage if this run has built it."""
        if fingerprint in self.built:
            yield self.built[fingerprint]

    def is_whole(self, template: Template[str]) -> bool:
        """Return True: the transaction has the stage."""
        del template
        return True

    def used(self, template: Template[str]) -> None:
        """Do nothing: no other run can use the stage."""

    @contextmanager
    def locked(self, fingerprint: str) -> Iterator[float]:
        """Yield the time. No other process builds in this transaction."""
        del fingerprint
        yield now()

    def clear(self, fingerprint: str) -> None:
        """Do nothing: no earlier build exists."""

    def begin(self, fingerprint: str, below: Template[str] | None) -> NamedTarget:
        """Return the transaction, which has the stage below.

        If a test has built a stage, roll that transaction back and begin another.
        """
        del fingerprint
        last = next(reversed(self.built), "")
        if last and (below is None or below.fingerprint != last):
            self.registry.end_transaction()
            self.built.clear()
        elif below is None:
            self.registry.take()
        address = self.registry.transaction().address
        return NamedTarget(self.registry, address, *drivers_of(self.dialect))

    def finish(self, target: BuildTarget, fingerprint: str, manifest: Manifest) -> str:
        """Note the stage, which is never committed."""
        del target
        name = self.registry.name
        self.built[fingerprint] = Template(name, fingerprint, manifest)
        return name

    def advice(self, error: BaseException) -> str:
        """Return the next step. Some statements need a commit."""
        user = self.registry.address_of().user
        return _advice(error, user) or super().advice(error)


def _advice(error: BaseException | None, user: str) -> str:
    if sqlstate_of(error) not in _NEED_COMMIT:
        return ""
    return (
        "delete the statement, which needs a commit, or: "
        f"ALTER ROLE {identifier(user)} CREATEDB"
    )
