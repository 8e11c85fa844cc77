"""Dancers: the staff's card index."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from app.models import Dancer
from app.pages import page, see
from app.routers.dependencies import STAFF, Dancers, Email, Name

router = APIRouter(prefix="/dancers", dependencies=[STAFF])


@router.get("")
async def list_dancers(request: Request, dancers: Dancers) -> Response:
    """Show every dancer."""
    return page(request, "dancers/list.html", dancers=await dancers.all())


@router.post("/create")
async def create_dancer(
    dancers: Dancers,
    email: Annotated[Email, Form()],
    first_name: Annotated[Name, Form()],
    last_name: Annotated[Name, Form()],
    blaze: Annotated[Name, Form()],
) -> Response:
    """Take a dancer in."""
    await dancers.create(
        Dancer(email=email, first_name=first_name, last_name=last_name, blaze=blaze)
    )
    return see("/dancers")
