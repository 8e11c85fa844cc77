"""Who gets in, and where to."""

from collections.abc import Callable

import pytest
from httpx2 import AsyncClient

from app.mailer import mailer
from app.models import Battle, Tournament
from app.security import sign_login

ClientAs = Callable[[str], AsyncClient]


async def test_browser_is_led_to_the_login_page(
    client: AsyncClient, summer_battle: Tournament
) -> None:
    """Whoever is not logged in is led to the login page in a browser, and gets 401 elsewhere."""
    address = f"/event/{summer_battle.id}"

    in_a_browser = await client.get(address, headers={"Accept": "text/html"})
    elsewhere = await client.get(address)

    assert in_a_browser.headers["location"] == "/auth/login"
    assert elsewhere.status_code == 401


@pytest.mark.parametrize(
    "role,status", [("judge", 403), ("staff", 403), ("mc", 303), ("admin", 303)]
)
async def test_only_mc_and_admin_start_battles(
    client_as: ClientAs, queue: list[Battle], role: str, status: int
) -> None:
    """A battle is started by the MC or the admin, and by nobody else."""
    response = await client_as(role).post(f"/battles/{queue[0].id}/start")

    assert response.status_code == status


async def test_stranger_gets_no_letter(client: AsyncClient) -> None:
    """An unknown address gets the same answer as a known one, and no letter."""
    known, unknown = "mc@battle-d.example", "stranger@battle-d.example"

    answers = [await client.post("/auth/login", data={"email": each}) for each in (known, unknown)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].text.replace(known, unknown) == answers[1].text
    assert mailer.find_latest(unknown) is None


async def test_changed_link_logs_nobody_in(client: AsyncClient) -> None:
    """A login link with one changed letter is refused and sets no cookie."""
    token = sign_login("admin@battle-d.example")
    changed = token.replace(token[0], "x" if token[0] != "x" else "y", 1)

    response = await client.get("/auth/verify", params={"token": changed})

    assert response.status_code == 401
    assert "set-cookie" not in response.headers


async def test_logout_ends_the_session(client_as: ClientAs) -> None:
    """After the logout the pages of the staff are closed again."""
    staff = client_as("staff")
    before = await staff.get("/dancers")

    await staff.post("/auth/logout")

    after = await staff.get("/dancers")
    assert (before.status_code, after.status_code) == (200, 401)
