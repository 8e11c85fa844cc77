"""Checks what no linter checks: sizes, where SQL may be written, who listens to SQLAlchemy.

import-linter checks the layers, ruff the form of the code, mypy the types.

- *Parameters* are those that a caller may give by position, without `self` and `cls`. Options after
  `*`, `*args` and `**kwargs` do not count.
- `architecture` and `plain_language` say how the other figures are counted.
"""

import ast
import gc
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.architecture import (
    MAP,
    MEASURES,
    PRODUCTS,
    ROOT,
    Measure,
    Source,
    classes_named_twice,
    code_and_comments,
    definitions,
    draw_map,
    exceptions,
    function_lengths,
    functions,
    is_docstring,
    modules_named_twice,
    nesting,
    nodes,
    package,
    parsed,
    public_definitions,
    sources,
    wide_folders,
)
from tests.architecture_walk import WALKS
from tests.plain_language import (
    LANGUAGE,
    assignments_from_outside,
    comments,
    conditions_as_factors,
    dense_modules,
    docstrings,
    habits,
    hidden_walruses,
    messages,
    packed_assignments,
    pronoun_names,
    sentences,
    unknown_errors,
    weak_collections,
)

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

# A product, its driver or program, a SQLSTATE, or words of its errors.
PRODUCT = re.compile(
    r"(?i)sqlite|postgres|psycopg|asyncpg|\bpsql\b|\bpg_|mysql|mariadb"
    r"|no such table|database is locked|^\d\d[\dA-Z]{3}$"
)
COMMON_SQL = {
    "_gate/writes/_statement_log.py",
    "_product/sharing/_savepoints.py",
}
NAMING_PRODUCTS = {
    "_config/_supported.py": "registers the packages of the products",
    "_config/_options.py": "has the text of the page of options",
    "_cli/_main.py": "has the help of the commands",
    "_cli/doctor/_rules_app.py": "reads the user's code, which may use any product",
    "_cli/doctor/_rules_database.py": "reads the user's code, which may use any product",
    "_cli/init/_look.py": "reads the user's code, which may use any product",
    "_cli/init/_compare.py": "reads reports of tests on any product",
    "_gate/_unnamed.py": "reads the SQL of all products",
    "_gate/writes/_statement_log.py": "reads the SQL of all products",
    "_origin.py": "recognizes the threads of libraries, among them aiosqlite",
    "testing.py": "has an example app",
}

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
    """Forget the syntax trees, which would slow the garbage collector in later tests.

    Meanwhile it is off: it would walk through them again and again, and find nothing.
    """
    gc.disable()
    yield
    gc.enable()
    parsed.cache_clear()
    nodes.cache_clear()
    definitions.cache_clear()


@dataclass(frozen=True, slots=True)
class Finding:
    """A violation of a rule: its place and its description."""

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
    """Every module and every public class, function and method has a docstring."""
    for name, node in public_definitions(parsed(source)):
        if not ast.get_docstring(node):
            yield Finding(f"{source.path}:{name}", "no docstring")


def names_say_something(source: Source) -> Iterator[Finding]:
    """No file or folder has a name such as `utils`."""
    for part in Path(source.path).with_suffix("").parts:
        if part.strip("_") in {"util", "utils", "helper", "helpers", "common", "misc"}:
            yield Finding(source.path, f"{part!r} is no name for a module")


def gate_alone_listens_to_sqlalchemy(source: Source) -> Iterator[Finding]:
    """`_gate` alone listens to events of SQLAlchemy."""
    if source.package == "_gate":
        return
    for node in nodes(parsed(source)):
        if isinstance(node, ast.stmt | ast.expr) and names_sqlalchemy_event(node):
            yield Finding(f"{source.path}:{node.lineno}", "sqlalchemy.event outside _gate")


def sql_is_in_the_products(source: Source) -> Iterator[Finding]:
    """Only the packages of the products contain SQL, and what their servers have in common."""
    if source.package in PRODUCTS or source.path in COMMON_SQL:
        return
    for line, text in strings(parsed(source)):
        if SQL.match(text):
            yield Finding(f"{source.path}:{line}", f"SQL outside of a product: {text[:40]!r}")


