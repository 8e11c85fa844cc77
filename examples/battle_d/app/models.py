"""The tables: users, tournaments with their categories and performers, and battles."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Role(StrEnum):
    """What a user does at the event."""

    ADMIN = "admin"
    STAFF = "staff"
    MC = "mc"
    JUDGE = "judge"


class Phase(StrEnum):
    """The phases of a tournament, in the order of the day."""

    REGISTRATION = "REGISTRATION"
    PRESELECTION = "PRESELECTION"
    POOLS = "POOLS"
    FINALS = "FINALS"
    COMPLETED = "COMPLETED"


class BattleStatus(StrEnum):
    """The states of a battle."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    COMPLETED = "COMPLETED"


class Base(DeclarativeBase):
    """The parent of every table."""


class User(Base):
    """A person who works at the event."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    role: Mapped[Role]


class Tournament(Base):
    """One event, which passes through the phases."""

    __tablename__ = "tournaments"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    phase: Mapped[Phase] = mapped_column(default=Phase.REGISTRATION)
    categories: Mapped[list[Category]] = relationship(lazy="selectin", order_by="Category.id")
    battles: Mapped[list[Battle]] = relationship(lazy="selectin", order_by="Battle.id")


class Category(Base):
    """A competition inside a tournament, such as "Hip hop 1v1"."""

    __tablename__ = "categories"
    id: Mapped[int] = mapped_column(primary_key=True)
    tournament_id: Mapped[int] = mapped_column(ForeignKey("tournaments.id"))
    name: Mapped[str]
    performers: Mapped[list[Performer]] = relationship(lazy="selectin", order_by="Performer.id")


class Performer(Base):
    """A dancer in a category, under the name that the audience knows."""

    __tablename__ = "performers"
    id: Mapped[int] = mapped_column(primary_key=True)
    category_id: Mapped[int] = mapped_column(ForeignKey("categories.id"))
    blaze: Mapped[str]
    is_out: Mapped[bool] = mapped_column(default=False)


class Battle(Base):
    """Two performers who dance against each other. One battle of a tournament may be active."""

    __tablename__ = "battles"
    __table_args__ = (
        Index(
            "one_active_battle",
            "tournament_id",
            unique=True,
            sqlite_where=text("status = 'ACTIVE'"),
            postgresql_where=text("status = 'ACTIVE'"),
        ),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    tournament_id: Mapped[int] = mapped_column(ForeignKey("tournaments.id"))
    first_id: Mapped[int] = mapped_column(ForeignKey("performers.id"))
    second_id: Mapped[int] = mapped_column(ForeignKey("performers.id"))
    status: Mapped[BattleStatus] = mapped_column(default=BattleStatus.PENDING)
    first: Mapped[Performer] = relationship(lazy="selectin", foreign_keys=[first_id])
    second: Mapped[Performer] = relationship(lazy="selectin", foreign_keys=[second_id])
