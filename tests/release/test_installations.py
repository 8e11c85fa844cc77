"""Does what is released work where nothing else is installed, for each Python that is found?"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from tests.pages import FOR_THE_READER, Terminal, read_blocks, read_commands, run_page
from tests.release.conftest import found, supported

if TYPE_CHECKING:
    from pathlib import Path

    from tests.release.conftest import Environment, Release

TUTORIAL = "docs/tutorial.md"

MODELS = """
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_engine("sqlite:///dancers.db")

class Base(DeclarativeBase):
    pass

class Dancer(Base):
    __tablename__ = "dancers"
    id: Mapped[int] = mapped_column(primary_key=True)
"""
DATABASE = """
from sqlalchemy.orm import Session
from models import Dancer, engine

def test_a_row(db_session):
    db_session.add(Dancer())
    db_session.commit()
    with Session(engine) as session:
        assert session.query(Dancer).count() == 1

def test_and_nothing_of_it(db_session):
    assert db_session.query(Dancer).count() == 0
"""


def is_of(environment: Environment, folder: Path) -> bool:
    """Whether the package is imported from the environment."""
    code = "import pytest_arena; print(pytest_arena.__file__)"
    return environment.call("python", "-c", code, folder=folder).startswith(str(environment.folder))


def test_some_python_is_found() -> None:
    """Where all others are skipped, nothing is proven."""
    assert any(map(found, supported()))


def environment_names(environment: Environment, folder: Path) -> set[str]:
    code = (
        "from importlib.metadata import distributions\n"
        "print(*(one.name.lower() for one in distributions()))"
    )
    return set(environment.call("python", "-c", code, folder=folder).split())


def test_it_works_without_extras(fresh: Environment, release: Release, tmp_path: Path) -> None:
    """The command, a suite without a database, one on SQLite; no driver is there, no framework."""
    project = tmp_path / "project"
    project.mkdir()
    assert not {"pytest", "pytest-arena", "sqlalchemy"} & environment_names(fresh, project)
    fresh.install(release.wheel)
    assert is_of(fresh, project)
    assert not {"aiosqlite", "httpx2", "psycopg", "fastapi"} & environment_names(fresh, project)
    assert fresh.call("arena", "--version", folder=project).split() == ["arena", release.version]

    (project / "test_plain.py").write_text("def test_it(arena): pass\n", encoding="utf-8")
    assert "1 passed" in fresh.call("pytest", "-W", "error", folder=project)

    (project / "models.py").write_text(MODELS, encoding="utf-8")
    (project / "test_database.py").write_text(DATABASE, encoding="utf-8")
    options = ("-o", "pythonpath=.", "-oarena_schema=models:Base")
    written = fresh.call("pytest", "-W", "error", *options, folder=project)
    assert "3 passed" in written
    assert "isolation copy" in written
    assert not (project / "dancers.db").exists()


def test_the_tutorial_needs_only_what_it_installs(
    fresh: Environment, release: Release, tmp_path: Path
) -> None:
    """All of its commands, by the programs of the environment that it describes."""
    text = (release.source / TUTORIAL).read_text(encoding="utf-8")
    fresh.install(*wanted(text, release.wheel))
    project = tmp_path / "project"
    project.mkdir()
    assert is_of(fresh, project)
    run_page(TUTORIAL, text, Terminal(project, fresh.python))


def wanted(text: str, wheel: Path) -> list[str]:
    """What the page has its reader install; the package is the wheel."""
    consoles = (block for block in read_blocks(TUTORIAL, text) if block.language == "console")
    commands = [command.text for block in consoles for command in read_commands(block)]
    installs = [text for text in commands if FOR_THE_READER.fullmatch(text) and "install" in text]
    words = [word for text in installs for word in shlex.split(text)[2:]]
    if not any(word.startswith("pytest-arena") for word in words):
        pytest.fail(f"{TUTORIAL} does not say how the package is installed")
    return [word.replace("pytest-arena", str(wheel), 1) for word in words]
