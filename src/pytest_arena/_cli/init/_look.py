"""Finds the apps, tables and tests of a project by parsing its files. It imports none of them."""

from __future__ import annotations

import ast
import os
import re
import textwrap
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._cli._imports import absolute, imported_names
from pytest_arena._databases._builders import is_alembic
from pytest_arena.errors import redact

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    r"sqlalchemy\b.*\.(DeclarativeBase\w*|declarative_base|MetaData|registry)"
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
# Folders with programs beside the app.
_BESIDE = re.compile(r"(docs|docs_src|examples?|benchmarks|scripts)/")
_TESTS = re.compile(r"(.*/)?((tests?|testing)/|test_|conftest\.py)")
_CREATES_TABLE = re.compile(rb"(?im)^\s*CREATE\s+(?:UNLOGGED\s+)?TABLE\b")
_BYTES_OF_A_SCRIPT = 1_000_000  # a dump is long, and CREATE TABLE is near its beginning
_WIDTH = 80  # characters of an engine's call
_TOOL_FOLDER = re.compile(r"\.|(node_modules|site-packages|__pycache__|build|dist)$")


@dataclass(frozen=True, slots=True)
class Definition:
    """A definition in a file, such as an app or a fixture."""

    kind: str
    """app, factory, unfit (a factory that cannot be called), tables, test_tables, engine,
    variable, fixture, test, or call (of a function that may be a factory)"""
    name: str
    """as an option names it: ``module:attribute``"""
    place: str
    detail: str = ""


@dataclass(slots=True)
class Project:
    """The definitions and scripts below a folder."""

    folder: Path
    files: int = 0
    definitions: list[Definition] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    """files with syntax errors, with the line"""
    migrations: list[Path] = field(default_factory=list)
    scripts: list[Path] = field(default_factory=list)
    """SQL files that create tables"""
    roots: dict[str, Path] = field(default_factory=dict)
    """the folder from which each module is imported"""

    def all(self, *kinds: str) -> list[Definition]:
        """Return the definitions of these kinds, in the order of files and lines."""
        return [
            definition for definition in self.definitions if definition.kind in kinds
        ]

    def has_fixture(self, name: str) -> bool:
        """Return whether the project defines a fixture of this name."""
        return any(fixture.name == name for fixture in self.all("fixture"))

    @property
    def is_library(self) -> bool:
        """Whether the project has tables and no app."""
        if self.all("app", "factory", "unfit"):
            return False
        return bool(self.all("tables", "test_tables") or self.scripts)

    @property
    def first_test(self) -> Definition | None:
        """The first test that uses a fixture of pytest-arena."""
        for test in self.all("test"):
            if not all(map(self.has_fixture, test.detail.split())):
                return test
        return None


def look_at(folder: Path) -> Project:
    """Parse the project's files.

    Example::

        [app.name for app in look_at(Path.cwd()).all("app")]
    """
    project = Project(folder)
    modules = []
    for file in _files(folder):
        if file.suffix == ".sql":
            if _creates_tables(folder, file):
                project.scripts.append(file)
            continue
        project.files += 1
        if file.name == "alembic.ini":
            if is_alembic(file):
                project.migrations.append(file)
            continue
        try:
            modules.append(_Module(folder, file))
        except (SyntaxError, ValueError, OSError) as error:
            line = getattr(error, "lineno", None) or 1
            project.unread.append(f"{file.relative_to(folder).as_posix()}:{line}")
    assigned: dict[str, ast.expr] = {}
    mounted: set[str] = set()
    for module in modules:
        project.roots[module.name] = module.root
        assigned |= module.assigned
        mounted |= module.mounted
    definitions: list[Definition] = []
    for module in modules:
        definitions += module.definitions(assigned)
    project.definitions = _without_parts(definitions, mounted)
    return project


def likely_schema(project: Project) -> str:
    """Return the likely value of ``arena_schema``, or "" unless there is exactly one."""
    if project.migrations:
        return project.migrations[0].relative_to(project.folder).as_posix()
    names = public_names(project.all("tables"))
    return names[0] if len(names) == 1 else ""


def public_names(definitions: list[Definition]) -> list[str]:
    """Return the names of definitions: the public ones, or all if none is public."""
    names = sorted({definition.name for definition in definitions})
    return [name for name in names if not is_private(name)] or names


def is_private(name: str) -> bool:
    """Return whether a part of ``package._module:Base`` begins with an underscore."""
    return any(part.startswith("_") for part in re.split(r"[.:]", name))


