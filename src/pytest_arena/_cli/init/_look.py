"""What a project looks like from outside: its files are parsed, and none is imported."""

from __future__ import annotations

import ast
import os
import re
import textwrap
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._databases._builders import is_alembic
from pytest_arena.errors import redact

if TYPE_CHECKING:
    from collections.abc import Iterator

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Assigned = ast.Assign | ast.AnnAssign
_FRAMEWORK = re.compile(
    r"^(?:fastapi|starlette|litestar|flask)\b.*\.(FastAPI|Starlette|Litestar|Flask)$"
)
_ENGINE = re.compile(
    r"sql.*\.(?:async_)?(?:create_(?:async_)?engine|engine_from_config)"
)
_BASE = re.compile(
    r"sqlalchemy\b.*\.(DeclarativeBase\w*|declarative_base|MetaData|registry)"
)
_URL = re.compile(r"(sqlite|postgres|mysql|mariadb|oracle|mssql)[\w+]*://")
_HOLDS_URL = r"(?i:\w*(?:database|db|postgres\w*|pg|sql\w*)\w*_(?:url|uri|dsn))"
_VARIABLE = re.compile(
    rf"(?:environ(?:\.get)?|getenv)\s*[(\[]\s*[\"']({_HOLDS_URL})[\"']"
)
_OF_DATABASE = re.compile(
    r"db|database|engine|session|client|table|migrat|transaction|backend"
)
FIXTURES = ("arena", "client", "client_as", "db_session", "live_server", "test_client")
# Programs that stand beside the app, and nothing of the project's own.
_BESIDE = re.compile(r"(docs|docs_src|examples?|benchmarks|scripts)/")
_TESTS = re.compile(r"(.*/)?((tests?|testing)/|test_|conftest\.py)")
_CREATES = re.compile(rb"(?im)^\s*CREATE\s+(?:UNLOGGED\s+)?TABLE\b")
_MOST_OF_A_SCRIPT = 1_000_000  # bytes: dumps are long
_WIDTH = 80  # characters of an engine's call that are shown
_OF_TOOLS = re.compile(r"\.|(node_modules|site-packages|__pycache__|build|dist)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Something in a file: what it is, how it is named, where it stands."""

    kind: (
        str  # app, factory, unfit, tables, test_tables, engine, variable, fixture, test
    )
    name: str  # as an option names it, where one does
    place: str
    about: str = ""


@dataclass(slots=True)
class Project:
    """All that was found below a folder."""

    folder: Path
    files: int = 0
    found: list[Found] = field(default_factory=list)
    unread: list[str] = field(
        default_factory=list
    )  # files that are no Python, with the line
    migrations: list[Path] = field(default_factory=list)
    scripts: list[Path] = field(default_factory=list)  # SQL that makes tables
    roots: dict[str, Path] = field(
        default_factory=dict
    )  # module: the folder it is imported from

    def all(self, *kinds: str) -> list[Found]:
        """Return what is of these kinds, in the order of files and lines."""
        return [one for one in self.found if one.kind in kinds]

    def has_fixture(self, name: str) -> bool:
        """Whether a fixture of the project's own has this name, and takes the place of ours."""
        return any(one.name == name for one in self.all("fixture"))

    @property
    def is_library(self) -> bool:
        """Whether the project has tables, and nothing that may be an app."""
        has_app = bool(self.all("app", "factory", "unfit"))
        return not has_app and bool(self.all("tables", "test_tables") or self.scripts)

    @property
    def first_test(self) -> Found | None:
        """A test that asks for a fixture of ours."""
        asked = ((one, one.about.split()) for one in self.all("test"))
        return next(
            (one for one, names in asked if not all(map(self.has_fixture, names))), None
        )


def look_at(folder: Path) -> Project:
    """Parse the project's files.

    Example::

        [app.name for app in look_at(Path.cwd()).all("app")]
    """
    project = Project(folder)
    readers = []
    for file in _files(folder):
        if file.suffix == ".sql":
            if _makes_tables(folder, file):
                project.scripts.append(file)
            continue
        project.files += 1
        if file.name == "alembic.ini":
            project.migrations += [file] * is_alembic(file)
            continue
        try:
            readers.append(_Reader(folder, file))
        except (SyntaxError, ValueError, OSError) as error:
            line = getattr(error, "lineno", None) or 1
            project.unread.append(f"{file.relative_to(folder).as_posix()}:{line}")
    # What one file calls, another one may define.
    assigned = {
        name: value for reader in readers for name, value in reader.assigned.items()
    }
    found = [one for reader in readers for one in reader.found(assigned)]
    project.roots = {reader.module: reader.root for reader in readers}
    project.found = _without_parts(
        found, {name for reader in readers for name in reader.mounted}
    )
    return project


def likely_schema(project: Project) -> str:
    """Return the likely value of ``arena_schema``, or "" if there is none, or several."""
    if project.migrations:
        return project.migrations[0].relative_to(project.folder).as_posix()
    tables = {table.name for table in project.all("tables")}
    public = {name for name in tables if not is_private(name)}
    values = list(public or tables)
    return values[0] if len(values) == 1 else ""


def is_private(name: str) -> bool:
    """Return whether a part of ``package._module:Base`` begins with an underscore."""
    return any(part.startswith("_") for part in re.split(r"[.:]", name))


def _files(folder: Path) -> Iterator[Path]:
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in sorted(folders) if not _OF_TOOLS.match(name)]
        fit = [
            name
            for name in names
            if name.endswith((".py", ".sql")) or name == "alembic.ini"
        ]
        if "pyvenv.cfg" in names:
            folders.clear()
        else:
            yield from (Path(at, name) for name in sorted(fit))


