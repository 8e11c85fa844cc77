"""A key as its holder has it: the row, and the text that nobody else knows."""

from dataclasses import dataclass
from datetime import datetime

from api_keys.models import ApiKey, Scope
from api_keys.tokens import new_token, prefix_of, sha256_of


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody who has a key."""

    key: ApiKey
    token: str

    @property
    def headers(self) -> dict[str, str]:
        """What the holder sends with each request."""
        return bearer(self.token)


def bearer(token: str) -> dict[str, str]:
    """Say in a header which key is used."""
    return {"Authorization": f"Bearer {token}"}


def a_holder(name: str, *scopes: Scope, expires_at: datetime | None = None) -> Holder:
    """Make a key that is not saved yet."""
    token = new_token()
    prefix, sha256 = prefix_of(token), sha256_of(token)
    key = ApiKey(name=name, prefix=prefix, sha256=sha256, scopes=[*scopes], expires_at=expires_at)
    return Holder(key, token)
