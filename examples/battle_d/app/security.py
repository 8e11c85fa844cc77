"""Signed words: the login link in an e-mail and the session cookie in a browser."""

from itsdangerous import BadSignature, URLSafeTimedSerializer

from app.config import settings
from app.errors import BadLinkError


def sign_login(email: str) -> str:
    """Make the token of a login link."""
    return _signer("login").dumps(email)


def read_login(token: str) -> str:
    """Give the address that a login link was made for, while the link lives."""
    try:
        return str(_signer("login").loads(token, max_age=settings.login_link_lives))
    except BadSignature as broken:
        reason = "The link is not valid, or no longer. Ask for a new one."
        raise BadLinkError(reason) from broken


def sign_session(user_id: int) -> str:
    """Make the value of the session cookie."""
    return _signer("session").dumps(user_id)


def find_session(cookie: str | None) -> int | None:
    """Give the user's id that a session cookie carries, if it is one of ours and alive."""
    try:
        return int(_signer("session").loads(cookie or "", max_age=settings.session_lives))
    except BadSignature:
        return None


def _signer(purpose: str) -> URLSafeTimedSerializer:
    """Sign for one purpose only: a login token is no session cookie."""
    return URLSafeTimedSerializer(settings.secret_key, salt=f"battle-d.{purpose}")
