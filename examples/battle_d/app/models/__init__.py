"""What the tournament is made of, as tables."""

from app.models.base import Base
from app.models.battle import Battle, BattleEntry, BattleStatus, Outcome
from app.models.dancer import Dancer
from app.models.tournament import Category, Performer, Phase, Tournament
from app.models.user import Role, User

__all__ = [
    "Base",
    "Battle",
    "BattleEntry",
    "BattleStatus",
    "Category",
    "Dancer",
    "Outcome",
    "Performer",
    "Phase",
    "Role",
    "Tournament",
    "User",
]
