"""How large is the house? What `test_house` and `make lower` measure in the package.

A *code line* holds something other than a comment, a blank or a docstring. The length of a
function is that of its body: neither decorators nor parameters count. *Nesting* is the depth of
`if`, `for`, `while`, `with`, `try` and `match`; `elif` opens no level. A function inside a function
is measured on its own, and its lines belong to the outer one too.

What exceeds its limit today stands in `house_exceptions.txt`: the measure, today's figure, and the
reason. The list only shrinks: `make lower` lowers its figures to those of today.
"""

from __future__ import annotations

import ast
import io
import re
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
MAP = ROOT / "docs" / "explanation" / "the-house.md"
EXCEPTIONS = Path(__file__).with_name("house_exceptions.txt")

MODULES_OF_A_FOLDER = 14
WORDS_OF_A_CELL = 40
# They stand before the same seam, so that modules of theirs may have the same name.
PRODUCTS = ("_sqlite", "_postgresql")


@dataclass(frozen=True, slots=True)
class Source:
    """A Python file: its path, seen from the package or from the project, and its text."""

    path: str
    text: str

    @property
    def room(self) -> str:
        """The room of the house that the file stands in: `_gate` for `_gate/_loops.py`."""
        return self.path.split("/")[0].removesuffix(".py")


Function = ast.FunctionDef | ast.AsyncFunctionDef
Block = ast.If | ast.For | ast.AsyncFor | ast.While | ast.With | ast.AsyncWith | ast.Try
Block |= ast.TryStar | ast.Match


@cache
def parsed(source: Source) -> ast.Module:
    """The syntax tree of a file; each rule reads every file, so it is kept."""
    return ast.parse(source.text)


@cache
def code_lines(source: Source) -> frozenset[int]:
    """The numbers of the lines that hold code."""
    silent = {
        *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
        *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
    }
    spoken = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source.text).readline)
        if token.type not in silent
        for line in range(token.start[0], token.end[0] + 1)
    }
    return frozenset(spoken) - docstring_lines(parsed(source))


def docstring_lines(tree: ast.Module) -> set[int]:
    """The numbers of the lines of all strings that stand alone: docstrings, notes on attributes."""
    return {line for node in ast.walk(tree) if is_docstring(node) for line in lines_of(node)}


def is_docstring(node: ast.AST) -> TypeGuard[ast.Expr]:
    """Whether a node is a string that stands alone as a statement."""
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


def definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Every class and function below a node, with its qualified name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.ClassDef):
            yield prefix + child.name, child
            yield from definitions(child, f"{prefix}{child.name}.")
        else:
            yield from definitions(child, prefix)


def public_definitions(
    tree: ast.Module,
) -> Iterator[tuple[str, ast.Module | Function | ast.ClassDef]]:
    """The module, and what a reader may use from it: nothing with an underscore on the way."""
    yield "module", tree
    hidden = [f"{name}." for name, node in definitions(tree) if isinstance(node, Function)]
    for name, node in definitions(tree):
        inside_function = name.startswith(tuple(hidden))
        if inside_function or any(part.startswith("_") for part in name.split(".")):
            continue
        # These say again what is documented elsewhere.
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
    """What is counted, how large it may be, and what finds it: a figure, or the places."""

    name: str
    limit: int
    find: Callable[[list[Source]], int | list[str]]

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
    """The folders with more modules than a reader keeps in mind."""
    counts = Counter(str(PurePosixPath(source.path).parent) for source in files)
    return [f"{each}: {n} modules" for each, n in counts.items() if n > MODULES_OF_A_FOLDER]


def modules_named_twice(files: list[Source]) -> list[str]:
    """Names that two modules share; both products' sides of the seam count as one."""
    places = defaultdict(set)
    for source in files:
        *folders, name = PurePosixPath(source.path).with_suffix("").parts
        is_seam = folders in ([], *([product] for product in PRODUCTS))
        places[name].add("the seam" if is_seam else source.path)
    places.pop("__init__", None)
    return [f"{name}: {', '.join(sorted(at))}" for name, at in places.items() if len(at) > 1]


