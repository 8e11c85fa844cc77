"""Builders: fill an empty database with a schema or a seed."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import inspect
import re
import sys
from asyncio import run as run_coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import MetaData, Table, create_engine, schema
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from sqlalchemy.types import SchemaType

from pytest_arena._config import _load
from pytest_arena._config._supported import SUPPORTED, product_of
from pytest_arena._databases._migrations import Comparison, compare
from pytest_arena._origin import is_of_tests
from pytest_arena._product import BuildTarget, ScriptError
from pytest_arena._values import CodeLine, digest
from pytest_arena.errors import ConfigError, TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from sqlalchemy.engine import Connection, Dialect
    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.sql.ddl import ExecutableDDLElement
    from sqlalchemy.types import TypeEngine


def _listeners(target: schema.SchemaItem, *events: str) -> Iterator[object]:
    """Yield the user's listeners of these events of a metadata or table.

    Types of SQLAlchemy listen too. They are skipped, because the DDL contains them.
    """
    for event in events:
        for listener in getattr(target.dispatch, event):
            # SQLAlchemy wraps a method in one of two ways.
            method = getattr(listener, "func", listener)
            owner = getattr(method, "__self__", None)
            if owner is None:
                owner = getattr(listener, "target", None)
            if not isinstance(owner, SchemaType):
                yield method


def _schemas_of(metadata: MetaData) -> list[schema.CreateSchema]:
    items: list[object] = [*metadata.tables.values(), *metadata._sequences.values()]  # noqa: SLF001 - there is no public way
    for table in metadata.tables.values():
        items += [column.type for column in table.columns]
    names = {getattr(item, "schema", None) for item in items}
    return [
        schema.CreateSchema(name, if_not_exists=True)
        for name in sorted(filter(None, names))
    ]


def _all_ddl(metadata: MetaData, dialect: Dialect) -> Iterator[ExecutableDDLElement]:
    """Yield the statements that ``create_all`` executes, without those of the user's listeners."""
    if dialect.supports_sequences:
        for _, sequence in sorted(metadata._sequences.items()):  # noqa: SLF001 - there is no public way
            yield schema.CreateSequence(sequence)
    # Not `sorted_tables`, which warns of cycles of foreign keys.
    for _, table in sorted(metadata.tables.items()):
        for column in table.columns:
            yield from _types(column.type, dialect)
        yield schema.CreateTable(table)
        for index in sorted(table.indexes, key=str):
            yield schema.CreateIndex(index)
        if dialect.supports_comments and not dialect.inline_comments:
            yield from _comments(table)


def _comments(table: Table) -> Iterator[ExecutableDDLElement]:
    if table.comment is not None:
        yield schema.SetTableComment(table)
    for column in table.columns:
        if column.comment is not None:
            yield schema.SetColumnComment(column)


def _types(
    column_type: TypeEngine[object], dialect: Dialect
) -> Iterator[ExecutableDDLElement]:
    """Yield the statements for a type that has a name in the database: an enum or a domain."""
    implementation = column_type.dialect_impl(dialect)
    # A TypeDecorator has its type there.
    implementation = getattr(implementation, "impl_instance", implementation)
    for facts in SUPPORTED.values():
        # Do not import the slow module. If a type of the dialect is used, it is loaded.
        types: Any = sys.modules.get(f"sqlalchemy.dialects.{facts.name}")
        for name, statement in facts.named_types.items():
            if types and isinstance(implementation, getattr(types, name)):
                yield getattr(types, statement)(implementation)
                return
    item_type = getattr(implementation, "item_type", None)
    if item_type is not None:
        yield from _types(item_type, dialect)


