"""Runs a small project with the plugin in a separate process.

The gate listens to all engines of a process and is never removed, so each run is a subprocess. An
example is immutable. A test makes a copy with another file or another line.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


# Only a run that hangs takes longer, even on a machine with ten times its usual load.
_PATIENCE_SECONDS = 300

CONFIG = """
[pytest]
arena_app = app:app
arena_schema = app:Base
arena_seed = seed:seed
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings =
    error
    default::pytest_arena.ArenaWarning
pythonpath = .
"""

# A typical app with a global engine for the developer's file, and with real commits.
APP = """
import os
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Dancer(Base):
    __tablename__ = "dancers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


engine = create_async_engine(os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///dev.db"))
maker = async_sessionmaker(engine)


async def get_db():
    async with maker() as session:
        yield session


app = FastAPI()


@app.get("/dancers")
async def dancers(db=Depends(get_db)):
    return [dancer.name for dancer in await db.scalars(select(Dancer).order_by(Dancer.id))]


@app.post("/dancers/{name}", status_code=201)
async def add(name: str, db=Depends(get_db)):
    db.add(Dancer(name=name))
    await db.commit()
    return name
"""

SEED = """
from app import Dancer


async def seed(session):
    session.add(Dancer(name="Sand"))
"""

# The beginning of tests, with a fixture that writes a row for its module.
WIDE = """
import pytest
from app import Dancer


@pytest.fixture(scope="module")
def wide(arena):
    with arena.session() as session:
        session.add(Dancer(name="Wide"))
        session.commit()

"""


@dataclass(frozen=True, slots=True)
class Run:
    """The output and the outcomes of a run of pytest."""

    status: int
    output: str
    folder: Path

    def expect(self, status: int = 0, **outcomes: int) -> Run:
        """Assert the exit status and the counts of the closing line (passed=2, errors=1, …)."""
        assert "INTERNALERROR" not in self.output, self.output
        assert (self.status, self.outcomes) == (status, outcomes), self.output
        return self

    @property
    def outcomes(self) -> dict[str, int]:
        closing = [line for line in self.output.splitlines() if re.search(r" in [\d.]+s", line)]
        counts = re.findall(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed)", closing[-1])
        outcomes = {}
        for number, name in counts:
            outcomes["errors" if name == "error" else name] = int(number)
        return outcomes

    def says(self, *texts: str) -> Run:
        """Assert that each text was printed. Any white space counts as one space."""
        printed = " ".join(self.output.split())
        for text in texts:
            assert " ".join(text.split()) in printed, f"{text!r} is not in:\n{self.output}"
        return self

    def warns(self, text: str, *tests: str) -> Run:
        """Assert that pytest shows a warning with this text, of these tests and no other."""
        summary = self.output.partition("warnings summary")[2].partition("-- Docs:")[0]
        for block in summary.split("\n\n"):
            names = [line for line in block.splitlines() if line.startswith("test_")]
            if " ".join(text.split()) in " ".join(block.split()):
                short = [name.partition("::")[2] for name in names]
                assert not tests or set(short) == set(tests), block
                return self
        raise AssertionError(f"no warning {text!r} in:\n{self.output}")

    def never_says(self, *texts: str) -> Run:
        """Assert that no text was printed."""
        for text in texts:
            assert text not in self.output, self.output
        return self


@dataclass(frozen=True, slots=True)
class Example:
    """Files, the folder to which each run writes them, and what each run of pytest gets.

    ``env`` are more environment variables, ``options`` are more arguments.
    """

    folder: Path
    files: Mapping[str, str]
    env: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()

    def with_files(self, **files: str) -> Example:
        """Return an example with more files. ``test_x=…`` is the text of ``test_x.py``."""
        return self.with_paths({f"{name}.py": text for name, text in files.items()})

    def with_paths(self, files: Mapping[str, str]) -> Example:
        return replace(self, files={**self.files, **files})

    def change(self, file: str, old: str, new: str) -> Example:
        """Return an example with one text of a file replaced. The file must contain the text."""
        assert old in self.files[file], f"{old!r} is not in {file}"
        return self.with_paths({file: self.files[file].replace(old, new)})

    def write(self) -> Path:
        """Write all files, and return their folder."""
        for name, text in self.files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return self.folder

    def run(self, *args: str, plugin: bool = True, env: Mapping[str, str] | None = None) -> Run:
        """Run pytest on the example, with the plugin or without it."""
        return self.python(*self._pytest(args, plugin=plugin), env=env)

    def python(self, *args: str, env: Mapping[str, str] | None = None) -> Run:
        status, output = self.execute(
            [sys.executable, *args], self.write(), self._environment(env or {}), _PATIENCE_SECONDS
        )
        return Run(status, output, self.folder)

    @staticmethod
    def execute(
        command: Sequence[str], folder: Path, env: Mapping[str, str], seconds: float
    ) -> tuple[int, str]:
        """Run a command in a process. `conftest.py` replaces this method by a faster one."""
        done = subprocess.run(
            command,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        return done.returncode, done.stdout

    def start(self, *args: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start pytest on the example with the plugin. Return the process, with its pipes."""
        return self.start_python(*self._pytest(args, plugin=True), env=env)

    def start_python(
        self, *args: str, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start Python in the example's folder. Return the process, with pipes to and from it."""
        return subprocess.Popen(
            [sys.executable, *args],
            cwd=self.write(),
            env=self._environment(env or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        # With CI or BUILD_NUMBER, pytest shows each failure a second time in full.
        dropped = ("PYTEST_", "ARENA_", "DATABASE_URL", "COV_", "PG")
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in {"CI", "BUILD_NUMBER"} and not name.startswith(dropped)
        }
        ours = {
            "ARENA_CACHE": str(self.folder.parent / "cache"),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "200",
        }
        return {**kept, **ours, **self.env, **more}

    def _pytest(self, args: tuple[str, ...], *, plugin: bool) -> tuple[str, ...]:
        choice = ("-p", "pytest_arena.plugin", *self.options) if plugin else ()
        return "-m", "pytest", "-p", "pytest_asyncio.plugin", *choice, *args


def fastapi_example(folder: Path) -> Example:
    """Return a typical project: a FastAPI app with a schema and a seeded row, and pytest.ini."""
    return Example(folder / "project", {"app.py": APP, "seed.py": SEED, "pytest.ini": CONFIG})
