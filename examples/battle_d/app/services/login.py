"""Logging in by a link that is sent to the user's address."""

from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import BadLinkError
from app.mailer import Letter, LoggingMailer
from app.models import User
from app.repositories import UserRepository
from app.security import read_login, sign_login


class LoginService:
    """Sends login links and takes them back."""

    def __init__(self, session: AsyncSession, mailer: LoggingMailer) -> None:
        """Look users up in the session, and write to them through the mailer."""
        self._users = UserRepository(session)
        self._mailer = mailer

    async def send_link(self, email: str, verify_url: str) -> None:
        """Send a link to a known user, and nothing to anybody else."""
        if await self._users.find_by_email(email):
            link = f"{verify_url}?token={sign_login(email)}"
            self._mailer.send(Letter(email, "Your login link for Battle-D", link))

    async def verify(self, token: str) -> User:
        """Give the user that a login link belongs to."""
        user = await self._users.find_by_email(read_login(token))
        if user is None:
            reason = "The user it was made for no longer exists."
            raise BadLinkError(reason)
        return user
