"""Logging in by a link, and logging out."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from app.config import settings
from app.pages import page, see
from app.routers.dependencies import SESSION_COOKIE, Email, Login
from app.security import sign_session

router = APIRouter(prefix="/auth")


@router.get("/login")
async def show_login(request: Request) -> Response:
    """Ask for the address that the link goes to."""
    return page(request, "auth/login.html")


@router.post("/login")
async def send_link(request: Request, login: Login, email: Annotated[Email, Form()]) -> Response:
    """Send a link; the answer does not tell whether the address is known."""
    await login.send_link(email, str(request.url_for("verify")))
    return page(request, "auth/link_sent.html", email=email)


@router.get("/verify")
async def verify(request: Request, login: Login, token: str) -> Response:
    """Log in whoever followed a link that is still good."""
    user = await login.verify(token)
    response = see("/tournaments")
    response.set_cookie(
        SESSION_COOKIE,
        sign_session(user.id),
        max_age=settings.session_lives,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return response


@router.post("/logout")
async def log_out() -> Response:
    """Forget who is logged in."""
    response = see("/tournaments")
    response.delete_cookie(SESSION_COOKIE)
    return response
