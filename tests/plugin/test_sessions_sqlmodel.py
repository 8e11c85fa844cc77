"""SQLModel: an app whose sessions have ``exec``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

APP = """
from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

class Dancer(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str

engine = create_async_engine("sqlite+aiosqlite:///dev.db")
app = FastAPI()

async def get_db():
    async with AsyncSession(engine) as session:
        yield session

@app.get("/dancers")
async def dancers(db=Depends(get_db)):
    return [dancer.name for dancer in await db.exec(select(Dancer))]

@app.post("/dancers/{number}/{name}")
async def rename(number: int, name: str, db=Depends(get_db)):
    (await db.get(Dancer, number)).name = name
    await db.commit()

@app.post("/lost/{name}")
async def lose(name: str, db=Depends(get_db)):
    db.add(Dancer(name=name))
"""

TESTS = """
from sqlmodel import select
from app import Dancer

async def test_async(db_session, client):
    dune = Dancer(name="Dune")
    db_session.add(dune)
    assert (await client.get("/dancers")).json() == ["Sand", "Dune"]
    await client.post(f"/dancers/{dune.id}/Dust")
    names = await db_session.exec(select(Dancer).where(Dancer.id == dune.id))
    assert names.one().name == "Dust"

def test_lost(test_client):
    test_client.post("/lost/Dune")

def test_sync(db_session, test_client):
    dune = Dancer(name="Dune")
    db_session.add(dune)
    assert test_client.get("/dancers").json() == ["Sand", "Dune"]
    test_client.post(f"/dancers/{dune.id}/Dust")
    assert db_session.exec(select(Dancer).where(Dancer.id == dune.id)).one().name == "Dust"
"""


@pytest.mark.slow
def test_sessions_have_exec_and_read_fresh(example: Example) -> None:
    """db_session is SQLModel's own kind of session where SQLModel is in use."""
    pytest.importorskip("sqlmodel", reason="SQLModel is not installed")
    tests = example.with_files(app=APP, test_model=TESTS)
    tests.change("pytest.ini", "= app:Base", "= app:SQLModel").run().expect(passed=3).says(
        "POST /lost/Dune 200 added Dancer, and never flushed or committed it",
    )


IMPORTED = """
import sqlmodel  # as litestar does, if it is installed
from sqlalchemy import select
from app import Dancer

async def test_async(db_session):
    found = await db_session.execute(select(Dancer.name))
    assert found.scalars().all() == ["Sand"]

def test_sync(db_session):
    assert db_session.execute(select(Dancer.name)).scalars().all() == ["Sand"]
"""


@pytest.mark.slow
def test_a_library_that_imports_sqlmodel_changes_no_session(example: Example) -> None:
    """SQLModel's session warns at each call of `execute`. The app's models are SQLAlchemy's."""
    pytest.importorskip("sqlmodel", reason="SQLModel is not installed")
    project = example.with_files(test_it=IMPORTED)
    project.run("-W", "error::DeprecationWarning").expect(passed=2)
