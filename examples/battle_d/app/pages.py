"""How an answer becomes HTML: a whole page, or the part that HTMX asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from fastapi.templating import Jinja2Templates

from app.models import Role, User

PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who is logged in: a value, so that a page shows it even after a failed transaction."""

    name: str
    role: Role

    @classmethod
    def of(cls, user: User) -> Self:
        """Take what the pages and the access rules need."""
        return cls(user.name, user.role)

    def may(self, *roles: str) -> bool:
        """Is this visitor one of the roles, or the admin, who may do everything?"""
        return self.role in {Role.ADMIN, *roles}


def _show_visitor(request: Request) -> dict[str, Any]:
    """Tell every template who is logged in, and what it may offer to them."""
    visitor: Visitor | None = getattr(request.state, "visitor", None)
    may: Callable[..., bool] = visitor.may if visitor else _may_nothing
    return {"visitor": visitor, "may": may}


def _may_nothing(*_roles: str) -> bool:
    return False


templates = Jinja2Templates(PACKAGE / "templates", context_processors=[_show_visitor])
templates.env.trim_blocks = True
templates.env.lstrip_blocks = True


def page(request: Request, template: str, *, status: int = 200, **context: object) -> Response:
    """Answer with a whole page."""
    return templates.TemplateResponse(request, template, context, status_code=status)


def page_or_part(request: Request, template: str, *, part: str, **context: object) -> Response:
    """Answer with the part of the page to HTMX, and with the whole page to everybody else."""
    wanted = part if wants_part(request) else template
    return templates.TemplateResponse(request, wanted, context, headers={"Vary": "HX-Request"})


def wants_part(request: Request) -> bool:
    """Is it HTMX that asks?"""
    return request.headers.get("HX-Request") == "true"


def see(path: str) -> Response:
    """Send the browser on to another page, to be fetched with GET."""
    return RedirectResponse(path, status_code=303)
