"""An app and its fixtures as FastAPI's tutorial has them: for each test an engine in memory.

FastAPI keeps each override for good, and with it what its closure holds: session and engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import String, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

if TYPE_CHECKING:
    from collections.abc import Iterator


class Base(DeclarativeBase):
    """The models' base."""


class Hero(Base):
    """What a test makes, and the request reads."""

    __tablename__ = "heroes"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), index=True)


def get_session() -> Session:
    """What each test overrides."""
    raise NotImplementedError


app = FastAPI()


@app.get("/heroes")
def heroes(session: Annotated[Session, Depends(get_session)]) -> list[str]:
    """The names of all heroes."""
    return [hero.name for hero in session.scalars(select(Hero))]


@pytest.fixture
def session() -> Iterator[Session]:
    """A session on an engine of the test's own."""
    options = {"check_same_thread": False}
    engine = create_engine("sqlite://", connect_args=options, poolclass=StaticPool)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        yield session


@pytest.fixture
def own_client(session: Session) -> Iterator[TestClient]:
    """A client of the app on the test's session."""
    app.dependency_overrides[get_session] = lambda: session
    yield TestClient(app)
    app.dependency_overrides.clear()
