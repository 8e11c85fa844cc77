"""Does `arena init` find what is in files that it only reads?"""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

from pytest_arena._cli.init._look import parse_project

if TYPE_CHECKING:
    from pathlib import Path

FILES = {
    "web/__init__.py": "",
    "web/parts.py": "import fastapi\n\nadmin = fastapi.FastAPI()\n",
    "web/made.py": """
from starlette.applications import Starlette


def create_app(debug=False) -> Starlette: ...


async def later() -> Starlette: ...


def _hidden() -> Starlette: ...
""",
    "web/main.py": """
import os
from .made import create_app
from .parts import admin as back

app = create_app()
app.mount("/admin", back)
url = os.environ["SHOP_DB_URL"]
key = os.getenv("API_URL")

if __name__ == "__main__":
    other = create_app()
""",
    "web/config.py": """
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="shop_")
    database_url: str = "postgresql+asyncpg://me:s3cret@db/shop"
    name: str


settings = Settings()
""",
    "web/db.py": """
import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import create_async_engine as make

from web.config import settings

engine = make(settings.database_url)
mapper = orm.registry()
Base = orm.declarative_base()


class Other(orm.DeclarativeBase): ...
""",
    "old.py": "print 'no'\n",
    ".venv/pyvenv.cfg": "",
    "env/pyvenv.cfg": "",
    "env/lib.py": "import fastapi\nx = fastapi.FastAPI()\n",
    "examples/app.py": "import fastapi\nx = fastapi.FastAPI()\n",
    "tests/conftest.py": """
import pytest
from fastapi import FastAPI

app = FastAPI()


@pytest.fixture
def db_session(): ...


@pytest.fixture
def name(): ...
""",
    "tests/test_a.py": "def test_a(db_session): ...\n\n\ndef test_b(client, name): ...\n",
}


def test_all_is_found_with_its_place(tmp_path: Path) -> None:
    """By what names mean, and not by how they are written."""
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    project = parse_project(tmp_path)
    assert {(found.kind, found.name, found.place) for found in project.definitions} == {
        ("app", "web.main:app", "web/main.py:6"),
        ("tables", "web.db:Base", "web/db.py:10"),
        ("tables", "web.db:Other", "web/db.py:13"),
        ("tables", "web.db:mapper.metadata", "web/db.py:9"),
        ("engine", "postgresql+asyncpg://me:***@db/shop", "web/db.py:8"),
        ("fixture", "db_session", "tests/conftest.py:9"),
        ("test", "test_a", "tests/test_a.py:1"),
        ("test", "test_b", "tests/test_a.py:4"),
        ("unfit", "web.made:later", "web/made.py:8"),
        ("variable", "SHOP_DATABASE_URL", "web/config.py:5"),
        ("variable", "SHOP_DB_URL", "web/main.py:8"),
    }
    assert project.unread == ["old.py:1"]
    first = project.first_test
    assert first is not None
    assert first.name == "test_b"  # the other one asks for a fixture of its own
    assert project.roots["web.main"] == tmp_path


LONG = f"""
from sqlalchemy import create_engine

engine = create_engine(where, {", ".join(f"word_{n}=value" for n in range(30))})
"""


def test_scripts_that_make_tables_are_found(tmp_path: Path) -> None:
    """Not those that make none, nor those of examples."""
    scripts = {
        "db/schema.sql": "-- the shop\ncreate table items (id int);",
        "db/rows.sql": "INSERT INTO items VALUES (1);",
        "docs/schema.sql": "CREATE TABLE items (id int);",
    }
    for name, text in scripts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    project = parse_project(tmp_path)
    assert project.scripts == [tmp_path / "db" / "schema.sql"]
    assert project.is_library


def test_a_migration_has_no_tables_and_no_engine(tmp_path: Path) -> None:
    """It describes the past. Only its variables `revision` and `down_revision` are sure."""
    (tmp_path / "3f_notes.py").write_text(
        "from sqlalchemy import create_engine, orm\n"
        "revision = '3f'\ndown_revision: str | None = None\n"
        "class SqlAlchemyBase(orm.DeclarativeBase): ...\n"
        "engine = create_engine('sqlite:///old.db')\n"
    )
    assert parse_project(tmp_path).definitions == []


def test_an_escape_sequence_that_is_none_is_not_reported(tmp_path: Path) -> None:
    """Python would report it as `<unknown>:1`, in the middle of the command's output."""
    (tmp_path / "app.py").write_text("digits = '\\d'\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse_project(tmp_path).unread == []


def test_flask_sqlalchemy_has_the_tables(tmp_path: Path) -> None:
    """Its object has the metadata of the models."""
    (tmp_path / "shop.py").write_text(
        "from flask_sqlalchemy import SQLAlchemy\n\ndb = SQLAlchemy()\n"
    )
    tables = parse_project(tmp_path).all("tables")
    assert [(found.name, found.place) for found in tables] == [("shop:db", "shop.py:3")]


def test_no_word_is_cut(tmp_path: Path) -> None:
    """A call that is too long for a line ends with a whole word."""
    (tmp_path / "app.py").write_text(LONG)
    [engine] = parse_project(tmp_path).all("engine")
    assert re.fullmatch(r"create_engine\(where,( word_\d+=value,)+ …", engine.name)
