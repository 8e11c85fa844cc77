"""What makes a new template, and what does not."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_arena._databases import _sources
from pytest_arena._sqlite import _templates as _files
from tests.template.project import MODELS, SEED, Project

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable


def test_a_template_is_built_once(project: Project) -> None:
    """The second time it is found, with its rows."""
    assert project.ensure() == project.ensure()
    assert (project.builds(), project.names()) == (1, ["Sand"])


def _edit_model(project: Project) -> None:
    project.write(models=MODELS.replace("String)", "String(40))"))


def _edit_seed(project: Project) -> None:
    project.write(seed=SEED.replace("helper.NAME", "helper.NAME + '!'"))


def _edit_helper(project: Project) -> None:
    project.write(helper='NAME = "Dune"\n')


@pytest.mark.parametrize(
    "edit", [pytest.param(_edit_model, marks=pytest.mark.slow), _edit_seed, _edit_helper]
)
def test_a_change_of_model_seed_or_imported_helper_builds_anew_pitfall_089(
    project: Project, edit: Callable[[Project], None]
) -> None:
    """What the rows and tables come from is part of the fingerprint."""
    before = project.ensure()
    edit(project)
    assert project.ensure() != before
    assert project.builds() == 2


@pytest.mark.parametrize(
    "file",
    [
        "seed",
        pytest.param("helper", marks=pytest.mark.slow),
        pytest.param("models", marks=pytest.mark.slow),
    ],
)
def test_a_change_of_comments_and_white_space_builds_nothing_pitfall_089(
    project: Project, file: str
) -> None:
    """Only code counts."""
    before = project.ensure()
    text = (project.root / f"{file}.py").read_text()
    project.write(**{file: f"# a remark\n\n{text}\n\n\n# another one\n"})
    assert project.ensure() == before
    assert project.builds() == 1


@pytest.mark.slow
def test_a_file_that_goes_back_to_what_it_was_finds_its_template_again(project: Project) -> None:
    """Going from branch to branch builds each of them once."""
    first = project.ensure()
    _edit_helper(project)
    project.ensure()
    project.write(helper='NAME = "Sand"\n')
    assert project.ensure() == first
    assert project.builds() == 2


READING = """
from pathlib import Path
import json
from sqlalchemy import text
def seed(session):
    with Path("builds.log").open("a") as log:
        log.write("built ")
    for file in sorted(Path("data").rglob("*.json")):
        session.execute(text("insert into dancers (name) values (:n)"), {"n": file.read_text()})
"""


def _with_data(project: Project) -> None:
    (project.root / "data" / "more").mkdir(parents=True)
    (project.root / "data" / "one.json").write_text("One")
    project.write(seed=READING)


def test_a_data_file_that_the_seed_reads_counts(project: Project) -> None:
    """Changed, added, added in a folder below, removed: each is another template."""
    _with_data(project)
    assert project.names() == ["One"]
    (project.root / "data" / "one.json").write_text("Uno")
    assert project.names() == ["Uno"]
    (project.root / "data" / "two.json").write_text("Two")
    assert project.names() == ["Uno", "Two"]
    (project.root / "data" / "more" / "three.json").write_text("Three")
    assert sorted(project.names()) == ["Three", "Two", "Uno"]
    (project.root / "data" / "one.json").unlink()
    assert sorted(project.names()) == ["Three", "Two"]


READING_A_DATABASE = """
import sqlite3
from contextlib import closing
from pathlib import Path
from sqlalchemy import text

def seed(session):
    uri = Path("data/names.db").resolve().as_uri() + "?mode=ro"
    for place, is_uri in ("data/more.db", False), (uri, True):
        with closing(sqlite3.connect(place, uri=is_uri)) as connection:
            for (name,) in connection.execute("select name from names").fetchall():
                session.execute(text("insert into dancers (name) values (:n)"), {"n": name})
    with Path("builds.log").open("a") as log:
        log.write("built ")
    with closing(sqlite3.connect("builds.db")) as connection:
        connection.execute("create table if not exists built (at)")
        connection.execute("insert into built values (1)")
        connection.commit()
