"""Is the house in order where no linter looks?

The floors are import-linter's to check, the look of the code ruff's, the types mypy's. Here is the
rest: the size of things, where SQL and SQLAlchemy's events may stand, what the front door shows.

How things are counted:

- A *code line* holds something other than a comment, a blank or a docstring.
- The length of a function is that of its body: neither decorators nor parameters count.
- *Parameters* are those that may be given by position, without `self` and `cls`. Options after `*`
  are read by name and do not count, nor do `*args` and `**kwargs`.
- *Nesting* is the depth of `if`, `for`, `while`, `with`, `try` and `match`; `elif` opens no level.
- A function inside a function is measured on its own, and its lines belong to the outer one too.
"""

import ast
import importlib
import inspect
import io
import math
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "pytest_arena"

MODULE_LINES = 350
FUNCTION_LINES = 60
NINE_IN_TEN_FUNCTION_LINES = 20
LEVELS = 3
PARAMETERS = 5

# What breaks a rule and may: (name of the rule, where) → the sentence that says why.
EXCEPTIONS: dict[tuple[str, str], str] = {}

# SQL at the start of a string: a keyword in capitals before something else, a command that needs
# nothing else, or, in small letters, enough words to tell it from English. A lone "DELETE" is a
# method of HTTP.
SQL = re.compile(
    r"""\s*(?:
        (?:ALTER|ANALYZE|ATTACH|CALL|COPY|CREATE|DELETE|DETACH|DROP|EXPLAIN|GRANT|INSERT|LOCK|MERGE
          |PRAGMA|REINDEX|RELEASE|REPLACE|REVOKE|SAVEPOINT|SELECT|SET|SHOW|TRUNCATE|UPDATE|VACUUM
          |VALUES|WITH)\s
        | (?:BEGIN|COMMIT|ROLLBACK|VACUUM)\s*;?\s*$
        | (?i:BEGIN|START)\s+(?i:DEFERRED|EXCLUSIVE|IMMEDIATE|TRANSACTION)\b
        | (?i:ROLLBACK|RELEASE)\s+(?i:TO|SAVEPOINT)\b
        | (?i:select\s+(?:\*|\d|count\b|exists\b|[\w.,\s]+\sfrom\b)
            | insert\s+into\s | delete\s+from\s | update\s+\S+\s+set\s | pragma\s+\w+\s*(?:[=(;]|$)
            | attach\s+database\s | (?:create|drop|alter)\s+(?:table|index|trigger|view|schema)\s)
    )""",
    re.VERBOSE,
)

# A comment, or the part of one, that tells a tool to be quiet.
SILENCER = re.compile(
    r"""\#\s*(?:
        (?:type|pyright|ty):\s*ignore(?:\[[^\]]*\])?
        | (?:(?:ruff|flake8):\s*)?noqa(?::\s*[A-Z]+\d+(?:[,\s]+[A-Z]+\d+)*)?
        | ruff:\s*(?:disable|enable|ignore)\[[^\]]*\]
        | mypy:\s*\S+
        | fmt:\s*(?:off|skip) | pragma:\s*no\s*(?:cover|branch)
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Source:
    """A Python file: its path, seen from the package or from the project, and its text."""

    path: str
    text: str

    @property
    def room(self) -> str:
        """The room of the house that the file stands in: `_gate` for `_gate/_loops.py`."""
        return self.path.split("/")[0].removesuffix(".py")


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken rule: where, and what was found there."""

    where: str
    what: str


Rule = Callable[[Source], Iterator[Finding]]
Function = ast.FunctionDef | ast.AsyncFunctionDef
Block = ast.If | ast.For | ast.AsyncFor | ast.While | ast.With | ast.AsyncWith | ast.Try
Block |= ast.TryStar | ast.Match


def modules_are_short(source: Source) -> Iterator[Finding]:
    """A module has at most 350 code lines."""
    if (count := len(code_lines(source))) > MODULE_LINES:
        yield Finding(source.path, f"{count} code lines, at most {MODULE_LINES}")


def functions_are_short(source: Source) -> Iterator[Finding]:
    """No function has more than 60 code lines."""
    for where, count in function_lengths(source):
        if count > FUNCTION_LINES:
            yield Finding(where, f"{count} code lines, at most {FUNCTION_LINES}")


def functions_are_flat(source: Source) -> Iterator[Finding]:
    """No function nests deeper than three levels."""
    for where, function in functions(source):
        if (depth := max(map(nesting, function.body))) > LEVELS:
            yield Finding(where, f"{depth} levels, at most {LEVELS}")


def parameters_are_few(source: Source) -> Iterator[Finding]:
    """No function takes more than five parameters by position."""
    for where, function in functions(source):
        by_position = [*function.args.posonlyargs, *function.args.args]
        count = sum(parameter.arg not in {"self", "cls"} for parameter in by_position)
        if count > PARAMETERS:
            yield Finding(where, f"{count} parameters, at most {PARAMETERS}")


def public_names_are_documented(source: Source) -> Iterator[Finding]:
    """Every module, and every class, function and method without an underscore, has a docstring."""
    for name, node in public_definitions(parsed(source)):
        if not ast.get_docstring(node):
            yield Finding(f"{source.path}:{name}", "no docstring")


def names_say_something(source: Source) -> Iterator[Finding]:
    """No file or folder is named after nothing: one idea gets its own name."""
    for part in Path(source.path).with_suffix("").parts:
        if part.strip("_") in {"util", "utils", "helper", "helpers", "common", "misc"}:
            yield Finding(source.path, f"{part!r} says nothing about what is inside")


def events_are_the_gates(source: Source) -> Iterator[Finding]:
    """SQLAlchemy's events are listened to in `_gate` alone."""
    if source.room == "_gate":
        return
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.stmt | ast.expr) and names_sqlalchemy_event(node):
            yield Finding(f"{source.path}:{node.lineno}", "sqlalchemy.event outside _gate")


