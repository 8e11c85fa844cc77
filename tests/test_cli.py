"""Does `arena databases` show what is there, and remove what may go and nothing else?"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import astuple
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena._config._read import read_project
from pytest_arena._mysql._product import MySQL
from pytest_arena._postgresql import _clusters as clusters
from pytest_arena._postgresql._control import open_control
from pytest_arena._product import Manifest
from pytest_arena._product._server_search import Unavailable
from pytest_arena._run._summary import schema_to_set
from pytest_arena._sqlite import _product
from tests import command
from tests.servers.crowded import folder_in_memory, newest_programs
from tests.servers.postgresql import address, login, names_on_server, own_databases, own_registry
from tests.servers.waiting import end_cluster, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.example import Example

SERVER = address()

# A run on files, and one on a server: they say when they are ready, and stay until they are ended.
ON_FILES = """
import sys
from pathlib import Path
from pytest_arena._product._server_search import Unavailable
from pytest_arena._sqlite import _product
_product._MEMORY = Path(sys.argv[1])
home = _product.Home()
print(home.path.name, flush=True)
input()
"""
ON_SERVER = """
import json, sys
from pytest_arena._postgresql._server_registry import ServerRegistry
from pytest_arena._values import Address
own = ServerRegistry(Address(*json.loads(sys.argv[1])))
print(own.create("live"), flush=True)
input()
own.close()
"""


def _no_service(*_: object) -> None:
    raise Unavailable("other tests use it")


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Nothing of anybody else's is seen: neither files, nor servers, nor a registry."""
    short = folder_in_memory()
    monkeypatch.setattr(_product, "_MEMORY", tmp_path)
    monkeypatch.setenv("ARENA_CACHE", str(tmp_path / "cache"))  # private servers' data, too
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("ARENA_CLUSTERS", str(short))
    monkeypatch.setattr(MySQL, "local_service", _no_service)
    monkeypatch.chdir(tmp_path)
    yield short
    shutil.rmtree(short)


@pytest.fixture
def role() -> Iterator[str]:
    with own_registry() as name:
        yield name


def url_of(role: str) -> str:
    return f"postgresql://{role}@{SERVER.host}:{SERVER.port}/postgres"


@pytest.fixture
def begin() -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Start a run; returns it, and the name of what it has made."""
    begun: list[subprocess.Popen[str]] = []

    def start(program: str, *arguments: str) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        assert process.stdout
        return process, process.stdout.readline().strip()

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def arena(*arguments: str) -> str:
    called = command.arena("databases", *arguments)
    assert (called.status, called.errors) == (0, "")
    return called.output


def listed(database: str) -> dict[str, dict[str, Any]]:
    told = json.loads(arena("list", "--json", "--database", database))
    return {thing["name"]: thing for place in told["places"] for thing in place["things"]}


def killed(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def there(*names: str) -> set[str]:
    return set(names) & names_on_server()


# The command


def test_the_command_is_quick_and_says_what_it_can() -> None:
    program = (
        "import sys; from pytest_arena._cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert not {'sqlalchemy', 'psycopg', 'pytest'} & set(sys.modules)"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-c", program, *arguments]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    helped = run("databases", "sweep", "--help")
    assert helped.returncode == 0
    assert "--all" in helped.stdout
    assert max(map(len, helped.stdout.splitlines())) <= 100
    assert run("--version").stdout.startswith("arena ")
    wrong = run("databases", "lits")
    assert wrong.returncode == 2
    assert "--dry" in run("databases", "sweep", "--dry").stderr
    assert "list, sweep" in wrong.stderr.replace("'", "")  # Python 3.14 writes no quotes
    assert run().returncode == run("databases").returncode == 2


@pytest.mark.parametrize("name", ["nosql", "oracle", "http://example.org"])
def test_a_value_that_cannot_be_right_is_wrong_usage(name: str) -> None:
    called = command.arena("databases", "list", "--database", name)
    assert (called.status, called.output) == (2, "")
    assert "[A101]" in called.errors
    assert "arena_database" in called.errors


@pytest.mark.parametrize("words", [["list"], ["sweep", "--all"]])
def test_a_named_server_that_does_not_answer_is_an_error(
    words: list[str], tmp_path: Path, begin: Any
) -> None:
    process, name = begin(ON_FILES, tempfile.gettempdir())
    killed(process)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\narena_database = postgresql://me:s3cret@127.0.0.1:9/postgres\n"
    )
    called = command.arena("databases", *words)
    assert (called.status, called.output) == (1, "")
    parts = ("nothing answers on 127.0.0.1:9", "pytest.ini", "  why:", "  cause:", "  next:")
    assert all(part in called.errors for part in (*parts, "[A301]"))
    assert "s3cret" not in called.errors
    assert list(tmp_path.glob(f"pytest-arena-*/{name}"))


@pytest.mark.parametrize(
    "file, text",
    [
        ("pytest.ini", "[pytest]\narena_database = own\n"),
        ("pytest.toml", "[pytest]\narena_database = 'own'\n"),
        ("pyproject.toml", "[tool.pytest]\narena_database = 'own'\n"),
        ("pyproject.toml", "[tool.pytest.ini_options]\narena_database = 'own'\n"),
        ("tox.ini", "[testenv]\nx = 1\n[pytest]\naddopts = %(x)s\narena_database = own\n"),
        ("setup.cfg", "[tool:pytest]\narena_database = own\n"),
    ],
)
def test_the_server_is_the_one_that_a_run_here_would_use(
    file: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of this folder or one above; the environment wins, and over it the command line.

    An empty ``pytest.ini`` ends the search, as for pytest, which takes its folder as the root.
    """
    (tmp_path / file).write_text(text)
    below = tmp_path / "src"
    below.mkdir()
    (below / "setup.cfg").write_text("[metadata]\nname = shop\n")
    (below / "pyproject.toml").write_text("[project]\nname = 'shop'\n")
    monkeypatch.chdir(below)
    found = read_project()
    assert (found.database, found.file) == ("own", tmp_path / file)
    (tmp_path / "alembic.ini").touch()
    assert ('"' in schema_to_set(found)) is file.endswith(".toml")
    monkeypatch.setenv("ARENA_DATABASE", "sqlite")
    assert read_project().database == "sqlite"
    assert read_project(database="postgresql").database == "postgresql"
    (below / "pytest.ini").touch()
    assert read_project().file == below / "pytest.ini"


