"""Projects as people begin them, without a configuration for their tests: files by their paths."""

from __future__ import annotations

from collections.abc import Mapping

Files = Mapping[str, str]

# As the tutorial of SQLModel has it: one module, an engine on a file, tables made at start-up.
SQLMODEL: Files = {
    "main.py": """
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query
from sqlmodel import Field, Session, SQLModel, create_engine, select


class HeroBase(SQLModel):
    name: str = Field(index=True)
    age: int | None = Field(default=None, index=True)


class Hero(HeroBase, table=True):
    id: int | None = Field(default=None, primary_key=True)
    secret_name: str


class HeroPublic(HeroBase):
    id: int


class HeroCreate(HeroBase):
    secret_name: str


sqlite_file_name = "database.db"
sqlite_url = f"sqlite:///{sqlite_file_name}"

connect_args = {"check_same_thread": False}
engine = create_engine(sqlite_url, connect_args=connect_args)


def create_db_and_tables():
    SQLModel.metadata.create_all(engine)


def get_session():
    with Session(engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session)]


@asynccontextmanager
async def lifespan(app: FastAPI):
    create_db_and_tables()
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/heroes/", response_model=HeroPublic)
def create_hero(hero: HeroCreate, session: SessionDep):
    db_hero = Hero.model_validate(hero)
    session.add(db_hero)
    session.commit()
    session.refresh(db_hero)
    return db_hero


@app.get("/heroes/", response_model=list[HeroPublic])
def read_heroes(session: SessionDep, offset: int = 0, limit: Annotated[int, Query(le=100)] = 100):
    return session.exec(select(Hero).offset(offset).limit(limit)).all()


@app.get("/heroes/{hero_id}", response_model=HeroPublic)
def read_hero(hero_id: int, session: SessionDep):
    hero = session.get(Hero, hero_id)
    if not hero:
        raise HTTPException(status_code=404, detail="Hero not found")
    return hero
""",
}

# As the full-stack template has it: a folder `backend`, settings, Alembic inside of the app, and
# fixtures of its own that are called like ours.
FULL_STACK: Files = {
    "pyproject.toml": """
[project]
name = "app"   # of the backend
version = "0.1.0"
requires-python = ">=3.10,<4.0"
dependencies = [
    "fastapi[standard]<1.0.0,>=0.114.2",
    "sqlmodel<1.0.0,>=0.0.21",
]

[tool.mypy]
strict = true
exclude = ["venv", ".venv", "alembic"]

[tool.ruff.lint]
select = [
    "E",  # pycodestyle errors
]
""",
    "alembic.ini": """
[alembic]
script_location = app/alembic
prepend_sys_path = .
""",
    "app/__init__.py": "",
    "app/alembic/env.py": """
from alembic import context
from sqlalchemy import engine_from_config, pool

config = context.config

from app.models import SQLModel  # noqa
from app.core.config import settings  # noqa

target_metadata = SQLModel.metadata


def get_url():
    return str(settings.SQLALCHEMY_DATABASE_URI)


def run_migrations_online():
    configuration = config.get_section(config.config_ini_section)
    assert configuration is not None
    configuration["sqlalchemy.url"] = get_url()
    connectable = engine_from_config(
        configuration, prefix="sqlalchemy.", poolclass=pool.NullPool
    )
    with connectable.connect() as connection:
        context.configure(connection=connection, target_metadata=target_metadata)
        with context.begin_transaction():
            context.run_migrations()


run_migrations_online()
""",
    "app/alembic/script.py.mako": "",
    "app/alembic/versions/e2412789c190_initialize_models.py": """
import sqlalchemy as sa
from alembic import op

revision = "e2412789c190"
down_revision = None
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "user",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("email", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )


def downgrade():
    op.drop_table("user")
""",
    "app/core/__init__.py": "",
    "app/core/config.py": """
import os


class Settings:
    API_V1_STR: str = "/api/v1"
    FIRST_SUPERUSER: str = "admin@example.com"

    @property
    def SQLALCHEMY_DATABASE_URI(self) -> str:
        return os.environ.get("SQLALCHEMY_DATABASE_URI", "sqlite:///app.db")


settings = Settings()
""",
    "app/core/db.py": """
from sqlmodel import Session, create_engine, select

from app.core.config import settings
from app.models import User

engine = create_engine(str(settings.SQLALCHEMY_DATABASE_URI))


def init_db(session: Session) -> None:
    user = session.exec(select(User).where(User.email == settings.FIRST_SUPERUSER)).first()
    if not user:
        session.add(User(email=settings.FIRST_SUPERUSER))
        session.commit()
""",
    "app/models.py": """
from sqlmodel import Field, SQLModel


class User(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    email: str
""",
    "app/api/__init__.py": "",
    "app/api/deps.py": """
from collections.abc import Generator
from typing import Annotated

from fastapi import Depends
from sqlmodel import Session

from app.core.db import engine


def get_db() -> Generator[Session, None, None]:
    with Session(engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_db)]
""",
    "app/api/main.py": """
from fastapi import APIRouter

from app.api.routes import users, utils

api_router = APIRouter()
api_router.include_router(users.router)
api_router.include_router(utils.router)
""",
    "app/api/routes/__init__.py": "",
    "app/api/routes/users.py": """
from fastapi import APIRouter
from sqlmodel import select

from app.api.deps import SessionDep
from app.models import User

router = APIRouter(prefix="/users", tags=["users"])


@router.get("/")
def read_users(session: SessionDep) -> list[User]:
    return list(session.exec(select(User)).all())
""",
    "app/api/routes/utils.py": """
from fastapi import APIRouter

router = APIRouter(prefix="/utils", tags=["utils"])


@router.get("/health-check/")
async def health_check() -> bool:
    return True
""",
    "app/main.py": """
from fastapi import FastAPI

from app.api.main import api_router
from app.core.config import settings

app = FastAPI(title="Full Stack", openapi_url=f"{settings.API_V1_STR}/openapi.json")
app.include_router(api_router, prefix=settings.API_V1_STR)
""",
    "tests/__init__.py": "",
    "tests/conftest.py": """
from collections.abc import Generator

import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session, delete

from app.core.db import engine, init_db
from app.main import app
from app.models import User


@pytest.fixture(scope="session", autouse=True)
def db() -> Generator[Session, None, None]:
    with Session(engine) as session:
        init_db(session)
        yield session
        session.execute(delete(User))
        session.commit()


@pytest.fixture(scope="module")
def client() -> Generator[TestClient, None, None]:
    with TestClient(app) as c:
        yield c
""",
    "tests/api/__init__.py": "",
    "tests/api/test_users.py": """
def test_the_superuser_is_there(client):
    answer = client.get("/api/v1/users/").json()
    assert [user["email"] for user in answer] == ["admin@example.com"]
""",
}

