"""The day of the event: the command center and the queue of a tournament."""

from fastapi import APIRouter, Request, Response

from app.pages import page_or_part
from app.routers.dependencies import CREW, MC, Tournaments
from app.services.battles import board_of

router = APIRouter(prefix="/event/{tournament_id}")


@router.get("", dependencies=[MC])
async def show_command_center(
    request: Request, tournament_id: int, tournaments: Tournaments
) -> Response:
    """Show the battle on the floor and those that wait; HTMX gets the board alone."""
    tournament = await tournaments.load(tournament_id)
    return page_or_part(
        request,
        "event/command_center.html",
        part="event/_board.html",
        tournament=tournament,
        board=board_of(tournament),
    )


@router.get("/queue", dependencies=[CREW])
async def show_queue(request: Request, tournament_id: int, tournaments: Tournaments) -> Response:
    """Show the battles still to be decided; HTMX gets the list alone."""
    tournament = await tournaments.load(tournament_id)
    return page_or_part(
        request,
        "event/queue.html",
        part="event/_queue.html",
        tournament=tournament,
        battles=board_of(tournament).queue,
    )
