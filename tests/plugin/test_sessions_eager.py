"""``db_session`` and eager loads: a query has all relationships that it loads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_postgresql_story import on_postgresql

if TYPE_CHECKING:
    from tests.example import Example

# Each member leads back to its team, in the same statement or in another one.
MODEL = """

from sqlalchemy import ForeignKey
from sqlalchemy.orm import relationship, selectinload


class Team(Base):
    __tablename__ = "teams"
    id: Mapped[int] = mapped_column(primary_key=True)
    members: Mapped[list["Member"]] = relationship(back_populates="team")
    tags: Mapped[list["Tag"]] = relationship()


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    memberships: Mapped[list["Member"]] = relationship(back_populates="user", lazy="selectin")


class Member(Base):
    __tablename__ = "members"
    id: Mapped[int] = mapped_column(primary_key=True)
    role: Mapped[str]
    team_id: Mapped[int] = mapped_column(ForeignKey("teams.id"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    team: Mapped[Team] = relationship(back_populates="members", lazy="joined")
    user: Mapped[User] = relationship(back_populates="memberships", lazy="joined")


class Tag(Base):
    __hash__ = None  # as of a dataclass
    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int | None] = mapped_column(ForeignKey("teams.id"))


@app.put("/members")
async def promote(db=Depends(get_db)):
    query = select(Member).options(selectinload(Member.team, Team.tags))
    for member in await db.scalars(query):
        member.role = "captain"
        member.team.tags = []
    await db.commit()
"""

TESTS = """
import pytest
from sqlalchemy import select
from sqlalchemy.orm import selectinload, subqueryload
from app import Member, Tag, Team, User

@pytest.mark.parametrize("load", [selectinload, subqueryload])
@pytest.mark.parametrize("loaded_before", [False, True])
async def test_all_is_loaded_and_of_the_present(db_session, client, load, loaded_before):
    team = Team(tags=[Tag()], members=[Member(role="new", user=User())])
    db_session.add(team)
    await db_session.commit()
    if not loaded_before:
        db_session.expunge_all()
    query = select(Team).options(load(Team.tags), load(Team.members))
    [team] = await db_session.scalars(query)
    assert (len(team.tags), team.members[0].role) == (1, "new")
    await client.put("/members")
    [again] = await db_session.scalars(query)
    assert again is team
    assert (team.tags, team.members[0].role) == ([], "captain")
    assert team.members[0].team is team
    team.members.clear()  # no warning: the collection is valid
"""


@pytest.mark.slow
@pytest.mark.parametrize("product", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_a_query_has_what_it_loads_eagerly(example: Example, product: str) -> None:
    """In an async test no relationship can be loaded later."""
    app = example.files["app.py"] + MODEL
    example = example.with_files(app=app, test_it=TESTS)
    if product == "postgresql":
        example = on_postgresql(example)
    example.run("-W", "error").expect(passed=4)