# An app factory with settings, in a src layout; the engine is made when the app starts.
FACTORY: Files = {
    "pyproject.toml": """
[project]
name = "shop"
version = "1.0"

[tool.pytest.ini_options]
# Tests wait for no marker.
asyncio_mode    =   "auto"   # as documented
testpaths = [
    "tests",   # [not a table]
]

[tool.coverage.run]
branch = true
""",
    "src/shop/__init__.py": "",
    "src/shop/settings.py": """
import os
from dataclasses import dataclass, field


@dataclass
class Settings:
    currency: str = "EUR"
    url: str = field(
        default_factory=lambda: os.getenv("SHOP_DATABASE_URL", "sqlite+aiosqlite:///shop.db")
    )
""",
    "src/shop/models.py": """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
""",
    "src/shop/app.py": """
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Request
from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from shop.models import Item
from shop.settings import Settings

router = APIRouter()


@router.get("/items")
async def items(request: Request) -> list[str]:
    async with request.app.state.sessions() as session:
        return list(await session.scalars(select(Item.name)))


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        engine = create_async_engine(settings.url)
        app.state.sessions = async_sessionmaker(engine)
        yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)
    app.include_router(router)
    return app
""",
    "tests/test_settings.py": """
from shop.settings import Settings


async def test_currency():
    assert Settings().currency == "EUR"
""",
}

# Litestar with SQLAlchemy of its own.
LITESTAR: Files = {
    "pytest.ini": "[pytest]\n; ours\naddopts = -ra\n",
    "app/models.py": """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
""",
    "app/asgi.py": """
from collections.abc import AsyncGenerator

from litestar import Litestar, get
from litestar.di import Provide
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from app.models import Author

engine = create_async_engine("sqlite+aiosqlite:///authors.db")
sessions = async_sessionmaker(engine)


async def provide_session() -> AsyncGenerator[AsyncSession, None]:
    async with sessions() as session:
        yield session


@get("/authors")
async def list_authors(session: AsyncSession) -> list[str]:
    return list(await session.scalars(select(Author.name)))


@get("/authors/{name:str}")
async def one_author(name: str) -> str:
    return name


app = Litestar([list_authors, one_author], dependencies={"session": Provide(provide_session)})
""",
}

# Sync Starlette, on Windows' line ends.
STARLETTE: Files = {
    "setup.cfg": "[metadata]\r\nname = notes\r\n\r\n[tool:pytest]\r\n# short\r\naddopts = -q\r\n",
    "notes/__init__.py": "",
    "notes/web.py": """
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, select
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

metadata = MetaData()
notes = Table("notes", metadata, Column("id", Integer, primary_key=True), Column("text", String))
engine = create_engine("sqlite:///notes.db")


def list_notes(request):
    with engine.connect() as connection:
        return JSONResponse(list(connection.scalars(select(notes.c.text))))


def add_note(request):
    with engine.begin() as connection:
        connection.execute(notes.insert().values(text=request.path_params["text"]))
    return JSONResponse(None, status_code=201)


admin = Starlette(routes=[Route("/ping", lambda request: JSONResponse("pong"))])
app = Starlette(
    routes=[
        Route("/notes", list_notes),
        Route("/notes/{text}", add_note, methods=["POST"]),
        Mount("/admin", app=admin),
    ]
)
""",
}

# Two databases, each with tables of its own.
SEVERAL: Files = {
    "tox.ini": "[tox]\nenvlist = py311\n\n[pytest]\nminversion = 7\n\n[testenv]\ndeps = pytest\n",
    "app.py": """
import os

from fastapi import FastAPI
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

shop = create_engine(os.environ.get("SHOP_DB_URL", "sqlite:///data/shop.db"))
analytics = create_engine(os.environ.get("ANALYTICS_DB_URL", "sqlite:///data/analytics.db"))


class Base(DeclarativeBase):
    pass


class AnalyticsBase(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


class Visit(AnalyticsBase):
    __tablename__ = "visits"
    id: Mapped[int] = mapped_column(primary_key=True)


app = FastAPI()


@app.get("/orders")
def orders() -> list[int]:
    with Session(analytics) as session:
        session.add(Visit())
        session.commit()
    with Session(shop) as session:
        return list(session.scalars(select(Order.id)))
""",
}

KINDS: Mapping[str, Files] = {
    "sqlmodel": SQLMODEL,
    "full_stack": FULL_STACK,
    "factory": FACTORY,
    "litestar": LITESTAR,
    "starlette": STARLETTE,
    "several": SEVERAL,
}


def stripped(text: str) -> str:
    """A ``pyproject.toml`` without what is arena's in it."""
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("arena_"))
