"""Builders: fill an empty database with a schema or a seed."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import inspect
import io
import sys
from argparse import Namespace
from asyncio import run as run_coroutine
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import MetaData, create_engine
from sqlalchemy.engine.mock import MockConnection
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema
from sqlalchemy.types import SchemaType

from pytest_arena._config import _load
from pytest_arena._config._load import blame, described
from pytest_arena._origin import is_of_tests
from pytest_arena._product import BuildTarget, ScriptError
from pytest_arena._values import CodeLine, digest
from pytest_arena.errors import ConfigError, TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from sqlalchemy.engine import Connection, Dialect
    from sqlalchemy.sql.ddl import ExecutableDDLElement


@cache
def session_classes() -> tuple[type[Session], type[AsyncSession]]:
    """Return the classes of sessions: those of the session makers after the collection.

    Without a session maker they are SQLModel's, with the method ``exec``, if it is imported.
    """
    plain = (Session, AsyncSession)
    if "sqlmodel" not in sys.modules:
        return plain
    sync = importlib.import_module("sqlmodel").Session
    found = (sync, importlib.import_module("sqlmodel.ext.asyncio.session").AsyncSession)
    kinds = {sessionmaker, async_sessionmaker}
    makers: list[Any] = [each for each in gc.get_objects() if type(each) in kinds]
    is_plain = makers and not any(issubclass(maker.class_, found) for maker in makers)
    return plain if is_plain else found


def _fill(target: BuildTarget, function: Callable[[Any], Any], *, in_session: bool = False) -> None:
    """Call a function with a connection or a session, and commit.

    An async function runs in an event loop. So does a sync function without a sync driver.
    """
    is_async = inspect.iscoroutinefunction(function)
    sync_class, async_class = session_classes()
    if not is_async and target.sync_url is not None:
        engine = create_engine(target.sync_url, poolclass=NullPool)
        work: Any = sync_class(engine) if in_session else engine.connect()
        with work:
            function(work)
            work.commit()
        return

    async def fill() -> None:
        engine = create_async_engine(target.async_url, poolclass=NullPool)
        session = async_class(engine, sync_session_class=sync_class)
        work: Any = session if in_session else engine.connect()
        async with work:
            if is_async:
                await function(work)
            else:
                await work.run_sync(function)
            await work.commit()

    run_coroutine(fill())


def schema_builder(value: str, root: Path, *, source: str = "arena_schema") -> Builder:
    """Return the builder for a value of ``arena_schema``. ``source`` is the place of the option.

    Raises:
        ConfigError: the value has no known form.
    """
    if value.endswith(".ini"):
        return _alembic_builder(_existing(value, root, source), source)
    if value.endswith(".sql"):
        return ScriptBuilder(_existing(value, root, source))
    attribute: Any = _load.load_attribute(value, option="arena_schema", source=source)
    metadata = getattr(attribute, "metadata", attribute)
    if isinstance(metadata, MetaData):
        return MetadataBuilder(metadata)
    return _code_builder(attribute, "connection", f"arena_schema = {value}", source)


def seed_builder(value: str, *, source: str = "arena_seed") -> Builder:
    """Return the builder for a value of ``arena_seed``. ``source`` is the place of the option.

    Raises:
        ConfigError: the value does not name a function of one session.
    """
    function: Any = _load.load_attribute(value, option="arena_seed", source=source)
    return _code_builder(function, "session", f"arena_seed = {value}", source)


def _existing(value: str, root: Path, source: str) -> Path:
    file = root / value
    if file.is_file():
        return file
    raise ConfigError(
        f"arena_schema = {value}: there is no file {file}",
        why="pytest-arena creates the tables of each test database by this file",
        cause=f"{source}\nthe path starts at pytest's rootdir",
        fix="arena_schema = <the path from rootdir>   (or <module>:<Base>)",
    )


def digest_of_files(paths: Iterable[Path]) -> str:
    """Return a digest of files, and of all files below folders, without ``__pycache__``."""
    lines = []
    for path in sorted(paths):
        for file in [path, *sorted(path.rglob("*"))]:
            if file.is_file() and "__pycache__" not in file.parts:
                name = file.relative_to(path.parent).as_posix()
                lines.append(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}")
    return digest("\n".join(lines))


def _code_builder(
    function: Callable[..., object], argument: str, setting: str, source: str
) -> CodeBuilder:
    """Return the builder that calls a function, if possible without an argument: ``init_db()``.

    It then works on the app's engine, which the gate redirects to the template. Its optional
    parameters have another meaning.
    """
    takes_nothing = not _load.problem_of_call(function) and all(
        each.kind is not each.VAR_POSITIONAL
        for each in _load.signature(function).parameters.values()
    )
    if not takes_nothing:
        _load.check_function(function, argument, setting=setting, source=source)
    return CodeBuilder(function, takes_nothing=takes_nothing, in_session=argument == "session")


@dataclass(frozen=True, slots=True)
class MetadataBuilder:
    """Calls ``create_all`` of ``module:Base`` or ``module:metadata``."""

    metadata: MetaData

    def identity(self, ddl: Dialect) -> str | None:
        """Return the compiled DDL, None if a listener is a function, which may do anything."""
        if any(map(inspect.isroutine, self._listeners())):
            return None
        statements: list[str] = []  # also those of DDL listeners

        def note(statement: ExecutableDDLElement, *_: object, **__: object) -> None:
            statements.append(str(statement.compile(dialect=ddl)))

        self.metadata.create_all(MockConnection(ddl, note), checkfirst=False)
        return "\n".join(sorted(statements))

    def _listeners(self) -> Iterator[object]:
        """Yield the user's listeners. Types of SQLAlchemy listen too."""
        for target in (self.metadata, *self.metadata.tables.values()):
            for event in (target.dispatch.before_create, target.dispatch.after_create):
                for listener in event:
                    method = getattr(listener, "func", listener)
                    owner = getattr(method, "__self__", getattr(listener, "target", 0))
                    if not isinstance(owner, SchemaType):
                        yield method

    def build(self, target: BuildTarget) -> None:
        """Create the schemas of PostgreSQL, unless a listener may do it, and all tables."""
        schemas: set[str] = set()
        has_schemas = target.async_url.get_backend_name() == "postgresql"
        if has_schemas and not any(True for _ in self._listeners()):
            schemas = {table.schema for table in self.metadata.tables.values() if table.schema}

        def create(connection: Connection) -> None:
            for name in sorted(schemas):
                connection.execute(CreateSchema(name, if_not_exists=True))
            self.metadata.create_all(connection)

        _fill(target, create)


