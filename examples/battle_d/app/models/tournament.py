"""The tournament, its categories, and who performs in them."""

from __future__ import annotations

from datetime import datetime  # SQLAlchemy reads the annotation at run time
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import CheckConstraint, DateTime, ForeignKey, String, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import Base

if TYPE_CHECKING:
    from app.models.battle import Battle
    from app.models.dancer import Dancer


class Phase(StrEnum):
    """How far a tournament is. The order here is the order of the day."""

    REGISTRATION = "REGISTRATION"
    PRESELECTION = "PRESELECTION"
    POOLS = "POOLS"
    FINALS = "FINALS"
    COMPLETED = "COMPLETED"

    def next(self) -> Phase | None:
        """Name the phase that follows, or nothing after the last."""
        following = list(Phase)[list(Phase).index(self) + 1 :]
        return following[0] if following else None


class Tournament(Base):
    """One event, which goes through its phases one by one."""

    __tablename__ = "tournaments"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    phase: Mapped[Phase] = mapped_column(default=Phase.REGISTRATION)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    categories: Mapped[list[Category]] = relationship(
        back_populates="tournament", cascade="all, delete-orphan", order_by="Category.id"
    )
    battles: Mapped[list[Battle]] = relationship(
        back_populates="tournament", cascade="all, delete-orphan", order_by="Battle.position"
    )


class Category(Base):
    """A competition inside a tournament, such as "Hip hop 1v1"."""

    __tablename__ = "categories"
    __table_args__ = (
        UniqueConstraint("tournament_id", "name"),
        CheckConstraint("places >= 2", name="places"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    tournament_id: Mapped[int] = mapped_column(ForeignKey("tournaments.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(100))
    places: Mapped[int] = mapped_column(default=4)
    """How many performers go on from the preselection to the pools."""

    tournament: Mapped[Tournament] = relationship(back_populates="categories")
    performers: Mapped[list[Performer]] = relationship(
        back_populates="category", cascade="all, delete-orphan", order_by="Performer.id"
    )


class Performer(Base):
    """A dancer who is registered in a category."""

    __tablename__ = "performers"
    __table_args__ = (UniqueConstraint("category_id", "dancer_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    category_id: Mapped[int] = mapped_column(ForeignKey("categories.id", ondelete="CASCADE"))
    dancer_id: Mapped[int] = mapped_column(ForeignKey("dancers.id"), index=True)

    category: Mapped[Category] = relationship(back_populates="performers")
    dancer: Mapped[Dancer] = relationship()
