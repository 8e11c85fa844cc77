"""What fills an empty database: a metadata, migrations, a script, a function; and the seed."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import MetaData

from pytest_arena._config._load import SOMEWHERE, home_of, load_attribute, nearest
from pytest_arena._databases import _connected
from pytest_arena._databases._ddl import all_ddl, has_listeners, schemas_of
from pytest_arena._databases._suggest import is_alembic, is_schema
from pytest_arena._product import ScriptError
from pytest_arena._values import CodeLine
from pytest_arena.errors import ConfigError, TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy.engine import Connection, Dialect

    from pytest_arena._product import Target

__all__ = ["Builder", "check_schema", "check_seed", "schema_builder", "seed_builder"]


class Builder(Protocol):
    """Fills a database. ``identity`` and ``sources`` say when a new one has to be built."""

    def identity(self, ddl: Dialect) -> str:
        """Return what can be known before the build without reading code: the compiled DDL."""

    def sources(self) -> Iterable[Path]:
        """Return the files of code from which the build starts; what they import counts too."""

    def build(self, target: Target) -> None:
        """Fill the target. Called in a thread without a running event loop."""


def schema_builder(value: str, root: Path, *, source: str = SOMEWHERE) -> Builder:
    """Return the builder for a value of ``arena_schema``, which was given in ``source``.

    Raises:
        ConfigError: the value names nothing of a form that is known.
    """
    if value.endswith(".ini"):
        return AlembicBuilder(_existing(value, root, source))
    if value.endswith(".sql"):
        return ScriptBuilder(_existing(value, root, source))
    found = load_attribute(value, option="arena_schema", source=source, likely=is_schema)
    metadata = getattr(found, "metadata", found)
    if isinstance(metadata, MetaData):
        return MetadataBuilder(metadata, _file_of_module(value))
    if inspect.isroutine(found):
        return FunctionBuilder(_filling(found, f"arena_schema = {value}", "connection"))
    raise ConfigError(
        f"arena_schema = {value} is of type {type(found).__name__}, which cannot make tables",
        why="an empty database needs to know where its tables come from",
        cause=source,
        fix="name a declarative Base, a MetaData or a function that takes a connection",
    )


def seed_builder(value: str, *, source: str = SOMEWHERE) -> Builder:
    """Return the builder for a value of ``arena_seed``, which was given in ``source``.

    Raises:
        ConfigError: the value does not name a function of one session.
    """
    found = load_attribute(value, option="arena_seed", source=source, likely=inspect.isroutine)
    if inspect.isroutine(found):
        return SeedBuilder(_filling(found, f"arena_seed = {value}", "session"))
    raise ConfigError(
        f"arena_seed = {value} is of type {type(found).__name__}, not a function",
        why="the function adds the rows that every test starts with",
        cause=source,
        fix="async def seed(session: AsyncSession) -> None: …, or def seed(session: Session)",
    )


def check_schema(value: str, root: Path, *, source: str = SOMEWHERE) -> None:
    """Raise a ConfigError if ``arena_schema`` cannot be right."""
    builder = schema_builder(value, root, source=source)
    if isinstance(builder, AlembicBuilder):
        builder.check(source)


def check_seed(value: str, *, source: str = SOMEWHERE) -> None:
    """Raise a ConfigError if ``arena_seed`` cannot be right."""
    seed_builder(value, source=source)


def _existing(value: str, root: Path, source: str) -> Path:
    file = root / value
    if file.is_file():
        return file
    there = [other.name for other in sorted(root.glob(f"*{file.suffix}")) if _may_be_meant(other)]
    raise ConfigError(
        f"arena_schema = {value}: there is no file {file}",
        why="an empty database needs to know where its tables come from",
        cause=f"{source}\nthe path counts from pytest's rootdir",
        fix=f"arena_schema = {nearest(file.name, there) if there else '<module>:<Base>'}",
    )


def _may_be_meant(file: Path) -> bool:
    return file.suffix != ".ini" or is_alembic(file)


def _file_of_module(value: str) -> Path:
    module = importlib.import_module(value.partition(":")[0])
    return Path(module.__file__ or ".")


def _filling(function: Callable[..., Any], option: str, given: str) -> Callable[..., Any]:
    """Return a function of one argument: the user's own, or an app's ``init_db()``.

    One that can be called without arguments is, since it works on the app's own engine, which the
    gate leads to the template; its optional parameters are not what arena would pass.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise _unfit(function, option, given, "is a generator: nobody would run it")
    parameters = list(inspect.signature(function).parameters.values())
    by_position = [each for each in parameters if each.kind in _BY_POSITION]
    needed = _needed(parameters)
    if not needed and not any(each.kind is each.VAR_POSITIONAL for each in by_position):
        return _ignoring_its_argument(function)
    if needed not in ([], by_position[:1]):
        raise _unfit(function, option, given, f"takes {inspect.signature(function)}")
    return function


