"""What fills an empty database: a metadata, migrations, a script, a function; and the seed."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from sqlalchemy import MetaData, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateIndex, CreateTable

from pytest_arena._dialects import _sqlite as sql
from pytest_arena._load import load_attribute
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from sqlalchemy.engine import Dialect, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["Builder", "check_schema", "check_seed", "schema_builder", "seed_builder"]


class Builder(Protocol):
    """Fills a database file. ``identity`` and ``sources`` say when a new one has to be built."""

    def identity(self) -> str:
        """Return what can be known before the build without reading code: the compiled DDL."""

    def sources(self) -> Iterable[Path]:
        """Return the files of code from which the build starts; what they import counts too."""

    def build(self, file: Path) -> None:
        """Fill the file. Called in a thread without a running event loop."""


def schema_builder(value: str, root: Path) -> Builder:
    """Return the builder for a value of ``arena_schema``.

    Raises:
        ConfigError: the value names nothing of a form that is known.
    """
    if value.endswith(".ini"):
        return AlembicBuilder(_existing(value, root))
    if value.endswith(".sql"):
        return ScriptBuilder(_existing(value, root))
    found = load_attribute(value, option="arena_schema")
    metadata = getattr(found, "metadata", found)
    if isinstance(metadata, MetaData):
        return MetadataBuilder(metadata, _file_of_module(value))
    if inspect.isroutine(found):
        return FunctionBuilder(_taking_one(found, "arena_schema", value))
    raise ConfigError(
        f"arena_schema = {value} is {type(found).__name__}, which cannot make tables",
        why="an empty database needs to know where its tables come from",
        cause=f"what {value} names",
        fix="name a declarative Base, a MetaData or a function that takes a connection",
    )


def seed_builder(value: str) -> Builder:
    """Return the builder for a value of ``arena_seed``.

    Raises:
        ConfigError: the value does not name a function of one session.
    """
    found = load_attribute(value, option="arena_seed")
    if inspect.isroutine(found):
        return SeedBuilder(_taking_one(found, "arena_seed", value))
    raise ConfigError(
        f"arena_seed = {value} is {type(found).__name__}, not a function",
        why="the function adds the rows that every test starts with",
        cause=f"what {value} names",
        fix="async def seed(session: AsyncSession) -> None: …, or def seed(session: Session)",
    )


def check_schema(value: str, root: Path) -> None:
    """Raise a ConfigError if ``arena_schema`` cannot be right."""
    schema_builder(value, root)


def check_seed(value: str) -> None:
    """Raise a ConfigError if ``arena_seed`` cannot be right."""
    seed_builder(value)


def _existing(value: str, root: Path) -> Path:
    file = root / value
    if file.is_file():
        return file
    raise ConfigError(
        f"arena_schema = {value}: there is no file {file}",
        why="an empty database needs to know where its tables come from",
        cause="the path, which counts from pytest's root folder",
        fix="a path from the root folder that pytest prints as rootdir",
    )


def _file_of_module(value: str) -> Path:
    module = __import__(value.partition(":")[0], fromlist=["_"])
    return Path(module.__file__ or ".")


def _taking_one(function: Any, option: str, value: str) -> Callable[..., Any]:
    try:
        inspect.signature(function).bind(object())
    except TypeError:
        if _takes_nothing(function):
            return _ignoring_its_argument(function)
        raise ConfigError(
            f"{option} = {value} cannot be called with one argument",
            why="it is given the connection (arena_schema) or the session (arena_seed)",
            cause=f"def {function.__name__}{inspect.signature(function)}",
            fix=f"def {function.__name__}(session): …",
        ) from None
    return cast("Callable[..., Any]", function)


def _takes_nothing(function: Callable[..., Any]) -> bool:
    return not inspect.signature(function).parameters


def _ignoring_its_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    # An app's own `init_db()` works on the app's engine, which the gate leads to the template.
    if inspect.iscoroutinefunction(function):

        async def call_async(_: object) -> None:
            await function()

        call: Callable[..., Any] = call_async
    else:

        def call_sync(_: object) -> None:
            function()

        call = call_sync
    call.__arena_wrapped__ = function  # type: ignore[attr-defined]  # read by _code_file
    return call


@dataclass(frozen=True, slots=True)
class MetadataBuilder:
    """``module:Base`` or ``module:metadata``: ``create_all``."""

    metadata: MetaData
    file: Path

    def identity(self) -> str:
        """The compiled DDL, which changes with the models and with nothing else."""
        dialect = _url(Path("x")).get_dialect()()
        return "\n".join(str(ddl.compile(dialect=dialect)) for ddl in self._ddl(dialect))

    def _ddl(self, _dialect: Dialect) -> Iterator[CreateTable | CreateIndex]:
        for table in self.metadata.sorted_tables:
            yield CreateTable(table)
            yield from (CreateIndex(index) for index in sorted(table.indexes, key=str))

    def sources(self) -> Iterable[Path]:
        """Code counts only where the metadata has listeners of its own, views for example."""
        targets = (self.metadata, *self.metadata.tables.values())
        return [self.file] if any(_has_listeners(target) for target in targets) else []

    def build(self, file: Path) -> None:
        """Create all tables."""
        with _engine(file) as engine, engine.begin() as connection:
            self.metadata.create_all(connection)


def _has_listeners(target: Any) -> bool:
    return any(getattr(target.dispatch, name) for name in ("before_create", "after_create"))


@dataclass(frozen=True, slots=True)
class AlembicBuilder:
    """``alembic.ini``: ``alembic upgrade heads``, on the engine that ``env.py`` makes itself."""

    ini: Path

    def identity(self) -> str:
        """The configuration; the migrations are sources."""
        return self.ini.read_text()

    def sources(self) -> Iterable[Path]:
        """``env.py`` and every migration."""
        from alembic.config import Config  # noqa: PLC0415 - an extra, needed by this form alone

        with contextlib.chdir(self.ini.parent):
            location = Config(str(self.ini)).get_main_option("script_location") or ""
            return sorted(Path(location).absolute().rglob("*.py"))

    def build(self, file: Path) -> None:  # noqa: ARG002 - the gate leads env.py's engine there
        """Run all migrations."""
        from alembic import command  # noqa: PLC0415 - an extra, needed by this form alone
        from alembic.config import Config  # noqa: PLC0415 - the same

        # Paths in alembic.ini count from the working folder unless they say %(here)s.
        with contextlib.chdir(self.ini.parent), _logging_as_it_was():
            command.upgrade(Config(str(self.ini)), "heads")


@contextlib.contextmanager
def _logging_as_it_was() -> Iterator[None]:
    """Take back what env.py's ``fileConfig`` does: it disables every logger of the app."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    loggers = [item for item in root.manager.loggerDict.values() if isinstance(item, logging.Logger)]
    disabled = [(logger, logger.disabled) for logger in loggers]
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for logger, was in disabled:
            logger.disabled = was