def products_name_themselves(source: Source) -> Iterator[Finding]:
    """Only the packages of the products, and files with a reason, name a product in code."""
    if source.package not in PRODUCTS and source.path not in NAMING_PRODUCTS:
        yield from names_of_products(source)


def silence_has_a_reason(source: Source) -> Iterator[Finding]:
    """A comment that silences a tool gives the reason on the same line."""
    if not SILENCER.search(source.text):
        return
    _, comments_of_file = code_and_comments(source)
    for line, comment in comments_of_file:
        if SILENCER.search(comment):
            reason = SILENCER.sub("", comment)
            if len(re.findall(r"[^\W\d_]+", reason)) < 2:
                yield Finding(f"{source.path}:{line}", f"no reason: {comment}")


def all_names_what_is_imported(source: Source) -> Iterator[Finding]:
    """`__all__` of the package is sorted and equals the public names that it imports."""
    if source.path != "__init__.py":
        return
    tree = parsed(source)
    shown = declared_all(tree)
    for_types = [node for block in tree.body if isinstance(block, ast.If) for node in block.body]
    imported = {
        name
        for node in (*tree.body, *for_types)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if not (name := alias.asname or alias.name).startswith("_")
    }
    # The module imports these for itself: the last one imports the others at their first use.
    imported -= {"annotations", "TYPE_CHECKING", "import_module"}
    if shown != sorted(shown):
        yield Finding(source.path, "__all__ is not sorted")
    for name in sorted(imported ^ {name for name in shown if not name.startswith("_")}):
        yield Finding(source.path, f"{name} is either imported or in __all__, not both")


# The last rule holds for every Python file of the project, the others for the package.
PACKAGE_RULES: tuple[Rule, ...] = (
    functions_are_short,
    functions_are_flat,
    parameters_are_few,
    public_names_are_documented,
    names_say_something,
    gate_alone_listens_to_sqlalchemy,
    sql_is_in_the_products,
    products_name_themselves,
    all_names_what_is_imported,
)
RULES: tuple[Rule, ...] = (*PACKAGE_RULES, silence_has_a_reason)


def names_sqlalchemy_event(node: ast.AST) -> bool:
    """Whether a node imports or names `sqlalchemy.event`."""
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
    """Yield the beginning of each string below a node with its line, except docstrings."""
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


def names_of_products(source: Source) -> Iterator[Finding]:
    """Yield each string, except docstrings, and each import that names a product."""
    docstrings = {node.value for node in nodes(parsed(source)) if is_docstring(node)}
    for node in nodes(parsed(source)):
        match node:
            case ast.Constant(value=str() | bytes() as value) if node not in docstrings:
                if PRODUCT.search(str(value)):
                    yield Finding(f"{source.path}:{node.lineno}", f"names a product: {value!r}")
            case ast.ImportFrom(module=str(module)) if PRODUCT.search(module):
                yield Finding(f"{source.path}:{node.lineno}", f"imports {module}")


def declared_all(tree: ast.Module) -> list[str]:
    """Return the names in `__all__` in their order."""
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return list(ast.literal_eval(value))
    return []


def project() -> list[Source]:
    """Return every Python file of the project."""
    folders = (ROOT / name for name in ("src", "tests", "examples", "bench"))
    return [source for folder in folders for source in sources(folder, ROOT)]


def broken(rule: Rule, files: list[Source]) -> list[str]:
    """Describe each violation of a rule."""
    return [f"{each.where}: {each.what}" for source in files for each in rule(source)]


def test_the_package_keeps_the_rules() -> None:
    """No file of the package breaks a rule. The files are parsed once."""
    violations = {rule.__name__: broken(rule, package()) for rule in PACKAGE_RULES}
    assert not any(violations.values()), violations


def test_each_file_that_may_name_a_product_does() -> None:
    """No file is without need in the list of those that name products."""
    naming = {source.path for source in package() if any(names_of_products(source))}
    assert NAMING_PRODUCTS.keys() - naming == set()