def _makes_tables(folder: Path, file: Path) -> bool:
    """Return whether a script of the project has CREATE TABLE near its beginning."""
    if _BESIDE.match(file.relative_to(folder).as_posix()):
        return False
    try:
        with file.open("rb") as script:
            return _CREATES.search(script.read(_MOST_OF_A_SCRIPT)) is not None
    except OSError:
        return False


def _without_parts(found: list[Found], mounted: set[str]) -> list[Found]:
    """Leave out apps that others mount, and factories whose app stands in a module as well."""
    factories = {one.name.rpartition(":")[2] for one in found if one.kind == "factory"}
    made = {one.about for one in found if one.kind == "call"} & factories
    found = [replace(one, kind="app") if one.about in made else one for one in found]
    every = [
        one
        for one in found
        if not (
            one.kind == "call"
            or (one.kind == "factory" and one.name.rpartition(":")[2] in made)
        )
        and one.name.replace(":", ".") not in mounted
    ]
    return list({(one.kind, one.name): one for one in reversed(every)}.values())[::-1]


class _Reader:
    """One file: what its names mean, and what stands in it."""

    def __init__(self, folder: Path, file: Path) -> None:
        self._text = file.read_bytes()
        tree = ast.parse(self._text)
        self._nodes = list(ast.walk(tree))
        self._body = tree.body
        self._path = file.relative_to(folder).as_posix()
        self.root = _root(folder, file, self._nodes)
        parts = file.relative_to(self.root).with_suffix("").parts
        is_package = parts[-1] == "__init__" and len(parts) > 1
        self.module = ".".join(parts[:-1] if is_package else parts)
        self._names = dict(self._imported(parts[:-1]))
        self.assigned = {
            ast.unparse(target): node.value
            for node in self._nodes
            if isinstance(node, _Assigned) and node.value
            for target in (
                node.targets if isinstance(node, ast.Assign) else [node.target]
            )
        }
        self.mounted = {
            self._means(part)
            for node in self._nodes
            if isinstance(node, ast.Call)
            and self._means(node.func).lower().endswith(".mount")
            for part in (*node.args[1:2], *(word.value for word in node.keywords))
        }

    def found(self, assigned: dict[str, ast.expr]) -> Iterator[Found]:
        """Yield what there is, with places; ``assigned`` are the names of all files."""
        if _TESTS.match(self._path):
            yield from self._of_tests()
            yield from self._tables_of_tests()
        elif not _BESIDE.match(self._path):
            for statement in _top(self._body):
                yield from self._of_statement(statement)
            for node in self._nodes:
                if isinstance(node, ast.Call) and _ENGINE.fullmatch(
                    self._means(node.func)
                ):
                    url = next(_urls(node, assigned), "")
                    yield self._at(
                        node, "engine", redact(url) or _shortened(ast.unparse(node))
                    )
            for number, line in enumerate(
                self._text.decode(errors="replace").splitlines(), 1
            ):
                yield from (
                    self._at(number, "variable", it) for it in _VARIABLE.findall(line)
                )

    def _at(
        self, node: ast.stmt | ast.expr | int, kind: str, name: str, about: str = ""
    ) -> Found:
        line = node if isinstance(node, int) else node.lineno
        return Found(kind=kind, name=name, place=f"{self._path}:{line}", about=about)

    def _imported(self, package: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        for node in self._nodes:
            if isinstance(node, ast.Import):
                for one in node.names:
                    top = one.name.split(".")[0]
                    yield (one.asname, one.name) if one.asname else (top, top)
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) + 1 - node.level] if node.level else ()
                origin = ".".join([*above, *filter(None, [node.module])])
                yield from (
                    (one.asname or one.name, f"{origin}.{one.name}")
                    for one in node.names
                )

    def _means(self, node: ast.AST | None) -> str:
        """The dotted name of an expression, as its module would be asked for it."""
        if isinstance(node, ast.Name):
            return self._names.get(node.id, f"{self.module}.{node.id}")
        if isinstance(node, ast.Attribute):
            return f"{self._means(node.value)}.{node.attr}"
        return self._means(node.func) if isinstance(node, ast.Call) else ""

    def _framework(self, node: ast.AST | None) -> str:
        return "".join(_FRAMEWORK.findall(self._means(node)))

    def _of_statement(self, node: ast.stmt) -> Iterator[Found]:
        if (
            isinstance(node, _Function)
            and node.name[0] != "_"
            and not node.decorator_list
        ):
            yield from self._of_function(node)
        elif isinstance(node, ast.ClassDef):
            yield from self._of_class(node)
        elif isinstance(node, _Assigned) and isinstance(node.value, ast.Call):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            path = f"{self.module}:{ast.unparse(target)}"
            called = self._means(node.value)
            if framework := self._framework(node.value):
                yield self._at(node, "app", path, framework)
            elif base := _BASE.fullmatch(called):
                yield self._at(
                    node,
                    "tables",
                    path + ".metadata" * (base[1] == "registry"),
                    base[1],
                )
            else:
                yield self._at(node, "call", path, called.rpartition(".")[2])

    def _of_function(self, node: _Function) -> Iterator[Found]:
        made = [one.value for one in ast.walk(node) if isinstance(one, ast.Return)]
        made = [
            self.assigned.get(one.id) if isinstance(one, ast.Name) else one
            for one in made
        ]
        made = [one for one in made if isinstance(one, ast.Call)]
        if framework := next(
            filter(None, map(self._framework, [node.returns, *made])), ""
        ):
            given = node.args
            needed = (
                len(given.args) - len(given.defaults) + given.kw_defaults.count(None)
            )
            is_async = isinstance(node, ast.AsyncFunctionDef)
            why = "needs arguments" if needed else "is async" if is_async else framework
            kind = "unfit" if needed or is_async else "factory"
            yield self._at(node, kind, f"{self.module}:{node.name}", why)

    def _of_class(self, node: ast.ClassDef) -> Iterator[Found]:
        bases = [self._means(base) for base in node.bases]
        if any(map(_BASE.fullmatch, bases)):
            yield self._at(
                node, "tables", f"{self.module}:{node.name}", "DeclarativeBase"
            )
        if (
            any(word.arg == "table" for word in node.keywords)
            and "SQLModel" in self._names
        ):
            yield self._at(node, "tables", f"{self.module}:SQLModel", "SQLModel")
        if any(
            base.endswith("Settings") for base in bases
        ):  # pydantic's: read by their names
            text = ast.unparse(node)
            prefix = re.search(r"env_prefix\W+(\w+)", text)
            for name in re.findall(rf"^    ({_HOLDS_URL}):", text, re.MULTILINE):
                yield self._at(
                    node, "variable", f"{prefix[1] if prefix else ''}{name}".upper()
                )

    def _tables_of_tests(self) -> Iterator[Found]:
        parts = (part for node in _top(self._body) for part in self._of_statement(node))
        return (
            replace(part, kind="test_tables") for part in parts if part.kind == "tables"
        )

    def _of_tests(self) -> Iterator[Found]:
        for node in self._nodes:
            if isinstance(node, _Function):
                marks = [
                    self._means(each).rpartition(".")[2] for each in node.decorator_list
                ]
                named = re.findall(
                    r"name='(\w+)'", " ".join(map(ast.unparse, node.decorator_list))
                )
                if "fixture" in marks and _OF_DATABASE.search(
                    name := [*named, node.name][0]
                ):
                    yield self._at(node, "fixture", name)
                asked = {one.arg for one in node.args.args} & set(FIXTURES)
                if node.name.startswith("test") and asked:
                    yield self._at(node, "test", node.name, " ".join(sorted(asked)))


