"""Do SQLAlchemy's warnings about `db_session` name the user's line?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

MODELS = """

from sqlalchemy import ForeignKey
from sqlalchemy.orm import relationship


class Troupe(Base):
    __tablename__ = "troupes"
    id: Mapped[int] = mapped_column(primary_key=True)
    members: Mapped[list["Member"]] = relationship(back_populates="troupe")


class Member(Base):
    __tablename__ = "members"
    id: Mapped[int] = mapped_column(primary_key=True)
    troupe_id: Mapped[int] = mapped_column(ForeignKey("troupes.id"))
    troupe: Mapped[Troupe] = relationship(back_populates="members", cascade="")
"""
TESTS = """
from sqlalchemy import select
from app import Dancer, Member, Troupe, maker


def test_query(db_session):
    db_session.add(troupe := Troupe())
    db_session.flush()
    Member(troupe=troupe)
    db_session.scalars(select(Dancer)).all()  # the line of test_query


def test_get(db_session):
    db_session.add(troupe := Troupe())
    db_session.flush()
    Member(troupe=troupe)
    db_session.get(Dancer, 7)  # the line of test_get


def test_commit(db_session):
    db_session.add(troupe := Troupe())
    db_session.flush()
    Member(troupe=troupe)
    db_session.commit()  # the line of test_commit


def test_product(db_session):
    db_session.execute(select(Dancer, Troupe))  # the line of test_product


async def test_async(db_session):
    db_session.add(troupe := Troupe())
    await db_session.flush()
    Member(troupe=troupe)
    await db_session.scalars(select(Dancer))  # the line of test_async


async def test_of_the_app(arena):
    async with maker() as session:
        await session.execute(select(Dancer, Troupe))  # the line of test_of_the_app
"""


@pytest.fixture
def warned(example: Example) -> Example:
    """Tests whose sessions warn."""
    app = example.files["app.py"] + MODELS
    quiet = example.change("pytest.ini", "filterwarnings = error\n", "")
    return quiet.with_files(app=app, test_it=TESTS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("test_query", "test_get", "test_commit", "test_product"),
        *("test_async", "test_of_the_app"),
    ],
)
def test_a_warning_of_sqlalchemy_names_the_users_line(warned: Example, name: str) -> None:
    """As it does for a session of SQLAlchemy."""
    number = 1 + TESTS.splitlines().index(
        next(line for line in TESTS.splitlines() if line.endswith(f"# the line of {name}"))
    )
    run = warned.run("-k", name).expect(passed=1)
    run.says(f"test_it.py:{number}: SAWarning: ")
    run.never_says("_sessions.py")


def test_a_warning_in_an_async_session_has_its_whole_text(warned: Example) -> None:
    """SQLAlchemy adds what led to it. Python would name ``sys:1``: it runs in a greenlet."""
    run = warned.run("-k", "test_async").expect(passed=1)
    run.says("SAWarning: Object of type <Member> not in session", "'autoflush' process")
    run.never_says("_sessions.py", "sys:1")