def _needed(parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
    """Those that a call has to give."""
    return [each for each in parameters if each.default is each.empty and each.kind not in _REST]


_REST = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
_BY_POSITION = {
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
}


def _unfit(function: Callable[..., Any], option: str, given: str, problem: str) -> ConfigError:
    name = getattr(function, "__name__", "build")
    return ConfigError(
        f"{option} {problem}, and is called with one {given}",
        why="an empty database is filled by what the function does with it",
        cause=str(home_of(function) or option),
        fix=f"def {name}({given}): …   or: async def {name}({given}): …",
    )


def _ignoring_its_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_async(_: object) -> None:
            await function()

        return call_async

    @functools.wraps(function)
    def call_sync(_: object) -> object:
        return function()

    return call_sync


@dataclass(frozen=True, slots=True)
class MetadataBuilder:
    """``module:Base`` or ``module:metadata``: ``create_all``."""

    metadata: MetaData
    file: Path

    def identity(self, ddl: Dialect) -> str:
        """The compiled DDL, which changes with the models and with nothing else."""
        return "\n".join(str(one.compile(dialect=ddl)) for one in all_ddl(self.metadata, ddl))

    def sources(self) -> Iterable[Path]:
        """Code counts only where the metadata has listeners of its own, views for example."""
        targets = (self.metadata, *self.metadata.tables.values())
        heard = any(has_listeners(each, "before_create", "after_create") for each in targets)
        return [self.file] if heard else []

    def build(self, target: Target) -> None:
        """Create all tables, and the schemas that they stand in."""

        def create(connection: Connection) -> None:
            # Whoever listens makes them himself, perhaps in another way.
            if target.has_schemas and not has_listeners(self.metadata, "before_create"):
                for schema in schemas_of(self.metadata):
                    connection.execute(schema)
            self.metadata.create_all(connection)

        _connected.in_transaction(target, create)


@dataclass(frozen=True, slots=True)
class AlembicBuilder:
    """``alembic.ini``: ``alembic upgrade heads``, on the engine that ``env.py`` makes itself."""

    ini: Path

    def check(self, source: str) -> None:
        """Raise a ConfigError if this is no project of Alembic's, or Alembic is not installed."""
        if not is_alembic(self.ini):
            raise ConfigError(
                f"arena_schema = {self.ini.name}: it has no section [alembic]",
                why="the tables are made by Alembic's migrations, which that section tells of",
                cause=f"{self.ini}, named in {source}",
                fix="alembic init migrations   makes an alembic.ini; or name a Base, a function "
                "or a script",
            )
        try:
            folder = self._folder()
        except ImportError:
            raise ConfigError(
                f"arena_schema = {self.ini.name} needs Alembic, which is not installed",
                why="the tables are made by its migrations",
                cause=source,
                fix="pip install 'pytest-arena[alembic]'",
            ) from None
        if not (folder / "env.py").is_file():
            raise ConfigError(
                f"arena_schema = {self.ini.name}: there is no {folder / 'env.py'}",
                why="the tables are made by Alembic's migrations, which env.py runs",
                cause=f"script_location in {self.ini}",
                fix="script_location = %(here)s/<the folder of env.py>   in its [alembic] section",
            )

    def identity(self, _ddl: Dialect) -> str:
        """The configuration, and which migrations there are; what stands in them are sources."""
        names = [file.relative_to(self._folder()).as_posix() for file in self.sources()]
        return "\n".join([self.ini.read_text(encoding="utf-8"), *names])

    def sources(self) -> list[Path]:
        """``env.py`` and every migration."""
        return sorted(self._folder().rglob("*.py"))

    def _folder(self) -> Path:
        from alembic.config import Config  # noqa: PLC0415 - an extra, needed by this form alone

        location = Config(str(self.ini)).get_main_option("script_location") or ""
        package, colon, folder = location.partition(":")
        if colon and package.isidentifier():  # package:folder, as Alembic has it
            return Path(importlib.import_module(package).__file__ or ".").parent / folder
        return self.ini.parent.absolute() / location

    def build(self, target: Target) -> None:  # noqa: ARG002 - the gate leads env.py's engine there
        """Run all migrations."""
        from alembic import command  # noqa: PLC0415 - an extra, needed by this form alone
        from alembic.config import Config  # noqa: PLC0415 - the same

        # Paths in alembic.ini count from the working folder unless they say %(here)s.
        with contextlib.chdir(self.ini.parent):
            command.upgrade(Config(str(self.ini)), "heads")


@dataclass(frozen=True, slots=True)
class ScriptBuilder:
    """A ``*.sql`` file."""

    file: Path

    def identity(self, _ddl: Dialect) -> str:
        """The script itself."""
        return self._script()

    def _script(self) -> str:
        return self.file.read_text(encoding="utf-8")

    def sources(self) -> Iterable[Path]:
        """No code."""
        return ()

    def build(self, target: Target) -> None:
        """Run the script."""
        try:
            target.run_script(self._script())
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
class _CodeBuilder:
    """A function of the user's, of what arena opens for it."""

    function: Callable[..., Any]

    def identity(self, _ddl: Dialect) -> str:
        """The code is all there is to know."""
        return ""

    def sources(self) -> Iterable[Path]:
        """The file of the function."""
        return [_code_file(self.function)]

    @property
    def _is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.function)

    def _call(self, given: object) -> None:
        _nothing_left(self.function(given), self.function)


class FunctionBuilder(_CodeBuilder):
    """``module:function`` of an ``AsyncConnection`` or a ``Connection``."""

    def build(self, target: Target) -> None:
        """Call the function in a transaction, and commit."""
        if self._is_async:
            _connected.in_async_transaction(target, self.function)
        else:
            _connected.in_transaction(target, self._call)


class SeedBuilder(_CodeBuilder):
    """``module:function`` of an ``AsyncSession`` or a ``Session``."""

    def build(self, target: Target) -> None:
        """Call the function in a session, and commit."""
        if self._is_async:
            _connected.in_async_session(target, self.function)
        else:
            _connected.in_session(target, self._call)


def _nothing_left(result: object, function: Callable[..., Any]) -> None:
    """A decorator may hide that a function is async: what it returns would never run."""
    if not inspect.isawaitable(result):
        return
    if inspect.iscoroutine(result):
        result.close()  # else Python warns that nobody awaited it
    raise TypeError(
        f"{function.__name__}() returned something to await, and is no async function itself: "
        "take the decorator off, or let it be async def as well"
    )


def _code_file(function: Callable[..., Any]) -> Path:
    return Path(inspect.getsourcefile(inspect.unwrap(function)) or ".")
