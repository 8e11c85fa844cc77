"""Finds apps, tables and tests by parsing files."""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_arena._cli._imports import absolute, files_below, imported_names, parsed
from pytest_arena._databases._builders import is_alembic
from pytest_arena.errors import redact

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Assignment = ast.Assign | ast.AnnAssign
_FRAMEWORK = re.compile(
    r"(?:fastapi|starlette|litestar|flask)\b.*\.(FastAPI|Starlette|Litestar|Flask)"
)
_MOUNT = re.compile(r"\.[Mm]ount$")
_ENGINE = re.compile(
    r"sql.*\.(?:async_)?(?:create_(?:async_)?engine|engine_from_config)"
)
_BASE = re.compile(
    r"(?:sqlalchemy\b.*\.(DeclarativeBase\w*|declarative_base|MetaData|registry))"
    r"|flask_sqlalchemy\b.*\.SQLAlchemy"
)
_URL = re.compile(r"(sqlite|postgres|mysql|mariadb|oracle|mssql)[\w+]*://")
_URL_NAME = r"(?i:\w*(?:database|db|postgres\w*|pg|sql\w*)\w*_(?:url|uri|dsn))"
_VARIABLE = re.compile(
    rf"(?:environ(?:\.get)?|getenv)\s*[(\[]\s*[\"']({_URL_NAME})[\"']"
)
_DATABASE_FIXTURE = re.compile(
    r"db|database|engine|session|client|table|migrat|transaction|backend"
)
FIXTURES = ("arena", "client", "client_as", "db_session", "live_server", "test_client")
# Folders whose programs are not the app.
_OTHER_PROGRAMS = re.compile(r"(docs|docs_src|examples?|bench\w*|scripts)/")
_TEST_FILE = re.compile(r"(.*/)?((tests?|testing)/|test_|conftest\.py)")
# A marker of async tests, or a hook that may add such a marker to all tests.
_ASYNC_MARK = re.compile(r"\bmark\.(?:asyncio|anyio|trio)\b|\badd_marker\b")
_CREATES_TABLE = re.compile(rb"(?im)^\s*CREATE\s+(?:UNLOGGED\s+)?TABLE\b")
_BYTES_OF_A_SCRIPT = 1_000_000  # a dump is long, and CREATE TABLE is near its beginning
# A very deep expression exceeds a limit of the parser, or of a recursion over its tree.
_UNREADABLE = (SyntaxError, ValueError, OSError, RecursionError, MemoryError)
_CALL_WIDTH = 80  # characters of the call that creates an engine


@dataclass(frozen=True, slots=True)
class Definition:
    """A definition in a file, such as an app or a fixture.

    ``kind`` is one of these:

    - ``app``, ``engine``, ``fixture``, ``test``
    - ``factory``: a function that returns an app
    - ``unfit``: a factory that pytest-arena cannot call
    - ``tables``: a declarative base or metadata
    - ``test_tables``: a declarative base or metadata in a test file
    - ``variable``: a variable of the environment
    - ``async_test``: an async test without a marker
    - ``async_mark``: a file that marks async tests
    - ``call``: an assigned result of a function that may be a factory
    """

    kind: str
    name: str
    """the name, in the form ``module:attribute`` for apps and tables"""
    place: str
    """``file:line``"""
    detail: str = ""
    """the framework of an app, the fixtures of a test, or why a factory is unfit"""