def _shortened(text: str) -> str:
    """Return a text, cut after a word so that it fits in a line."""
    return textwrap.shorten(text, _WIDTH, placeholder=" …")


def _top(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that an import of the module comes by."""
    for statement in body:
        yield statement
        is_script = isinstance(statement, ast.If) and "__main__" in ast.unparse(
            statement.test
        )
        if isinstance(statement, ast.If | ast.Try | ast.With) and not is_script:
            yield from _top([*statement.body, *getattr(statement, "orelse", ())])


def _urls(
    node: ast.expr, assigned: dict[str, ast.expr], depth: int = 3
) -> Iterator[str]:
    """What looks like a URL in an expression, or in what its names were given."""
    for one in ast.walk(node):
        if isinstance(one, ast.Constant) and isinstance(one.value, str):
            yield from [one.value] * bool(_URL.match(one.value))
        name = getattr(one, "id", getattr(one, "attr", None))
        value = assigned.get(name) if depth and isinstance(name, str) else None
        if value is not None and value is not node:
            yield from _urls(value, assigned, depth - 1)


def _root(folder: Path, file: Path, nodes: list[ast.AST]) -> Path:
    """The folder that a file's module is imported from."""
    root = file.parent
    while (root / "__init__.py").exists() and root != folder:
        root = root.parent
    if root != file.parent:
        return root
    # No package: does it import what lies beside it, or from above?
    names = [
        one.name for node in nodes if isinstance(node, ast.Import) for one in node.names
    ]
    names += [
        node.module or ""
        for node in nodes
        if isinstance(node, ast.ImportFrom) and not node.level
    ]
    tops = {name.split(".")[0] for name in names} - {""}
    above = [root, *(one for one in root.parents if one.is_relative_to(folder))]
    likely = [
        at
        for at in above
        if any((at / n).is_dir() or (at / f"{n}.py").is_file() for n in tops)
    ]
    src = folder / "src"
    return next(iter(likely), src if file.is_relative_to(src) else folder)