def _fill(
    target: BuildTarget,
    function: Callable[[Any], Any],
    *,
    is_async: bool = False,
    in_session: bool = False,
) -> None:
    """Call a function with a connection or a session, and commit.

    An async function runs in an event loop. So does a sync function without a sync driver.
    """
    if not is_async and target.sync_url is not None:
        sync_engine = create_engine(target.sync_url, poolclass=NullPool)
        try:
            sync_work: Session | Connection
            sync_work = Session(sync_engine) if in_session else sync_engine.connect()
            with sync_work:
                function(sync_work)
                sync_work.commit()
        finally:
            sync_engine.dispose()
        return

    async def fill() -> None:
        engine = create_async_engine(target.async_url, poolclass=NullPool)
        work: AsyncSession | AsyncConnection
        work = AsyncSession(engine) if in_session else engine.connect()
        try:
            async with work:
                if is_async:
                    await function(work)
                else:
                    await work.run_sync(function)
                await work.commit()
        finally:
            await engine.dispose()

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
    attribute = _load.load_attribute(
        value,
        option="arena_schema",
        source=source,
        likely=has_metadata,
    )
    metadata = getattr(attribute, "metadata", attribute)
    if isinstance(metadata, MetaData):
        return MetadataBuilder(metadata)
    if inspect.isroutine(attribute):
        is_bare = _takes_nothing(attribute, f"arena_schema = {value}", "connection")
        files = _arena_files(attribute, value, root)
        return CodeBuilder(attribute, takes_nothing=is_bare, files=files)
    raise ConfigError(
        f"arena_schema = {value} is of type {type(attribute).__name__}, which cannot create tables",
        why="pytest-arena creates the tables of each test database by this object",
        cause=source,
        fix="name a declarative Base, a MetaData or a function that takes a connection",
    )


def seed_builder(value: str, *, source: str = "arena_seed") -> Builder:
    """Return the builder for a value of ``arena_seed``. ``source`` is the place of the option.

    Raises:
        ConfigError: the value does not name a function of one session.
    """
    attribute = _load.load_attribute(
        value, option="arena_seed", source=source, likely=inspect.isroutine
    )
    if inspect.isroutine(attribute):
        is_bare = _takes_nothing(attribute, f"arena_seed = {value}", "session")
        return CodeBuilder(attribute, takes_nothing=is_bare, in_session=True)
    raise ConfigError(
        f"arena_seed = {value} is of type {type(attribute).__name__}, not a function",
        why="the function adds the rows that each test starts with",
        cause=source,
        fix="async def seed(session: AsyncSession) -> None: …, or def seed(session: Session)",
    )


def _existing(value: str, root: Path, source: str) -> Path:
    file = root / value
    if file.is_file():
        return file
    similar = [
        other.name
        for other in sorted(root.glob(f"*{file.suffix}"))
        if other.suffix != ".ini" or is_alembic(other)
    ]
    suggestion = _load.nearest(file.name, similar) if similar else "<module>:<Base>"
    raise ConfigError(
        f"arena_schema = {value}: there is no file {file}",
        why="pytest-arena creates the tables of each test database by this file",
        cause=f"{source}\nthe path starts at pytest's rootdir",
        fix=f"arena_schema = {suggestion}",
    )


def _arena_files(
    function: Callable[..., object], value: str, root: Path
) -> tuple[Path, ...] | None:
    """Return the files and folders in a function's ``arena_files``, None without the attribute.

    Raises:
        ConfigError: a file does not exist.
    """
    names: Iterable[str] | None = getattr(function, "arena_files", None)
    if names is None:
        return None
    files = tuple(root / name for name in names)
    for name, file in zip(names, files, strict=True):
        if not file.exists():
            raise ConfigError(
                f"arena_schema = {value}: arena_files names {name!r}, and there is no {file}",
                why="pytest-arena calls the function again only if one of these files changes",
                cause=str(_load.home_of(function) or value),
                fix=f'{function.__name__}.arena_files = ["migrations"]   (paths of files and '
                "folders, from pytest's rootdir)",
            )
    return files


def digest_of_files(paths: Iterable[Path]) -> str:
    """Return a digest of files, and of all files below folders, without ``__pycache__``."""
    lines = []
    for path in sorted(paths):
        for file in [path, *sorted(path.rglob("*"))]:
            if file.is_file() and "__pycache__" not in file.parts:
                name = file.relative_to(path.parent).as_posix()
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                lines.append(f"{name} {content}")
    return digest("\n".join(lines))


