"""What the app does. Services check the rules, change the rows, and commit."""

from app.services.battles import BattleService
from app.services.dancers import DancerService
from app.services.event import EventService
from app.services.login import LoginService
from app.services.performers import PerformerService
from app.services.tournaments import TournamentService

__all__ = [
    "BattleService",
    "DancerService",
    "EventService",
    "LoginService",
    "PerformerService",
    "TournamentService",
]