"""


@pytest.mark.slow
def test_a_sqlite_file_that_the_seed_reads_counts(project: Project) -> None:
    """sqlite3 opens it, and not Python. A file that the seed writes does not count."""

    def write(file: str, name: str) -> None:
        with closing(sqlite3.connect(project.root / "data" / file)) as connection:
            connection.execute("create table if not exists names (name)")
            connection.execute("insert into names values (?)", (name,))
            connection.commit()

    (project.root / "data").mkdir()
    project.write(seed=READING_A_DATABASE)
    write("more.db", "Sand")
    write("names.db", "Dune")
    assert project.names() == ["Sand", "Dune"]
    assert project.names() == ["Sand", "Dune"]
    assert project.builds() == 1
    write("more.db", "Storm")
    assert project.names() == ["Sand", "Storm", "Dune"]
    write("names.db", "Wind")
    assert project.names() == ["Sand", "Storm", "Dune", "Wind"]


LISTING = """
import os
from pathlib import Path
from sqlalchemy import text

def seed(session):
    with Path("builds.log").open("a") as log:
        log.write("built ")
    names = os.listdir("one") + [file.name for file in Path("two").glob("*.png")]
    for name in sorted(names + [entry.name for entry in os.scandir("three")]):
        session.execute(text("insert into dancers (name) values (:n)"), {"n": name})
"""


@pytest.mark.slow
def test_the_names_in_a_folder_that_the_seed_lists_count(project: Project) -> None:
    """Though it reads none of the files: its rows may be of the names."""
    project.write(seed=LISTING)
    for folder in "one", "two", "three":
        (project.root / folder).mkdir()
    names: list[str] = []
    for number, folder in enumerate(("one", "two", "three")):
        names.append(f"{number}.png")
        (project.root / folder / names[-1]).touch()
        assert project.names() == names
    builds = project.builds()
    (project.root / "another.png").touch()
    assert project.names() == names
    assert project.builds() == builds


REGISTERED = """
import importlib
import pkgutil

ADDERS = []
for module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{module.name}")

def seed(session):
    for add in ADDERS:
        add(session)
"""
ADDER = """
from sqlalchemy import text
from seeds import ADDERS

ADDERS.append(lambda session: session.execute(text("insert into dancers (name) values ('Sand')")))
"""
NAMED = """
import importlib
from sqlalchemy import text

def seed(session):
    name = importlib.import_module("other").NAME
    session.execute(text("insert into dancers (name) values (:name)"), {"name": name})
"""


@pytest.mark.slow
def test_modules_that_a_package_finds_by_itself_count(project: Project) -> None:
    """Rows are often registered so: the package names none of its modules."""
    project.seed = "seeds:seed"
    (project.root / "seeds").mkdir()
    project.write(**{"seeds/__init__": REGISTERED, "seeds/rows": ADDER})
    assert project.names() == ["Sand"]
    project.write(**{"seeds/rows": ADDER.replace("Sand", "Dune")})
    assert project.names() == ["Dune"]


def test_a_module_that_is_imported_by_its_name_counts(project: Project) -> None:
    """Also where somebody else has loaded it before."""
    project.write(seed=NAMED, other='NAME = "Sand"\n')
    project.load("other")
    assert project.names() == ["Sand"]
    project.write(other='NAME = "Dune"\n')
    project.load("other")
    assert project.names() == ["Dune"]


LISTENING = """
from pathlib import Path
from sqlalchemy import DDL, event, text
from models import metadata

@event.listens_for(metadata, "after_create")
def fill(target, connection, **_):
    connection.execute(text("insert into dancers (name) values ('Storm')"))

