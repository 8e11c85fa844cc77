"""Measures the structure of the package for `test_architecture` and `make lower`.

A *code line* holds something other than a comment, a blank or a docstring. The length of a
function is that of its body without decorators and parameters. *Nesting* is the depth of `if`,
`for`, `while`, `with`, `try` and `match`; `elif` opens no level. A function inside a function is
measured by itself, and its lines belong to the outer one too.

`architecture_exceptions.txt` lists each figure that exceeds its limit, with the reason. `make
lower` lowers these figures to those of today. It never raises one.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "pytest_arena"
MAP = ROOT / "docs" / "explanation" / "architecture.md"
EXCEPTIONS = Path(__file__).with_name("architecture_exceptions.txt")

MODULES_OF_A_FOLDER = 14
MAP_HEADING = "\n## Packages and modules\n"
# Both fulfil one interface, so their modules may have the same names.
PRODUCTS = ("_sqlite", "_postgresql", "_mysql")


@dataclass(frozen=True, slots=True)
class Source:
    """A Python file: its path, seen from the package or from the project, and its text."""

    path: str
    text: str

    @property
    def package(self) -> str:
        """The top package of the file: `_gate` for `_gate/loops/_any_loop.py`."""
        return self.path.split("/")[0].removesuffix(".py")


Function = ast.FunctionDef | ast.AsyncFunctionDef
Block = ast.If | ast.For | ast.AsyncFor | ast.While | ast.With | ast.AsyncWith | ast.Try
Block |= ast.TryStar | ast.Match


@cache
def parsed(source: Source) -> ast.Module:
    """The syntax tree of a file; each rule reads every file, so it is kept."""
    return ast.parse(source.text)


@cache
def nodes(tree: ast.Module) -> tuple[ast.AST, ...]:
    """Every node of a file's tree. Twenty measures read them, and `ast.walk` is slow."""
    return tuple(ast.walk(tree))


@cache
def code_and_comments(source: Source) -> tuple[frozenset[int], tuple[tuple[int, str], ...]]:
    """The numbers of the lines that hold code, and each comment with its line: read once.

    The tokens themselves are too many to be kept.
    """
    silent = {
        *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
        *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
    }
    spoken: set[int] = set()
    found = []
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT:
            found.append((token.start[0], token.string))
        elif token.type not in silent:
            spoken.update(range(token.start[0], token.end[0] + 1))
    return frozenset(spoken), tuple(found)


@cache
def code_lines(source: Source) -> frozenset[int]:
    """The numbers of the lines that hold code."""
    spoken, _ = code_and_comments(source)
    return spoken - docstring_lines(parsed(source))


def docstring_lines(tree: ast.Module) -> set[int]:
    """The numbers of the lines of docstrings and of notes on attributes."""
    return {line for node in nodes(tree) if is_docstring(node) for line in lines_of(node)}


def is_docstring(node: ast.AST) -> TypeGuard[ast.Expr]:
    """Whether a statement consists of a string alone."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def lines_of(first: ast.stmt, last: ast.stmt | None = None) -> range:
    """The numbers of the lines from one statement to another, or of one alone."""
    end = (last or first).end_lineno
    assert end is not None, "a parsed statement knows where it ends"
    return range(first.lineno, end + 1)


def functions(source: Source) -> Iterator[tuple[str, Function]]:
    """Every function with its place, `file:Class.name`; stubs of overloads are left out."""
    for name, node in definitions(parsed(source)):
        if isinstance(node, Function) and not is_decorated(node, {"overload"}):
            yield f"{source.path}:{name}", node


def function_lengths(source: Source) -> Iterator[tuple[str, int]]:
    """Every function's place and the number of code lines in its body."""
    lines = code_lines(source)
    for where, function in functions(source):
        yield where, len(lines.intersection(lines_of(function.body[0], function.body[-1])))


@cache
def definitions(tree: ast.Module) -> tuple[tuple[str, Function | ast.ClassDef], ...]:
    """Every class and function of a file, with its qualified name."""
    return tuple(definitions_below(tree, ""))


