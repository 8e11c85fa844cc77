"""Templates that are databases on a server. All machines that use the server share them."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic

from pytest_arena._product import ConnectTarget, Key, Template, read_manifest
from pytest_arena._product._control_lines import ServerFailure
from pytest_arena._product._own_databases import now
from pytest_arena._product._server_registry import RegistryT
from pytest_arena.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Dialect

    from pytest_arena._product import BuildTarget, Manifest
    from pytest_arena._values import Address

# Longer than a build takes. The lock of a dead process ends at once.
_LOCK_SECONDS = 600


@dataclass(frozen=True, slots=True)
class ServerBuild(Generic[RegistryT]):
    """The database that a build fills, by the app's drivers."""

    registry: RegistryT
    address: Address

    @property
    def connect_target(self) -> ConnectTarget:
        """The target of connections during the build, with a unique key."""
        name = f"{self.address.server}/{self.address.database}"
        return ConnectTarget(Key("building", name), "", (0, 0), self.address)

    def remove(self) -> None:
        """Drop the database, even if a client is connected."""
        self.registry.drop(self.address.database)


@dataclass(frozen=True)
class ServerTemplates(Generic[RegistryT]):
    """The templates of a server, with their manifests in the registry.

    ``question`` is the query for properties of the server that each new database has.
    """

    registry: RegistryT
    product: ClassVar[str]
    question: ClassVar[str]
    ddl_dialect: ClassVar[type[Dialect]]
    fix_if_down: ClassVar[str]  # the next step if the server does not answer

    @property
    def ddl(self) -> Dialect:
        """Compiles DDL, without a driver."""
        return self.ddl_dialect()

    @property
    def has_schema(self) -> bool:
        """Return False: a new database is empty."""
        return False

    @property
    def words(self) -> str:
        """Return "": this store has templates."""
        return ""

    def identity(self) -> str:
        """Return the product and the properties of the server, for the fingerprint."""
        return self._identity

    @cached_property
    def _identity(self) -> str:
        [values] = self.registry.control.rows(self.question)
        return " ".join(map(str, (self.product, *values)))

    def find(self, fingerprint: str, newer_than: float) -> Template[str] | None:
        """Return the template, and hold it."""
        found = self.registry.find(fingerprint)
        if found is None:
            return None
        name, text = found
        manifest = read_manifest(text)
        if manifest is None or manifest.built < newer_than:
            return None
        return Template(name, fingerprint, manifest)

    def begin(self, fingerprint: str, below: Template[str] | None) -> BuildTarget:
        """Create the database that a build fills: a copy of ``below``, or an empty one."""
        del fingerprint  # `finish` registers it
        template = below.content if below else None
        name = self.registry.create("building", template=template)
        return self._build(self.registry.address_of(name))

    def finish(self, target: Any, fingerprint: str, manifest: Manifest) -> str:
        """Register the database of a build as a template."""
        return self.registry.finish_template(
            target.address.database,
            fingerprint=fingerprint,
            manifest=manifest.text(),
            title=manifest.title,
        )

    @abstractmethod
    def _build(self, address: Address) -> BuildTarget:
        """Return a build that fills a database."""

    def advice(self, error: BaseException) -> str:
        """Return the next step after an error of a build, "" if none is known."""
        del error
        return ""

    def not_stored(self, error: Exception) -> TemplateError | None:
        """Return the error for a server that does not answer, or refuses a statement."""
        if not isinstance(error, ServerFailure):
            return None
        return TemplateError(
            f"the template cannot be stored: {error}",
            why="tests use copies of a database into which schema and seed are built once",
            cause=f"the server on {self.registry.address_of().server} has stopped or refuses",
            fix=self.fix_if_down,
        )

    @contextmanager
    def locked(self, fingerprint: str) -> Iterator[float]:
        """Lock a fingerprint on the server, for all machines. Yield the time of the lock."""
        with ExitStack() as stack:
            try:
                stack.enter_context(
                    self.registry.lock(fingerprint, seconds=_LOCK_SECONDS)
                )
            except TimeoutError:
                raise TemplateError(
                    f"another process has been building a template for {_LOCK_SECONDS} s",
                    why="a template is built once for all processes, so this process waits",
                    cause="the process that holds the lock on the server",
                    fix="arena databases list   # shows who builds. Its end frees the lock",
                ) from None
            yield now()
