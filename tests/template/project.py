"""A small project on disk, and its templates, without pytest and without the gate."""

from __future__ import annotations

import importlib
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from pytest_arena._databases._template import Recipe, Store
from pytest_arena._sqlite._product import FileTemplates, Home
from pytest_arena._values import Stage

if TYPE_CHECKING:
    import pytest
    from sqlalchemy.engine import Dialect

    from pytest_arena._product import Database

MODELS = """
from sqlalchemy import Column, Integer, MetaData, String, Table

metadata = MetaData()
Table("dancers", metadata, Column("id", Integer, primary_key=True), Column("name", String))
"""

# It counts its runs.
SEED = """
from pathlib import Path
from sqlalchemy import text
import helper

def seed(session):
    with Path("builds.log").open("a") as log:
        log.write("built ")
    session.execute(text("insert into dancers (name) values (:name)"), {"name": helper.NAME})
"""

# It counts its runs. Its template is kept for the processes of one run.
CREATE = """
from pathlib import Path
from sqlalchemy import text

def create(connection):
    with Path("builds.log").open("a") as log:
        log.write("built ")
    connection.execute(text("create table dancers (id integer primary key, name text)"))
"""

# What another process does with the same project.
ENSURE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.template.project import Project
print(Project(Path.cwd(), Path(sys.argv[2]), sys.argv[3], sys.argv[4]).ensure())
"""

REPOSITORY = Path(__file__).parent.parent.parent


@dataclass
class Project:
    """Files in a folder, built as ``models:metadata`` and ``seed:seed`` unless told otherwise."""

    root: Path
    cache: Path
    schema: str = "models:metadata"
    seed: str = "seed:seed"
    home: Home = field(default_factory=Home)

    def write(self, **files: str) -> None:
        """Write modules; one that is loaded is loaded anew, as in the next run."""
        for name, text in files.items():
            (self.root / f"{name}.py").write_text(text)
        self.forget()

    def forget(self) -> None:
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(str(self.root)):
                del sys.modules[name]

    def ensure(self, *, newer_than: float = 0.0, stage: Stage = Stage.SEEDED) -> Any:
        """Return the template's file or name, found or built."""
        database = cast("Database", self)  # no gate needs more of it than its dialect
        template = self.store(newer_than).ensure(Recipe(self.schema, self.seed), stage, database)
        assert template is not None
        return template.content

    def store(self, newer_than: float) -> Store:
        return Store(FileTemplates(self.cache, self.home), self.root, newer_than)

    @property
    def dialect(self) -> type[Dialect]:
        return SQLiteDialect_pysqlite

    def load(self, *modules: str) -> None:
        for module in modules:
            importlib.import_module(module)

    def builds(self) -> int:
        log = self.root / "builds.log"
        return log.read_text().count("built") if log.exists() else 0

    def names(self) -> list[str]:
        with closing(sqlite3.connect(self.ensure())) as connection:
            return [name for (name,) in connection.execute("select name from dancers")]

    def in_another_process(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                sys.executable,
                "-c",
                ENSURE,
                str(REPOSITORY),
                str(self.cache),
                self.schema,
                self.seed,
            ],
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def new_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    root = folder / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    project = Project(root, folder / "cache")
    project.write(models=MODELS, seed=SEED, helper='NAME = "Sand"\n')
    return project