def classes_named_twice(files: list[Source]) -> list[str]:
    """Names that classes of two modules share."""
    places = defaultdict(set)
    for source in files:
        for node in ast.walk(parsed(source)):
            if isinstance(node, ast.ClassDef):
                places[node.name].add(source.path)
    return [f"{name}: {', '.join(sorted(at))}" for name, at in places.items() if len(at) > 1]


def rows_of_the_map(text: str) -> Iterator[tuple[str, str]]:
    """Each row of the map: the path of the module, and what is said of it.

    The map has a heading for each room (``### `/_gate/` …``), and below it a table with a row for
    each module, whose first cell is the name. The heading of the package itself is ``### `/` …``.
    """
    place = None
    for line in text.splitlines():
        if line.startswith("#"):
            heading = re.match(r"### `/([\w/]*)`", line)
            place = heading and heading[1].strip("/")
        elif place is not None and (row := re.match(r"\| `(\w+)` \| (.*) \|$", line)):
            yield str(PurePosixPath(place, f"{row[1]}.py")), row[2].strip()


def faults_of_the_map(files: list[Source], text: str) -> list[str]:
    """Modules that the map does not name, or names twice; names of none; cells that are long."""
    rows = list(rows_of_the_map(text))
    named = Counter(path for path, _ in rows)
    modules = {source.path for source in files if not source.path.endswith("__init__.py")}
    long = [(path, n) for path, cell in rows if (n := len(cell.split())) > WORDS_OF_A_CELL]
    return [
        *(f"{path}: {words} words on the map" for path, words in long),
        *(f"{path}: not on the map" for path in sorted(modules - set(named))),
        *(f"{path}: on the map, not in the tree" for path in sorted(set(named) - modules)),
        *(f"{path}: {n} times on the map" for path, n in named.items() if n > 1),
    ]


def draw_map(files: list[Source], text: str) -> str:
    """Return the page with a row for each module and a heading for each room that there is.

    What was said of a module is kept; a new one has the first line of its docstring.
    """
    before, _, rest = text.partition("\n## Rooms\n")
    said = dict(rows_of_the_map(text))
    rooms: dict[str, list[str]] = defaultdict(list)
    questions = {}
    for source in files:
        folder, first = str(PurePosixPath(source.path).parent), ast.get_docstring(parsed(source))
        summary = (first or "").partition("\n")[0].replace("|", "\\|")
        if source.path.endswith("__init__.py"):
            questions[folder] = summary
        else:
            cell = said.get(source.path, summary)
            rooms[folder].append(f"| `{PurePosixPath(source.path).stem}` | {cell} |")
    tables = [
        f"### `/{'' if room == '.' else room + '/'}` {questions.get(room, '')}\n\n"
        "| module | what it is for |\n| --- | --- |\n" + "\n".join(rooms[room])
        for room in sorted(rooms)
    ]
    return f"{before}\n## Rooms\n\n" + "\n\n".join(tables) + "\n" + rest[rest.index("\n## ") :]


MEASURES = (
    Measure("folders with many modules", 0, wide_folders),
    Measure("module names twice", 0, modules_named_twice),
    Measure("class names twice", 0, classes_named_twice),
    Measure("faults of the map", 0, lambda files: faults_of_the_map(files, MAP.read_text("utf-8"))),
)


def exceptions() -> dict[str, tuple[int, str]]:
    """What the list allows: each measure's figure, and the reason."""
    lines = EXCEPTIONS.read_text(encoding="utf-8").splitlines()
    rows = [line.split(" | ") for line in lines if line and not line.startswith("#")]
    return {name: (int(figure), reason) for name, figure, reason in rows}


def lower(measures: Iterable[Measure]) -> list[str]:
    """Lower the list to today's figures, drop what keeps its limit; return what has changed.

    A figure is never raised: who needs that writes it, and answers for it.
    """
    kept, changed = [], []
    by_name = {measure.name: measure for measure in measures}
    for line in EXCEPTIONS.read_text(encoding="utf-8").splitlines():
        name, *rest = line.split(" | ")
        measure = by_name.get(name)
        if measure is None or (today := measure.figure()) >= int(rest[0]):
            kept.append(line)
            continue
        changed.append(f"{name}: {rest[0]} -> {today}")
        if today > measure.limit:
            kept.append(f"{name} | {today} | {rest[1]}")
    EXCEPTIONS.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return changed
