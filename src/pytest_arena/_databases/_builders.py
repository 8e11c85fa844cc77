"""What fills an empty database: a metadata, migrations, a script, a function; and the seed."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import MetaData, create_engine, schema
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from sqlalchemy.types import SchemaType

from pytest_arena._config import _load
from pytest_arena._databases._migrations import Comparison, compare
from pytest_arena._product import ScriptError, Target
from pytest_arena._values import CodeLine
from pytest_arena.errors import ConfigError, TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import ModuleType

    from sqlalchemy.engine import Connection, Dialect
    from sqlalchemy.sql.ddl import ExecutableDDLElement


def _listeners(target: Any, *names: str) -> Iterator[Any]:
    """Yield who listens to these events of a metadata or table.

    Types do that themselves to be made in the database, which the DDL shows.
    """
    for listener in (one for name in names for one in getattr(target.dispatch, name)):
        # The object whose method it is, if it is one; SQLAlchemy wraps it in the one or other way.
        method = getattr(listener, "func", listener)
        owner = getattr(method, "__self__", None) or getattr(listener, "target", None)
        if not isinstance(owner, SchemaType):
            yield method


def _schemas_of(metadata: MetaData) -> list[schema.CreateSchema]:
    """Return what makes the schemas in which tables, types and sequences stand."""
    types = (
        column.type for table in metadata.tables.values() for column in table.columns
    )
    named = [*metadata.tables.values(), *metadata._sequences.values(), *types]  # noqa: SLF001 - there is no public way
    names = {getattr(each, "schema", None) for each in named}
    return [
        schema.CreateSchema(name, if_not_exists=True)
        for name in sorted(filter(None, names))
    ]


def _all_ddl(metadata: MetaData, dialect: Dialect) -> Iterator[ExecutableDDLElement]:
    """Yield all that ``create_all`` executes, beside what listeners of the user's do."""
    if dialect.supports_sequences:
        for _, sequence in sorted(metadata._sequences.items()):  # noqa: SLF001 - there is no public way
            yield schema.CreateSequence(sequence)
    for _, table in sorted(metadata.tables.items()):  # sorted_tables warns of a circle
        for column in table.columns:
            yield from _types(column.type, dialect)
        yield schema.CreateTable(table)
        yield from (
            schema.CreateIndex(index) for index in sorted(table.indexes, key=str)
        )
        if dialect.supports_comments and not dialect.inline_comments:
            if table.comment is not None:
                yield schema.SetTableComment(table)
            commented = (
                column for column in table.columns if column.comment is not None
            )
            yield from map(schema.SetColumnComment, commented)


def _types(given: Any, dialect: Dialect) -> Iterator[ExecutableDDLElement]:
    """A type that has a name in the database, as PostgreSQL's enums and domains do."""
    kind = given.dialect_impl(dialect)
    kind = getattr(kind, "impl_instance", kind)  # what stands behind a TypeDecorator
    # Its import takes long, and comes with the dialect and with its types.
    postgresql: Any = sys.modules.get("sqlalchemy.dialects.postgresql")
    if postgresql and isinstance(kind, postgresql.ENUM):
        yield postgresql.CreateEnumType(kind)
    elif postgresql and isinstance(kind, postgresql.DOMAIN):
        yield postgresql.CreateDomainType(kind)
    elif (item := getattr(kind, "item_type", None)) is not None:
        yield from _types(item, dialect)


def _fill(
    target: Target,
    function: Callable[..., Any],
    *,
    is_async: bool = False,
    in_session: bool = False,
) -> None:
    """Call a function with a connection or a session, and commit.

    An async one has an event loop of its own; so has a sync one where no driver is sync.
    """
    if not is_async and target.sync_url is not None:
        engine = create_engine(target.sync_url, poolclass=NullPool)
        try:
            with Session(engine) if in_session else engine.connect() as given:
                function(given)
                given.commit()
        finally:
            engine.dispose()
        return

    async def fill() -> None:
        engine = create_async_engine(target.async_url, poolclass=NullPool)
        try:
            async with (
                AsyncSession(engine) if in_session else engine.connect() as given
            ):
                await (function(given) if is_async else given.run_sync(function))
                await given.commit()
        finally:
            await engine.dispose()

    asyncio.run(fill())


class Builder(Protocol):
    """Fills a database. ``identity`` and ``sources`` say when a new one has to be built."""

    def identity(self, ddl: Dialect) -> str:
        """Return what can be known before the build without reading code: the compiled DDL."""

    def sources(self) -> Iterable[Path]:
        """Return the files of code from which the build starts; what they import counts too."""

    def build(self, target: Target) -> None:
        """Fill the target. Called in a thread without a running event loop."""


