"""Measures of how plainly the package is written: density of code, and habits of prose.

- *Density* is the number of syntax nodes per code line. httpx, trio, pytest-django and svcs have
  5.1 to 6.2.
- A *habit* is a wording that makes a sentence slow to read: a hidden actor ("nobody"), a metaphor
  in the place of a verb ("stands"), a statement that begins like a question. The four model
  projects have 0 to 12 habits in 10,000 words.

A measure finds places to look at. Only a reader can say whether a sentence is understood.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from tests.architecture import (
    Measure,
    code_and_comments,
    code_lines,
    is_docstring,
    nodes,
    parsed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.architecture import Source

NODES_OF_A_LINE = 7.0
NODES_OF_A_LINE_IN_A_MODULE = 8.0

PRONOUNS = {"one", "it", "they", "told", "found", "given", "every", "seen", "asked", "whoever"}

WEAK_COLLECTIONS = {"WeakKeyDictionary", "WeakValueDictionary", "WeakSet"}

HABITS = re.compile(
    r"""\b(?:
        stands? | stood | standing
        | nobody | somebody | anybody | whoever
        | tells? | told
        | of\ (?:its|their|his|your|our)\ own | \w+'s\ own
        | anew | all\ the\ same | by\ then | but\ for
        | so\ it\ is | so\ (?:is|are) | (?:is|are)\ none
        | (?:is|are|was|were)\ there(?=[.,;:)]|\ any\b|$)
        | (?:has|have|had)\ (?:come|gone)
        | (?:comes|goes)\ (?:and|with|on|back|away|out|in)
        | as\ (?:said|above|below)
    )\b""",
    re.VERBOSE | re.IGNORECASE,
)
QUESTION_WORD = re.compile(r"(?:What|Whoever|Who|Whose|Whom|Else|Where)\b")

# A message has this many words in small letters; shorter strings are names and labels.
WORDS_OF_A_MESSAGE = 5
SQL_WORD = re.compile(r"\b(?:SELECT|FROM|INSERT|CREATE|PRAGMA|BEGIN|RETURN)\b")
TOOL_COMMENT = re.compile(r"#\s*(?:noqa|type:|pragma|!|ruff|mypy)")


def syntax_nodes(files: list[Source]) -> int:
    """The size of the package: its syntax nodes, which no layout of lines can change."""
    return sum(_nodes(source) for source in files)


def density(files: list[Source]) -> int:
    """Syntax nodes per 100 code lines of the package."""
    lines = sum(len(code_lines(source)) for source in files)
    return round(100 * syntax_nodes(files) / lines)


def dense_modules(files: list[Source]) -> list[str]:
    """Modules with too many syntax nodes per code line."""
    dense = []
    for source in files:
        nodes_of_a_line = _nodes(source) / max(1, len(code_lines(source)))
        if nodes_of_a_line > NODES_OF_A_LINE_IN_A_MODULE:
            dense.append(f"{source.path}: {nodes_of_a_line:.1f} nodes per code line")
    return dense


def _nodes(source: Source) -> int:
    return len(nodes(parsed(source)))


def hidden_walruses(files: list[Source]) -> list[str]:
    """Walruses inside a condition with `and` or `or`, and statements with two of them."""
    return _places(files, _hidden_walruses)


def _hidden_walruses(tree: ast.Module) -> Iterator[ast.AST]:
    for node in nodes(tree):
        match node:
            case ast.BoolOp() if _walruses(node):
                yield node
            case ast.stmt() if len(_walruses(*_expressions(node))) > 1:
                yield node


def _walruses(*roots: ast.AST) -> list[ast.NamedExpr]:
    inside = (node for root in roots for node in ast.walk(root))
    return [node for node in inside if isinstance(node, ast.NamedExpr)]


def _expressions(statement: ast.stmt) -> list[ast.expr]:
    """The expressions of a statement, without those of the statements inside it."""
    children = ast.iter_child_nodes(statement)
    return [child for child in children if isinstance(child, ast.expr)]


def packed_assignments(files: list[Source]) -> list[str]:
    """`a, b = x, y`: two steps on one line. `a, b = b, a` exchanges values and is one step."""
    return _places(files, _packed_assignments)


def _packed_assignments(tree: ast.Module) -> Iterator[ast.AST]:
    for node in nodes(tree):
        match node:
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                names = sorted(ast.unparse(target) for target in targets)
                if names != sorted(ast.unparse(value) for value in values):
                    yield node


def conditions_as_factors(files: list[Source]) -> list[str]:
    """`text * condition`: an `if` that looks like arithmetic."""
    return _places(files, _conditions_as_factors)


def _conditions_as_factors(tree: ast.Module) -> Iterator[ast.AST]:
    for node in nodes(tree):
        match node:
            case ast.BinOp(
                left=ast.List() | ast.Tuple() | ast.JoinedStr() | ast.Constant(value=str()),
                op=ast.Mult(),
                right=ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not()),
            ):
                yield node
            case ast.BinOp(
                left=ast.List() | ast.Tuple() | ast.JoinedStr() | ast.Constant(value=str()),
                op=ast.Mult(),
                right=ast.Name(id=name) | ast.Attribute(attr=name),
            ) if name.startswith(("is_", "has_", "was_", "needs_")):
                yield node


def pronoun_names(files: list[Source]) -> list[str]:
    """Variables and parameters with a name that says nothing: `one`, `it`, `told`."""
    return _places(files, _pronoun_names)


def _pronoun_names(tree: ast.Module) -> Iterator[ast.AST]:
    for node in nodes(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) if name in PRONOUNS:
                yield node


def weak_collections(files: list[Source]) -> list[str]:
    """Weak dictionaries and sets: what is known about an object, kept beside the object."""
    return _places(files, _weak_collections)


def _weak_collections(tree: ast.Module) -> Iterator[ast.AST]:
    for node in nodes(tree):
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
                if name in WEAK_COLLECTIONS:
                    yield node


def assignments_from_outside(files: list[Source]) -> list[str]:
    """Attributes of another object that are assigned; an object's owner changes its state."""
    return _places(files, _assignments_from_outside)