@dataclass(slots=True)
class Project:
    """The definitions and scripts below a folder."""

    folder: Path
    files: int
    definitions: list[Definition]
    unread: list[str]
    """``file:line`` of each file that cannot be parsed"""
    migrations: list[Path]
    scripts: list[Path]
    """SQL files that create tables"""
    roots: dict[str, Path]
    """the folder from which Python imports each module"""

    def all(self, *kinds: str) -> list[Definition]:
        """Return the definitions of these kinds, in the order of files and lines."""
        return [
            definition for definition in self.definitions if definition.kind in kinds
        ]

    def has_fixture(self, name: str) -> bool:
        """Return whether the project defines a fixture of this name."""
        return name in [fixture.name for fixture in self.all("fixture")]

    @property
    def is_library(self) -> bool:
        """Whether the project has tables and no app."""
        apps = self.all("app", "factory", "unfit")
        tables = self.all("tables", "test_tables")
        return not apps and bool(tables or self.scripts)

    @property
    def may_use_server(self) -> bool:
        """Whether a database may be on a server. False if all known URLs are SQLite's."""
        urls = [engine.name for engine in self.all("engine")]
        return not urls or not all(url.startswith("sqlite") for url in urls)

    @property
    def first_test(self) -> Definition | None:
        """The first test with a fixture of pytest-arena that the project has not replaced."""
        for test in self.all("test"):
            for fixture in test.detail.split():
                if not self.has_fixture(fixture):
                    return test
        return None


def parse_project(folder: Path) -> Project:
    """Parse the files below a folder.

    Example::

        [app.name for app in parse_project(Path.cwd()).all("app")]
    """
    scripts = []
    migrations = []
    modules = []
    unread = []
    for file in files_below(folder):
        if file.suffix == ".sql":
            if _creates_tables(folder, file):
                scripts.append(file)
        elif file.name == "alembic.ini":
            if is_alembic(file):
                migrations.append(file)
        elif file.suffix == ".py":
            try:
                modules.append(_Module(folder, file))
            except _UNREADABLE as error:
                name = file.relative_to(folder).as_posix()
                line = getattr(error, "lineno", None) or 1
                unread.append(f"{name}:{line}")
    assigned: dict[str, ast.expr] = {}
    mounted: set[str] = set()
    for module in modules:
        assigned |= module.assigned
        mounted |= module.mounted
    files = len(modules) + len(unread) + len(migrations)
    definitions = list(_definitions(modules, assigned, unread))
    return Project(
        folder,
        files=files,
        definitions=_only_whole_apps(definitions, mounted),
        unread=unread,
        migrations=migrations,
        scripts=scripts,
        roots={module.name: module.root for module in modules},
    )


def _definitions(
    modules: list[_Module], assigned: dict[str, ast.expr], unread: list[str]
) -> Iterator[Definition]:
    """Yield the definitions of modules. Add a module with a too deep expression to ``unread``."""
    for module in modules:
        try:
            yield from module.definitions(assigned)
        except RecursionError:
            unread.append(f"{module.path}:1")


def likely_schema(project: Project) -> str:
    """Return the likely value of ``arena_schema``, or "" if none or several are likely."""
    if project.migrations:
        file = project.migrations[0].relative_to(project.folder)
        return file.as_posix()
    names = public_names(project.all("tables"))
    return names[0] if len(names) == 1 else ""


def public_names(definitions: list[Definition]) -> list[str]:
    """Return the public names of definitions, or all names if none is public."""
    names = sorted({definition.name for definition in definitions})
    public = [name for name in names if not is_private(name)]
    return public or names


def is_private(name: str) -> bool:
    """Return whether a part of a name begins with an underscore, as in ``package._module:Base``."""
    return re.search(r"(?:^|[.:])_", name) is not None


def _creates_tables(folder: Path, file: Path) -> bool:
    """Return whether a script of the app has CREATE TABLE near its beginning."""
    if _OTHER_PROGRAMS.match(file.relative_to(folder).as_posix()):
        return False
    try:
        with file.open("rb") as script:
            beginning = script.read(_BYTES_OF_A_SCRIPT)
    except OSError:
        return False
    return _CREATES_TABLE.search(beginning) is not None


