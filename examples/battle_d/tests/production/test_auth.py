"""Logging in: the link, the cookie, and what becomes of both when the user changes."""

import pytest
from sqlalchemy import delete, update
from starlette.testclient import TestClient

from app.db.database import async_session_maker
from app.errors import BadLinkError
from app.mailer import LoggingMailer
from app.models import Role, User
from app.routers.dependencies import SESSION_COOKIE
from app.security import find_session, read_login, sign_login, sign_session
from app.services import LoginService
from tests.login import log_in

MC = "mc@battle-d.example"


@pytest.mark.usefixtures("users")
class TestLoginService:
    """Links go to known addresses, and lead back to their users."""

    async def test_link_names_its_user(self) -> None:
        """The token in the letter to the MC is the MC's."""
        mailer = LoggingMailer()
        async with async_session_maker() as session:
            await LoginService(session, mailer).send_link(MC, "http://test/auth/verify")

        letter = mailer.find_latest(MC)
        assert letter
        address, token = letter.text.split("?token=")
        assert address == "http://test/auth/verify"
        assert read_login(token) == MC

    async def test_stranger_gets_no_letter(self) -> None:
        """An address that nobody has gets no link."""
        mailer = LoggingMailer()
        async with async_session_maker() as session:
            await LoginService(session, mailer).send_link("x@y.example", "http://test")

        assert mailer.find_latest("x@y.example") is None

    async def test_link_of_a_deleted_user_is_refused(self) -> None:
        """A link that is still good logs nobody in when its user is gone."""
        token = sign_login(MC)
        async with async_session_maker.begin() as session:
            await session.execute(delete(User).where(User.email == MC))

        async with async_session_maker() as session:
            with pytest.raises(BadLinkError, match="no longer exists"):
                await LoginService(session, LoggingMailer()).verify(token)


class TestSessionCookie:
    """The cookie carries the user's id; what the user may do stands in the database."""

    def test_login_token_is_no_session_cookie(self) -> None:
        """A token signed for one purpose means nothing for the other."""
        assert find_session(sign_session(7)) == 7
        assert find_session(sign_login(MC)) is None

    def test_login_sets_the_cookie(self, client: TestClient) -> None:
        """Whoever follows the link has the cookie, and a page greets them by name."""
        log_in(client, "mc")

        assert SESSION_COOKIE in client.cookies
        assert "The Mc (mc)" in client.get("/tournaments").text

    async def test_new_role_counts_from_the_next_request(self, client: TestClient) -> None:
        """A judge who becomes staff may see the dancers without a new login."""
        log_in(client, "judge")
        before = client.get("/dancers")

        async with async_session_maker.begin() as session:
            judge = update(User).where(User.role == Role.JUDGE)
            await session.execute(judge.values(role=Role.STAFF))

        after = client.get("/dancers")
        assert (before.status_code, after.status_code) == (403, 200)