def schema_builder(value: str, root: Path, *, source: str = _load.SOMEWHERE) -> Builder:
    """Return the builder for a value of ``arena_schema``, which was given in ``source``.

    Raises:
        ConfigError: the value names nothing of a form that is known.
    """
    if value.endswith(".ini"):
        return _alembic_builder(_existing(value, root, source), source)
    if value.endswith(".sql"):
        return ScriptBuilder(_existing(value, root, source))
    found = _load.load_attribute(
        value, option="arena_schema", source=source, likely=is_schema
    )
    metadata = getattr(found, "metadata", found)
    if isinstance(metadata, MetaData):
        module = importlib.import_module(value.partition(":")[0])
        return MetadataBuilder(metadata, Path(module.__file__ or "."))
    if inspect.isroutine(found):
        is_bare = _takes_nothing(found, f"arena_schema = {value}", "connection")
        return CodeBuilder(found, takes_nothing=is_bare)
    raise ConfigError(
        f"arena_schema = {value} is of type {type(found).__name__}, which cannot make tables",
        why="an empty database needs to know where its tables come from",
        cause=source,
        fix="name a declarative Base, a MetaData or a function that takes a connection",
    )


def seed_builder(value: str, *, source: str = _load.SOMEWHERE) -> Builder:
    """Return the builder for a value of ``arena_seed``, which was given in ``source``.

    Raises:
        ConfigError: the value does not name a function of one session.
    """
    likely = inspect.isroutine
    found = _load.load_attribute(
        value, option="arena_seed", source=source, likely=likely
    )
    if inspect.isroutine(found):
        is_bare = _takes_nothing(found, f"arena_seed = {value}", "session")
        return CodeBuilder(found, takes_nothing=is_bare, in_session=True)
    raise ConfigError(
        f"arena_seed = {value} is of type {type(found).__name__}, not a function",
        why="the function adds the rows that every test starts with",
        cause=source,
        fix="async def seed(session: AsyncSession) -> None: …, or def seed(session: Session)",
    )


def _existing(value: str, root: Path, source: str) -> Path:
    file = root / value
    if file.is_file():
        return file
    others = sorted(root.glob(f"*{file.suffix}"))
    there = [
        other.name for other in others if other.suffix != ".ini" or is_alembic(other)
    ]
    raise ConfigError(
        f"arena_schema = {value}: there is no file {file}",
        why="an empty database needs to know where its tables come from",
        cause=f"{source}\nthe path counts from pytest's rootdir",
        fix=f"arena_schema = {_load.nearest(file.name, there) if there else '<module>:<Base>'}",
    )