def sql_is_the_products(source: Source) -> Iterator[Finding]:
    """SQL text stands in the rooms of the products alone."""
    if source.room in {"_sqlite", "_postgresql"} or source.path == "_gate/_written.py":
        return
    for line, text in strings(parsed(source)):
        if SQL.match(text):
            yield Finding(f"{source.path}:{line}", f"SQL outside of a product: {text[:40]!r}")


def silence_has_a_reason(source: Source) -> Iterator[Finding]:
    """Whoever silences a tool says why, on the same line."""
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT and SILENCER.search(token.string):
            reason = SILENCER.sub("", token.string)
            if len(re.findall(r"[^\W\d_]+", reason)) < 2:
                yield Finding(f"{source.path}:{token.start[0]}", f"no reason: {token.string}")


def front_door_shows_all_it_imports(source: Source) -> Iterator[Finding]:
    """`__all__` of the front door is sorted, and holds exactly the public names brought in."""
    if source.path != "__init__.py":
        return
    tree = parsed(source)
    shown = declared_all(tree)
    for_types = [node for one in tree.body if isinstance(one, ast.If) for node in one.body]
    brought_in = {
        name
        for node in (*tree.body, *for_types)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if not (name := alias.asname or alias.name).startswith("_")
    }
    # From `__future__` and `typing`: they say how the file is read and bring nothing in.
    brought_in -= {"annotations", "TYPE_CHECKING"}
    if shown != sorted(shown):
        yield Finding(source.path, "__all__ is not sorted")
    for name in sorted(brought_in ^ {name for name in shown if not name.startswith("_")}):
        yield Finding(source.path, f"{name} is either imported or in __all__, not both")


# The rules of the package, and the one that holds for every Python file of the project.
HOUSE_RULES: tuple[Rule, ...] = (
    modules_are_short,
    functions_are_short,
    functions_are_flat,
    parameters_are_few,
    public_names_are_documented,
    names_say_something,
    events_are_the_gates,
    sql_is_the_products,
    front_door_shows_all_it_imports,
)
RULES: tuple[Rule, ...] = (*HOUSE_RULES, silence_has_a_reason)


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


def names_sqlalchemy_event(node: ast.AST) -> bool:
    """Whether a node imports `sqlalchemy.event` or reaches for it."""
    match node:
        case ast.Import(names=names):
            return any(alias.name.startswith("sqlalchemy.event") for alias in names)
        case ast.ImportFrom(module="sqlalchemy", names=names):
            return any(alias.name == "event" for alias in names)
        case ast.ImportFrom(module=str(module)):
            return module.startswith("sqlalchemy.event")
        case ast.Attribute(value=ast.Name(id="sqlalchemy" | "sa"), attr="event"):
            return True
    return False


