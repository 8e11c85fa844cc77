"""What the app says no to, and the status with which it says so."""

from collections.abc import Sequence
from http import HTTPStatus


class BattleDError(Exception):
    """Something the visitor should read, with the HTTP status that fits it."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    title = "Something went wrong"

    def __init__(self, *reasons: str) -> None:
        """Keep the reasons; each is one sentence for the visitor."""
        super().__init__(" ".join(reasons))
        self.reasons: Sequence[str] = reasons


class NotLoggedInError(BattleDError):
    """The page needs a user, and nobody is logged in."""

    status = HTTPStatus.UNAUTHORIZED
    title = "Please log in"


class BadLinkError(BattleDError):
    """Somebody followed a login link that logs nobody in."""

    status = HTTPStatus.UNAUTHORIZED
    title = "This link does not log you in"


class NotAllowedError(BattleDError):
    """The user is known, and this is not for them."""

    status = HTTPStatus.FORBIDDEN
    title = "This is not for you"


class NotFoundError(BattleDError):
    """There is no such thing."""

    status = HTTPStatus.NOT_FOUND
    title = "Not found"


class RuleBrokenError(BattleDError):
    """The rules of the tournament forbid it now."""

    status = HTTPStatus.CONFLICT
    title = "The rules forbid it"


class InvalidInputError(BattleDError):
    """The form cannot mean anything."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    title = "Please check the form"