def definitions_below(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Every class and function below a node; an expression holds none."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.ClassDef):
            yield prefix + child.name, child
            yield from definitions_below(child, f"{prefix}{child.name}.")
        elif not isinstance(child, ast.expr):
            yield from definitions_below(child, prefix)


def public_definitions(
    tree: ast.Module,
) -> Iterator[tuple[str, ast.Module | Function | ast.ClassDef]]:
    """The module and its public definitions: no part of their names has an underscore."""
    yield "module", tree
    hidden = [f"{name}." for name, node in definitions(tree) if isinstance(node, Function)]
    for name, node in definitions(tree):
        inside_function = name.startswith(tuple(hidden))
        if inside_function or any(part.startswith("_") for part in name.split(".")):
            continue
        # Their docstrings are elsewhere.
        if not is_decorated(node, {"overload", "override", "setter", "deleter"}):
            yield name, node


def is_decorated(node: Function | ast.ClassDef, names: set[str]) -> bool:
    """Whether one of a definition's decorators has one of these names, as `x` or as `a.x`."""
    return any(ast.unparse(each).split(".")[-1] in names for each in node.decorator_list)


def nesting(statement: ast.stmt) -> int:
    """How many blocks a statement opens within one another."""
    if not isinstance(statement, Block):
        return 0
    return max(
        nesting(inner) + (not is_elif(statement, inner)) for inner in statements_below(statement)
    )


def statements_below(block: Block) -> Iterator[ast.stmt]:
    """The statements of all branches of a block."""
    for child in ast.iter_child_nodes(block):
        if isinstance(child, ast.stmt):
            yield child
        elif isinstance(child, ast.ExceptHandler | ast.match_case):
            yield from child.body


def is_elif(outer: ast.stmt, inner: ast.stmt) -> bool:
    """Whether an `if` continues another one: both then begin in the same column."""
    is_pair = isinstance(outer, ast.If) and isinstance(inner, ast.If)
    return is_pair and outer.col_offset == inner.col_offset


@cache
def sources(folder: Path, seen_from: Path) -> list[Source]:
    """All Python files below a folder."""
    return [
        Source(path.relative_to(seen_from).as_posix(), path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.py"))
    ]


def package() -> list[Source]:
    """The files of the package."""
    return sources(PACKAGE, PACKAGE)


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of the package and its limit. `find` returns the figure, or the places to count.

    `make lower` leaves `slack` above the figure of today, so that a feature has space.
    """

    name: str
    limit: int
    find: Callable[[list[Source]], int | list[str]]
    slack: int = 0

    def __str__(self) -> str:
        return self.name

    def figure(self) -> int:
        """The figure, or how many places there are."""
        found = self.find(package())
        return found if isinstance(found, int) else len(found)

    def places(self) -> str:
        """The places, a line for each."""
        found = self.find(package())
        return "" if isinstance(found, int) else "\n".join(found)


def wide_folders(files: list[Source]) -> list[str]:
    """Folders with more than 14 modules."""
    counts = Counter(str(PurePosixPath(source.path).parent) for source in files)
    return [f"{each}: {n} modules" for each, n in counts.items() if n > MODULES_OF_A_FOLDER]


def modules_named_twice(files: list[Source]) -> list[str]:
    """Names that two modules share; modules of the products count as one."""
    places = defaultdict(set)
    for source in files:
        *folders, name = PurePosixPath(source.path).with_suffix("").parts
        is_interface = folders in ([], *([product] for product in PRODUCTS))
        places[name].add("an interface" if is_interface else source.path)
    places.pop("__init__", None)
    return [f"{name}: {', '.join(sorted(at))}" for name, at in places.items() if len(at) > 1]


def classes_named_twice(files: list[Source]) -> list[str]:
    """Names that classes of two modules share."""
    places = defaultdict(set)
    for source in files:
        for node in nodes(parsed(source)):
            if isinstance(node, ast.ClassDef):
                places[node.name].add(source.path)
    return [f"{name}: {', '.join(sorted(at))}" for name, at in places.items() if len(at) > 1]


def draw_map(files: list[Source], text: str) -> str:
    """Return the page with an item for each package, and for each module outside of packages.

    An item has the first line of the docstring, so that the text exists once.
    """
    before, _, rest = text.partition(MAP_HEADING)
    after = rest[rest.index("\n## ") :]
    modules = []
    packages = []
    for source in files:
        path = PurePosixPath(source.path)
        docstring = ast.get_docstring(parsed(source)) or ""
        summary = docstring.partition("\n")[0]
        folder = str(path.parent)
        if folder == ".":
            if path.name != "__init__.py":
                modules.append(f"- `{path.name}`: {summary}")
        elif path.name == "__init__.py":
            packages.append(f"- `{folder}`: {summary}")
    packages.sort(key=lambda item: item.partition("`:")[0])
    items = "\n".join(packages + sorted(modules))
    return before + MAP_HEADING + "\n" + items + "\n" + after


MEASURES = (
    Measure("folders with many modules", 0, wide_folders),
    Measure("module names twice", 0, modules_named_twice),
    Measure("class names twice", 0, classes_named_twice),
)


def exceptions() -> dict[str, tuple[int, str]]:
    """Return the figure and the reason of each exception, by the name of its measure."""
    lines = EXCEPTIONS.read_text(encoding="utf-8").splitlines()
    rows = [line.split(" | ") for line in lines if line and not line.startswith("#")]
    return {name: (int(figure), reason) for name, figure, reason in rows}


def lower(measures: Iterable[Measure]) -> list[str]:
    """Lower the list to the figures of today and return the changes.

    An exception that is no longer needed is removed. A person who raises a figure edits the file.
    """
    kept = []
    changed = []
    by_name = {measure.name: measure for measure in measures}
    for line in EXCEPTIONS.read_text(encoding="utf-8").splitlines():
        name, *rest = line.split(" | ")
        measure = by_name.get(name)
        if measure is None:
            kept.append(line)
            continue
        today = measure.figure() + measure.slack
        allowed = int(rest[0])
        if today >= allowed:
            kept.append(line)
            continue
        changed.append(f"{name}: {allowed} -> {today}")
        if today > measure.limit:
            kept.append(f"{name} | {today} | {rest[1]}")
    EXCEPTIONS.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return changed