def strings(node: ast.AST) -> Iterator[tuple[int, str]]:
    """The beginning of each string below a node, with its line; docstrings are no strings here."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Constant(value=str(text)):
                yield child.lineno, text
            case ast.JoinedStr(values=[ast.Constant(value=str(text)), *_]):
                yield child.lineno, text
            case ast.JoinedStr():
                continue
            case _ if not is_docstring(child):
                yield from strings(child)


def declared_all(tree: ast.Module) -> list[str]:
    """The names in `__all__`, as they are written."""
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return list(ast.literal_eval(value))
    return []


def ninth_of_ten(counts: Iterable[int]) -> int:
    """The size that nine in ten do not exceed."""
    ordered = sorted(counts)
    return ordered[math.ceil(len(ordered) * 0.9) - 1]


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


def project() -> list[Source]:
    """Every Python file that the project wrote."""
    folders = (ROOT / name for name in ("src", "tests", "examples", "bench"))
    return [source for folder in folders for source in sources(folder, ROOT)]


def broken(rule: Rule, files: list[Source]) -> list[str]:
    """What breaks a rule and has no exception."""
    return [
        f"{finding.where}: {finding.what}"
        for source in files
        for finding in rule(source)
        if (rule.__name__, finding.where) not in EXCEPTIONS
    ]


@pytest.mark.parametrize("rule", HOUSE_RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule: Rule) -> None:
    """No file of the package breaks the rule."""
    assert broken(rule, package()) == []


def test_whoever_silences_a_tool_says_why() -> None:
    """No file of the project silences a tool without a word."""
    assert broken(silence_has_a_reason, project()) == []


def test_nine_functions_in_ten_fit_into_twenty_lines() -> None:
    """The ninth of ten functions, by length, has at most 20 code lines."""
    counts = [count for source in package() for _, count in function_lengths(source)]
    assert counts, "no function was found"
    assert ninth_of_ten(counts) <= NINE_IN_TEN_FUNCTION_LINES


def test_every_exception_is_needed_and_says_why() -> None:
    """An exception names something that does break its rule, and gives a sentence of reason."""
    excused = {name for name, _ in EXCEPTIONS}
    needed = {
        (rule.__name__, finding.where)
        for rule in RULES
        if rule.__name__ in excused
        for source in (project() if rule is silence_has_a_reason else package())
        for finding in rule(source)
    }
    assert set(EXCEPTIONS) <= needed
    assert [
        reason for reason in EXCEPTIONS.values() if not re.search(r"\w+ \w+.*\.$", reason)
    ] == []


def test_what_the_front_door_shows_is_there_and_documented() -> None:
    """Each name in `__all__` can be imported and has a docstring of its own."""
    door = importlib.import_module("pytest_arena")
    assert door.__all__, "the front door shows nothing"
    shown = {name: getattr(door, name) for name in door.__all__ if not name.startswith("__")}
    assert [name for name, thing in shown.items() if not has_own_docstring(thing)] == []


def has_own_docstring(thing: object) -> bool:
    """Whether a class, function or module is documented itself; nothing else can be."""
    if inspect.isclass(thing):
        return bool(vars(thing).get("__doc__"))
    return (inspect.isroutine(thing) or inspect.ismodule(thing)) and bool(thing.__doc__)


def at(path: str, text: str = "") -> Source:
    """A planted file at another place than the usual one."""
    return Source(path, text)


def door(imported: str, shown: str) -> Source:
    """A planted front door."""
    future = "from __future__ import annotations\n"
    return at("__init__.py", f"{future}from ._a import {imported}\n__all__ = {shown}")


def body(text: str) -> str:
    """A function with this body, one statement a line."""
    return "def f():\n" + "".join(f"    {line}\n" for line in text.splitlines())


DOC = '"""Module."""\n'
FOUR_DEEP = "for a in b:\n  with a:\n    try:\n      if a: c()\n    finally:\n      pass"
DEEP_IN_ELSE = "if a: b\nelse:\n  if c:\n    while d:\n      match e:\n        case _: f"
DEEP_FROM_OUTSIDE = "if a:\n  def g():\n    if b:\n      if c:\n        if d: e"

# For each rule: a file that breaks it, and one that only looks as if it did.
PLANTED: tuple[tuple[Rule, str | Source, str | Source], ...] = (
    (modules_are_short, "a = 1\n" * 351, "a = 1\n# b\n\n" * 350),
    (functions_are_short, body("a\n" * 61), body('"""Two\nlines."""\n' + "a\n# why\n" * 60)),
    (functions_are_flat, body(FOUR_DEEP), body("if a:\n  b\n" + "elif c:\n  d\n" * 4)),
    (functions_are_flat, body(DEEP_IN_ELSE), body(DEEP_FROM_OUTSIDE)),
    (parameters_are_few, "def f(a, b, c, /, d, e, g): ...", "def f(a, b, *c, d, e, g, **h): ..."),
    (parameters_are_few, "def f(a, b, c, d, e, g): ...", "def f(self, a, b, c, d, e): ..."),
    (public_names_are_documented, "a = 1", DOC + "a = 1"),
    (public_names_are_documented, DOC + "class A: ...", DOC + "class _A:\n def f(self): ..."),
    (public_names_are_documented, DOC + "async def f(): ...", DOC + "@t.override\ndef f(): ..."),
    (public_names_are_documented, DOC + "def f(): ...", DOC + "def _f():\n def g(): ..."),
    (names_say_something, at("_app/_utils.py"), at("_utilisation.py")),
    (names_say_something, at("helpers/_a.py"), at("_common_table.py")),
    (events_are_the_gates, "from sqlalchemy import event", "from sqlalchemy import text"),
    (events_are_the_gates, "import sqlalchemy.event", "import sqlalchemy.engine"),
    (events_are_the_gates, "from sqlalchemy.event import listen", "from .event import listen"),
    (events_are_the_gates, "sqlalchemy.event.listen(a, b, c)", "page.event.listen(a)"),
    (events_are_the_gates, "import sqlalchemy.event", at("_gate/_a.py", "import sqlalchemy.event")),
    (sql_is_the_products, 'a = "PRAGMA user_version"', 'b = "a PRAGMA"'),
    (sql_is_the_products, 'f("  SELECT 1")', 'f("SELECTED 1")'),
    (sql_is_the_products, 'f(f"ATTACH {a} AS b")', 'f(f"{a} ATTACH it")'),
    (sql_is_the_products, 'f("BEGIN")', 'f("Begin with the first test.", "rollback")'),
    (sql_is_the_products, 'f("delete from a")', 'f("DELETE", "/a")'),
    (sql_is_the_products, 'f("select a, b from c")', 'f("select what you need")'),
    (sql_is_the_products, 'a = """\n INSERT INTO a"""', '"""SELECT is the word here."""'),
    (sql_is_the_products, 'a = "DROP TABLE a"', at("_sqlite/_a.py", 'a = "DROP TABLE a"')),
    (silence_has_a_reason, "a  # type: ignore[misc]", "a  # type: ignore[misc]  # no stub"),
    (silence_has_a_reason, "a  # noqa: S101, B011", "a  # noqa: S101 - cannot happen"),
    (silence_has_a_reason, "a  # noqa", 'a("# noqa")'),
    (silence_has_a_reason, "a  # type: ignore  # noqa", "a  # type: ignore  # noqa  # b c"),
    (silence_has_a_reason, "a  # pragma: no cover", "a  # pragma: no cover - Windows only"),
    (front_door_shows_all_it_imports, door("a, b", '["b", "a"]'), door("B, _c, a", '["B", "a"]')),
    (front_door_shows_all_it_imports, door("a, b", '["a"]'), door("a, b as _b", '["__v__", "a"]')),
)


@pytest.mark.parametrize(
    "rule, bad, good",
    PLANTED,
    ids=[f"{rule.__name__}-{number}" for number, (rule, *_) in enumerate(PLANTED)],
)
def test_a_rule_bites_what_breaks_it_and_nothing_else(
    rule: Rule, bad: str | Source, good: str | Source
) -> None:
    """The rule finds the planted violation, once, and leaves its harmless look-alike in peace."""
    bad, good = (at("_arena.py", file) if isinstance(file, str) else file for file in (bad, good))
    assert len(list(rule(bad))) == 1
    assert list(rule(good)) == []


def test_every_rule_has_been_seen_to_bite() -> None:
    """No rule is without its planted violation."""
    assert {rule for rule, *_ in PLANTED} == set(RULES)


@pytest.mark.parametrize("long, ninth", [(0, 1), (1, 1), (2, 50)])
def test_one_function_in_ten_may_be_long(long: int, ninth: int) -> None:
    """One long function in ten passes unseen, two do not."""
    assert ninth_of_ten([1] * (10 - long) + [50] * long) == ninth


def test_the_front_door_asks_for_a_docstring_of_ones_own() -> None:
    """A class that only inherits its docstring is not documented, nor is a plain value."""

    class SilentError(ArithmeticError):
        pass

    assert has_own_docstring(ArithmeticError)
    assert not has_own_docstring(SilentError)
    assert not has_own_docstring(3)
