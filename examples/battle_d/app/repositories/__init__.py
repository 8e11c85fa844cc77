"""What the app asks its database and adds to it, one file for each thing asked about."""

from app.repositories.battle import BattleRepository
from app.repositories.dancer import DancerRepository
from app.repositories.tournament import TournamentRepository
from app.repositories.user import UserRepository

__all__ = ["BattleRepository", "DancerRepository", "TournamentRepository", "UserRepository"]
