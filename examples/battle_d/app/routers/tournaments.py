"""Tournaments: the audience reads, the staff changes."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from app.pages import page, see
from app.routers.dependencies import STAFF, Dancers, Name, Tournaments
from app.services.phases import find_obstacles

router = APIRouter(prefix="/tournaments")


@router.get("")
async def list_tournaments(request: Request, tournaments: Tournaments) -> Response:
    """Show every tournament."""
    return page(request, "tournaments/list.html", tournaments=await tournaments.all())


@router.post("/create", dependencies=[STAFF])
async def create_tournament(tournaments: Tournaments, name: Annotated[Name, Form()]) -> Response:
    """Open a tournament for registration."""
    tournament = await tournaments.create(name)
    return see(f"/tournaments/{tournament.id}")


@router.get("/{tournament_id}")
async def show_tournament(
    request: Request, tournament_id: int, tournaments: Tournaments, dancers: Dancers
) -> Response:
    """Show one tournament with its categories and performers."""
    tournament = await tournaments.load(tournament_id)
    return page(
        request,
        "tournaments/detail.html",
        tournament=tournament,
        obstacles=find_obstacles(tournament),
        dancers=await dancers.all(),
    )


@router.post("/{tournament_id}/categories", dependencies=[STAFF])
async def add_category(
    tournament_id: int,
    tournaments: Tournaments,
    name: Annotated[Name, Form()],
    places: Annotated[int, Form(ge=2, le=32)] = 4,
) -> Response:
    """Add a category to a tournament."""
    await tournaments.add_category(tournament_id, name, places=places)
    return see(f"/tournaments/{tournament_id}")


@router.post("/{tournament_id}/advance", dependencies=[STAFF])
async def advance_tournament(tournament_id: int, tournaments: Tournaments) -> Response:
    """Move a tournament to its next phase."""
    await tournaments.advance(tournament_id)
    return see(f"/tournaments/{tournament_id}")


@router.post("/{tournament_id}/rename", dependencies=[STAFF])
async def rename_tournament(
    tournament_id: int, tournaments: Tournaments, name: Annotated[Name, Form()]
) -> Response:
    """Give a tournament another name."""
    await tournaments.rename(tournament_id, name)
    return see(f"/tournaments/{tournament_id}")


@router.post("/{tournament_id}/delete", dependencies=[STAFF])
async def delete_tournament(tournament_id: int, tournaments: Tournaments) -> Response:
    """Delete a tournament whose registration is still open."""
    await tournaments.delete(tournament_id)
    return see("/tournaments")
