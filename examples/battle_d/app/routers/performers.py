"""The performers of a category: everybody reads who they are, the staff changes it."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from app.pages import page_or_part, see
from app.routers.dependencies import STAFF, Dancers, Performers, Tournaments
from app.services.tournaments import pick_category

router = APIRouter(prefix="/tournaments/{tournament_id}/categories/{category_id}/performers")


@router.get("")
async def list_performers(
    request: Request,
    tournament_id: int,
    category_id: int,
    tournaments: Tournaments,
    dancers: Dancers,
) -> Response:
    """Show who performs in a category; HTMX gets its section alone."""
    tournament = await tournaments.load(tournament_id)
    return page_or_part(
        request,
        "tournaments/category.html",
        part="tournaments/_category.html",
        tournament=tournament,
        category=pick_category(tournament, category_id),
        dancers=await dancers.all(),
    )


@router.post("", dependencies=[STAFF])
async def register_performer(
    tournament_id: int,
    category_id: int,
    performers: Performers,
    dancer_id: Annotated[int, Form()],
) -> Response:
    """Register a dancer in a category."""
    await performers.register(tournament_id, category_id, dancer_id)
    return see(f"/tournaments/{tournament_id}")


@router.post("/{performer_id}/withdraw", dependencies=[STAFF])
async def withdraw_performer(
    tournament_id: int, category_id: int, performer_id: int, performers: Performers
) -> Response:
    """Take a performer out of a category."""
    await performers.withdraw(tournament_id, category_id, performer_id)
    return see(f"/tournaments/{tournament_id}")