@dataclass(frozen=True, slots=True)
class AlembicBuilder:
    """Runs ``alembic upgrade heads``, on the engine that ``env.py`` creates."""

    ini: Path

    def identity(self, _ddl: Dialect) -> str:
        """Return a digest of the configuration, of ``env.py`` and of all migrations."""
        with contextlib.chdir(self.ini.parent):
            scripts = self.scripts()
            folders = [scripts.dir, *(scripts.version_locations or ())]
            return digest_of_files([self.ini, *map(Path, folders)])

    def scripts(self) -> ScriptDirectory:
        """Return Alembic's record of the migrations."""
        config = self.config()
        from alembic.script import ScriptDirectory  # noqa: PLC0415 - an extra, needed by this form alone

        return ScriptDirectory.from_config(config)

    def config(self, **options: Any) -> Config:
        """Return what Alembic's command reads: the file, and ``[tool.alembic]`` beside it."""
        from alembic.config import Config  # noqa: PLC0415 - an extra, needed by this form alone

        config = Config(str(self.ini), **options)
        config.toml_file_name = str(self.ini.with_name("pyproject.toml"))  # of Alembic 1.16
        return config

    def build(self, target: BuildTarget) -> None:  # noqa: ARG002 - the gate leads env.py's engine there
        """Run all migrations. Paths in the file are relative to its folder."""
        self._call("upgrade", "heads")

    def _call(self, name: str, *arguments: str, **options: Any) -> None:
        """Call a command of Alembic in the folder of its configuration."""
        from alembic import command  # noqa: PLC0415 - an extra, needed by this form alone

        with contextlib.chdir(self.ini.parent):
            getattr(command, name)(self.config(**options), *arguments)

    def check(self) -> str:
        """Call ``alembic check``. Return the differences or its error, "" without any.

        Call it while engines connect to the migrated database.
        """
        if not model_files():
            return ""  # without models there is nothing to compare
        # `env.py` may read the command line. Alembic's recipes read `autogenerate`.
        options = Namespace(x=None, autogenerate=False)
        try:
            self._call("check", stdout=io.StringIO(), cmd_opts=options)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - Alembic's differences, or of env.py
            line = blame(error)  # none of differences
            text = f"{described(error)} ({line})" if line else described(error)
            # Machines share templates, so do not store paths of this machine.
            return text.replace(f"{self.ini.parent.absolute()}/", "").replace("\n", " ")
        return ""


