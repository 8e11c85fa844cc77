"""Addresses and versions are the same in the metadata, the pages and the workflows."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from pathlib import Path

from pytest_arena._postgresql._product import PostgreSQL
from pytest_arena.errors import ArenaError

ROOT = Path(__file__).parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROJECT = tomllib.loads(PYPROJECT)["project"]
SOURCE = ROOT / "src/pytest_arena"
TREES = {path: ast.parse(path.read_bytes()) for path in SOURCE.rglob("*.py")}
MAP = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
PRODUCTS = {"_sqlite", "_postgresql", "_mysql"}
EXTRAS = PROJECT["optional-dependencies"]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("skills/**/*.md")]


def test_the_address_is_written_in_one_place() -> None:
    host, owner, name = PROJECT["urls"]["Source"].removeprefix("https://").split("/")
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
    assert servers[0] == PostgreSQL.oldest["PostgreSQL"]
    wanted = [*PROJECT["dependencies"], *EXTRAS["sqlite"], *EXTRAS["postgresql"]]
    lowest = {re.split(r"[>\[]", line)[0]: line.rpartition(">=")[2] for line in wanted}
    for name, shown in {"sqlalchemy": "SQLAlchemy |", "pytest": "pytest |"}.items():
        assert f"| {shown} {lowest[name]} and later" in page
    for name in ("aiosqlite", "psycopg"):
        assert f"{name} {lowest[name]}," in page


def test_a_name_has_one_meaning() -> None:
    """Of a class, and of a file: the packages of the products have equal files on purpose."""
    names = [path.name for path in TREES if path.parent.name not in PRODUCTS]
    names += {path.name for path in TREES if path.parent.name in PRODUCTS}
    assert [name for name, times in Counter(names).items() if times > 1] == ["__init__.py"]
    nodes = [node for tree in TREES.values() for node in ast.walk(tree)]
    classes = Counter(node.name for node in nodes if isinstance(node, ast.ClassDef))
    assert [name for name, times in classes.items() if times > 1] == []


def test_the_page_names_each_package_and_each_module_of_150_lines() -> None:
    """A module of a product may be named without its folder."""
    named = set(re.findall(r"[\w/]+\.py", MAP))
    large = {path for path in TREES if path.read_bytes().count(b"\n") > 150}
    of_products = {path for path in large if path.parent.name in PRODUCTS and path.name in named}
    assert {str(path.relative_to(SOURCE)) for path in large - of_products} <= named
    assert {path.parent.name for path in TREES} - {SOURCE.name} <= set(re.findall(r"\w+", MAP))


def test_each_rule_of_the_page_is_in_the_source() -> None:
    """A function, a method or an attribute of a class. Also a file or a constant."""
    named = re.findall(r"`([\w.]+)`", _section("Which rule decides"))
    text = "\n".join(path.read_text(encoding="utf-8") for path in TREES)
    found = {*re.findall(r"\w+", text), *(path.name for path in TREES)}
    parts = [part for each in named if not each.endswith(".py") for part in each.split(".")]
    assert [part for part in parts if part not in found] == []


def test_the_page_lists_each_patch() -> None:
    """The names of the attributes, by module. A loop may have them."""
    patched: dict[str, set[str]] = {}
    for path, tree in TREES.items():
        nodes = [*ast.walk(tree)]
        calls = [node for node in nodes if isinstance(node, ast.Call)]
        names = [call.args[1] for call in calls if ast.unparse(call.func) in {"patch", "_replace"}]
        if names:
            loops = [node for node in nodes if isinstance(node, ast.For)]
            names += [each.iter for each in loops if "patch(" in ast.unparse(each.body[0])]
            found = [node for each in names for node in ast.walk(each)]
            values = {str(node.value) for node in found if isinstance(node, ast.Constant)}
            patched[str(path.relative_to(SOURCE))] = values
    rows = re.findall(r"(?m)^\| (.*) \| .* \| `([\w/]+\.py)` \|$", _section("Patches"))
    assert patched == {module: {*re.findall(r"(\w+)`", names)} for names, module in rows}


def test_only_patch_replaces_functions_of_libraries() -> None:
    """Each other assignment to an attribute of a library sets data."""
    own: set[str] = set()
    others: set[str] = set()
    for node in (node for tree in TREES.values() for node in ast.walk(tree)):
        if isinstance(node, ast.AnnAssign):
            own.add(ast.unparse(node.target))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "setattr":
            others.add(f"setattr({ast.unparse(node.args[0])})")
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            holder = ast.unparse(node.value)
            names = own if holder in {"self", "cls"} else others
            names.add(ast.unparse(node) if holder[0].isupper() else node.attr)
    assert others - own == {*_DATA.split()}


def test_the_page_lists_the_private_names_of_other_libraries() -> None:
    """A new one needs its reason on the page. Python's library reference has two of them."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in TREES)
    own = {*re.findall(r"(?m)(?:def|class|self\.|cls\.|^) *(_\w+)", text), *(f.stem for f in TREES)}
    quoted = set(re.findall(r'"(_(?!arena)[A-Za-z]\w+)"', text)) - own
    accessed = set(re.findall(r"(?<!self)\.(_[a-z]\w+)(?=.*noqa: SLF001)", text))
    others = re.findall(r'(?m)(?:^ *(?:import|from) |getattr\([^"()]+")(_[a-z]\w+)', text)
    others += re.findall(rf"[.\"]({'|'.join(_PRIVATE.split())})\b", text)
    others += re.findall(r"f_locals\.get\(\"(\w+)", text)
    imports = re.findall(r"(?m)^from sqlalchemy\.util\S* import ([\w, ]+)", text)
    others += re.findall(r"\w+", ",".join(imports))
    listed = set(re.findall(r"`(\w+)`", _section("Private names")))
    assert quoted | accessed | {*others} == listed | {"_current_frames"}