def _assignments_from_outside(tree: ast.Module) -> Iterator[ast.AST]:
    for node in nodes(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls"), ctx=ast.Store()):
                continue
            case ast.Attribute(ctx=ast.Store()):
                yield node


def anys(files: list[Source]) -> int:
    """How often 1,000 code lines name `Any`."""
    names = 0
    for source in files:
        for node in nodes(parsed(source)):
            names += isinstance(node, ast.Name) and node.id == "Any"
    lines = sum(len(code_lines(source)) for source in files)
    return round(1000 * names / lines)


def unknown_errors(files: list[Source]) -> list[str]:
    """Names under `Raises:` in a docstring that no class of the package or of Python has."""
    known = {*dir(builtins), *_KNOWN_ERRORS}
    for source in files:
        for node in nodes(parsed(source)):
            if isinstance(node, ast.ClassDef):
                known.add(node.name)
    unknown: list[str] = []
    for source in files:
        for line, text in docstrings(source):
            _, _, raises = text.partition("Raises:\n")
            names = re.findall(r"^ +`?([A-Z]\w+)`?:", raises, re.MULTILINE)
            places = (f"{source.path}:{line}: {name}" for name in names if name not in known)
            unknown.extend(places)
    return unknown


# Errors of pytest and SQLAlchemy that docstrings of the package name.
_KNOWN_ERRORS = {
    "UsageError",
    "StaleDataError",
    "OperationalError",
    "InterfaceError",
    "DisconnectionError",
    "WebSocketDisconnect",
}


def _places(files: list[Source], find: Callable[[ast.Module], Iterator[ast.AST]]) -> list[str]:
    places = []
    for source in files:
        lines = source.text.splitlines()
        for node in find(parsed(source)):
            line = getattr(node, "lineno", 1)
            places.append(f"{source.path}:{line}: {lines[line - 1].strip()}")
    return places


def docstrings(source: Source) -> Iterator[tuple[int, str]]:
    """Each docstring of a file and the number of its first line."""
    for node in nodes(parsed(source)):
        if is_docstring(node) and isinstance(node.value, ast.Constant):
            yield node.lineno, str(node.value.value)


def comments(source: Source) -> Iterator[tuple[int, str]]:
    """Each block of comments and the number of its first line."""
    block: dict[int, list[str]] = defaultdict(list)
    first = last = 0
    _, found = code_and_comments(source)
    for line, text in found:
        if TOOL_COMMENT.match(text):
            continue
        if line != last + 1:
            first = line
        block[first].append(text.lstrip("# "))
        last = line
    for first_line, texts in block.items():
        yield first_line, " ".join(texts)


def messages(source: Source) -> Iterator[tuple[int, str]]:
    """Each string that a user may read and the number of its line."""
    tree = parsed(source)
    silent = {id(node.value) for node in nodes(tree) if is_docstring(node)}
    for node in nodes(tree):
        match node:
            case ast.JoinedStr(values=parts):
                text = "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "X" for part in parts
                )
            case ast.Constant(value=str(text)) if id(node) not in silent:
                pass
            case _:
                continue
        words = re.findall(r"\b[a-z]{2,}\b", text)
        if len(words) >= WORDS_OF_A_MESSAGE and not SQL_WORD.search(text):
            yield node.lineno, text


