"""The app: its pages, its actions, and its life from start to stop."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, TypeVar

from fastapi import FastAPI, Form, HTTPException, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.templating import Jinja2Templates
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from app.database import Database, engine
from app.login import COOKIE, Crew, Judge, Mc, Staff, find_user, signer
from app.models import Base, Battle, BattleStatus, Phase, Tournament

Row = TypeVar("Row", bound=Base)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Start only with a database that answers, and close its connections at the end."""
    async with engine.connect():
        pass
    yield
    await engine.dispose()


app = FastAPI(title="Battle-D", lifespan=lifespan)
templates = Jinja2Templates(Path(__file__).parent / "templates")


@app.exception_handler(IntegrityError)
async def refuse(_request: Request, _error: IntegrityError) -> Response:
    """Answer 409 if the database refuses a second active battle."""
    return JSONResponse({"detail": "Another battle is on the floor."}, 409)


@app.get("/auth/verify")
async def log_in(token: str, db: Database) -> Response:
    """Log in the user who has followed a link."""
    user = await find_user(token, db)
    response = RedirectResponse("/tournaments", 303)
    response.set_cookie(COOKIE, signer.dumps(user.email), httponly=True, samesite="lax")
    return response


@app.get("/tournaments")
async def list_tournaments(request: Request, db: Database) -> Response:
    """Show every tournament."""
    tournaments = await db.scalars(select(Tournament).order_by(Tournament.id))
    return templates.TemplateResponse(request, "tournaments.html", {"tournaments": tournaments})


@app.post("/tournaments/create")
async def create(_user: Staff, name: Annotated[str, Form(min_length=1)], db: Database) -> Response:
    """Open a tournament for registration."""
    tournament = Tournament(name=name)
    db.add(tournament)
    await db.flush()
    return RedirectResponse(f"/tournaments/{tournament.id}", 303)


@app.get("/tournaments/{tournament_id}")
async def show_tournament(request: Request, tournament_id: int, db: Database) -> Response:
    """Show a tournament with its categories and performers."""
    tournament = await _find(db, Tournament, tournament_id)
    return templates.TemplateResponse(request, "tournament.html", {"tournament": tournament})


@app.post("/tournaments/{tournament_id}/advance")
async def advance(_user: Staff, tournament_id: int, db: Database) -> Response:
    """Go on to the next phase, and draw its battles between the performers who are still in."""
    tournament = await _find(db, Tournament, tournament_id)
    if any(battle.status is not BattleStatus.COMPLETED for battle in tournament.battles):
        raise HTTPException(409, "Battles of this phase are not completed.")
    if tournament.phase is Phase.COMPLETED:
        raise HTTPException(409, "The tournament is over.")
    phases = [*Phase]
    tournament.phase = phases[phases.index(tournament.phase) + 1]
    for category in tournament.categories:
        standing = [performer for performer in category.performers if not performer.is_out]
        for first, second in zip(standing[::2], standing[1::2], strict=False):
            tournament.battles.append(Battle(first=first, second=second))
    return RedirectResponse(f"/tournaments/{tournament_id}", 303)


@app.get("/event/{tournament_id}")
async def show_command_center(
    request: Request, user: Mc, tournament_id: int, db: Database
) -> Response:
    """Show the MC the battles that wait or are danced."""
    context = {"tournament": await _find(db, Tournament, tournament_id), "user": user}
    return templates.TemplateResponse(request, "event.html", context)


@app.get("/event/{tournament_id}/queue")
async def show_queue(request: Request, user: Crew, tournament_id: int, db: Database) -> Response:
    """Show the same to everybody who works at the event."""
    context = {"tournament": await _find(db, Tournament, tournament_id), "user": user}
    return templates.TemplateResponse(request, "event.html", context)


@app.post("/battles/{battle_id}/start")
async def start(_user: Mc, battle_id: int, db: Database) -> Response:
    """Send a pending battle to the floor."""
    battle = await _find(db, Battle, battle_id)
    if battle.status is not BattleStatus.PENDING:
        raise HTTPException(409, f"The battle is {battle.status}.")
    battle.status = BattleStatus.ACTIVE
    return RedirectResponse(f"/event/{battle.tournament_id}", 303)


@app.post("/battles/{battle_id}/encode")
async def encode(
    _user: Judge, battle_id: int, winner: Annotated[int, Form()], db: Database
) -> Response:
    """Complete the battle on the floor. The loser is out of the tournament."""
    battle = await _find(db, Battle, battle_id)
    if battle.status is not BattleStatus.ACTIVE:
        raise HTTPException(409, f"The battle is {battle.status}.")
    if winner not in (battle.first_id, battle.second_id):
        raise HTTPException(422, "The winner does not dance in this battle.")
    battle.status = BattleStatus.COMPLETED
    battle.first.is_out = winner != battle.first_id
    battle.second.is_out = winner != battle.second_id
    return RedirectResponse(f"/event/{battle.tournament_id}/queue", 303)


async def _find(db: Database, table: type[Row], row_id: int) -> Row:
    row = await db.get(table, row_id)
    if row is None:
        raise HTTPException(404)
    return row