def _section(title: str) -> str:
    return MAP.partition(f"## {title}\n")[2].partition("\n## ")[0]


# What users of a library may set, and what pytest-arena sets on its own objects.
_DATA = """arena blocking_portal cached_result client_name cookies
credential_provider daemon_threads username dbapi_connection default_schema_name
dependency_overrides disabled executor exitstatus
headers lineno loader longrepr obj others portal propagate sections shouldfail
testscollected text_factory toml_file_name type has_app __cause__ Phase.owner Phase.test
setattr(owner) setattr(self) setattr(real)"""
# Names that no library documents. Some must not come back.
_PRIVATE = """cached_result committed_state dispatch fairy_ref reprcrash reprentries
reprfileloc reprtraceback runtestprotocol timeout_sigalrm TestRunner"""
_STATE = {"ContextVar", "WeakSet", "WeakKeyDictionary", "count", "Event", "RLock", "Lock"}
# Classes whose objects do not change.
_CONSTANT = {"CopyPlan", "ReadTable", "ProductFacts", "Words"}
_CONSTANT |= {"Refusal", "MySQLConnections", "PostgreSQLConnections", "SQLiteConnections"}


def test_the_page_lists_the_state_of_the_process() -> None:
    """Context variables, and module variables whose value can change."""
    nodes = [node for tree in TREES.values() for node in tree.body]
    classes = {node.name for node in nodes if isinstance(node, ast.ClassDef)}
    makers = (classes | _STATE) - _CONSTANT
    variables: set[str] = set()
    for node in nodes:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        name = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
        value = ast.unparse(node.value)
        maker = value.partition("(")[0].rpartition(".")[2]
        if value in {"[]", "{}", "set()"} or ("(" in value and maker in makers):
            variables.add(name)
    listed = set(re.findall(r"`(\w+)`", _section("State of the process")))
    assert variables == listed - {"ArenaRun", "Phase", "_WSGI_THREADS", "_folder"}


def test_extras_name_what_the_messages_tell_users_to_install() -> None:
    """`pip install 'pytest-arena[…]'` in a message is an extra that there is."""
    told = {
        extra
        for file in ROOT.glob("src/**/*.py")
        for extra in re.findall(r"pytest-arena\[(\w+)\]", file.read_text(encoding="utf-8"))
    }
    assert told <= set(EXTRAS)


def test_each_known_fault_can_be_planted() -> None:
    """Its text stands once in its file."""
    faults = ROOT / "tests/mutants.toml"
    for name, entry in tomllib.loads(faults.read_text(encoding="utf-8")).items():
        assert (SOURCE / entry["file"]).read_text(encoding="utf-8").count(entry["old"]) == 1, name
