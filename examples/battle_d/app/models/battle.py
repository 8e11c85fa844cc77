"""A battle: who stands in it, how far it is, and how it ended."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import Base
from app.models.tournament import Phase  # SQLAlchemy reads the annotation

if TYPE_CHECKING:
    from app.models.tournament import Category, Performer, Tournament

BEST_SCORE = 100


class BattleStatus(StrEnum):
    """How far a battle is."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    COMPLETED = "COMPLETED"


class Outcome(StrEnum):
    """How a completed battle ended: with a score for each, a winner, or nobody ahead."""

    SCORED = "SCORED"
    WON = "WON"
    DRAWN = "DRAWN"


class Battle(Base):
    """Performers of one category who dance against each other."""

    __tablename__ = "battles"
    __table_args__ = (
        CheckConstraint("(status = 'COMPLETED') = (outcome IS NOT NULL)", name="ended"),
        CheckConstraint(
            "(winner_id IS NOT NULL) = (outcome IS NOT NULL AND outcome = 'WON')", name="won"
        ),
        UniqueConstraint("tournament_id", "position"),
        Index(
            "uq_battles_one_active",
            "tournament_id",
            unique=True,
            sqlite_where=text("status = 'ACTIVE'"),
            postgresql_where=text("status = 'ACTIVE'"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    tournament_id: Mapped[int] = mapped_column(ForeignKey("tournaments.id", ondelete="CASCADE"))
    category_id: Mapped[int] = mapped_column(ForeignKey("categories.id"), index=True)
    phase: Mapped[Phase]
    position: Mapped[int]
    """The place in the queue of the whole tournament, counted from 1."""
    status: Mapped[BattleStatus] = mapped_column(default=BattleStatus.PENDING)
    outcome: Mapped[Outcome | None]
    winner_id: Mapped[int | None] = mapped_column(ForeignKey("performers.id"))

    tournament: Mapped[Tournament] = relationship(back_populates="battles")
    category: Mapped[Category] = relationship()
    winner: Mapped[Performer | None] = relationship()
    entries: Mapped[list[BattleEntry]] = relationship(
        back_populates="battle", cascade="all, delete-orphan", order_by="BattleEntry.slot"
    )

    @property
    def title(self) -> str:
        """Name the performers as the MC calls them: "Ruby vs Flow"."""
        return " vs ".join(entry.blaze for entry in self.entries)


class BattleEntry(Base):
    """The part of one performer in one battle."""

    __tablename__ = "battle_entries"
    __table_args__ = (
        UniqueConstraint("battle_id", "slot"),
        CheckConstraint(f"score BETWEEN 0 AND {BEST_SCORE}", name="score"),
    )

    battle_id: Mapped[int] = mapped_column(
        ForeignKey("battles.id", ondelete="CASCADE"), primary_key=True
    )
    performer_id: Mapped[int] = mapped_column(ForeignKey("performers.id"), primary_key=True)
    slot: Mapped[int]
    score: Mapped[int | None]

    battle: Mapped[Battle] = relationship(back_populates="entries")
    performer: Mapped[Performer] = relationship()

    @property
    def blaze(self) -> str:
        """Give the name that the audience knows."""
        return self.performer.dancer.blaze
