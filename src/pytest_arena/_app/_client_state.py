"""How does a client become again what it was?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["ClientState"]


@dataclass(frozen=True, slots=True, eq=False)
class ClientState:
    """The cookies and headers of a client, async or sync, and whether it has logged in."""

    client: Any
    cookies: Any
    headers: Any
    has_logged_in: bool

    @classmethod
    def now(cls, client: Any) -> ClientState:
        """Look at a client. Costs a copy of its cookies and headers."""
        login = client._arena_login  # noqa: SLF001 - ours, of another file
        cookies = type(client.cookies)(client.cookies)
        return cls(client, cookies, client.headers.copy(), login is not None and login.is_done)

    def restore(self) -> None:
        """Take back what the client has been told since."""
        self.client.cookies = self.cookies  # the library copies both
        self.client.headers = self.headers
        login = self.client._arena_login  # noqa: SLF001 - as above
        if login is not None and not self.has_logged_in:
            login.forget()