def _files(folder: Path) -> Iterator[Path]:
    for path, folders, names in os.walk(folder):
        if "pyvenv.cfg" in names:
            folders.clear()
            continue
        folders[:] = [name for name in sorted(folders) if not _TOOL_FOLDER.match(name)]
        for name in sorted(names):
            if name.endswith((".py", ".sql")) or name == "alembic.ini":
                yield Path(path, name)


def _creates_tables(folder: Path, file: Path) -> bool:
    """Return whether a script of the project has CREATE TABLE near its beginning."""
    if _BESIDE.match(file.relative_to(folder).as_posix()):
        return False
    try:
        with file.open("rb") as script:
            return bool(_CREATES_TABLE.search(script.read(_BYTES_OF_A_SCRIPT)))
    except OSError:
        return False


def _without_parts(
    definitions: list[Definition], mounted: set[str]
) -> list[Definition]:
    """Leave out mounted apps, and factories that a module calls to create its app."""
    factories = {
        definition.name.rpartition(":")[2]
        for definition in definitions
        if definition.kind == "factory"
    }
    apps = [
        replace(definition, kind="app")
        for definition in definitions
        if definition.kind == "call" and definition.detail in factories
    ]
    called = {app.detail for app in apps}
    kept: dict[tuple[str, str], Definition] = {}
    for definition in [*definitions, *apps]:
        is_called = (
            definition.kind == "factory"
            and definition.name.rpartition(":")[2] in called
        )
        is_mounted = definition.name.replace(":", ".") in mounted
        if not (definition.kind == "call" or is_called or is_mounted):
            kept.setdefault((definition.kind, definition.name), definition)
    return list(kept.values())


