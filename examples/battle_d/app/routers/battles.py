"""One battle: look at it, start it, write its results down."""

from fastapi import APIRouter, Request, Response

from app.pages import page, page_or_part, see
from app.routers.dependencies import MC, RESULTS, Battles

router = APIRouter(prefix="/battles/{battle_id}")


@router.get("")
async def show_battle(request: Request, battle_id: int, battles: Battles) -> Response:
    """Show a battle; HTMX gets the card alone."""
    battle = await battles.load(battle_id)
    return page_or_part(request, "battles/detail.html", part="battles/_card.html", battle=battle)


@router.post("/start", dependencies=[MC])
async def start_battle(battle_id: int, battles: Battles) -> Response:
    """Send a battle to the floor and go back to the command center."""
    battle = await battles.start(battle_id)
    return see(f"/event/{battle.tournament_id}")


@router.get("/encode", dependencies=[RESULTS])
async def show_encode_form(request: Request, battle_id: int, battles: Battles) -> Response:
    """Ask for the results of a battle."""
    return page(request, "battles/encode.html", battle=await battles.load(battle_id))


@router.post("/encode", dependencies=[RESULTS])
async def encode_battle(request: Request, battle_id: int, battles: Battles) -> Response:
    """Write the results down and show what follows."""
    form = await request.form()
    written = {key: value for key, value in form.items() if isinstance(value, str)}
    battle = await battles.encode(battle_id, written)
    return see(f"/event/{battle.tournament_id}/queue")
