"""Addresses and versions are the same in the metadata, the pages and the workflows."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from pathlib import Path

from pytest_arena._postgresql._clusters import OLDEST
from pytest_arena.errors import ArenaError

ROOT = Path(__file__).parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROJECT = tomllib.loads(PYPROJECT)["project"]
SOURCE = ROOT / "src"
PRODUCTS = {"_sqlite", "_postgresql", "_mysql"}
EXTRAS = PROJECT["optional-dependencies"]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("skills/**/*.md")]


def test_the_address_is_written_in_one_place() -> None:
    """In pyproject.toml, where each is the same one; pages and code have relative links."""
    home = PROJECT["urls"]["Source"]
    host, owner, name = home.removeprefix("https://").split("/")
    address = re.compile(rf"{re.escape(host)}/[\w-]+/{name}\b")
    assert set(address.findall(PYPROJECT)) == {f"{host}/{owner}/{name}"}
    files = [*PAGES, *ROOT.glob("src/**/*.py"), *ROOT.glob("docs/**/*.py")]
    assert [file for file in files if address.search(file.read_text(encoding="utf-8"))] == []
    assert PROJECT["urls"]["Documentation"] in str(ArenaError("", why="", cause="", fix=""))


def test_the_page_of_support_says_what_the_metadata_say() -> None:
    """Its Pythons, the lowest versions, the servers that the suite is run on."""
    page = (ROOT / "docs/reference/support.md").read_text(encoding="utf-8")
    pythons = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    nightly = (ROOT / ".github/workflows/nightly.yml").read_text(encoding="utf-8")
    servers = re.findall(r'"(\d+)"', nightly.partition("postgresql: [")[2].partition("]")[0])
    assert f"| Python | CPython {', '.join(pythons)} |" in page
    assert f"| PostgreSQL | {', '.join(servers)} |" in page
    assert int(servers[0]) == OLDEST
    wanted = [*PROJECT["dependencies"], *EXTRAS["sqlite"], *EXTRAS["postgresql"]]
    lowest = {re.split(r"[>\[]", line)[0]: line.rpartition(">=")[2] for line in wanted}
    for name, shown in {"sqlalchemy": "SQLAlchemy |", "pytest": "pytest |"}.items():
        assert f"| {shown} {lowest[name]} and later" in page
    for name in ("aiosqlite", "psycopg"):
        assert f"{name} {lowest[name]}," in page


def test_a_name_has_one_meaning() -> None:
    """Of a class, and of a file: the packages of the products have equal files on purpose."""
    files = set(SOURCE.rglob("*.py"))
    roles = {("product" if path.parent.name in PRODUCTS else path.parent, path) for path in files}
    names = [name for _, name in {(role, path.name) for role, path in roles}]
    assert [name for name, times in Counter(names).items() if times > 1] == ["__init__.py"]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_bytes()))]
    classes = Counter(node.name for node in nodes if isinstance(node, ast.ClassDef))
    assert [name for name, times in classes.items() if times > 1] == []


def test_the_page_lists_the_private_names_of_other_libraries() -> None:
    """A new one needs its reason on the page. Python's library reference has two of them."""
    files = [*ROOT.glob("src/**/*.py")]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    own = {*re.findall(r"(?m)(?:def|class|self\.|cls\.|^) *(_\w+)", text), *(f.stem for f in files)}
    quoted = set(re.findall(r'"(_(?!arena)[A-Za-z]\w+)"', text)) - own
    lines = "\n".join(re.findall(r".*noqa: SLF001.*", text))
    accessed = set(re.findall(r"(?<!self)\.(_[a-z]\w+)", lines))
    others = re.findall(r'(?m)(?:^ *(?:import|from) |getattr\([^"()]+")(_[a-z]\w+)', text)
    page = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`(_\w+)`", page.partition("## Private names")[2]))
    assert quoted | accessed | {*others} == listed | {"_current_frames", "_thread"}


_STATE = {"WeakSet", "WeakKeyDictionary", "count", "Event", "RLock", "Lock"}
# Classes whose objects do not change.
_CONSTANT = {"MySQLSearch", "PostgreSQLSearch", "CopyPlan", "ReadTable", "ProductFacts", "Words"}
_CONSTANT |= {"Refusal"} | {
    f"{product}Connections" for product in ("MySQL", "PostgreSQL", "SQLite")
}


def test_the_page_lists_the_state_of_the_process() -> None:
    """Context variables, and module variables whose value can change."""
    trees = [ast.parse(file.read_bytes()) for file in ROOT.glob("src/**/*.py")]
    classes = {node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}
    makers = (classes | _STATE) - _CONSTANT
    contexts: set[str] = set()
    variables: set[str] = set()
    for node in (node for tree in trees for node in tree.body):
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        name = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
        value = ast.unparse(node.value)
        maker = value.partition("(")[0].rpartition(".")[2]
        if maker == "ContextVar":
            contexts.add(name)
        elif value in {"[]", "{}", "set()"} or ("(" in value and maker in makers):
            variables.add(name)
    page = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
    section = page.partition("## State of the process")[2].partition("\n## ")[0]
    of_contexts, of_variables = section.split("| global variable")
    assert contexts == _listed(of_contexts)
    assert variables == _listed(of_variables)


def _listed(table: str) -> set[str]:
    """Return the names in the first column of a table."""
    rows = re.findall(r"(?m)^\| (`.*?) \|", table)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_extras_name_what_the_messages_tell_users_to_install() -> None:
    """`pip install 'pytest-arena[…]'` in a message is an extra that there is."""
    told = {
        extra
        for file in ROOT.glob("src/**/*.py")
        for extra in re.findall(r"pytest-arena\[(\w+)\]", file.read_text(encoding="utf-8"))
    }
    assert told <= set(EXTRAS)
