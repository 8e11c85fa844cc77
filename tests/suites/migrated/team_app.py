"""An app whose models lead back to each other, in the same statement or in another one."""

import os

from fastapi import Depends, FastAPI
from sqlalchemy import ForeignKey, String, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

engine = create_async_engine(os.environ["DATABASE_URL"])
maker = async_sessionmaker(engine)
app = FastAPI()


class Base(DeclarativeBase):
    pass


class Team(Base):
    __tablename__ = "teams"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(String(20))
    members: Mapped[list["Member"]] = relationship(back_populates="team")
    tags: Mapped[list["Tag"]] = relationship()


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    memberships: Mapped[list["Member"]] = relationship(back_populates="user", lazy="selectin")


class Member(Base):
    __tablename__ = "members"
    id: Mapped[int] = mapped_column(primary_key=True)
    role: Mapped[str] = mapped_column(String(20))
    team_id: Mapped[int] = mapped_column(ForeignKey("teams.id"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    team: Mapped[Team] = relationship(back_populates="members", lazy="joined")
    user: Mapped[User] = relationship(back_populates="memberships", lazy="joined")


class Tag(Base):
    __hash__ = None  # as of a dataclass
    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int | None] = mapped_column(ForeignKey("teams.id"))


def seed(session):
    session.add(Team(name="Sand"))


async def get_db():
    async with maker() as session:
        yield session


@app.get("/teams")
async def teams(db=Depends(get_db)):
    return list(await db.scalars(select(Team.name).order_by(Team.id)))


@app.put("/teams/{number}/{name}")
async def rename(number: int, name: str, db=Depends(get_db)):
    (await db.get_one(Team, number)).name = name
    await db.commit()


@app.put("/members")
async def promote(db=Depends(get_db)):
    for member in await db.scalars(select(Member).options(selectinload(Member.team, Team.tags))):
        member.role = "captain"
        member.team.tags = []
    await db.commit()