def test_a_comment_that_silences_a_tool_has_a_reason() -> None:
    """No file of the project silences a tool without a reason."""
    assert broken(silence_has_a_reason, project()) == []


def test_the_package_keeps_its_measures() -> None:
    """No figure exceeds its limit or the figure of its exception. The files are parsed once."""
    exceeded = "\n".join(filter(None, map(excess, [*MEASURES, *LANGUAGE])))
    assert not exceeded, exceeded


@pytest.mark.slow
@pytest.mark.usefixtures("whole_process")
def test_one_test_through_the_package_keeps_its_measures() -> None:
    """Calls, files and frames of one warm test, and the modules that a run imports."""
    exceeded = "\n".join(filter(None, map(excess, WALKS)))
    assert not exceeded, exceeded


def excess(measure: Measure) -> str:
    """Return a line if a figure exceeds what it may be; print one if it is lower."""
    allowed, _ = exceptions().get(measure.name, (measure.limit, ""))
    today = measure.figure()
    if today < allowed:
        print(f"{measure}: {today}, the list has {allowed}: `make lower`")
    if today <= allowed:
        return ""
    return f"{measure}: {today}, the list allows {allowed}\n{measure.places()}"


def test_every_exception_has_a_measure_and_a_reason() -> None:
    """An exception names a measure, exceeds its limit and gives a reason."""
    limits = {measure.name: measure.limit for measure in (*MEASURES, *LANGUAGE, *WALKS)}
    for name, (figure, reason) in exceptions().items():
        assert figure > limits[name], name
        assert re.search(r"\w+ \w+", reason), name


def test_public_names_can_be_imported_and_have_docstrings() -> None:
    """Each name in `__all__` can be imported and has a docstring that it does not inherit."""
    arena = importlib.import_module("pytest_arena")
    assert arena.__all__, "pytest_arena has no public name"
    shown = {name: getattr(arena, name) for name in arena.__all__ if not name.startswith("__")}
    assert [name for name, thing in shown.items() if not has_own_docstring(thing)] == []


def has_own_docstring(thing: object) -> bool:
    """Whether a class, function or module has a docstring that it does not inherit."""
    if inspect.isclass(thing):
        return bool(vars(thing).get("__doc__"))
    return (inspect.isroutine(thing) or inspect.ismodule(thing)) and bool(thing.__doc__)


def at(path: str, text: str = "") -> Source:
    """Return a planted file with this path."""
    return Source(path, text)


def entry(imported: str, shown: str) -> Source:
    """Return a planted `__init__.py` of the package."""
    future = "from __future__ import annotations\n"
    return at("__init__.py", f"{future}from ._a import {imported}\n__all__ = {shown}")


def body(text: str) -> str:
    """Return a function with these lines as its body."""
    return "def f():\n" + "".join(f"    {line}\n" for line in text.splitlines())


DOC = '"""Module."""\n'
FOUR_DEEP = "for a in b:\n  with a:\n    try:\n      if a: c()\n    finally:\n      pass"
DEEP_IN_ELSE = "if a: b\nelse:\n  if c:\n    while d:\n      match e:\n        case _: f"
DEEP_FROM_OUTSIDE = "if a:\n  def g():\n    if b:\n      if c:\n        if d: e"

