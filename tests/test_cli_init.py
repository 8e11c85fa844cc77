"""Does `arena init` propose the right options for projects as people lay them out?"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest
from iniconfig import IniConfig

from tests.command import arena
from tests.example import Example

if TYPE_CHECKING:
    from pathlib import Path

Files = dict[str, str]

SQLMODEL = """
import os
from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

engine = create_async_engine(os.environ.get("APP_DB_URL", "sqlite+aiosqlite:///heroes.db"))
app = FastAPI()

class HeroBase(SQLModel):
    name: str

class Hero(HeroBase, table=True):
    id: int | None = Field(default=None, primary_key=True)

async def get_session():
    async with AsyncSession(engine) as session:
        yield session

@app.get("/")
async def heroes(session=Depends(get_session)) -> list[str]:
    return (await session.exec(select(Hero.name))).all()
"""
BASE = """
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_async_engine("sqlite+aiosqlite:///shop.db")


class Base(DeclarativeBase): ...


class Entity(Base):
    __abstract__ = True
    id: Mapped[int] = mapped_column(primary_key=True)
"""
MODELS = """
from app.db import Base, Entity
from sqlalchemy.orm import Mapped, mapped_column


class Mixin:
    note: Mapped[str]


class Item(Mixin, Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


class Shop(Entity):
    __tablename__ = "shops"
"""
FASTAPI = """
from fastapi import FastAPI
from app import models

api = FastAPI()
app = FastAPI()
app.mount("/api", api)
"""
PACKAGE = {"app/db.py": BASE, "app/models.py": MODELS, "app/main.py": FASTAPI}
FACTORY = """
from fastapi import FastAPI
from shop.models import Base


def create_app(settings=None) -> FastAPI:
    app = FastAPI()
    return app
"""
FLASK = """
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

db = SQLAlchemy()


def create_app(config=None):
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///blog.db"
    db.init_app(app)
    from blog import models
    return app
"""
FLASK_MODELS = """
from blog import db


class Post(db.Model):
    id = db.Column(db.Integer, primary_key=True)
"""
SETTINGS = """
class Settings(BaseSettings):
    redis_url: RedisDsn
    broker: str = Field(validation_alias="BROKER_URL")
class Database(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SHOP_DB_")
    url: str
"""
ALEMBIC = "[alembic]\nscript_location = %(here)s/migrations\n"
ASYNC = {"asyncio_mode": "auto", "asyncio_default_fixture_loop_scope": "function"}
# The files of each layout, and the options that it needs.
LAYOUTS: dict[str, tuple[Files, Files]] = {
    "one module of SQLModel": (
        {
            "main.py": SQLMODEL,
            "settings.py": "import os\nURL = os.getenv('DATABASE_URL')",
            "config.py": SETTINGS,
        },
        {
            "pythonpath": ".",
            "arena_app": "main:app",
            "arena_schema": "main:SQLModel",
            "arena_env": "DATABASE_URL, BROKER_URL, REDIS_URL, SHOP_DB_URL, APP_DB_URL",
        }
        | ASYNC,
    ),
    "a package without __init__.py": (
        {**PACKAGE, ".venv/lib/other.py": SQLMODEL},
        {"pythonpath": ".", "arena_app": "app.main:app", "arena_schema": "app.models:Base"} | ASYNC,
    ),
    "Alembic": (
        {**PACKAGE, "app/main_test.py": SQLMODEL, "alembic.ini": ALEMBIC},
        {"pythonpath": ".", "arena_app": "app.main:app", "arena_schema": "alembic.ini"} | ASYNC,
    ),
    "a factory below src": (
        {
            "src/shop/__init__.py": "",
            "src/shop/app.py": FACTORY,
            "src/shop/models.py": MODELS.replace("app.db", "shop.db"),
            "src/shop/db.py": BASE,
            "pyproject.toml": "[project]\nname = 'shop'\n[tool.pytest.ini_options]\n# ours\n",
        },
        {
            **ASYNC,
            "pythonpath": "src",
            "arena_app": "shop.app:create_app",
            "arena_schema": "shop.models:Base",
        },
    ),
    "Flask-SQLAlchemy with Flask-Migrate": (
        {
            "blog/__init__.py": FLASK,
            "blog/models.py": FLASK_MODELS,
            "migrations/alembic.ini": "[alembic]\n",
            "migrations/env.py": "",
            "setup.cfg": "[tool:pytest]\ntestpaths = checks/*\npython_files = check_*.py\n",
            "checks/unit/test_it.py": "",
        },
        {"pythonpath": ".", "arena_app": "blog:create_app", "arena_schema": "blog.models:db"},
    ),
    "no models": (
        {"web.py": "from starlette.applications import Starlette\napp = Starlette()\n"},
        {"pythonpath": ".", "arena_app": "web:app"},
    ),
}


def options_of(folder: Path) -> dict[str, str]:
    options = {}
    toml = folder / "pyproject.toml"
    if toml.exists():
        table = tomllib.loads(toml.read_text())["tool"]["pytest"]["ini_options"]
        for name, value in table.items():
            options[name] = value if isinstance(value, str) else ", ".join(value)
    for file, section in (("pytest.ini", "pytest"), ("setup.cfg", "tool:pytest")):
        if (folder / file).exists():
            options.update(IniConfig(folder / file)[section].items())
    return options


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_options_fit_the_project_and_the_first_test_passes(tmp_path: Path, layout: str) -> None:
    files, expected = LAYOUTS[layout]
    folder = Example(tmp_path, files).write()
    before = options_of(folder)
    called = arena("init", folder=folder)
    assert (called.status, called.errors) == (0, "")
    assert options_of(folder) == before
    assert not (folder / "tests/test_arena.py").exists()
    assert arena("init", "--write", folder=folder).status == 0
    assert options_of(folder) == before | expected
    if layout == "Alembic":  # it has no migrations
        return
    plugins = ("-p", "pytest_asyncio.plugin", "-p", "pytest_arena.plugin")
    run = Example(folder, {}).python("-m", "pytest", *plugins).expect(passed=1)
    run.never_says("warnings summary")
    assert "nothing to write" in arena("init", "--write", folder=folder).output
    assert options_of(folder) == before | expected


def test_a_test_of_the_same_name_stays(tmp_path: Path) -> None:
    files = {"main.py": SQLMODEL, "tests/test_arena.py": "def test_mine(): ..."}
    folder = Example(tmp_path, files).write()
    assert arena("init", "--write", folder=folder).status == 0
    assert "test_mine" in (folder / "tests/test_arena.py").read_text()


def test_a_project_without_an_app_and_models_is_an_error(tmp_path: Path) -> None:
    """It has the next step, and no file changes."""
    folder = Example(tmp_path, {"main.py": "print('no app')"}).write()
    called = arena("init", "--write", folder=folder)
    assert called.status == 2
    for text in ("has no app and no models", "arena_app = "):
        assert text in called.errors
    assert [path.name for path in folder.rglob("*.*")] == ["main.py"]
