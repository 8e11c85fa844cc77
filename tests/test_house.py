"""Is the house in order where no linter looks?

The floors are import-linter's to check, the look of the code ruff's, the types mypy's. Here is the
rest: the size of things, where SQL and SQLAlchemy's events may stand, what the front door shows.

- *Parameters* are those that may be given by position, without `self` and `cls`. Options after `*`
  are read by name and do not count, nor do `*args` and `**kwargs`.
- How the other things are counted is said in `house`.
"""

import ast
import importlib
import inspect
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.house import (
    MEASURES,
    ROOT,
    Measure,
    Source,
    classes_named_twice,
    draw_map,
    exceptions,
    faults_of_the_map,
    function_lengths,
    functions,
    is_docstring,
    modules_named_twice,
    nesting,
    package,
    parsed,
    public_definitions,
    sources,
    wide_folders,
)
from tests.house_walk import WALKS

FUNCTION_LINES = 60
LEVELS = 3
PARAMETERS = 5

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


@pytest.fixture(scope="module", autouse=True)
def trees_are_given_up() -> Iterator[None]:
    """No tree of a file outlives these tests: later ones that collect would walk through them."""
    yield
    parsed.cache_clear()


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken rule: where, and what was found there."""

    where: str
    what: str


Rule = Callable[[Source], Iterator[Finding]]


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
    if source.room in {"_sqlite", "_postgresql"} or source.path == "_gate/_writes.py":
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
    # From `__future__` and `typing`: they say how the file is read and bring nothing in. By the
    # last one the others come when they are asked for.
    brought_in -= {"annotations", "TYPE_CHECKING", "import_module"}
    if shown != sorted(shown):
        yield Finding(source.path, "__all__ is not sorted")
    for name in sorted(brought_in ^ {name for name in shown if not name.startswith("_")}):
        yield Finding(source.path, f"{name} is either imported or in __all__, not both")


# The rules of the package, and the one that holds for every Python file of the project.
HOUSE_RULES: tuple[Rule, ...] = (
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


def project() -> list[Source]:
    """Every Python file that the project wrote."""
    folders = (ROOT / name for name in ("src", "tests", "examples", "bench"))
    return [source for folder in folders for source in sources(folder, ROOT)]


def broken(rule: Rule, files: list[Source]) -> list[str]:
    """What breaks a rule."""
    return [f"{each.where}: {each.what}" for source in files for each in rule(source)]


@pytest.mark.parametrize("rule", HOUSE_RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule: Rule) -> None:
    """No file of the package breaks the rule."""
    assert broken(rule, package()) == []


def test_whoever_silences_a_tool_says_why() -> None:
    """No file of the project silences a tool without a word."""
    assert broken(silence_has_a_reason, project()) == []


@pytest.mark.usefixtures("whole_process")
@pytest.mark.parametrize("measure", [*MEASURES, *WALKS], ids=str)
def test_the_house_keeps_its_measure(measure: Measure) -> None:
    """No figure exceeds its limit, or what the list of exceptions still allows."""
    allowed, _ = exceptions().get(measure.name, (measure.limit, ""))
    today = measure.figure()
    assert today <= allowed, f"{today}, the list allows {allowed}\n{measure.places()}"
    if today < allowed:
        print(f"{measure}: {today}, the list has {allowed}: `make lower`")


def test_every_exception_is_of_a_measure_and_says_why() -> None:
    """An exception exceeds the limit of a measure that there is, and gives a reason."""
    limits = {measure.name: measure.limit for measure in (*MEASURES, *WALKS)}
    for name, (figure, reason) in exceptions().items():
        assert figure > limits[name], name
        assert re.search(r"\w+ \w+", reason), name


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


# For each measure of places: files that exceed it once, and files that do not.
PLACES: tuple[tuple[Callable[[list[Source]], list[str]], list[Source], list[Source]], ...] = (
    (wide_folders, [at(f"_a/_{n}.py") for n in range(15)], [at(f"_a/_{n}.py") for n in range(14)]),
    (
        modules_named_twice,
        [at("_run/_a.py"), at("_sqlite/_a.py")],
        [at("_a.py"), at("_sqlite/_a.py"), at("_postgresql/_a.py"), at("_run/_b.py")],
    ),
    (
        classes_named_twice,
        [at("_a.py", "class A: ..."), at("_b.py", "def f():\n class A: ...")],
        [at("_a.py", "if a:\n class A: ...\nelse:\n class A: ...")],
    ),
)


@pytest.mark.parametrize(
    "find, exceeding, keeping", PLACES, ids=lambda each: getattr(each, "__name__", "")
)
def test_a_measure_finds_what_exceeds_it(
    find: Callable[[list[Source]], list[str]], exceeding: list[Source], keeping: list[Source]
) -> None:
    """The measure finds the planted place, once, and nothing where there is none."""
    assert len(find(exceeding)) == 1
    assert find(keeping) == []


def test_the_map_names_each_module_once_in_few_words() -> None:
    """Each fault of a map is found: no row, a second one, one of no module, a long cell."""
    files = [at("__init__.py"), at("plugin.py"), at("_a/__init__.py"), at("_a/_b.py")]
    rows = ("### `/` the top", "| `plugin` | What |", "### `/_a/` questions", "| `_b` | Which |")
    assert faults_of_the_map(files, "\n".join(rows)) == []
    wrong = (*rows[:3], "| `_c` | Where |", "## Other", "| `_b` | no row |")
    assert faults_of_the_map(files, "\n".join(wrong)) == [
        "_a/_b.py: not on the map",
        "_a/_c.py: on the map, not in the tree",
    ]
    long = (*rows, f"| `_b` | {'word ' * 41}|")
    assert faults_of_the_map(files, "\n".join(long)) == [
        "_a/_b.py: 41 words on the map",
        "_a/_b.py: 2 times on the map",
    ]


def test_a_drawn_map_has_no_fault_and_keeps_what_was_said() -> None:
    """A new module has the first line of its docstring; one that has gone has no row any more."""
    files = [at("_a/__init__.py", '"""Which?"""'), at("_a/_b.py", '"""Say b."""'), at("_a/_c.py")]
    rows = "### `/_a/` Which?\n\n| `_c` | As said |\n| `_d` | Gone |"
    drawn = draw_map(files, f"# House\n\n## Rooms\n\n{rows}\n\n## Floors\n")
    assert faults_of_the_map(files, drawn) == []
    assert "### `/_a/` Which?" in drawn
    assert "| `_b` | Say b. |\n| `_c` | As said |\n" in drawn
    assert drawn.endswith("\n## Floors\n")
    assert draw_map(files, drawn) == drawn


def test_the_front_door_asks_for_a_docstring_of_ones_own() -> None:
    """A class that only inherits its docstring is not documented, nor is a plain value."""

    class SilentError(ArithmeticError):
        pass

    assert has_own_docstring(ArithmeticError)
    assert not has_own_docstring(SilentError)
    assert not has_own_docstring(3)
