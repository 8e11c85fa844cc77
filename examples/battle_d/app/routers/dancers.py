"""Dancers: the staff's card index."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from pydantic import BaseModel

from app.models import Dancer
from app.pages import page, see
from app.routers.dependencies import STAFF, Dancers, Email, Name

router = APIRouter(prefix="/dancers", dependencies=[STAFF])


class DancerForm(BaseModel):
    """What the staff writes down about a dancer."""

    email: Email
    first_name: Name
    last_name: Name
    blaze: Name


@router.get("")
async def list_dancers(request: Request, dancers: Dancers, q: str = "") -> Response:
    """Show every dancer, or those whom somebody looks for."""
    found = await dancers.search(q) if q else await dancers.all()
    return page(request, "dancers/list.html", dancers=found, q=q)


@router.post("/create")
async def create_dancer(dancers: Dancers, form: Annotated[DancerForm, Form()]) -> Response:
    """Take a dancer in."""
    await dancers.create(Dancer(**form.model_dump()))
    return see("/dancers")


@router.get("/{dancer_id}/edit")
async def show_edit_form(request: Request, dancer_id: int, dancers: Dancers) -> Response:
    """Ask what is to be changed about a dancer."""
    return page(request, "dancers/edit.html", dancer=await dancers.load(dancer_id))


@router.post("/{dancer_id}/edit")
async def change_dancer(
    dancer_id: int, dancers: Dancers, form: Annotated[DancerForm, Form()]
) -> Response:
    """Write down anew who a dancer is."""
    await dancers.change(dancer_id, **form.model_dump())
    return see("/dancers")