# For each rule: a file that breaks it, and a similar file that does not.
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
    (
        gate_alone_listens_to_sqlalchemy,
        "from sqlalchemy import event",
        "from sqlalchemy import text",
    ),
    (gate_alone_listens_to_sqlalchemy, "import sqlalchemy.event", "import sqlalchemy.engine"),
    (
        gate_alone_listens_to_sqlalchemy,
        "from sqlalchemy.event import listen",
        "from .event import listen",
    ),
    (gate_alone_listens_to_sqlalchemy, "sqlalchemy.event.listen(a, b, c)", "page.event.listen(a)"),
    (
        gate_alone_listens_to_sqlalchemy,
        "import sqlalchemy.event",
        at("_gate/_a.py", "import sqlalchemy.event"),
    ),
    (sql_is_in_the_products, 'a = "PRAGMA user_version"', 'b = "a PRAGMA"'),
    (sql_is_in_the_products, 'f("  SELECT 1")', 'f("SELECTED 1")'),
    (sql_is_in_the_products, 'f(f"ATTACH {a} AS b")', 'f(f"{a} ATTACH it")'),
    (sql_is_in_the_products, 'f("BEGIN")', 'f("Begin with the first test.", "rollback")'),
    (sql_is_in_the_products, 'f("delete from a")', 'f("DELETE", "/a")'),
    (sql_is_in_the_products, 'f("select a, b from c")', 'f("select what you need")'),
    (sql_is_in_the_products, 'a = """\n INSERT INTO a"""', '"""SELECT is the word here."""'),
    (sql_is_in_the_products, 'a = "DROP TABLE a"', at("_sqlite/_a.py", 'a = "DROP TABLE a"')),
    (products_name_themselves, 'a == "sqlite"', at("_sqlite/_a.py", 'a == "sqlite"')),
    (products_name_themselves, 'a(b"SQLite format 3")', '"""SQLite."""\na(b"format 3")'),
    (
        products_name_themselves,
        'a(f"{b} on PostgreSQL")',
        at("_config/_supported.py", 'a("PostgreSQL")'),
    ),
    (products_name_themselves, 'a == "42P01"', 'a == "42"  # 42P01'),
    (products_name_themselves, "from pytest_arena._sqlite import a", "from sqlalchemy import a"),
    (products_name_themselves, '"no such table" in a', '"table" in a'),
    (silence_has_a_reason, "a  # type: ignore[misc]", "a  # type: ignore[misc]  # no stub"),
    (silence_has_a_reason, "a  # noqa: S101, B011", "a  # noqa: S101 - cannot happen"),
    (silence_has_a_reason, "a  # noqa", 'a("# noqa")'),
    (silence_has_a_reason, "a  # type: ignore  # noqa", "a  # type: ignore  # noqa  # b c"),
    (silence_has_a_reason, "a  # pragma: no cover", "a  # pragma: no cover - Windows only"),
    (all_names_what_is_imported, entry("a, b", '["b", "a"]'), entry("B, _c, a", '["B", "a"]')),
    (all_names_what_is_imported, entry("a, b", '["a"]'), entry("a, b as _b", '["__v__", "a"]')),
)


@pytest.mark.parametrize(
    "rule, bad, good",
    PLANTED,
    ids=[f"{rule.__name__}-{number}" for number, (rule, *_) in enumerate(PLANTED)],
)
def test_a_rule_finds_the_violation_and_nothing_else(
    rule: Rule, bad: str | Source, good: str | Source
) -> None:
    """The rule finds the planted violation once, and nothing in the similar file."""
    bad, good = (at("_arena.py", file) if isinstance(file, str) else file for file in (bad, good))
    assert len(list(rule(bad))) == 1
    assert list(rule(good)) == []


def test_every_rule_has_a_planted_violation() -> None:
    """The table has a violation of each rule."""
    assert {rule for rule, *_ in PLANTED} == set(RULES)


# For each measure: files with one place that it counts, and files without one.
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
    (dense_modules, [at("_a.py", "a = [b.c(d.e(f), g=h[i]) for j in k]")], [at("_a.py", "a = b")]),
    (
        hidden_walruses,
        [at("_a.py", "if a and (b := c): d")],
        [at("_a.py", "if b := c:\n if a and b: d\n e = (f := g)")],
    ),
    (hidden_walruses, [at("_a.py", "a = (b := c) + (d := e)")], [at("_a.py", "a = (b := c) + d")]),
    (packed_assignments, [at("_a.py", "a, b = c, d")], [at("_a.py", "a, b = b, a\nc, d = e")]),
    (
        conditions_as_factors,
        [at("_a.py", 'a = "s" * (b > 1)')],
        [at("_a.py", 'a = "-" * width\nb = 2 * (c > 1)')],
    ),
    (conditions_as_factors, [at("_a.py", "a = [b] * is_c")], [at("_a.py", "a = [b] * count")]),
    (pronoun_names, [at("_a.py", "for one in a: b")], [at("_a.py", "a.one = one()")]),
    (pronoun_names, [at("_a.py", "def f(told): ...")], [at("_a.py", "def told(a): ...")]),
    (weak_collections, [at("_a.py", "a = weakref.WeakSet()")], [at("_a.py", "a: WeakSet[b]")]),
    (assignments_from_outside, [at("_a.py", "a.b = c")], [at("_a.py", "self.b = a.b")]),
    (
        unknown_errors,
        [at("_a.py", '"""A.\n\nRaises:\n    LostError: b\n"""')],
        [at("_a.py", '"""A.\n\nRaises:\n    ValueError: b\n    B: c\n"""\nclass B: ...')],
    ),
)