def _takes_nothing(function: Callable[..., Any], option: str, given: str) -> bool:
    """Whether it is called without an argument, as an app's ``init_db()``.

    One that can be is, since it works on the app's own engine, which the gate leads to the
    template; its optional parameters are not what arena would pass.

    Raises:
        ConfigError: it can be called neither like that nor with one argument.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise _unfit(function, option, given, "is a generator: nobody would run it")
    signature = inspect.signature(function)
    takes_any = any(
        each.kind is each.VAR_POSITIONAL for each in signature.parameters.values()
    )
    if _load.accepts(function) and not takes_any:
        return True
    if not _load.accepts(function, given):
        raise _unfit(function, option, given, f"takes {signature}")
    return False


def _unfit(
    function: Callable[..., Any], option: str, given: str, problem: str
) -> ConfigError:
    name = getattr(function, "__name__", "build")
    return ConfigError(
        f"{option} {problem}, and is called with one {given}",
        why="an empty database is filled by what the function does with it",
        cause=str(_load.home_of(function) or option),
        fix=f"def {name}({given}): …   or: async def {name}({given}): …",
    )


@dataclass(frozen=True, slots=True)
class MetadataBuilder:
    """``module:Base`` or ``module:metadata``: ``create_all``."""

    metadata: MetaData
    file: Path

    def identity(self, ddl: Dialect) -> str:
        """The compiled DDL, which changes with the models, and the text of DDL that listens."""
        made = (str(each.compile(dialect=ddl)) for each in _all_ddl(self.metadata, ddl))
        return "\n".join(
            [*made, *(str(getattr(one, "statement", "")) for one in self._heard())]
        )

    def sources(self) -> Iterable[Path]:
        """Code counts only where the metadata has listeners, for views say, and theirs with it."""
        codes = [
            getattr(inspect.unwrap(one), "__code__", None) for one in self._heard()
        ]
        files = [code.co_filename for code in codes if code is not None]
        return [
            self.file,
            *(Path(it) for it in files if not _load.is_library(it)),
        ] * bool(codes)

    def _heard(self) -> list[Any]:
        targets = (self.metadata, *self.metadata.tables.values())
        return [
            one
            for it in targets
            for one in _listeners(it, "before_create", "after_create")
        ]

    def build(self, target: Target) -> None:
        """Create all tables, and the schemas that they stand in."""

        def create(connection: Connection) -> None:
            # Whoever listens makes them himself, perhaps in another way.
            if target.has_schemas and not [*_listeners(self.metadata, "before_create")]:
                for statement in _schemas_of(self.metadata):
                    connection.execute(statement)
            self.metadata.create_all(connection)

        _fill(target, create)


@dataclass(frozen=True, slots=True)
class AlembicBuilder:
    """``alembic.ini``: ``alembic upgrade heads``, on the engine that ``env.py`` makes itself."""

    ini: Path

    def identity(self, _ddl: Dialect) -> str:
        """The configuration, and which migrations there are; what stands in them are sources."""
        names = [file.relative_to(self.folder()).as_posix() for file in self.sources()]
        return "\n".join([self.ini.read_text(encoding="utf-8"), *names])

    def sources(self) -> list[Path]:
        """``env.py`` and every migration."""
        return sorted(self.folder().rglob("*.py"))

    def folder(self) -> Path:
        """The one with its environment and its migrations."""
        from alembic.config import Config  # noqa: PLC0415 - an extra, needed by this form alone

        location = Config(str(self.ini)).get_main_option("script_location") or ""
        if ":" in location and not Path(location).is_absolute():
            package, *folders = location.split(
                ":"
            )  # package:folder:folder, as Alembic has it
            module = importlib.import_module(package)
            return Path(module.__file__ or ".").parent.joinpath(*folders)
        return self.ini.parent.absolute() / location

    def build(self, target: Target) -> None:  # noqa: ARG002 - the gate leads env.py's engine there
        """Run all migrations."""
        from alembic import command  # noqa: PLC0415 - an extra, needed by this form alone
        from alembic.config import Config  # noqa: PLC0415 - the same

        # Paths in alembic.ini count from the working folder unless they say %(here)s.
        with contextlib.chdir(self.ini.parent):
            command.upgrade(Config(str(self.ini)), "heads")

    def compare(self) -> Comparison:
        """Compare what the migrations have built with the models."""
        with contextlib.chdir(self.ini.parent):
            return compare(self.ini)


def _alembic_builder(ini: Path, source: str) -> AlembicBuilder:
    """Raise a ConfigError if this is no project of Alembic's, or Alembic is not installed."""
    builder = AlembicBuilder(ini)
    if not is_alembic(ini):
        raise ConfigError(
            f"arena_schema = {ini.name}: it has no section [alembic]",
            why="the tables are made by Alembic's migrations, which that section tells of",
            cause=f"{ini}, named in {source}",
            fix="alembic init migrations   makes an alembic.ini; or name a Base, a function "
            "or a script",
        )
    try:
        importlib.import_module("alembic.config")
    except ImportError:
        raise ConfigError(
            f"arena_schema = {ini.name} needs Alembic, which is not installed",
            why="the tables are made by its migrations",
            cause=source,
            fix="pip install 'pytest-arena[alembic]'",
        ) from None
    try:
        folder = builder.folder()
    except ImportError as error:
        raise ConfigError(
            f"arena_schema = {ini.name}: the package of its migrations cannot be imported: {error}",
            why="the tables are made by Alembic's migrations, which lie in that package",
            cause=f"script_location in {ini}",
            fix="name an importable package there, or script_location = %(here)s/<the folder>",
        ) from None
    if not (folder / "env.py").is_file():
        raise ConfigError(
            f"arena_schema = {ini.name}: there is no {folder / 'env.py'}",
            why="the tables are made by Alembic's migrations, which env.py runs",
            cause=f"script_location in {ini}",
            fix="script_location = %(here)s/<the folder of env.py>   in its [alembic] section",
        )
    return builder