@pytest.mark.parametrize(
    "file, text, line",
    [
        ("pyproject.toml", b"[tool.pytest.ini_options]\narena_database = own\n", "line 2"),
        ("tox.ini", b"arena\n[pytest]\n", "tox.ini:1"),
    ],
)
def test_a_configuration_that_cannot_be_parsed_is_named(
    file: str, text: bytes, line: str, tmp_path: Path
) -> None:
    """Otherwise the command would use no option, or the databases of another place."""
    (tmp_path / file).write_bytes(text)
    called = command.arena("databases", "list")
    assert called.status == 2
    assert str(tmp_path / file) in called.errors
    assert line in called.errors
    assert "[A101]" in called.errors


def test_where_nothing_is_it_says_where_it_looked(tmp_path: Path) -> None:
    """Nothing is made by looking; sweeping what is not there is no mistake."""
    before = sorted(tmp_path.rglob("*"))
    cache = os.environ["ARENA_CACHE"]
    told = arena("list", "--database", "own")
    assert told.count("  nothing\n") >= 2
    assert f"({cache}/templates)" in told
    assert f"({cache}/kept)" in told
    assert arena("sweep", "--database", "own") == "Nothing to remove.\n"
    assert sorted(tmp_path.rglob("*")) == before
    assert arena("sweep", "--all", "--database", "own") == "Nothing to remove.\n"


# Files


def test_a_dead_runs_files_go_and_a_living_runs_stay(begin: Any, tmp_path: Path) -> None:
    """A folder of the same form in the same place, without a lock of a living run, is no run's."""
    dead, dead_name = begin(ON_FILES, tempfile.gettempdir())
    alive, alive_name = begin(ON_FILES, tempfile.gettempdir())
    killed(dead)
    (home,) = tmp_path.glob("pytest-arena-*")
    assert home.stat().st_mode & 0o077 == 0  # no other user can enter it
    (home / "run-notes").mkdir()
    found = listed("own")
    states = {name: one["state"] for name, one in found.items()}
    assert states == {dead_name: "dead", alive_name: "alive"}
    assert datetime.fromisoformat(found[alive_name]["time"]).tzinfo is UTC
    told = arena("sweep", "--database", "own")
    assert told == f"removed  live {dead_name}\n1 removed.\n"
    told = arena("sweep", "--all", "--database", "own")
    assert told == f"left     {alive_name}: a living run uses it\nNothing to remove.\n"
    killed(alive)
    arena("sweep", "--all", "--database", "own")
    assert [path.name for path in home.iterdir()] == ["run-notes"]