event.listen(metadata, "after_create", DDL(Path("more.sql").read_text()))
"""


@pytest.mark.slow
def test_who_listens_to_create_all_counts_wherever_it_stands(project: Project) -> None:
    """Triggers and views are made so, often by a module that the models do not know."""
    project.seed = ""
    more = project.root / "more.sql"
    more.write_text("insert into dancers (name) values ('Rock')")

    def names(listening: str) -> list[str]:
        project.write(models=MODELS, listening=listening)
        project.load("listening")
        return sorted(project.names())

    assert names(LISTENING) == ["Rock", "Storm"]
    assert names(LISTENING.replace("'Storm'", "'Dune'")) == ["Dune", "Rock"]
    more.write_text("insert into dancers (name) values ('Wave')")
    assert names(LISTENING.replace("'Storm'", "'Dune'")) == ["Dune", "Wave"]


def test_files_of_another_kind_beside_the_data_count_for_nothing(project: Project) -> None:
    """Reports, logs and hidden files come and go in a folder that the seed looks into."""
    _with_data(project)
    project.ensure()
    for name in ("report.html", ".hidden.json", "run.log"):
        (project.root / "data" / name).write_text("x")
    project.ensure()
    assert project.builds() == 1


@pytest.mark.slow
def test_data_beside_the_root_folder_counts_in_one_checkout(
    project: Project, tmp_path: Path
) -> None:
    """The rootdir of pytest may be a folder of a repository whose data stand elsewhere in it."""
    (tmp_path / ".git").mkdir()
    data = tmp_path / "shared.txt"
    data.write_text("Shared")
    project.write(
        helper="from pathlib import Path\n",
        seed=SEED.replace("helper.NAME", "helper.Path('../shared.txt').read_text()"),
    )
    assert project.names() == ["Shared"]
    data.write_text("Other")
    assert project.names() == ["Other"]


NOISY = SEED.replace(
    "def seed(session):",
    """def seed(session):
    import os, time
    Path("state.txt").write_text(str(time.time_ns()))
    Path("state.txt").read_text()
    Path("cache.tmp").write_text(str(time.time_ns()))
    os.replace("cache.tmp", "cache.txt")
    Path("cache.txt").read_text()
    Path(".git/HEAD").read_text()
""",
)


@pytest.mark.slow
def test_what_a_build_writes_itself_never_makes_it_run_again(project: Project) -> None:
    """A log, a cache, a state file, .git: no endless rebuilds."""
    (project.root / ".git").mkdir()
    (project.root / ".git" / "HEAD").write_text("one")
    project.write(seed=NOISY)
    project.ensure()
    (project.root / ".git" / "HEAD").write_text("two")
    project.write(seed=NOISY)
    project.ensure()
    assert project.builds() == 1


@pytest.mark.slow
def test_an_env_file_counts(project: Project) -> None:
    """Settings are read from it, and may say which rows there are."""
    (project.root / ".env").write_text("Env")
    project.write(seed=SEED.replace("helper.NAME", "Path('.env').read_text()"))
    assert project.names() == ["Env"]
    (project.root / ".env").write_text("Other")
    assert project.names() == ["Other"]


@pytest.mark.slow
def test_a_checkout_that_was_moved_finds_its_templates(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two projects of the same content share them, wherever they lie, behind a link too."""
    before = project.ensure()
    moved = tmp_path / "elsewhere" / "deeper"
    shutil.copytree(project.root, moved)
    link = tmp_path / "link"
    link.symlink_to(moved, target_is_directory=True)
    for root in (moved, link):
        project.forget()
        monkeypatch.syspath_prepend(str(root))
        monkeypatch.chdir(root)
        other = Project(root, project.cache)
        assert other.ensure() == before
        other.forget()
    assert project.builds() == 1


def test_no_path_of_this_machine_is_in_a_template(project: Project, tmp_path: Path) -> None:
    """Neither in its name nor in what is written down about it."""
    shelf = project.ensure().parent
    for file in project.cache.rglob("*.json"):
        assert str(tmp_path) not in file.read_text()
        assert not any(Path(name).is_absolute() for name in json.loads(file.read_text())["files"])
    assert str(tmp_path) not in str(shelf.relative_to(project.cache))


