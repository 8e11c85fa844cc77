"""How a test's client logs in: as a person does, by the link in the letter."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, overload

from starlette.testclient import TestClient

from app.mailer import mailer
from tests.seed import email_of

if TYPE_CHECKING:
    from httpx2 import AsyncClient


@overload
def log_in(client: TestClient, role: str) -> None: ...
@overload
def log_in(client: "AsyncClient", role: str) -> Awaitable[None]: ...
def log_in(client: "AsyncClient | TestClient", role: str) -> Awaitable[None] | None:
    """Log a client in as the user of a role; the async client gives something to await."""
    if not isinstance(client, TestClient):
        return _alog_in(client, email_of(role))
    _log_in(client, email_of(role))
    return None


def _log_in(client: TestClient, email: str) -> None:
    client.post("/auth/login", data={"email": email}).raise_for_status()
    verified = client.get(_find_link(email), follow_redirects=False)
    assert verified.status_code == 303, verified.text


async def _alog_in(client: "AsyncClient", email: str) -> None:
    (await client.post("/auth/login", data={"email": email})).raise_for_status()
    verified = await client.get(_find_link(email), follow_redirects=False)
    assert verified.status_code == 303, verified.text


def _find_link(email: str) -> str:
    letter = mailer.find_latest(email)
    assert letter, f"No letter was sent to {email}."
    return letter.text
