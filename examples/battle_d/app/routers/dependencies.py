"""What a route may ask for: the session, the services, and a user who may be here."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from pydantic import StringConstraints
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.database import get_db
from app.errors import NotAllowedError, NotLoggedInError
from app.mailer import mailer
from app.models import Role
from app.pages import Visitor
from app.repositories import UserRepository
from app.security import find_session
from app.services import (
    BattleService,
    DancerService,
    EventService,
    LoginService,
    PerformerService,
    TournamentService,
)

SESSION_COOKIE = "battle_d_session"

Database = Annotated[AsyncSession, Depends(get_db)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
Email = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, to_lower=True, max_length=254, pattern=r"^[^@\s]+@[^@\s]+$"
    ),
]


async def remember_user(request: Request, database: Database) -> None:
    """Note who is logged in, for the route and for the page."""
    user_id = find_session(request.cookies.get(SESSION_COOKIE))
    user = await UserRepository(database).find(user_id) if user_id else None
    request.state.visitor = Visitor.of(user) if user else None


def require(*roles: Role) -> Callable[[Request], None]:
    """Make a dependency that lets the given roles pass, and the admin always."""

    def check(request: Request) -> None:
        visitor: Visitor | None = request.state.visitor
        if visitor is None:
            reason = "This page is for people who work at the event."
            raise NotLoggedInError(reason)
        if not visitor.may(*roles):
            reason = f"{visitor.name} is {visitor.role}; this needs {' or '.join(roles)}."
            raise NotAllowedError(reason)

    return check


STAFF = Depends(require(Role.STAFF))
MC = Depends(require(Role.MC))
RESULTS = Depends(require(Role.JUDGE, Role.STAFF))
CREW = Depends(require(*Role))


def _tournament_service(database: Database) -> TournamentService:
    return TournamentService(database)


def _performer_service(database: Database) -> PerformerService:
    return PerformerService(database)


def _event_service(database: Database) -> EventService:
    return EventService(database)


def _battle_service(database: Database) -> BattleService:
    return BattleService(database)


def _dancer_service(database: Database) -> DancerService:
    return DancerService(database)


def _login_service(database: Database) -> LoginService:
    return LoginService(database, mailer)


Tournaments = Annotated[TournamentService, Depends(_tournament_service)]
Performers = Annotated[PerformerService, Depends(_performer_service)]
Events = Annotated[EventService, Depends(_event_service)]
Battles = Annotated[BattleService, Depends(_battle_service)]
Dancers = Annotated[DancerService, Depends(_dancer_service)]
Login = Annotated[LoginService, Depends(_login_service)]