@pytest.mark.slow
def test_two_projects_with_the_same_names_share_a_cache_and_nothing_else(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The values of the options are the same, the files are not."""
    project.ensure()
    project.forget()
    root = tmp_path / "other"
    shutil.copytree(project.root, root)
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.chdir(root)
    other = Project(root, project.cache)
    other.write(helper='NAME = "Other"\n')
    assert other.names() == ["Other"]
    other.forget()


def test_rebuild_is_for_what_is_older_than_the_run(project: Project) -> None:
    """``--arena-rebuild`` says when its run began; a second worker of that run finds the new one.

    Another run that uses the old template meanwhile does not make it new.
    """
    project.ensure()
    began = time.time()
    project.ensure()
    for _ in range(2):
        project.ensure(newer_than=began)
    assert project.builds() == 2


@pytest.mark.slow
def test_unused_templates_are_collected_at_the_next_build_pitfall_090(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a shelf that is in use: each edit of a seed leaves a template there."""
    old = project.ensure()
    schema = [file for file in project.cache.rglob("*.sqlite") if file.parent != old.parent]
    long_ago = time.time() - 2 * _files._UNUSED_SECONDS
    os.utime(old.with_suffix(".json"), (long_ago, long_ago))
    _edit_helper(project)
    new = project.ensure()
    assert not old.exists()
    assert new.exists()
    assert all(file.exists() for file in schema)


def test_a_template_in_use_is_not_collected(project: Project) -> None:
    """Finding one counts as a use."""
    old = project.ensure()
    long_ago = time.time() - 2 * _files._UNUSED_SECONDS
    for file in project.cache.rglob("*.json"):
        os.utime(file, (long_ago, long_ago))
    assert project.ensure() == old
    _edit_helper(project)
    project.ensure()
    assert old.exists()


def test_an_app_that_is_installed_from_its_checkout_is_code_of_the_project(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As tox and nox do it: its modules lie in site-packages, and are the user's own."""
    site = tmp_path / "site-packages"
    about = site / "shop-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
    (about / "direct_url.json").write_text('{"url": "file:///src/shop", "dir_info": {}}')
    (about / "RECORD").write_text("shop/__init__.py,,\n")
    (site / "shop").mkdir()
    (site / "shop" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(site))
    _sources._installed_from_here.cache_clear()
    try:
        assert "shop" in _sources._installed_from_here()
    finally:
        _sources._installed_from_here.cache_clear()


def _end(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=60)
    return output.strip()


@pytest.mark.slow
def test_six_processes_at_once_build_once_pitfall_074(project: Project) -> None:
    """Whoever has the lock builds; the others wait, and find it."""
    processes = [project.in_another_process() for _ in range(6)]
    found = {_end(process) for process in processes}
    assert found == {str(project.ensure())}
    assert project.builds() == 1


DYING = SEED.replace(
    "    session.execute",
    """    import os, signal
    if not Path("survive").exists():
        session.execute(text("insert into dancers (name) values ('half')"))
        session.commit()
        os.kill(os.getpid(), signal.SIGKILL)
    session.execute""",
)


def test_a_build_that_was_killed_is_never_taken_for_a_finished_one_pitfall_074(
    project: Project,
) -> None:
    """The next one builds, and clears away what the dead one left."""
    project.write(seed=DYING)
    killed = project.in_another_process()
    _end(killed)
    assert killed.returncode == -9
    assert list(project.cache.rglob("building-*"))
    (project.root / "survive").touch()
    assert project.names() == ["Sand"]
    assert not list(project.cache.rglob("building-*"))
    assert project.builds() == 2


def test_a_manifest_without_its_template_is_no_template(project: Project) -> None:
    """Somebody emptied the cache by half, or the disk was full."""
    project.ensure().unlink()
    assert project.names() == ["Sand"]
    assert project.builds() == 2
