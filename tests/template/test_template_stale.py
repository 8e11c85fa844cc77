"""Sources that are easily overlooked: a template that they change is built again."""

from __future__ import annotations

import importlib
import json
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example
    from tests.template.project import Project

SEED = """
import json
import os
import subprocess
import sys
from pathlib import Path
from sqlalchemy import text

def rows():
{rows}

def seed(session):
    with Path("builds.log").open("a") as log:
        log.write("built ")
    for name in rows():
        session.execute(text("insert into dancers (name) values (:name)"), {{"name": name}})
"""


def _seeded(project: Project, rows: str) -> None:
    """Write a seed whose rows these lines return."""
    indented = "\n".join(f"    {line}" for line in rows.strip().splitlines())
    project.write(seed=SEED.format(rows=indented))


ASKED = {
    "exists": """
if Path("extra.txt").exists():
    return ["Sand", Path("extra.txt").read_text()]
return ["Sand"]
""",
    "os.path.isfile": """
if os.path.isfile("extra.txt"):
    return ["Sand", Path("extra.txt").read_text()]
return ["Sand"]
""",
    "FileNotFoundError": """
try:
    return ["Sand", Path("extra.txt").read_text()]
except FileNotFoundError:
    return ["Sand"]
""",
    "a flag": """
return ["Sand", "Dune"] if Path("extra.txt").exists() else ["Sand"]
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("rows", ASKED.values(), ids=ASKED)
def test_a_file_that_did_not_exist_counts_when_it_comes_and_when_it_goes(
    project: Project, rows: str
) -> None:
    """Each state has a template, which is found again."""
    extra = project.root / "extra.txt"
    _seeded(project, rows)
    assert project.names() == ["Sand"]
    assert project.names() == ["Sand"]
    assert project.builds() == 1
    extra.write_text("Dune")
    assert project.names() == ["Sand", "Dune"]
    extra.unlink()
    assert project.names() == ["Sand"]
    assert project.builds() == 2


def test_an_optional_module_counts_when_it_comes(project: Project) -> None:
    """Settings of one machine are often imported so."""
    _seeded(
        project,
        """
try:
    from local_names import NAMES
except ImportError:
    NAMES = ["Sand"]
return NAMES
""",
    )
    assert project.names() == ["Sand"]
    assert project.names() == ["Sand"]
    assert project.builds() == 1
    importlib.invalidate_caches()
    project.write(local_names="NAMES = ['Dune']")
    assert project.names() == ["Dune"]


def test_a_folder_that_did_not_exist_counts_when_it_comes(project: Project) -> None:
    """The seed lists it, and there is nothing to list yet."""
    _seeded(project, 'return ["Sand", *sorted(file.stem for file in Path("more").glob("*.txt"))]')
    assert project.names() == ["Sand"]
    (project.root / "more").mkdir()
    (project.root / "more" / "Dune.txt").touch()
    assert project.names() == ["Sand", "Dune"]


def test_a_file_that_the_build_read_counts_when_it_goes(project: Project) -> None:
    """The build may have another way without it, or fail: either says what is true now."""
    extra = project.root / "extra.txt"
    extra.write_text("Dune")
    _seeded(
        project,
        """
try:
    return [Path("extra.txt").read_text()]
except OSError:
    return ["Sand"]
""",
    )
    assert project.names() == ["Dune"]
    extra.unlink()
    assert project.names() == ["Sand"]


@pytest.mark.slow
def test_data_outside_the_checkout_count(project: Project, tmp_path: Path) -> None:
    """Changed, added, removed: the folder may belong to another repository."""
    outside = tmp_path / "elsewhere" / "fixtures"
    outside.mkdir(parents=True)
    (outside / "one.txt").write_text("One")
    _seeded(
        project,
        f"""
files = sorted(Path({str(outside)!r}).glob("*.txt"))
return [file.read_text() for file in files]
""",
    )
    assert project.names() == ["One"]
    assert project.names() == ["One"]
    assert project.builds() == 1
    (outside / "one.txt").write_text("Uno")
    assert project.names() == ["Uno"]
    (outside / "two.txt").write_text("Two")
    assert project.names() == ["Uno", "Two"]
    (outside / "one.txt").unlink()
    assert project.names() == ["Two"]


@pytest.mark.slow
def test_a_large_file_is_read_again_only_if_its_time_has_changed(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dump of the real data may have gigabytes, and each run of the tests looks for changes."""
    monkeypatch.setattr("pytest_arena._databases._sources._LARGE", 10)
    dump = tmp_path / "dump.txt"
    dump.write_text("a long, long name")
    _seeded(project, f"return [Path({str(dump)!r}).read_text()]")
    assert project.names() == ["a long, long name"]
    dump.touch()
    assert project.names() == ["a long, long name"]
    assert project.builds() == 1
    dump.write_text("a long, other name")
    assert project.names() == ["a long, other name"]


COMMANDS = {
    "argument": '["cat", "rows.txt"]',
    "option": '["sed", "--expression=", "--file=/dev/null", "rows.txt"]',
    "shell": '"cat < rows.txt"',
    "folder": '["cat", "../rows.txt"]',
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_file_that_the_command_of_a_child_names_counts(project: Project, command: str) -> None:
    """The child opens it, in its own folder, and not Python."""
    file = project.root / "rows.txt"
    file.write_text("Sand")
    (project.root / "work").mkdir()
    folder = "work" if "../" in command else "."
    shell = command.startswith('"')
    _seeded(
        project,
        f"""
done = subprocess.run({command}, shell={shell}, cwd={folder!r}, capture_output=True, text=True)
return [done.stdout]
""",
    )
    assert project.names() == ["Sand"]
    assert project.names() == ["Sand"]
    assert project.builds() == 1
    file.write_text("Dune")
    assert project.names() == ["Dune"]


def test_a_file_that_a_child_writes_does_not_count(project: Project) -> None:
    """It would be different each time. So does a program outside of the checkout."""
    _seeded(
        project,
        """
subprocess.run("date +%s%N > now.txt", shell=True)
subprocess.run([sys.executable, "-c", "print()"], stdout=subprocess.DEVNULL)
return [Path("now.txt").read_text() and "Sand"]
""",
    )
    (project.root / "now.txt").write_text("before")
    project.ensure()
    project.ensure()
    assert project.builds() == 1


LIBRARY = """
def names():
    return [{name!r}]
"""


class _Site:
    """A folder of installed libraries."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def install(self, name: str, version: str, *, code: str, needs: str = "") -> None:
        for old in self.folder.glob(f"{name}-*.dist-info"):
            for file in old.iterdir():
                file.unlink()
            old.rmdir()
        about = self.folder / f"{name}-{version}.dist-info"
        about.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        if needs:
            metadata += f"Requires-Dist: {needs}\n"
        (about / "METADATA").write_text(metadata)
        (about / "RECORD").write_text(f"{name}_data/__init__.py,,\n")
        package = self.folder / f"{name}_data"
        package.mkdir(exist_ok=True)
        (package / "__init__.py").write_text(code)
        for module in list(sys.modules):
            if module.startswith(f"{name}_data"):
                del sys.modules[module]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Site:
    """A folder on sys.path, with no library in it."""
    site = _Site(tmp_path / "site-packages")
    monkeypatch.syspath_prepend(str(site.folder))
    return site


def test_a_library_that_is_upgraded_counts(project: Project, site: _Site) -> None:
    """One that the seed imports, and one that only that one needs. Others do not count."""
    site.install("names", "1.0", code="from words_data import names", needs="words>=1")
    site.install("words", "1.0", code=LIBRARY.format(name="Sand"))
    site.install("other", "1.0", code="")
    _seeded(project, "import names_data\nreturn names_data.names()")
    assert project.names() == ["Sand"]
    site.install("other", "2.0", code="")
    project.forget()
    assert project.names() == ["Sand"]
    assert project.builds() == 1
    site.install("words", "1.1", code=LIBRARY.format(name="Dune"))
    site.install("names", "1.0", code="from words_data import names", needs="words>=1")
    project.forget()
    assert project.names() == ["Dune"]
    site.install("names", "1.1", code=LIBRARY.format(name="Storm"))
    project.forget()
    assert project.names() == ["Storm"]


READING_A_DATABASE = """
import sqlite3
from contextlib import closing
with closing(sqlite3.connect("data/names.db")) as connection:
    return [name for (name,) in connection.execute("select name from names").fetchall()]
"""


def test_what_stands_in_the_wal_of_a_sqlite_file_counts(project: Project) -> None:
    """The app that runs beside the tests has committed rows that are not in the file yet."""
    (project.root / "data").mkdir()
    _seeded(project, READING_A_DATABASE)
    file = project.root / "data" / "names.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("pragma journal_mode=wal")
        other.execute("create table names (name)")
        other.execute("insert into names values ('Sand')")
        other.execute("pragma wal_checkpoint(truncate)")
        assert project.names() == ["Sand"]
        assert project.names() == ["Sand"]
        assert project.builds() == 1
        other.execute("insert into names values ('Dune')")
        assert project.names() == ["Sand", "Dune"]
        other.execute("insert into names values ('Storm')")
        assert project.names() == ["Sand", "Dune", "Storm"]
    assert project.names() == ["Sand", "Dune", "Storm"]


@pytest.mark.slow
def test_a_wal_that_the_build_empties_itself_counts_once(project: Project) -> None:
    """The build's connection is the last one, and moves the rows into the file."""
    (project.root / "data").mkdir()
    _seeded(project, READING_A_DATABASE)
    file = project.root / "data" / "names.db"
    copies = {}
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("pragma journal_mode=wal")
        other.execute("create table names (name)")
        other.execute("insert into names values ('Sand')")
        for ending in "", "-wal":
            copies[ending] = file.with_name(file.name + ending).read_bytes()
    for ending, content in copies.items():  # as a killed app leaves them
        file.with_name(file.name + ending).write_bytes(content)
    assert project.names() == ["Sand"]
    assert project.names() == ["Sand"]
    assert project.builds() == 1
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("insert into names values ('Dune')")
    assert project.names() == ["Sand", "Dune"]


def test_what_changes_by_itself_makes_no_new_template(project: Project, tmp_path: Path) -> None:
    """Devices, the system's files, temporary files, hidden folders, logs, its own cache."""
    (tmp_path / ".tool").mkdir()
    state = tmp_path / ".tool" / "state.txt"
    state.write_text("one")
    _seeded(
        project,
        f"""
import tempfile, uuid, time, zoneinfo, logging.handlers
for file in "/proc/self/stat", "/etc/passwd", "/etc/localtime", {str(state)!r}:
    Path(file).exists() and Path(file).read_bytes()
with open("/dev/urandom", "rb") as random:
    random.read(1)
with tempfile.NamedTemporaryFile("w+") as temporary:
    temporary.write("x")
    temporary.flush()
    Path(temporary.name).read_text()
left = Path(tempfile.mkdtemp()) / "left.txt"
subprocess.run(f"date > {{left}}", shell=True)
left.read_text()
logging.handlers.RotatingFileHandler("app.log").close()
out = Path("out")
if not out.exists():
    out.mkdir()
(out / f"{{uuid.uuid4()}}.txt").write_text(str(time.time_ns()))
list(out.iterdir())
return ["Sand"]
""",
    )
    project.ensure()
    state.write_text("two")
    for _ in range(3):
        project.forget()
        project.ensure()
    assert project.builds() == 1


OPTIONAL = """
from pathlib import Path
from app import Dancer

FILE = Path(__file__).parent / "extra.txt"
NAMES = ["Sand"]
if FILE.exists():
    NAMES.append(FILE.read_text())

async def seed(session):
    session.add_all(Dancer(name=name) for name in NAMES)
"""
PRINTING = """
async def test_names(client):
    print("the names:", (await client.get("/dancers")).json())
"""


@pytest.mark.slow
def test_a_module_that_looks_for_an_optional_file_is_read_again(example: Example) -> None:
    """At its import, before the build. The summary names the file that has come."""
    project = example.with_files(seed=OPTIONAL, test_it=PRINTING)
    project.run("-s").expect(passed=1).says("the names: ['Sand']", "template built")
    project.run("-s").expect(passed=1).says("template from the cache")
    (project.folder / "extra.txt").write_text("Dune")
    run = project.run("-s").expect(passed=1).says("the names: ['Sand', 'Dune']")
    run.says("(arena_seed = seed:seed: extra.txt exists now)")


SETTINGS = """
from functools import lru_cache
from pathlib import Path
from app import Dancer

@lru_cache
def get_settings():
    return Path("settings.env").read_text()

async def seed(session):
    session.add(Dancer(name=get_settings()))
"""


@pytest.mark.slow
def test_settings_that_were_read_before_the_build_count(example: Example) -> None:
    """A conftest reads them during the collection, and the function keeps them."""
    project = example.with_files(seed=SETTINGS, test_it=PRINTING)
    project = project.with_files(conftest="import seed\n\nseed.get_settings()\n")
    project = project.with_paths({"settings.env": "Sand"})
    project.run("-s").expect(passed=1).says("the names: ['Sand']", "template built")
    project.run("-s").expect(passed=1).says("template from the cache")
    project = project.with_paths({"settings.env": "Dune"})
    run = project.run("-s").expect(passed=1).says("the names: ['Dune']")
    run.says("(arena_seed = seed:seed: settings.env has changed)")


INI = """
[alembic]
script_location = %(here)s/migrations
path_separator = os
"""
ENV = """
import asyncio
from alembic import context
from app import Base, engine

def run(connection):
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()

async def main():
    async with engine.connect() as connection:
        await connection.run_sync(run)

asyncio.run(main())
"""
FIRST = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "1", None

def upgrade():
    op.create_table("dancers", sa.Column("id", sa.Integer, primary_key=True),
                    sa.Column("name", sa.String, unique=True, nullable=False))
"""
FAKED = """
import logging.config
from faker import Faker
from polyfactory.factories.sqlalchemy_factory import SQLAlchemyFactory
from app import Dancer

class DancerFactory(SQLAlchemyFactory):
    __model__ = Dancer
    __set_primary_key__ = False

async def seed(session):
    Faker.seed(1)
    session.add(Dancer(name=Faker().name()))
    session.add_all(DancerFactory.batch(3))
"""


@pytest.mark.slow
def test_a_usual_project_finds_its_template_in_each_run(example: Example) -> None:
    """Migrations by an async env.py, a seed with Faker and polyfactory, compiled files."""
    files = {"alembic.ini": INI, "migrations/env.py": ENV, "migrations/versions/first.py": FIRST}
    project = example.change("pytest.ini", "app:Base", "alembic.ini").with_paths(files)
    project = project.with_files(seed=FAKED, test_it=PRINTING)
    compiled = {"PYTHONDONTWRITEBYTECODE": ""}
    first = project.run("-s", env=compiled).expect(passed=1).says("template built")
    names = next(line for line in first.output.splitlines() if "the names" in line)
    for _ in range(2):
        project.run("-s", env=compiled).expect(passed=1).says("template from the cache", names)


@pytest.mark.slow
def test_another_project_with_the_same_options_is_no_reason(example: Example) -> None:
    """Its first run builds. It names no file of the project that has used the cache before."""
    project = example.with_files(test_it=PRINTING, more="NAME = 'Sand'")
    project = project.change("seed.py", "from app", "import more\nfrom app")
    project.run().expect(passed=1).says("template built")
    other = replace(example.with_files(test_it=PRINTING), folder=example.folder.parent / "other")
    other = other.change("seed.py", "Sand", "Dune")
    other.run().expect(passed=1).says("template built in").never_says("more.py", "seed.py")
    run = other.change("seed.py", "Dune", "Storm").run().expect(passed=1)
    run.says("(arena_seed = seed:seed: seed.py has changed)")


DATED_SEED = """
import datetime

from app import Dancer


async def seed(session):
    tomorrow = datetime.date.today() + datetime.timedelta(days=1)
    session.add(Dancer(name=str(tomorrow)))
"""
DATED_TESTS = """
import datetime

import time_machine

TOMORROW = datetime.date.today() + datetime.timedelta(days=1)


@time_machine.travel("2061-01-14T00:00Z")
def test_another_day(test_client):
    assert test_client.get("/dancers").json() == [str(TOMORROW)]
"""
FROM_THE_CACHE = "template from the cache"


def _age(example: Example) -> None:
    """Make the cached templates a day old, as those that a CI job restores."""
    for file in (example.folder.parent / "cache" / "templates").rglob("*.json"):
        manifest = json.loads(file.read_text())
        manifest["built"] -= 24 * 60 * 60
        file.write_text(json.dumps(manifest))


@pytest.mark.slow
def test_a_seed_is_built_again_on_another_day(example: Example) -> None:
    """Its rows may depend on the date. The clock of a test does not count."""
    dated = example.with_files(seed=DATED_SEED, test_it=DATED_TESTS)
    dated.run().expect(passed=1).says("template built in")
    dated.run().expect(passed=1).says(FROM_THE_CACHE)
    _age(dated)
    dated.run().expect(passed=1).says("(arena_seed = seed:seed: built on an earlier day)")
    dated.run().expect(passed=1).says(FROM_THE_CACHE)


def test_a_schema_is_found_on_another_day(example: Example) -> None:
    """Only a seed is called again."""
    schema = example.change("pytest.ini", "arena_seed = seed:seed\n", "")
    schema = schema.with_files(test_it="def test_it(test_client): test_client.get('/dancers')")
    schema.run().expect(passed=1).says("template built in")
    _age(schema)
    schema.run().expect(passed=1).says(FROM_THE_CACHE)