def _takes_nothing(function: Callable[..., object], option: str, argument: str) -> bool:
    """Return whether to call a function without an argument, such as an app's ``init_db()``.

    A function without required parameters gets no argument. It works on the app's engine, which
    the gate redirects to the template. Its optional parameters have another meaning.

    Raises:
        ConfigError: the function can be called neither without nor with one argument.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise _unfit(
            function, option, argument, "is a generator, whose code would never run"
        )
    signature = inspect.signature(function)
    takes_any = any(
        parameter.kind is parameter.VAR_POSITIONAL
        for parameter in signature.parameters.values()
    )
    if _load.accepts(function) and not takes_any:
        return True
    if not _load.accepts(function, argument):
        raise _unfit(function, option, argument, f"takes {signature}")
    return False


def _unfit(
    function: Callable[..., object], option: str, argument: str, problem: str
) -> ConfigError:
    name = getattr(function, "__name__", "build")
    return ConfigError(
        f"{option} {problem}, and is called with one {argument}",
        why="the function fills an empty database",
        cause=str(_load.home_of(function) or option),
        fix=f"def {name}({argument}): …   or: async def {name}({argument}): …",
    )


@dataclass(frozen=True, slots=True)
class MetadataBuilder:
    """Calls ``create_all`` of ``module:Base`` or ``module:metadata``."""

    metadata: MetaData

    def identity(self, ddl: Dialect) -> str:
        """Return the compiled DDL of the models, and the DDL of listeners."""
        statements = [
            str(element.compile(dialect=ddl))
            for element in _all_ddl(self.metadata, ddl)
        ]
        statements += [
            str(getattr(listener, "statement", "")) for listener in self._listeners()
        ]
        return "\n".join(statements)

    @property
    def is_of_run(self) -> bool:
        """Whether a listener is a function. The DDL does not contain its statements."""
        return any(inspect.isroutine(each) for each in self._listeners())

    def _listeners(self) -> Iterator[Any]:
        for target in (self.metadata, *self.metadata.tables.values()):
            yield from _listeners(target, "before_create", "after_create")

    def build(self, target: BuildTarget) -> None:
        """Create the schemas and all tables."""
        # A listener may create the schemas itself.
        creates_schemas = target.has_schemas and not any(
            True for _ in _listeners(self.metadata, "before_create")
        )

        def create(connection: Connection) -> None:
            if creates_schemas:
                for statement in _schemas_of(self.metadata):
                    connection.execute(statement)
            self.metadata.create_all(connection)

        _fill(target, create)


@dataclass(frozen=True, slots=True)
class AlembicBuilder:
    """Runs ``alembic upgrade heads``, on the engine that ``env.py`` creates."""

    ini: Path
    is_of_run = False

    def identity(self, _ddl: Dialect) -> str:
        """Return a digest of the configuration, of ``env.py`` and of all migrations."""
        from alembic.config import Config  # noqa: PLC0415 - an extra, needed by this form alone

        text = Config(str(self.ini)).get_main_option("version_locations", "")
        more = [self.ini.parent / name for name in re.split(r"[\s,:;]+", text) if name]
        return digest_of_files([self.ini, self.folder(), *more])

    def folder(self) -> Path:
        """Return the folder of ``env.py`` and the migrations."""
        from alembic.config import Config  # noqa: PLC0415 - an extra, needed by this form alone

        config = Config(str(self.ini))
        # The error for a folder that does not exist shows the default.
        location = config.get_main_option("script_location", "<script_location>")
        # Alembic's form is package:folder:folder.
        if ":" in location and not Path(location).is_absolute():
            package, *folders = location.split(":")
            module = importlib.import_module(package)
            return Path(module.__file__ or ".").parent.joinpath(*folders)
        return self.ini.parent.absolute() / location

    def build(self, target: BuildTarget) -> None:  # noqa: ARG002 - the gate leads env.py's engine there
        """Run all migrations."""
        from alembic import command  # noqa: PLC0415 - an extra, needed by this form alone
        from alembic.config import Config  # noqa: PLC0415 - the same

        with self._running():
            command.upgrade(Config(str(self.ini)), "heads")

    def compare(self) -> Comparison:
        """Compare the migrated database with the models."""
        with self._running():
            return compare(self.ini)

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        """Let the block run Alembic, also inside an ``alembic upgrade`` of a fixture.

        ``alembic.context`` belongs to the latest run. The end restores it for the outer run.
        """
        from alembic import context  # noqa: PLC0415 - an extra, needed by this form alone

        outer: Any = vars(context).get("_proxy")
        try:
            # Paths in alembic.ini without %(here)s are relative to the working folder.
            with contextlib.chdir(self.ini.parent):
                yield
        finally:
            if outer is not None:
                outer._install_proxy()  # noqa: SLF001 - Alembic has no public name for it


def _alembic_builder(ini: Path, source: str) -> AlembicBuilder:
    """Return the builder for a project of Alembic.

    Raises:
        ConfigError: the file does not configure Alembic, or Alembic is not installed.
    """
    builder = AlembicBuilder(ini)
    if not is_alembic(ini):
        raise ConfigError(
            f"arena_schema = {ini.name}: it has no section [alembic]",
            why="Alembic's migrations create the tables, and that section configures them",
            cause=f"{ini}, named in {source}",
            fix="alembic init migrations   makes an alembic.ini. Or name a Base, a function "
            "or a script",
        )
    try:
        importlib.import_module("alembic.config")
    except ImportError:
        raise ConfigError(
            f"arena_schema = {ini.name} needs Alembic, which is not installed",
            why="its migrations create the tables",
            cause=source,
            fix="pip install 'pytest-arena[alembic]'",
        ) from None
    try:
        folder = builder.folder()
    except ImportError as error:
        raise ConfigError(
            f"arena_schema = {ini.name}: the package of its migrations cannot be imported: {error}",
            why="that package has the migrations, which create the tables",
            cause=f"script_location in {ini}",
            fix="name an importable package there, or script_location = %(here)s/<the folder>",
        ) from None
    if not (folder / "env.py").is_file():
        raise ConfigError(
            f"arena_schema = {ini.name}: there is no {folder / 'env.py'}",
            why="env.py runs the migrations, which create the tables",
            cause=f"script_location in {ini}",
            fix="script_location = %(here)s/<the folder of env.py>   in its [alembic] section\n"
            "or, with Flask-Migrate, arena_schema = <module>:<function>   which calls "
            "flask_migrate.upgrade() in the context of the app",
        )
    return builder


@dataclass(frozen=True, slots=True)
class ScriptBuilder:
    """Runs a ``*.sql`` file."""

    file: Path
    is_of_run = False

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
                fix=error.fix
                or f"correct that statement, which {target.product} runs. The next run repeats the "
                "build",
            ) from error


@dataclass(frozen=True, slots=True)
class CodeBuilder:
    """Calls ``module:function`` with a connection or a session, sync or async."""

    function: Callable[..., object]
    takes_nothing: bool = False
    in_session: bool = False
    files: tuple[Path, ...] | None = None  # of its attribute `arena_files`

    @property
    def is_of_run(self) -> bool:
        """Whether its files are unknown."""
        return self.files is None

    def identity(self, _ddl: Dialect) -> str:
        """Return a digest of the function's file and of ``arena_files``."""
        if self.files is None:
            return ""
        home = Path(inspect.getsourcefile(inspect.unwrap(self.function)) or ".")
        return digest_of_files([home, *self.files])

    def build(self, target: BuildTarget) -> None:
        """Call the function, and commit."""
        is_async = inspect.iscoroutinefunction(self.function)

        def call(work: object) -> object:
            result = self.function() if self.takes_nothing else self.function(work)
            if not is_async and inspect.isawaitable(result):
                self._refuse(result)
            if isinstance(result, MetaData):
                raise TypeError(
                    f"{self.function.__name__}() returned a MetaData and created no tables: name "
                    "the MetaData in arena_schema, or call its create_all(connection)"
                )
            return result

        _fill(target, call, is_async=is_async, in_session=self.in_session)

    def _refuse(self, result: object) -> None:
        """Refuse an async function that a decorator hides: its coroutine would never run."""
        if inspect.iscoroutine(result):
            result.close()  # otherwise Python warns that it was never awaited
        raise TypeError(
            f"{self.function.__name__}() returned an awaitable, and is no async function: remove "
            "the decorator, or make the decorator's function async def"
        )


