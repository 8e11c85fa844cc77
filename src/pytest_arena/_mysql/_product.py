"""MySQL and MariaDB in a run: the server, its databases and their isolation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import make_url

from pytest_arena._mysql import FACTS
from pytest_arena._mysql._arguments import PORT
from pytest_arena._mysql._isolation import MySQLIsolation
from pytest_arena._mysql._servers import SEARCH
from pytest_arena._product._server_product import ServerProduct

if TYPE_CHECKING:
    from pytest_arena._mysql._server_registry import MySQLRegistry
    from pytest_arena._product import Database, Isolation, Usage
    from pytest_arena._product._server_search import Server
    from pytest_arena._values import ServerLogin


class MySQL(ServerProduct["MySQLRegistry"]):
    """MySQL or MariaDB in a run. The first connection finds or starts the server."""

    name = FACTS.name
    usual_driver = "pymysql"
    search = SEARCH

    def _begin(self, registry: MySQLRegistry, server: Server) -> None:
        del server
        self._login = registry.app_login

    def login_of(self, *_: object) -> ServerLogin:
        """Return the login of the app's connections, whichever login the app has."""
        return self._login

    def template_store(self) -> MySQLRegistry:
        """Return the templates on the server."""
        return self._registry()

    def isolate(self, database: Database, content: Any, uses: Usage) -> Isolation:
        """Return the isolation of a database, by the option. ``auto`` is undo."""
        del database
        isolation = self._config.isolation
        return MySQLIsolation(
            self._registry(),
            content,
            "undo" if isolation == "auto" else isolation,
            login=self._login,
            uses=uses,
            note=self._core.ledger.note,
        )

    def shell(self, where: str) -> list[str]:
        """Return the words of the command that opens a database. The client takes no URL.

        It uses pytest-arena's login.
        """
        url = make_url(where)
        # Without the protocol, `-h localhost` means the usual socket, perhaps of another server.
        place = ["--protocol=tcp", "-h", str(url.host), "-P", str(url.port or PORT)]
        if "unix_socket" in url.query:
            place = ["-S", str(url.query["unix_socket"])]
        login = self._registry().address_of()
        words = ["mysql", "-u", login.user, *place, str(url.database)]
        if login.password:
            words.insert(1, "-p")
        return words


open_product = MySQL
