"""Which scenarios have a test already, by what stands in the code of the tests?

The code is read and not run: this needs no database, and works where tests cannot be collected.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["Binding", "Marker", "bindings", "markers", "python_files"]

# What pytest does not look into either (its norecursedirs), or is nobody's test.
_NOT_INTO = {"node_modules", "build", "dist", "venv", "CVS", "_darcs", "__pycache__"}


@dataclass(frozen=True, slots=True)
class Marker:
    """One ``pytest.mark.scenario(…)``: its arguments, and where it stands."""

    arguments: tuple[object, ...]
    options: Mapping[str, Any]
    file: Path
    line: int


@dataclass(frozen=True, slots=True)
class Binding:
    """What pytest-bdd makes tests of: a feature file, or a folder of them; one scenario, or all."""

    path: str
    name: str = ""


def python_files(folder: Path) -> Iterator[Path]:
    """All Python files below a folder, or the one file; what cannot be looked into is left out."""
    if folder.is_file():
        yield folder
        return
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix == ".py" and path.is_file():
            yield path
        elif path.is_dir() and not path.is_symlink() and _is_for_tests(path):
            yield from python_files(path)


def _is_for_tests(folder: Path) -> bool:
    is_other = folder.name in _NOT_INTO or folder.name.startswith(".")
    return not is_other and not (folder / "pyvenv.cfg").exists()


def markers(file: Path) -> Iterator[Marker]:
    """The markers in a file: of functions, classes, parameters, and in ``pytestmark``.

    Names that the module gives to the marker, or to texts in it, are understood. A file that
    cannot be read as Python has none.
    """
    if (tree := _read(file)) is not None:
        yield from _Reader(file, _constants(tree)).markers(tree)


def bindings(file: Path) -> Iterator[Binding]:
    """What pytest-bdd's ``scenario`` and ``scenarios`` are called with in a file."""
    tree = _read(file)
    if tree is None or b"pytest_bdd" not in file.read_bytes():
        return
    reader = _Reader(file, _constants(tree))
    for call in _calls(tree):
        name = ast.unparse(call.func).rpartition(".")[2]
        texts = [text for one in call.args if isinstance(text := reader.value(one), str)]
        if name == "scenarios":
            yield from map(Binding, texts)
        elif name == "scenario" and len(texts) == 2:  # noqa: PLR2004 - a file and a name
            yield Binding(*texts)


def _read(file: Path) -> ast.Module | None:
    try:
        code = file.read_bytes()
        return ast.parse(code) if b"scenario" in code else None
    except (OSError, ValueError, SyntaxError):
        return None


def _calls(tree: ast.Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    """What the module's names were given, at the top."""
    given = (node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign))
    return {
        target.id: node.value
        for node in given
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and node.value is not None
    }


@dataclass(frozen=True, slots=True)
class _Reader:
    file: Path
    names: Mapping[str, ast.expr] = field(default_factory=dict)

    def markers(self, tree: ast.Module) -> Iterator[Marker]:
        for call in _calls(tree):
            if self._is_marker(call.func):
                arguments = tuple(map(self.value, call.args))
                options = {one.arg: self.value(one.value) for one in call.keywords if one.arg}
                yield Marker(arguments, options, self.file, call.lineno)

    def _is_marker(self, node: ast.expr) -> bool:
        match self._meant(node):
            case ast.Attribute(value=ast.Name(id="mark"), attr="scenario"):
                return True
            case ast.Attribute(value=ast.Attribute(attr="mark"), attr="scenario"):
                return True
        return False

    def value(self, node: ast.expr) -> object:
        """The argument; None where only a run would know it."""
        try:
            return ast.literal_eval(self._meant(node))
        except ValueError:
            return None

    def _meant(self, node: ast.expr) -> ast.expr:
        """What a name of the module stands for, else the very node."""
        return self.names.get(node.id, node) if isinstance(node, ast.Name) else node
