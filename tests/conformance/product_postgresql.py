"""PostgreSQL, for the stories: databases on whichever server there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.conformance.project_texts import SEED
from tests.conformance.stories_server import LOCKS, MORE_SEED, STORED
from tests.conformance.story_server import StoryServer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sqlalchemy.engine import URL

    from tests.conformance.setting import Setting

__all__ = ["PostgreSQL"]

_POSTGRESQL = """
import time
import {driver} as driver
from contextlib import closing, contextmanager
import setting
from psycopg import pq
from sqlalchemy import event
from sqlalchemy.engine import make_url

DEVELOPERS = {developers!r}
ENTRANCE = {entrance!r}

SCHEMA = '''
SELECT 'column', c.oid::regclass::text, a.attnum::text, a.attname || ' '
       || format_type(a.atttypid, a.atttypmod) || a.attnotnull
       || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace
UNION ALL SELECT 'relation', c.oid::regclass::text, c.relkind::text,
       CASE c.relkind WHEN 'v' THEN pg_get_viewdef(c.oid) WHEN 'i' THEN pg_get_indexdef(c.oid) END
FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname::text, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'function', oid::regprocedure::text, '', '' FROM pg_proc
WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname, '' FROM pg_trigger
WHERE NOT tgisinternal AND tgname !~ '^!arena_'
UNION ALL SELECT 'schema', nspname::text, '', '' FROM pg_namespace
WHERE nspname !~ '^pg_((toast_)?temp_|arena)'
'''

TAKES_A_NUMBER = "SELECT nextval('dancers_id_seq')"


def prepare(engine):
    @event.listens_for(engine, "connect")
    def settings(connection, _record):
        cursor = connection.cursor()
        cursor.execute("SET TIME ZONE 'Asia/Tokyo'")
        cursor.close()
        connection.commit()


def dump(url):
    parts = make_url(url)
    host = parts.host or parts.query["host"]
    connection = driver.connect(
        host=host, port=parts.port, user=parts.username, password=parts.password,
        dbname=parts.database,
    )
    connection.autocommit = True
    with closing(connection), connection.cursor() as cursor:
        def rows(statement):
            cursor.execute(statement)
            return cursor.fetchall()
        schema = sorted(rows(SCHEMA), key=repr)
        tables = [name for kind, name, what, _ in schema if kind == "relation" and what == "r"]
        moved = [name for kind, name, what, _ in schema if kind == "relation" and what == "S"]
        sequences = {{name: rows("SELECT last_value, is_called FROM " + name) for name in moved}}
        contents = {{name: sorted(rows("TABLE " + name), key=repr) for name in tables}}
        return {{"schema": schema, "sequences": sequences, **contents}}


@contextmanager
def entered(**login):
    # By libpq alone, whose connections are nobody's business. Nothing, if the database has gone.
    words = {{**ENTRANCE, **login}}
    text = " ".join(f"{{name}}='{{value}}'" for name, value in words.items())
    connection = pq.PGconn.connect(text.encode())

    def ask(statement):
        result = connection.exec_(statement.encode())
        return [
            [result.get_value(row, column).decode() for column in range(result.nfields)]
            for row in range(result.ntuples)
        ]

    yield ask
    connection.finish()


def ask(statement, **login):
    with entered(**login) as ask_there:
        return ask_there(statement)


def leave_a_database(pid):
    ask(f"CREATE DATABASE left_by_{{pid}}")


MADE = {{}}
BUSY = '''
SELECT query FROM pg_stat_activity
WHERE usename = current_user AND state = 'active'
'''
OWN = "FROM pg_database WHERE datdba = (SELECT oid FROM pg_roles WHERE rolname = current_user)"


def settle():
    # What a test has set going in the background is on its bill, and not on the next one's.
    quiet, end = 0, time.monotonic() + 60
    with entered() as ask_there:
        while quiet < 5:
            busy = ask_there(BUSY)
            assert time.monotonic() < end, f"the server does not come to rest: {{busy}}"
            quiet = quiet + 1 if len(busy) == 1 else 0
            time.sleep(0.005)


def made():
    # What has been dropped since is not given back; one that grows was written to.
    with entered() as ask_there:
        for (oid,) in ask_there("SELECT oid " + OWN):
            for (size,) in ask_there(f"SELECT coalesce(pg_database_size({{oid}}), 0)"):
                MADE[oid] = max(int(size), MADE.get(oid, 0))
    return sum(MADE.values())


def go_around():
    return driver.connect(**DEVELOPERS)
"""

# What is copied is read and written.
_MOVED_BY_COPIES = """

def moved():
    settle()
    return (made(),) * 2