@dataclass(frozen=True, slots=True)
class ScriptBuilder:
    """A ``*.sql`` file."""

    file: Path

    def identity(self, _ddl: Dialect) -> str:
        """The script itself."""
        return self.file.read_text(encoding="utf-8")

    def sources(self) -> Iterable[Path]:
        """No code."""
        return ()

    def build(self, target: Target) -> None:
        """Run the script."""
        try:
            target.run_script(self.file.read_text(encoding="utf-8"))
        except ScriptError as error:
            place = CodeLine(str(self.file), error.line) if error.line else self.file
            raise TemplateError(
                f"arena_schema = {self.file.name} failed: {error}",
                why="no test can have a database before its template is built",
                cause=str(place),
                fix=error.fix
                or f"mend that statement (it is run by {target.product}); the next run builds it "
                "again",
            ) from error


@dataclass(frozen=True, slots=True)
class CodeBuilder:
    """``module:function`` of a connection, or of a session, sync or async."""

    function: Callable[..., Any]
    takes_nothing: bool = False
    in_session: bool = False

    def identity(self, _ddl: Dialect) -> str:
        """The code is all there is to know."""
        return ""

    def sources(self) -> Iterable[Path]:
        """The file of the function."""
        return [Path(inspect.getsourcefile(inspect.unwrap(self.function)) or ".")]

    def build(self, target: Target) -> None:
        """Call the function, and commit."""
        is_async = inspect.iscoroutinefunction(self.function)

        def call(given: object) -> object:
            result = self.function() if self.takes_nothing else self.function(given)
            if not is_async and inspect.isawaitable(result):
                self._refuse(result)
            if isinstance(result, MetaData):
                raise TypeError(
                    f"{self.function.__name__}() returned a MetaData, which makes no tables by "
                    "itself: name that in arena_schema, or call its create_all(connection)"
                )
            return result

        _fill(target, call, is_async=is_async, in_session=self.in_session)

    def _refuse(self, result: object) -> None:
        """A decorator may hide that a function is async: what it returns would never run."""
        if inspect.iscoroutine(result):
            result.close()  # else Python warns that nobody awaited it
        raise TypeError(
            f"{self.function.__name__}() returned something to await, and is no async function "
            "itself: take the decorator off, or let it be async def as well"
        )


# What do the modules that are loaded say of the app's databases?


def suggested_schema(root: Path) -> str:
    """Return the only likely value: its migrations, or the base of its models; "" without one.

    Where tables belong to several bases, nobody but the user knows which database has which.
    """
    if is_alembic(root / "alembic.ini"):
        return "alembic.ini"
    every = list(candidates())
    near = [each for each in every if root in each.file.parents] or every
    best = min(
        near,
        key=lambda it: (not it.is_at_home, it.name.count("."), it.name),
        default=None,
    )
    return (
        best.name
        if best and all(each.metadata is best.metadata for each in near)
        else ""
    )


def is_alembic(ini: Path) -> bool:
    """Whether a file configures Alembic: it has a section ``[alembic]``."""
    lines = (
        ini.read_text(encoding="utf-8", errors="replace").splitlines()
        if ini.is_file()
        else []
    )
    return any(line.strip() == "[alembic]" for line in lines)


def is_schema(value: Any) -> bool:
    """Whether this may stand after ``arena_schema =``: a base, a metadata, a function."""
    return inspect.isroutine(value) or _metadata_of(value) is not None


@dataclass(frozen=True, slots=True)
class Candidate:
    """What may stand after ``arena_schema =``, and what it makes."""

    name: str
    metadata: MetaData
    file: Path
    is_at_home: bool  # made in this module, and not imported there


def candidates() -> Iterator[Candidate]:
    """Whatever makes tables in the modules that are loaded."""
    for module, file in _modules():
        for name, value in list(vars(module).items()):
            metadata = _metadata_of(value)
            if metadata is not None and metadata.tables and not name.startswith("_"):
                at_home = getattr(value, "__module__", "") == module.__name__
                yield Candidate(f"{module.__name__}:{name}", metadata, file, at_home)


def _metadata_of(value: Any) -> MetaData | None:
    if isinstance(value, type) and "__table__" in vars(value):
        return None  # a model; its base is meant
    metadata = getattr(value, "metadata", None) if isinstance(value, type) else value
    return metadata if isinstance(metadata, MetaData) else None


def model_files() -> Iterator[Path]:
    """Yield the files of the project's loaded modules that define models."""
    for module, file in _modules():
        classes = [
            value for value in list(vars(module).values()) if isinstance(value, type)
        ]
        models = [each for each in classes if "__table__" in vars(each)]
        if any(model.__module__ == module.__name__ for model in models):
            yield file


def _modules() -> Iterator[tuple[ModuleType, Path]]:
    """The modules of the project that are loaded, with their files."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and not _load.is_library(file):
            yield module, Path(file)