class _Module:
    """A file, the meaning of its names, and its definitions."""

    def __init__(self, folder: Path, file: Path) -> None:
        self._text = file.read_text(encoding="utf-8-sig", errors="replace")
        self._body = ast.parse(self._text).body
        self._nodes = [node for part in self._body for node in ast.walk(part)]
        self._path = file.relative_to(folder).as_posix()
        imports = dict(imported_names(self._nodes))
        self.root = _root(folder, file, imports)
        parts = file.relative_to(self.root).with_suffix("").parts
        package = ".".join(parts[:-1])
        self.name = ".".join(parts).removesuffix(".__init__")
        self._imports = {
            name: absolute(origin, package) for name, origin in imports.items()
        }
        self.assigned: dict[str, ast.expr] = {}
        self.mounted: set[str] = set()
        self._read_nodes()

    def _read_nodes(self) -> None:
        for node in self._nodes:
            if isinstance(node, _Assignment) and node.value:
                self.assigned[ast.unparse(_target(node))] = node.value
            elif isinstance(node, ast.Call) and _MOUNT.search(self._origin(node)):
                self.mounted.update(map(self._origin, node.args))
                for word in node.keywords:
                    self.mounted.add(self._origin(word.value))

    def definitions(self, assigned: dict[str, ast.expr]) -> Iterator[Definition]:
        """Yield the definitions. ``assigned`` has the values of names in all files."""
        if _TESTS.match(self._path):
            yield from self._tests()
            for definition in self._made_at_import():
                if definition.kind == "tables":
                    yield replace(definition, kind="test_tables")
        elif not _BESIDE.match(self._path):
            yield from self._made_at_import()
            yield from self._engines(assigned)
            for line, text in enumerate(self._text.splitlines(), 1):
                for name in _VARIABLE.findall(text):
                    yield Definition("variable", name, f"{self._path}:{line}")

    def _definition(
        self, kind: str, name: str, node: ast.stmt | ast.expr, detail: str = ""
    ) -> Definition:
        return Definition(kind, name, f"{self._path}:{node.lineno}", detail)

    def _attribute(
        self, kind: str, name: str, node: ast.stmt, detail: str = ""
    ) -> Definition:
        return self._definition(kind, f"{self.name}:{name}", node, detail)

    def _origin(self, node: ast.AST | None) -> str:
        """Return the dotted name of an expression, with the module that defines it."""
        match node:
            case ast.Name(id=name):
                return self._imports.get(name, f"{self.name}.{name}")
            case ast.Attribute(value=value, attr=name):
                return f"{self._origin(value)}.{name}"
            case ast.Call(func=function):
                return self._origin(function)
        return ""

    def _framework(self, node: ast.AST | None) -> str:
        match = _FRAMEWORK.fullmatch(self._origin(node))
        return match[1] if match else ""

    def _made_at_import(self) -> Iterator[Definition]:
        for node in _statements(self._body):
            if isinstance(node, _Function):
                yield from self._factory(node)
            elif isinstance(node, ast.ClassDef):
                yield from self._class(node)
            elif isinstance(node, _Assignment) and isinstance(node.value, ast.Call):
                yield self._object(node, ast.unparse(_target(node)))

    def _object(self, node: _Assignment, name: str) -> Definition:
        """Return the app, the tables or the call that an assignment makes."""
        framework = self._framework(node.value)
        if framework:
            return self._attribute("app", name, node, framework)
        called = self._origin(node.value)
        base = _BASE.fullmatch(called)
        if base is None:
            function = called.rpartition(".")[2]
            return self._attribute("call", name, node, function)
        if base[1] == "registry":
            name += ".metadata"
        return self._attribute("tables", name, node, base[1])

    def _factory(self, node: _Function) -> Iterator[Definition]:
        """Yield a public function that returns an app."""
        if node.name.startswith("_") or node.decorator_list:
            return
        framework = self._framework(node.returns)
        for statement in ast.walk(node):
            if framework or not isinstance(statement, ast.Return):
                continue
            value = statement.value
            if isinstance(value, ast.Name):
                value = self.assigned.get(value.id)
            if isinstance(value, ast.Call):
                framework = self._framework(value)
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

    def _class(self, node: ast.ClassDef) -> Iterator[Definition]:
        bases = [self._origin(base) for base in node.bases]
        if any(map(_BASE.fullmatch, bases)):
            yield self._attribute("tables", node.name, node, "DeclarativeBase")
        is_table = any(word.arg == "table" for word in node.keywords)
        if is_table and "SQLModel" in self._imports:
            yield self._attribute("tables", "SQLModel", node, "SQLModel")
        if any(base.endswith("Settings") for base in bases):
            yield from self._settings(node)

    def _settings(self, node: ast.ClassDef) -> Iterator[Definition]:
        """Yield the variables of pydantic's settings. A field is a variable of its name."""
        text = ast.unparse(node)
        prefix = "".join(re.findall(r"env_prefix\W+(\w+)", text))
        for name in re.findall(rf"(?m)^    ({_URL_NAME}):", text):
            variable = f"{prefix}{name}".upper()
            yield self._definition("variable", variable, node)

    def _engines(self, assigned: dict[str, ast.expr]) -> Iterator[Definition]:
        for node in self._nodes:
            if isinstance(node, ast.Call) and _ENGINE.fullmatch(self._origin(node)):
                call = textwrap.shorten(ast.unparse(node), _WIDTH, placeholder=" …")
                name = redact(_url_in(node, assigned)) or call
                yield self._definition("engine", name, node)

    def _tests(self) -> Iterator[Definition]:
        """Yield the fixtures of a database, and the tests that use pytest-arena's."""
        for node in self._nodes:
            if not isinstance(node, _Function):
                continue
            decorators = " ".join(map(ast.unparse, node.decorator_list))
            if re.search(r"\bfixture\b", decorators):
                named = re.search(r"name='(\w+)'", decorators)
                name = named[1] if named else node.name
                if _DATABASE_FIXTURE.search(name):
                    yield self._definition("fixture", name, node)
            used = {argument.arg for argument in node.args.args} & set(FIXTURES)
            if used and node.name.startswith("test"):
                fixtures = " ".join(sorted(used))
                yield self._definition("test", node.name, node, fixtures)


def _target(node: _Assignment) -> ast.expr:
    return node.targets[0] if isinstance(node, ast.Assign) else node.target


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
    """Return the first URL in an expression or in the values of its names, or ""."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and _URL.match(str(part.value)):
            return str(part.value)
        name = getattr(part, "id", getattr(part, "attr", ""))
        value = assigned.get(name)
        if depth and value is not None and value is not node:
            url = _url_in(value, assigned, depth - 1)
            if url:
                return url
    return ""


def _root(folder: Path, file: Path, imports: dict[str, str]) -> Path:
    """Return the folder from which a file is imported."""
    root = file.parent
    while (root / "__init__.py").exists() and root != folder:
        root = root.parent
    if root != file.parent:
        return root
    # The file is in no package. It may import modules beside it or above it.
    modules = {origin.partition(".")[0] for origin in imports.values()} - {""}
    for above in (root, *root.parents):
        if not above.is_relative_to(folder):
            break
        for module in modules:
            if (above / module).is_dir() or (above / f"{module}.py").is_file():
                return above
    src = folder / "src"
    return src if file.is_relative_to(src) else folder