def _only_whole_apps(
    definitions: list[Definition], mounted: set[str]
) -> list[Definition]:
    """Leave out mounted apps and factories that a module calls. The assigned result is an app."""
    factories = {
        _attribute_of(definition)
        for definition in definitions
        if definition.kind == "factory"
    }
    apps = []
    called = set()
    for definition in definitions:
        if definition.kind == "call" and definition.detail in factories:
            apps.append(replace(definition, kind="app"))
            called.add(definition.detail)
    kept: dict[tuple[str, str, str], Definition] = {}
    for definition in [*definitions, *apps]:
        kind = definition.kind
        is_called = kind == "factory" and _attribute_of(definition) in called
        is_mounted = definition.name.replace(":", ".") in mounted
        if kind != "call" and not is_called and not is_mounted:
            file = ""
            if kind in {"app", "factory"}:  # several folders may have the same module
                file = definition.place.rpartition(":")[0]
            kept.setdefault((kind, definition.name, file), definition)
    return list(kept.values())


def _attribute_of(definition: Definition) -> str:
    """Return the last part of ``module:attribute``."""
    return definition.name.rpartition(":")[2]


class _Module:
    """A parsed file: the origins of its names, and its definitions.

    Attributes:
        path: the path of the file below the project's folder.
        root: the folder from which Python imports the module.
        assigned: the last value of each name to which the module assigns.
        mounted: the dotted names of the arguments of ``app.mount(…)``.
    """

    def __init__(self, folder: Path, file: Path) -> None:
        self._text = file.read_text(encoding="utf-8-sig", errors="replace")
        self._body = parsed(self._text).body
        # The nodes have the order of the statements, so that the last assignment to a name counts.
        self._nodes: list[ast.AST] = []
        for statement in self._body:
            self._nodes += ast.walk(statement)
        self.path = file.relative_to(folder).as_posix()
        imports = dict(imported_names(self._nodes))
        self.root = _importable(_root(folder, file, imports), file)
        path = file.relative_to(self.root).with_suffix("")
        package = ".".join(path.parts[:-1])
        self.name = ".".join(path.parts).removesuffix(".__init__")
        self._imports = {}
        for name, origin in imports.items():
            self._imports[name] = absolute(origin, package)
        self.assigned: dict[str, ast.expr] = {}
        self.mounted: set[str] = set()
        self._read_nodes()

    def _read_nodes(self) -> None:
        for node in self._nodes:
            if isinstance(node, _Assignment) and node.value:
                name = ast.unparse(_target(node))
                self.assigned[name] = node.value
            elif isinstance(node, ast.Call):
                function = self._origin(node)
                if not _MOUNT.search(function):
                    continue
                for argument in node.args:
                    self.mounted.add(self._origin(argument))
                for word in node.keywords:
                    self.mounted.add(self._origin(word.value))

    def definitions(self, assigned: dict[str, ast.expr]) -> Iterator[Definition]:
        """Yield the definitions. ``assigned`` has the values of the names in all files."""
        if "down_revision" in self.assigned:
            return  # Alembic's migrations define tables of the past
        if _TEST_FILE.match(self.path):
            yield from self._tests()
            yield from self._async_tests()
            for definition in self._made_at_import():
                if definition.kind == "tables":
                    yield replace(definition, kind="test_tables")
        elif not _OTHER_PROGRAMS.match(self.path):
            yield from self._made_at_import()
            yield from self._engines(assigned)
            yield from self._variables()

    def _variables(self) -> Iterator[Definition]:
        """Yield the variables of the environment that hold a database's URL."""
        for line, text in enumerate(self._text.splitlines(), 1):
            place = f"{self.path}:{line}"
            for name in _VARIABLE.findall(text):
                yield Definition("variable", name, place)

    def _definition(
        self, kind: str, name: str, node: ast.stmt | ast.expr, detail: str = ""
    ) -> Definition:
        return Definition(kind, name, f"{self.path}:{node.lineno}", detail)

    def _attribute(
        self, kind: str, name: str, node: ast.stmt, detail: str = ""
    ) -> Definition:
        """Return the definition of a name of the module, as an option names it."""
        return self._definition(kind, f"{self.name}:{name}", node, detail)

    def _origin(self, node: ast.AST | None) -> str:
        """Return the dotted name of an expression, with the module that defines it."""
        match node:
            case ast.Name(id=name):
                return self._imports.get(name, f"{self.name}.{name}")
            case ast.Attribute(value=value, attr=name):
                owner = self._origin(value)
                return f"{owner}.{name}"
            case ast.Call(func=function):
                return self._origin(function)
        return ""

    def _framework(self, node: ast.AST | None) -> str:
        """Return the framework whose class a call creates or an annotation names, or ""."""
        match = _FRAMEWORK.fullmatch(self._origin(node))
        return match[1] if match else ""

    def _made_at_import(self) -> Iterator[Definition]:
        for node in _statements(self._body):
            if isinstance(node, _Function):
                yield from self._factory(node)
            elif isinstance(node, ast.ClassDef):
                yield from self._class(node)
            elif isinstance(node, _Assignment):
                yield from self._object(node)

    def _object(self, node: _Assignment) -> Iterator[Definition]:
        """Yield the app, the tables or the call if an assignment has the result of a call."""
        if not isinstance(node.value, ast.Call):
            return
        name = ast.unparse(_target(node))
        framework = self._framework(node.value)
        called = self._origin(node.value)
        base = _BASE.fullmatch(called)
        if framework:
            yield self._attribute("app", name, node, framework)
        elif base is None:
            function = called.rpartition(".")[2]
            yield self._attribute("call", name, node, function)
        elif base[1] == "registry":
            yield self._attribute("tables", f"{name}.metadata", node, base[1])
        else:
            yield self._attribute("tables", name, node, base[1] or "Flask-SQLAlchemy")

    def _factory(self, node: _Function) -> Iterator[Definition]:
        """Yield a public function that returns an app."""
        if node.name.startswith("_") or node.decorator_list:
            return
        framework = self._framework(node.returns)
        for statement in ast.walk(node):
            if framework:
                break
            if isinstance(statement, ast.Return):
                framework = self._returned_framework(statement)
        if not framework:
            return
        arguments = node.args
        needed = len(arguments.args) - len(arguments.defaults)
        if needed or None in arguments.kw_defaults:
            yield self._attribute("unfit", node.name, node, "needs arguments")
        elif isinstance(node, ast.AsyncFunctionDef):
            yield self._attribute("unfit", node.name, node, "is async")
        else:
            yield self._attribute("factory", node.name, node, framework)

    def _returned_framework(self, statement: ast.Return) -> str:
        """Return the framework of the app that a statement returns, or ""."""
        value = statement.value
        if isinstance(value, ast.Name):
            value = self.assigned.get(value.id)
        if isinstance(value, ast.Call):
            return self._framework(value)
        return ""

    def _class(self, node: ast.ClassDef) -> Iterator[Definition]:
        """Yield a declarative base, the metadata of SQLModel, or the variables of settings."""
        bases = [self._origin(base) for base in node.bases]
        if any(map(_BASE.fullmatch, bases)):
            yield self._attribute("tables", node.name, node, "DeclarativeBase")
        options = [word.arg for word in node.keywords]
        if "table" in options and "SQLModel" in self._imports:
            yield self._attribute("tables", "SQLModel", node, "SQLModel")
        for base in bases:
            if base.endswith("Settings"):
                yield from self._settings(node)
                break

    def _settings(self, node: ast.ClassDef) -> Iterator[Definition]:
        """Yield the variables that pydantic reads: one for each field, with the field's name."""
        text = ast.unparse(node)
        prefix = "".join(re.findall(r"env_prefix\W+(\w+)", text))
        for name in re.findall(rf"(?m)^    ({_URL_NAME}):", text):
            variable = f"{prefix}{name}".upper()
            yield self._definition("variable", variable, node)

    def _engines(self, assigned: dict[str, ast.expr]) -> Iterator[Definition]:
        """Yield the calls that create an engine, named by their URL or by their text."""
        for node in self._nodes:
            if not isinstance(node, ast.Call):
                continue
            if _ENGINE.fullmatch(self._origin(node)):
                url = _url_in(node, assigned)
                name = redact(url)
                if not url:
                    call = ast.unparse(node)
                    name = textwrap.shorten(call, _CALL_WIDTH, placeholder=" …")
                yield self._definition("engine", name, node)

    def _tests(self) -> Iterator[Definition]:
        """Yield the fixtures of a database, and the tests that use fixtures of pytest-arena."""
        for node in self._nodes:
            if not isinstance(node, _Function):
                continue
            decorators = " ".join(map(ast.unparse, node.decorator_list))
            if re.search(r"\bfixture\b", decorators):
                renamed = re.search(r"name='(\w+)'", decorators)
                name = renamed[1] if renamed else node.name
                if _DATABASE_FIXTURE.search(name):
                    yield self._definition("fixture", name, node)
            parameters = {argument.arg for argument in node.args.args}
            fixtures = parameters.intersection(FIXTURES)
            if fixtures and node.name.startswith("test"):
                detail = " ".join(sorted(fixtures))
                yield self._definition("test", node.name, node, detail)

    def _async_tests(self) -> Iterator[Definition]:
        """Yield the first async test that no marker of this file covers, and the first marker."""
        mark = _ASYNC_MARK.search(self._text)
        if mark:
            yield Definition("async_mark", mark[0], self.path)
        pytestmark = self.assigned.get("pytestmark")
        if pytestmark is not None and _ASYNC_MARK.search(ast.unparse(pytestmark)):
            return
        for node in _scopes(self._body):
            decorators = " ".join(map(ast.unparse, node.decorator_list))
            is_test = isinstance(node, ast.AsyncFunctionDef)
            is_test = is_test and node.name.startswith("test")
            if is_test and not _ASYNC_MARK.search(decorators):
                yield self._definition("async_test", node.name, node)
                return