def test_the_cache_is_shown_and_emptied_of_what_is_arenas(
    begin: Any, example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What else is in the folder stays; so does a template that a living run may use."""
    alive, _ = begin(ON_FILES, tempfile.gettempdir())
    test = "def test_one(test_client): test_client.get('/dancers')"
    example.with_files(test_one=test).run("--arena-keep=always").expect(passed=1)
    cache = example.folder.parent / "cache"
    monkeypatch.setenv("ARENA_CACHE", str(cache))
    foreign = [cache / name for name in ("notes", "templates/page.html", "kept/readme.txt")]
    for file in foreign:
        file.write_text("mine")
    kinds = sorted(one["what"] for one in listed("own").values() if one["what"] != "live")
    assert kinds == ["kept", "template", "template"]  # of the schema, and of the run's seed
    assert arena("sweep", "--database", "own") == "Nothing to remove.\n"
    told = arena("sweep", "--all", "--database", "own")
    assert told.count("a living run may use it") == 2
    assert told.count("removed  kept") == 1
    killed(alive)
    assert arena("sweep", "--all", "--database", "own").count("removed  template") == 2
    assert sorted(path for path in cache.rglob("*") if path.is_file()) == sorted(foreign)
    for file in foreign:
        file.unlink()
    arena("sweep", "--all", "--database", "own")
    assert not cache.exists()


def kept_file() -> Path:
    file = Path(os.environ["ARENA_CACHE"]) / "kept" / "test_red-shop"
    file.parent.mkdir(parents=True)
    file.touch()
    return file


def test_all_of_sqlite_is_files_alone(places: Path) -> None:
    """A private server is another thing, and stays."""
    kept = kept_file()
    folder = places / f"pytest-arena-pg-{os.getuid()}" / "15.1-0123abcd"
    folder.mkdir(parents=True)
    folder.with_name("15.1-0123abcd.used").touch()
    assert arena("sweep", "--all", "--database", "sqlite") == (
        "removed  kept test_red-shop\n1 removed.\n"
    )
    assert not kept.exists()
    assert folder.exists()


# A server


def test_all_of_a_named_server_is_that_server_alone(
    begin: Any, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of this user, what was kept, and private servers stay; by a variable, too."""
    monkeypatch.setenv("ARENA_DATABASE", url_of(role))
    kept = kept_file()
    dead, name = begin(ON_FILES, tempfile.gettempdir())
    killed(dead)
    with own_databases(role) as own:
        on_server = own.keep(own.create("live"), "tests/test_shop.py::test_red")
    told = arena("sweep", "--all")
    assert f"removed  kept {on_server}\n" in told
    assert told.endswith("\n1 removed.\n")
    assert kept.exists()
    assert name not in arena("list")
    assert name in arena("list", "--database", "sqlite")


def test_a_dead_runs_databases_go_and_nobody_elses(begin: Any, role: str) -> None:
    """Not a living run's, and none that only has a name like arena's."""
    url, login_of_role = url_of(role), json.dumps(astuple(login(role)))
    foreign = f"arena_live_x{secrets.token_hex(8)}"
    dead, dead_name = begin(ON_SERVER, login_of_role)
    alive, alive_name = begin(ON_SERVER, login_of_role)
    with closing(open_control(login(role))) as control:
        control.run(f"CREATE DATABASE {foreign}")
        killed(dead)
        until(lambda: listed(url)[dead_name]["state"] == "dead", "the server hears of it")
        assert listed(url)[alive_name]["state"] == "alive"
        assert foreign not in listed(url)
        told = arena("sweep", "--database", url)
        assert f"removed  live {dead_name}\n1 removed." in told
        told = arena("sweep", "--all", "--database", url)
        assert f"left     {alive_name}: a living run uses it" in told
        assert there(dead_name, alive_name, foreign) == {alive_name, foreign}
        alive.communicate("\n")
        assert there(alive_name, foreign) == {foreign}


def test_templates_and_kept_databases_go_with_all_alone(role: str) -> None:
    url = url_of(role)
    with own_databases(role) as own:
        built = SimpleNamespace(address=own.address_of(own.create("building")))
        template = own.finish(built, "s", Manifest(1.0))
        kept = own.keep(own.create("live"), "tests/test_shop.py::test_red")
        used = arena("sweep", "--all", "--database", url)
        assert f"left     {template}: a living run uses it" in used
        assert f"removed  kept {kept}" in used
        kept = own.keep(own.create("live"), "tests/test_shop.py::test_red")
    told = arena("list", "--database", url)
    assert template in told
    assert told.index(kept) < told.index("tests/test_shop.py::test_red")
    found = listed(url)
    assert (found[template]["what"], found[kept]["what"]) == ("template", "kept")
    assert template not in arena("sweep", "--database", url)
    told = arena("sweep", "--all", "--database", url)
    assert f"removed  template {template}" in told
    assert f"removed  kept {kept}" in told
    assert there(template, kept) == set()


def test_a_private_server_is_listed_left_while_used_and_removed_with_all(places: Path) -> None:
    """The command starts no server: a stopped one is listed."""
    cluster = clusters.find(newest_programs(), cache=places)
    folder, name = cluster.folder, cluster.folder.path.name
    try:
        assert listed("own")[name]["state"] == "in use"
        text = arena("sweep", "--all", "--database", "own")
        assert f"left     {name}: a private server that is in use" in text
        cluster.close()
        until(lambda: not clusters.is_running(folder), "the last run stops the server")
        assert listed("own")[name]["state"] == "stopped"
        assert arena("sweep", "--database", "own") == "Nothing to remove.\n"
        assert f"removed  server {name}\n" in arena("sweep", "--all", "--database", "own")
        assert not folder.path.exists()
    finally:
        end_cluster(folder)
