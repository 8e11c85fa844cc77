"""MySQL or MariaDB, for the stories: databases on whichever server there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.conformance.project_texts import SEED
from tests.conformance.stories_mysql import MORE_SEED, STORED
from tests.conformance.story_mysql_server import StoryMySQLServer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sqlalchemy.engine import URL

    from tests.conformance.setting import Setting

__all__ = ["MySQL"]

_MYSQL = """
from contextlib import closing
import pymysql
from pymysql.constants import CLIENT
from sqlalchemy import event
from sqlalchemy.engine import make_url
from pytest_arena._origin import as_own
from pytest_arena._process import run_id
from pytest_arena._values import digest

DEVELOPERS = {developers!r}
ENTRANCE = {entrance!r}

# A duplicate takes a number, too.
TAKES_A_NUMBER = (
    "INSERT INTO dancers (name, style, version) VALUES ('Sand', '', 1) "
    "ON DUPLICATE KEY UPDATE version = version"
)


def prepare(engine):
    @event.listens_for(engine, "connect")
    def settings(connection, _record):
        cursor = connection.cursor()
        cursor.execute("SET time_zone = '+09:00'")
        cursor.close()


SHOWN = {{"BASE TABLE": "TABLE", "VIEW": "VIEW", "SEQUENCE": "SEQUENCE"}}


def dump(url):
    parts = make_url(url)
    connection = pymysql.connect(
        host=parts.host, port=parts.port, user=parts.username, password=parts.password or "",
        database=parts.database, ssl_disabled=True, autocommit=True,
        unix_socket=parts.query.get("unix_socket"),
    )
    with closing(connection), connection.cursor() as cursor:
        def rows(statement):
            cursor.execute(statement)
            return cursor.fetchall()
        kinds = rows("SHOW FULL TABLES")
        schema = [
            rows(f"SHOW CREATE {{SHOWN[kind]}} `{{name}}`")[0][1].replace(parts.database, "db")
            for name, kind in kinds
        ]
        programs = [row[:4] for row in rows("SHOW TRIGGERS") if "pytest-arena" not in row[3]]
        for kind in ("PROCEDURE", "FUNCTION"):
            listed = rows(f"SHOW {{kind}} STATUS WHERE Db = DATABASE()")
            programs += [row[1:3] for row in listed]
        sequences = {{
            name: rows(f"SELECT next_not_cached_value FROM `{{name}}`")
            for name, kind in kinds if kind == "SEQUENCE"
        }}
        contents = {{
            name: sorted(rows(f"SELECT * FROM `{{name}}`"), key=repr)
            for name, kind in kinds if kind == "BASE TABLE"
        }}
        return {{"schema": schema, "programs": programs, "sequences": sequences, **contents}}


def entered():
    with as_own():  # pytest-arena must not take it for a connection of the app
        connection = pymysql.connect(**ENTRANCE, ssl_disabled=True, autocommit=True)
    return closing(connection)


def leave_a_database(pid):
    # A run that has ended without dropping its database. The next run drops it.
    left = f"arena_live_{{int(pid):08x}}_00000000_1"
    with entered() as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {{left}}")


COPIES = set()


def moved():
    # A copy is read and written. Each has the rows of the template: four megabytes.
    with entered() as connection, connection.cursor() as cursor:
        session = digest(run_id())[:8]
        cursor.execute(f"SHOW DATABASES LIKE 'arena_live_{{session}}%'")
        COPIES.update(name for (name,) in cursor.fetchall())
    return (4_000_000 * len(COPIES),) * 2


def go_around():
    return pymysql.connect(**DEVELOPERS)
"""

# Nobody is there. An app's URL may name any host, and means its database by the name.
_ELSEWHERE = "db.example.org", 6000


class MySQL:
    """A database of the developer's on the server that the tests are on as well."""

    gives_numbers_back = False
    keeps_url = False

    def __init__(self) -> None:
        self._made: StoryMySQLServer | None = None

    @property
    def _server(self) -> StoryMySQLServer:
        if self._made is None:
            self._made = StoryMySQLServer()
        return self._made

    def options(self, setting: Setting) -> Mapping[str, str]:
        """Return the server, with a login of this process's own: what it owns was made here."""
        del setting
        return {"arena_database": _shown(self._server.url("mysql"))}

    def urls(self, setting: Setting, folder: Path) -> dict[str, str]:
        """Return the URLs, with the developer's own login."""
        del folder
        sync = self._server.developers_url("mysql+pymysql")
        host, port = _ELSEWHERE
        # SQLAlchemy's dialect mariadb refuses MySQL.
        is_mariadb = "MariaDB" in self._server.version
        other_dialect = sync.set(drivername="mariadb+pymysql")
        others = [
            other_dialect if is_mariadb else sync.update_query_dict({"charset": "utf8mb4"}),
            sync.update_query_dict({"charset": "utf8mb4", "unix_socket": "/nowhere.sock"}),
            sync.set(host=host, port=port, username="me", password="secret"),  # noqa: S106 - of nobody
        ]
        return {
            "URL": repr(_shown(self._server.developers_url(f"mysql+{setting.engine}"))),
            "SYNC_URL": repr(_shown(sync)),
            "OTHER_URLS": repr([_shown(url) for url in others]),
        }

    def files(self, setting: Setting) -> dict[str, str]:
        """Return ``product.py``."""
        del setting
        text = _MYSQL.format(
            developers=self._server.developers_arguments, entrance=self._server.entrance
        )
        return {"product.py": text}

    def stories(self, setting: Setting) -> Mapping[str, str]:
        """Return those of what is stored."""
        del setting
        return {"test_stored.py": STORED, "seed.py": SEED + MORE_SEED}

    def lacks(self, setting: Setting) -> Mapping[str, str]:
        """Return what only a copy costs."""
        if setting.isolation == "clone":
            reason = "a copy has all rows"
            return {"reading by changes": reason, "writing by changes": reason}
        return {}

    def version(self, setting: Setting) -> str:
        """That of the server."""
        del setting
        return self._server.version

    def make_developers(self, setting: Setting, folder: Path) -> None:
        """Make it, or make it as it was at first."""
        del folder, setting
        self._server.fill_developers()

    def developers(self, setting: Setting, folder: Path) -> object:
        """Return all rows, definitions and times of changes."""
        del folder, setting
        return self._server.developers()

    def secrets(self, setting: Setting) -> Sequence[str]:
        """That of the login that the runs are given."""
        del setting
        return (str(self._server.entrance["password"]),)

    def is_gone(self, setting: Setting, url: str) -> bool:
        """Whether no database is left of any run, but for templates."""
        del url, setting
        return not self._server.left()


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=False)