# A builder fills a database. `identity` returns a text for the fingerprint. `is_of_run` says that
# the text does not decide the result, so that each run builds. `build` fills the target, in a
# thread without a running event loop.
Builder = MetadataBuilder | AlembicBuilder | ScriptBuilder | CodeBuilder


# Values for `arena_schema`, from the loaded modules.


def suggested_schema(root: Path, products: Collection[str]) -> str:
    """Return the project's migrations, or the base of its models, or "".

    Return "" if tables belong to several bases: only the user knows which database has which.
    ``products`` are the products of the databases that need tables.
    """
    if _migrates(root / "alembic.ini", products):
        return "alembic.ini"
    all_candidates = list(candidates())
    near = [each for each in all_candidates if root in each.file.parents]
    near = near or all_candidates
    bases = {id(candidate.metadata) for candidate in near}
    if len(bases) != 1:
        return ""
    best = min(near, key=Candidate.rank)
    # A package may contain its migrations. They may create other tables than the base does.
    for folder in best.file.parents:
        ini = folder / "alembic.ini"
        if root in folder.parents and _migrates(ini, products):
            return ini.relative_to(root).as_posix()
    return best.name


_URL_IN_INI = re.compile(r"(?m)^sqlalchemy\.url\s*=\s*(\w+)")