def test_the_texts_of_a_file_are_its_docstrings_comments_and_messages() -> None:
    """A text of five words is a message; a docstring is none, and SQL is none."""
    source = at(
        "_a.py",
        '''"""A docstring."""
# A comment
# of two lines.
a  # noqa: E501 - no comment
raise A(f"the file {name} was not found")
run("DELETE FROM a WHERE what we do not read is null")
b = "a short name"
''',
    )
    assert list(docstrings(source)) == [(1, "A docstring.")]
    assert list(comments(source)) == [(2, "A comment of two lines.")]
    assert list(messages(source)) == [(5, "the file X was not found")]


@pytest.mark.parametrize(
    "sentence, number",
    [
        ("The row stands there.", 1),
        ("Nobody is told.", 2),
        ("What is read is returned.", 1),
        ("What is read?", 0),
        ("The app closes its own connection.", 0),
        ("A connection of its own is opened anew.", 2),
        ("pytest-arena restores the database.", 0),
    ],
)
def test_a_habit_is_a_hidden_actor_or_a_metaphor(sentence: str, number: int) -> None:
    """Each habit of a sentence counts; a question may begin like a question."""
    assert habits(sentence) == number


def test_a_sentence_ends_where_the_next_begins() -> None:
    """Code is one word, and an example is no sentence."""
    text = "Return `a.b()` at once. It waits.\n\n    an example of code here\n\nThe next one ends."
    assert sentences(text) == ["Return CODE at once.", "The next one ends."]


@pytest.mark.parametrize(
    "find, exceeding, keeping",
    PLACES,
    ids=[f"{find.__name__}-{number}" for number, (find, *_) in enumerate(PLACES)],
)
def test_a_measure_finds_what_exceeds_it(
    find: Callable[[list[Source]], list[str]], exceeding: list[Source], keeping: list[Source]
) -> None:
    """The measure finds the planted place once, and nothing in the other files."""
    assert len(find(exceeding)) == 1
    assert find(keeping) == []


def test_the_map_is_drawn_from_the_docstrings() -> None:
    """`make map` would not change the page."""
    page = MAP.read_text("utf-8")
    assert draw_map(package(), page) == page, "run `make map`"


def test_a_drawn_map_has_an_item_for_each_package() -> None:
    """A new package gets an item, and the item of a removed package is removed."""
    files = [
        at("_a/__init__.py", '"""Package a."""'),
        at("_a/_b.py", '"""Do b."""'),
        at("_c.py", '"""Do c."""'),
    ]
    page = "# Map\n\n## Packages and modules\n\n- `_d`: Removed\n\n## Interfaces\n"
    drawn = draw_map(files, page)
    assert "- `_a`: Package a.\n- `_c.py`: Do c.\n" in drawn
    assert "_b" not in drawn
    assert "_d" not in drawn
    assert drawn.endswith("\n## Interfaces\n")
    assert draw_map(files, drawn) == drawn


def test_an_inherited_docstring_is_not_enough() -> None:
    """A class that inherits its docstring counts as undocumented, and so does a plain value."""

    class SilentError(ArithmeticError):
        pass

    assert has_own_docstring(ArithmeticError)
    assert not has_own_docstring(SilentError)
    assert not has_own_docstring(3)
