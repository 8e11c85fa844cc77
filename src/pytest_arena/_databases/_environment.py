"""The environment's database URLs, led into the arena before any of the user's code runs."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING
from urllib.parse import quote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from pytest_arena import _gate
from pytest_arena._product import NOWHERE

if TYPE_CHECKING:
    from pytest_arena._databases._resolver import Databases
    from pytest_arena._product import Asked

# What stood there at first, for this run's workers and child runs, which inherit the new values.
_ORIGINALS = "ARENA_ORIGINAL_URLS"


class Environment:
    """Redirects the variables of ``arena_env``, and gives them back."""

    def __init__(self, names: tuple[str, ...], databases: Databases) -> None:
        self._databases = databases
        self._before = {name: os.environ.get(name) for name in (*names, _ORIGINALS)}
        self._names = names
        inherited: dict[str, str] = json.loads(os.environ.get(_ORIGINALS, "{}"))
        set_now = {name: os.environ[name] for name in names if os.environ.get(name)}
        self._originals = {name: inherited.get(url, url) for name, url in set_now.items()}
        self._placed: dict[str, str] = {}

    def redirect(self) -> None:
        """Put the new URLs in place. The first one's database is the app's first."""
        new = {name: self._inside(url) for name, url in self._originals.items()}
        os.environ.update(new)
        self._placed = new
        self._databases.exported = "\n".join(new.values())
        pairs = {url: self._originals[name] for name, url in new.items()}
        os.environ[_ORIGINALS] = json.dumps(pairs)

    def written_since(self) -> Asked | None:
        """Return the database that a conftest has named instead, by writing a variable anew."""
        written = (os.environ.get(name, "") for name in self._names)
        anew = (_url(text) for text in written if text and text not in self._placed.values())
        found = (_gate.asked_by_url(url) for url in anew if url is not None)
        return next(filter(None, found), None)

    def _inside(self, text: str) -> str:
        url = _url(text)
        new = self._new_url(url) if url is not None else None
        if new is None or new is url:
            return text
        # An app may take it apart by hand: SQLAlchemy 2.1 would write the colon as %3A.
        return new.render_as_string(hide_password=False).replace("/file%3A", "/file:", 1)

    def _new_url(self, url: URL) -> URL:
        asked = _gate.asked_by_url(url)
        if url.get_backend_name() != "sqlite":
            return self._on_server(url, asked)
        if asked is None or not asked.name or self._databases.files.is_free(asked.name):
            return url  # memory keeps its pool class; a free file is the tests' own business
        file = self._databases.known.register(asked).file
        is_uri = str(url.query.get("uri", "")).lower() in {"true", "1", "yes"}
        return url.set(database=f"file:{quote(file)}" if is_uri else file)

    def _on_server(self, url: URL, asked: Asked | None) -> URL:
        """The same database where nobody is: the gate knows which one is meant.

        What does not ask the gate, a raw driver or another process, fails there.
        """
        name = asked.name if asked else _gate.described_url(url)
        if self._databases.files.is_allowed(name):
            return url
        if asked is not None and asked.product in self._databases.known.products:
            self._databases.known.register(asked)
        query = url.difference_update_query(_ELSEWHERE | _SECRET).query
        return URL.create(url.drivername, host=NOWHERE, database=url.database, query=query)

    def restore(self) -> None:
        """Give the variables back."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _url(text: str) -> URL | None:
    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        return None  # the variable means something else to this app


# Where drivers find a server beside the place of the host in a URL.
_ELSEWHERE = {"dsn", "host", "hostaddr", "odbc_connect", "port", "service", "socket", "unix_socket"}
_SECRET = {"passfile", "password", "sslpassword", "user"}