def _migrates(ini: Path, products: Collection[str]) -> bool:
    """Return whether a file configures Alembic, and its URL names no other supported product."""
    if not is_alembic(ini):
        return False
    url = _URL_IN_INI.search(ini.read_text(encoding="utf-8", errors="replace"))
    product = product_of(url[1]) if url else ""
    return not product or not products or product in products


def is_alembic(ini: Path) -> bool:
    """Return whether a file configures Alembic: it has a section ``[alembic]``."""
    if not ini.is_file():
        return False
    lines = ini.read_text(encoding="utf-8", errors="replace").splitlines()
    return any(line.strip() == "[alembic]" for line in lines)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A possible value of ``arena_schema``, and its metadata."""

    name: str
    metadata: MetaData
    file: Path
    # Not inherited, unlike that of a subclass of SQLModel without a table.
    has_own_metadata: bool
    is_at_home: bool  # whether the module defines it, and does not import it

    def rank(self) -> tuple[bool, bool, bool, int, str]:
        """Return a key that is the lowest for the most likely value.

        A name in a conftest comes last, because users delete its import together with the fixtures
        that pytest-arena replaces.
        """
        is_conftest = self.file.name == "conftest.py"
        return (
            is_conftest,
            not self.has_own_metadata,
            not self.is_at_home,
            self.name.count("."),
            self.name,
        )


def candidates() -> Iterator[Candidate]:
    """Yield the bases and metadata with tables in the loaded modules."""
    for module, file in _load.project_modules():
        for name, value in list(vars(module).items()):
            metadata = _metadata_of(value)
            if metadata is not None and metadata.tables and not name.startswith("_"):
                is_own = value is metadata or "metadata" in vars(value)
                at_home = getattr(value, "__module__", "") == module.__name__
                full_name = f"{module.__name__}:{name}"
                yield Candidate(full_name, metadata, file, is_own, at_home)


def has_metadata(value: object) -> bool:
    """Return whether this is a base or a metadata."""
    return _metadata_of(value) is not None


def _metadata_of(value: object) -> MetaData | None:
    metadata = value
    if isinstance(value, type):
        if "__table__" in vars(value):
            return None  # a model, not its base
        metadata = getattr(value, "metadata", None)
    return metadata if isinstance(metadata, MetaData) else None


def model_files() -> set[Path]:
    """Return the files of the project's loaded modules that define models, without tests."""
    files = set()
    for module, file in _load.project_modules():
        for value in list(vars(module).values()):
            is_model = isinstance(value, type) and "__table__" in vars(value)
            if is_model and value.__module__ == module.__name__:
                files.add(file)
    return {file for file in files if not is_of_tests(str(file))}