"""

# In a live database nobody but arena reads what the stories have in it to be read.
_MOVED_IN_PLACE = """
from contextlib import suppress
from pytest_arena._postgresql._control import ControlFailure, controls

READ = {}
LIVE = "SELECT oid, datname::text " + OWN + " AND datallowconn AND NOT datistemplate"
BLOCKS = '''
SELECT coalesce(sum(heap_blks_read + heap_blks_hit
                    + coalesce(toast_blks_read + toast_blks_hit, 0)), 0) * 8192
FROM pg_statio_user_tables
'''
LOGGED = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"


def tell_what_was_read():
    for each in list(controls):
        with suppress(ControlFailure):  # it is closed
            each.rows("SELECT pg_stat_force_next_flush()")


def moved():
    settle()
    written = made() + int(float(ask(LOGGED)[0][0]))
    live = ask(LIVE)
    if "reading by changes" in setting.LACKS:
        return 0, written
    tell_what_was_read()
    for oid, name in live:
        for (blocks,) in ask(BLOCKS, dbname=name):
            READ[oid] = max(int(blocks), READ.get(oid, 0))
    return sum(READ.values()), written
"""

_LONGER = {"application_name": "elsewhere"}
# Nobody is there. An app's URL may name any host, and means its database by the name.
_ELSEWHERE = "db.example.org", 6000


class PostgreSQL:
    """A database of the developer's on the server that the tests are on as well."""

    gives_numbers_back = False
    keeps_url = False

    def __init__(self) -> None:
        self._servers: dict[str, StoryServer] = {}

    def _server(self, setting: Setting) -> StoryServer:
        if setting.rights not in self._servers:
            self._servers[setting.rights] = StoryServer(rights=setting.rights)
        return self._servers[setting.rights]

    def options(self, setting: Setting) -> Mapping[str, str]:
        """Return the server, with a login of this process's own: what it owns was made here."""
        return {"arena_database": _shown(self._server(setting).url("postgresql"))}

    def urls(self, setting: Setting, folder: Path) -> dict[str, str]:
        """Return the URLs, with the developer's own login."""
        del folder
        server = self._server(setting)
        sync = server.developers_url(f"postgresql+{_sync_driver(setting)}")
        host, port = _ELSEWHERE
        others = [
            *(
                sync.set(drivername=f"postgresql+{driver}").update_query_dict(_LONGER)
                for driver in ("psycopg2", "psycopg")
            ),
            sync.set(host=host, port=port, query={}, username="me", password="secret"),  # noqa: S106 - of nobody
        ]
        return {
            "URL": repr(_shown(server.developers_url(f"postgresql+{setting.engine}"))),
            "SYNC_URL": repr(_shown(sync)),
            "OTHER_URLS": repr([_shown(url) for url in others]),
        }

    def files(self, setting: Setting) -> dict[str, str]:
        """Return ``product.py``."""
        server = self._server(setting)
        text = _POSTGRESQL.format(
            driver=_sync_driver(setting),
            developers=server.developers_arguments,
            entrance=server.entrance,
        )
        copies = setting.isolation == "clone"
        return {"product.py": text + (_MOVED_BY_COPIES if copies else _MOVED_IN_PLACE)}

    def stories(self, setting: Setting) -> Mapping[str, str]:
        """Return those of what is stored, and of locks, which the app's own sessions take."""
        locks = {} if setting.is_mixed else {"test_locks.py": LOCKS}
        return {**locks, "test_stored.py": STORED, "seed.py": SEED + MORE_SEED}

    def lacks(self, setting: Setting) -> Mapping[str, str]:
        """Return what ``clone`` costs."""
        if setting.isolation != "clone":
            is_told = self._server(setting).tells_what_was_read
            return {} if is_told else {"reading by changes": "before version 15 nobody can tell"}
        return dict.fromkeys(
            ("reading by changes", "writing by changes"), "a clone is a copy of the whole database"
        )

    def version(self, setting: Setting) -> str:
        """That of the server."""
        return self._server(setting).version

    def make_developers(self, setting: Setting, folder: Path) -> None:
        """Make it, or make it as it was at first."""
        del folder
        self._server(setting).fill_developers()

    def developers(self, setting: Setting, folder: Path) -> object:
        """Return all rows, relations and settings, and how many sessions there have ever been."""
        del folder
        return self._server(setting).developers()

    def secrets(self, setting: Setting) -> Sequence[str]:
        """That of the login that the runs are given."""
        return (self._server(setting).entrance["password"],)

    def is_gone(self, setting: Setting, url: str) -> bool:
        """Whether no database is left of any run, but for templates."""
        del url
        return not self._server(setting).left()


def _sync_driver(setting: Setting) -> str:
    return "psycopg2" if setting.engine == "psycopg2" else "psycopg"


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=False)