def _scopes(body: list[ast.stmt]) -> Iterator[_Function]:
    """Yield the functions of a module, and the methods of its unmarked classes."""
    for node in body:
        if isinstance(node, _Function):
            yield node
        elif isinstance(node, ast.ClassDef):
            head = [*node.decorator_list, *node.bases]
            text = " ".join(map(ast.unparse, head))
            if "TestCase" not in text and not _ASYNC_MARK.search(text):
                yield from _scopes(node.body)


def _target(node: _Assignment) -> ast.expr:
    if isinstance(node, ast.Assign):
        return node.targets[0]
    return node.target


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run when the module is imported."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.With | ast.Try):
            yield from _statements(statement.body)
        elif isinstance(statement, ast.If):
            if "__main__" in ast.unparse(statement.test):
                continue
            yield from _statements(statement.body)
            yield from _statements(statement.orelse)


def _url_in(node: ast.expr, assigned: dict[str, ast.expr], depth: int = 3) -> str:
    """Return the first URL of a database in an expression, or in a value of a name in it, or ""."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant):
            text = str(part.value)
            if _URL.match(text):
                return text
        name = getattr(part, "id", getattr(part, "attr", ""))
        value = assigned.get(name)
        if depth and value is not None and value is not node:
            url = _url_in(value, assigned, depth - 1)
            if url:
                return url
    return ""


def _importable(root: Path, file: Path) -> Path:
    """Return the root, or the last folder below it whose name is no identifier."""
    for folder in file.parents:
        if folder == root or not folder.name.isidentifier():
            return folder
    return root


def _root(folder: Path, file: Path, imports: dict[str, str]) -> Path:
    """Return the folder from which Python imports a file."""
    parent = file.parent
    root = parent
    while root != folder and (root / "__init__.py").exists():
        root = root.parent
    if root != parent:
        return root
    # The file is in no package. The folder of a module that the file imports is the root.
    modules = {origin.partition(".")[0] for origin in imports.values()}
    modules.discard("")  # a relative import
    for above in (parent, *parent.parents):
        if not above.is_relative_to(folder):
            break
        for module in modules:
            package = above / module
            if package.is_dir() or package.with_suffix(".py").is_file():
                return above
    src = folder / "src"
    return src if file.is_relative_to(src) else folder
