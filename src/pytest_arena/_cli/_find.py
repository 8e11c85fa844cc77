"""Finds the apps and the models of a project. It parses files and imports none."""

from __future__ import annotations

import ast
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOOLS = re.compile(r"\.|(node_modules|site-packages|__pycache__|build|dist|venv|env)$")
_OTHER_CODE = re.compile(
    r"(tests?|testing|docs?|docs_src|examples?|scripts|bench\w*|migrations|alembic"
    r"|versions)$|test_|conftest\.py$"
)
_PROJECT_FILES = {"pyproject.toml", "setup.cfg", "pytest.ini"}
_FRAMEWORKS = {"FastAPI", "Starlette", "Litestar", "Flask"}
_NEW_BASE = re.compile(r"(DeclarativeBase\w*|declarative_base|SQLAlchemy)$")
# The base classes of Advanced Alchemy.
_LIBRARY_BASE = re.compile(r"\b((?:UUID|BigInt|NanoID)\w*Base)\b")
_DEPTH = 2  # the most abstract classes between a base and a model


@dataclass(frozen=True)
class Module:
    """A module of the project, and the folder from which Python imports it."""

    name: str
    path: Path
    root: Path
    text: str
    body: list[ast.stmt]


@dataclass(frozen=True)
class Found:
    """An app, a function that returns one, or a model."""

    module: Module
    name: str
    base: str = ""  # of a model
    is_factory: bool = False

    @property
    def path(self) -> str:
        """The name with its module, as in ``arena_app``."""
        return f"{self.module.name}:{self.name}"

    def rank(self) -> tuple[bool, bool, int, str]:
        """Return a key that is the lowest for the most likely app."""
        is_usual = self.name in {"app", "application", "create_app"}
        return self.is_factory, not is_usual, len(self.module.path.parts), self.path


def find_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files of a project, and the folders below it that are other projects."""
    files = []
    projects = []
    for path, folders, names in os.walk(folder):
        if Path(path) != folder and _PROJECT_FILES.intersection(names):
            projects.append(Path(path))
            folders.clear()  # os.walk skips the folders that are removed from its list
            continue
        folders[:] = sorted(name for name in folders if not _TOOLS.match(name))
        files += [Path(path, name) for name in sorted(names)]
    return files, projects


def read_modules(folder: Path, files: list[Path]) -> list[Module]:
    """Parse the Python files, without tests, docs, examples and migrations."""
    texts = {}
    for file in files:
        parts = file.relative_to(folder).parts
        if file.suffix == ".py" and not any(map(_OTHER_CODE.match, parts)):
            texts[file] = file.read_text(encoding="utf-8", errors="replace")
    imported = set(
        re.findall(r"(?m)^\s*(?:from|import) (\w+)", "\n".join(texts.values()))
    )
    modules = []
    for file, text in texts.items():
        root = folder
        for parent in file.relative_to(folder).parents[-2::-1]:
            # A folder without __init__.py is a package if a module imports it.
            if (folder / parent / "__init__.py").exists() or parent.name in imported:
                break
            root = folder / parent
        name = ".".join(file.relative_to(root).with_suffix("").parts)
        try:
            body = ast.parse(text).body
        except (SyntaxError, ValueError):
            continue
        modules.append(Module(name.removesuffix(".__init__"), file, root, text, body))
    return modules


def find_apps(modules: list[Module]) -> list[Found]:
    """Return the apps, and functions that return one. The likeliest is first."""
    apps = []
    makers = set(_FRAMEWORKS)
    for module in modules:
        for node in module.body:
            if isinstance(node, ast.FunctionDef) and _returns_app(node):
                makers.add(node.name)
                given = node.args
                required = len(given.posonlyargs + given.args) - len(given.defaults)
                if not required and None not in given.kw_defaults:
                    apps.append(Found(module, node.name, is_factory=True))
    for module in modules:
        for name, called in _made(module):
            if called in makers:
                apps.append(Found(module, name))
    return sorted(apps, key=Found.rank)


def _returns_app(function: ast.FunctionDef) -> bool:
    parts = list(ast.walk(function))
    creates = any(_called(part) in _FRAMEWORKS for part in parts)
    return creates and any(isinstance(part, ast.Return) for part in parts)


def find_models(modules: list[Module]) -> list[Found]:
    """Return the classes that are tables."""
    abstract = _find_abstract(modules)
    models = []
    for module, node in _classes(modules):
        bases = [
            base for base in _bases(node) if abstract.intersection(base.split("."))
        ]
        if any(keyword.arg == "table" for keyword in node.keywords):
            bases = ["SQLModel"] if "SQLModel" in module.text else _bases(node)
        if bases and node.name not in abstract:
            # The metadata of Flask-SQLAlchemy's db.Model is that of db.
            models.append(Found(module, node.name, bases[0].removesuffix(".Model")))
    return models


def _find_abstract(modules: list[Module]) -> set[str]:
    """Return the names of base classes, and of abstract classes on them."""
    names = set()
    for module in modules:
        names.update(_LIBRARY_BASE.findall(module.text))
        names.update(name for name, called in _made(module) if _NEW_BASE.match(called))
    for _ in range(_DEPTH):
        for _, node in _classes(modules):
            words = {word for base in _bases(node) for word in base.split(".")}
            is_abstract = "__abstract__" in ast.unparse(node)
            if any(map(_NEW_BASE.match, words)) or (is_abstract and names & words):
                names.add(node.name)
    return names


def find_base(models: list[Found]) -> str:
    """Return the base of most models, as ``module:Base``, in the module that has most of them."""
    places = Counter((model.module.name, model.base) for model in models)
    [((module, base), _)] = places.most_common(1)
    return f"{module}:{base}"


def _classes(modules: list[Module]) -> Iterator[tuple[Module, ast.ClassDef]]:
    for module in modules:
        for node in module.body:
            if isinstance(node, ast.ClassDef):
                yield module, node


def _bases(node: ast.ClassDef) -> list[str]:
    return [ast.unparse(base) for base in node.bases]


def _made(module: Module) -> Iterator[tuple[str, str]]:
    """Yield each assigned name, and the last word of what is called for its value."""
    for node in module.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            yield ast.unparse(target), _called(node.value)


def _called(node: ast.AST | None) -> str:
    """Return the last word of what a call calls, "" for another node."""
    if not isinstance(node, ast.Call):
        return ""
    return ast.unparse(node.func).rpartition(".")[2]