def _alembic_builder(ini: Path, source: str) -> AlembicBuilder:
    """Return the builder for a project of Alembic."""
    builder = AlembicBuilder(ini)
    fix = (
        "script_location = %(here)s/<the folder of env.py>   in its section [alembic]\n"
        "or arena_schema = <module>:<function>   which migrates as your app does"
    )
    try:
        with contextlib.chdir(ini.parent):
            builder.scripts()
            return builder
    except Exception as error:  # noqa: BLE001 - Alembic's, or configparser's
        problem = str(error)
        # The project's folder `alembic` is a package if the library is missing.
        if isinstance(error, ImportError) and error.name in {"alembic", "alembic.config"}:
            fix = "pip install 'pytest-arena[alembic]'"
    raise ConfigError(
        f"arena_schema = {ini.name}: {problem}",
        why="Alembic's migrations create the tables, and this file names their folder",
        cause=f"{ini}, named in {source}",
        fix=fix,
    )


@contextlib.contextmanager
def apart_from_migrations() -> Iterator[None]:
    """Keep what Alembic's modules know of a migration that runs, such as that of a fixture.

    They know one migration. At the end of a build's they would know none.
    """
    modules = map(sys.modules.get, ("alembic.context", "alembic.op"))
    kept = [(vars(module), dict(vars(module))) for module in modules if module is not None]
    try:
        yield
    finally:
        for names, before in kept:
            names.update(before)


@dataclass(frozen=True, slots=True)
class ScriptBuilder:
    """Runs a ``*.sql`` file."""

    file: Path

    def identity(self, _ddl: Dialect) -> str:
        """Return the script."""
        return self.file.read_text(encoding="utf-8")

    def build(self, target: BuildTarget) -> None:
        """Run the script."""
        try:
            target.run_script(self.file.read_text(encoding="utf-8"))
        except ScriptError as error:
            place: CodeLine | Path = self.file
            if error.line:
                place = CodeLine(str(self.file), error.line)
            raise TemplateError(
                f"arena_schema = {self.file.name} failed: {error}",
                why="no test has a database before its template is built",
                cause=str(place),
                fix=error.fix or "correct that statement",
            ) from error


@dataclass(frozen=True, slots=True)
class CodeBuilder:
    """Calls ``module:function`` with a connection or a session, sync or async."""

    function: Callable[..., object]
    takes_nothing: bool = False
    in_session: bool = False

    def identity(self, _ddl: Dialect) -> None:
        """Return None: a function may read anything."""

    def build(self, target: BuildTarget) -> None:
        """Call the function. Commit, if it gets a connection or a session."""
        if not self.takes_nothing:
            _fill(target, self.function, in_session=self.in_session)
        elif inspect.iscoroutine(answer := self.function()):  # a sync one may call asyncio.run()
            run_coroutine(answer)


# A builder fills a database. `identity` returns a text that decides the result, None if each run
# has to build. `build` fills the target, in a thread without a running event loop.
Builder = MetadataBuilder | AlembicBuilder | ScriptBuilder | CodeBuilder


# Values for `arena_schema`, from the loaded modules.


def suggested_schema(root: Path) -> str:
    """Return the project's migrations, or the base of its models in a module with most, or "".

    Return "" if tables belong to several bases: only the user knows which database has which.
    """
    if (root / "alembic.ini").is_file():
        return "alembic.ini"
    found = {}
    for module, file in _load.project_modules():
        values = dict(vars(module)) if root in file.parents and not is_of_tests(str(file)) else {}
        models = sum(map(_is_model, values.values()))
        for name, value in values.items():
            metadata = getattr(value, "metadata", None) if isinstance(value, type) else value
            if isinstance(metadata, MetaData) and metadata.tables and not _is_model(value):
                found[-models, f"{module.__name__}:{name}"] = id(metadata)
    return min(found)[1] if len(set(found.values())) == 1 else ""


def _is_model(value: object) -> bool:
    return isinstance(value, type) and "__table__" in vars(value)


def model_files() -> set[Path]:
    """Return the files of the project's loaded modules that define models, without tests."""
    return {
        file
        for module, file in _load.project_modules()
        if not is_of_tests(str(file))
        for value in list(vars(module).values())
        if _is_model(value) and value.__module__ == module.__name__
    }