def sentences(text: str) -> list[str]:
    """The sentences of a text, without its examples and with `CODE` for each word of code."""
    text = re.sub(r"(?s:```.*?```)|^(?:    |\t).*$", " ", text, flags=re.MULTILINE)
    text = re.sub(r"`+[^`]*`+", "CODE", text)
    parts = re.split(r"(?<=[.!?:])\s+(?=[\"'(]?[A-Z`])|\n\s*\n", text)
    return [part.strip() for part in parts if len(part.split()) > 2]


def habits(sentence: str) -> int:
    """The number of habits in a sentence."""
    number = len(HABITS.findall(sentence))
    is_question = sentence.rstrip(" .").endswith("?")
    if QUESTION_WORD.match(sentence) and not is_question:
        number += 1
    return number


def habits_of(
    read: Callable[[Source], Iterator[tuple[int, str]]],
) -> Callable[[list[Source]], int]:
    """Make a measure: the habits in 10,000 words of docstrings, comments or messages."""

    def figure(files: list[Source]) -> int:
        counts: Counter[str] = Counter()
        for source in files:
            for _, text in read(source):
                for sentence in sentences(text):
                    counts["words"] += len(sentence.split())
                    counts["habits"] += habits(sentence)
        return round(10_000 * counts["habits"] / max(1, counts["words"]))

    return figure


LANGUAGE = (
    Measure("syntax nodes", 245_000, syntax_nodes, slack=5_000),
    Measure("nodes per 100 code lines", round(100 * NODES_OF_A_LINE), density),
    Measure("dense modules", 0, dense_modules),
    Measure("walruses in conditions", 0, hidden_walruses),
    Measure("packed assignments", 0, packed_assignments),
    Measure("conditions as factors", 0, conditions_as_factors),
    Measure("pronouns as names", 0, pronoun_names),
    Measure("weak collections", 14, weak_collections),
    Measure("assignments from outside", 60, assignments_from_outside),
    Measure("Any per 1,000 code lines", 15, anys),
    Measure("unknown names under Raises", 0, unknown_errors),
    Measure("habits in docstrings", 15, habits_of(docstrings)),
    Measure("habits in comments", 15, habits_of(comments)),
    Measure("habits in messages", 15, habits_of(messages)),
)
