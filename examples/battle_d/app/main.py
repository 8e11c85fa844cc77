"""The app: its routers, its pages of refusal, and its life from start to stop."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from app.db.database import check_db, engine
from app.errors import BattleDError, InvalidInputError, NotLoggedInError
from app.pages import PACKAGE, page, see, wants_part
from app.routers import ROUTERS
from app.routers.dependencies import remember_user

log = logging.getLogger(__name__)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Start only with a database that answers; close its connections at the end."""
    await check_db()
    log.info("Battle-D runs on %s", engine.url.render_as_string(hide_password=True))
    yield
    await engine.dispose()


app = FastAPI(title="Battle-D", lifespan=lifespan, dependencies=[Depends(remember_user)])
app.mount("/static", StaticFiles(directory=PACKAGE / "static"), name="static")
for router in ROUTERS:
    app.include_router(router)


@app.get("/")
async def show_start() -> Response:
    """Begin with the tournaments."""
    return see("/tournaments")


@app.exception_handler(BattleDError)
async def refuse(request: Request, error: BattleDError) -> Response:
    """Explain a refusal on a page of its own."""
    return page(request, "error.html", status=error.status, error=error)


@app.exception_handler(NotLoggedInError)
async def ask_for_login(request: Request, error: NotLoggedInError) -> Response:
    """Send a person's browser to the login page, and tell everybody else 401."""
    if _is_person_browsing(request):
        return see("/auth/login")
    return await refuse(request, error)


@app.exception_handler(RequestValidationError)
async def refuse_form(request: Request, error: RequestValidationError) -> Response:
    """Say in words which fields of a form are wrong."""
    reasons = (f"{wrong['loc'][-1]}: {wrong['msg']}." for wrong in error.errors())
    return await refuse(request, InvalidInputError(*reasons))


@app.exception_handler(HTTPException)
async def refuse_address(request: Request, error: HTTPException) -> Response:
    """Answer on a page, too, where no route fits the address or the method."""
    explained = BattleDError(f"{request.method} {request.url.path}: {error.detail}.")
    return page(request, "error.html", status=error.status_code, error=explained)


def _is_person_browsing(request: Request) -> bool:
    """Is a whole page wanted, by something that says it reads HTML?"""
    wants_page = request.method == "GET" and not wants_part(request)
    return wants_page and "text/html" in request.headers.get("Accept", "")