@dataclass(frozen=True, slots=True)
class ScriptBuilder:
    """A ``*.sql`` file."""

    file: Path

    def identity(self) -> str:
        """The script itself."""
        return self.file.read_text()

    def sources(self) -> Iterable[Path]:
        """No code."""
        return ()

    def build(self, file: Path) -> None:
        """Run the script."""
        with _engine(file) as engine, engine.begin() as connection:
            sql.run_script(connection.connection.dbapi_connection, self.file.read_text())


@dataclass(frozen=True, slots=True)
class FunctionBuilder:
    """``module:function`` of an ``AsyncConnection`` or a ``Connection``."""

    function: Callable[..., Any]

    def identity(self) -> str:
        """The code is all there is to know."""
        return ""

    def sources(self) -> Iterable[Path]:
        """The file of the function."""
        return [_code_file(self.function)]

    def build(self, file: Path) -> None:
        """Call the function with a connection in a transaction, and commit."""
        if inspect.iscoroutinefunction(self.function):
            asyncio.run(self._build(file))
        else:
            with _engine(file) as engine, engine.begin() as connection:
                self.function(connection)

    async def _build(self, file: Path) -> None:
        async with _async_engine(file) as engine, engine.begin() as connection:
            await self.function(connection)


@dataclass(frozen=True, slots=True)
class SeedBuilder:
    """``module:function`` of an ``AsyncSession`` or a ``Session``."""

    function: Callable[..., Any]

    def identity(self) -> str:
        """The code is all there is to know."""
        return ""

    def sources(self) -> Iterable[Path]:
        """The file of the function."""
        return [_code_file(self.function)]

    def build(self, file: Path) -> None:
        """Call the function with a session, and commit."""
        if inspect.iscoroutinefunction(self.function):
            asyncio.run(self._build(file))
        else:
            with _engine(file) as engine, Session(engine) as session:
                self.function(session)
                session.commit()

    async def _build(self, file: Path) -> None:
        from sqlalchemy.ext.asyncio import AsyncSession  # noqa: PLC0415 - for async seeds alone

        async with _async_engine(file) as engine, AsyncSession(engine) as session:
            call: Awaitable[None] = self.function(session)
            await call
            await session.commit()


def _code_file(function: Callable[..., Any]) -> Path:
    function = getattr(function, "__arena_wrapped__", function)
    return Path(inspect.getsourcefile(inspect.unwrap(function)) or ".")


def _url(file: Path, driver: str = "sqlite") -> URL:
    return URL.create(driver, database=str(file))


@contextlib.contextmanager
def _engine(file: Path) -> Iterator[Engine]:
    engine = create_engine(_url(file), poolclass=NullPool)
    try:
        yield engine
    finally:
        engine.dispose()


@contextlib.asynccontextmanager
async def _async_engine(file: Path) -> Any:
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - async builders alone

    engine: AsyncEngine = create_async_engine(_url(file, "sqlite+aiosqlite"), poolclass=NullPool)
    try:
        yield engine
    finally:
        await engine.dispose()
