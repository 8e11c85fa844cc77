"""The day of the event: the command center and the queue of a tournament."""

from fastapi import APIRouter, Request, Response

from app.pages import page_or_part
from app.routers.dependencies import CREW, MC, Events

router = APIRouter(prefix="/event/{tournament_id}")


@router.get("", dependencies=[MC])
async def show_command_center(request: Request, tournament_id: int, events: Events) -> Response:
    """Show the battle on the floor and those that wait; HTMX gets the board alone."""
    board = await events.load_board(tournament_id)
    return page_or_part(request, "event/command_center.html", part="event/_board.html", board=board)


@router.get("/progress", dependencies=[MC])
async def show_progress(request: Request, tournament_id: int, events: Events) -> Response:
    """Show how far the phase is: to HTMX the bar alone, else the whole command center."""
    board = await events.load_board(tournament_id)
    return page_or_part(
        request, "event/command_center.html", part="event/_progress.html", board=board
    )


@router.get("/queue", dependencies=[CREW])
async def show_queue(request: Request, tournament_id: int, events: Events) -> Response:
    """Show the battles still to be decided; HTMX gets the list alone."""
    board = await events.load_board(tournament_id)
    return page_or_part(request, "event/queue.html", part="event/_queue.html", board=board)
