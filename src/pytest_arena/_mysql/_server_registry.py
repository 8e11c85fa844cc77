"""pytest-arena's databases on a MySQL or MariaDB server."""

# ruff: noqa: S608 - names and texts are written by identifier() and literal() alone

from __future__ import annotations

from contextlib import suppress
from functools import cached_property, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects.mysql.base import MySQLDialect
from sqlalchemy.engine import URL

from pytest_arena._mysql import ASYNC_DRIVERS
from pytest_arena._mysql._app_user import app_login
from pytest_arena._mysql._clone import EMPTY_PLAN, LABEL, read_plan
from pytest_arena._mysql._control import (
    MySQLControl,
    MySQLFailure,
    connect,
    identifier,
    literal,
)
from pytest_arena._mysql._templates import DESCRIBED, MySQLBuild
from pytest_arena._process import until
from pytest_arena._product import Manifest, nothing, read_manifest
from pytest_arena._product._database_registry import DatabaseRegistry
from pytest_arena._product._own_databases import OwnDatabase, now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy.engine import Dialect

    from pytest_arena._mysql._clone import CopyPlan
    from pytest_arena._product._server_control import Control
    from pytest_arena._values import Address, ServerLogin

_END_SECONDS = 10.0
_SLOTS = 64  # processes that hold a lock at the same time


class MySQLRegistry(DatabaseRegistry):
    """The databases of a process on a MySQL or MariaDB server.

    A table of a template or a kept database has its label.
    """

    product = "mysql"
    question = DESCRIBED
    give_rights = (
        "GRANT ALL ON `arena\\_%`.* TO {user};   -- by an administrator\n"
        "Views of the app may need SUPER or SET USER"
    )
    another = "ARENA_DATABASE=mysql://root@host:3306/ pytest …   # another server"

    def __init__(self, address: Address, **options: Any) -> None:
        self._plans: dict[str, CopyPlan] = {}
        super().__init__(address, **options)

    # Connect and lock

    def _control(self, set_up: Callable[[Control], object] = nothing) -> Control:
        return MySQLControl(partial(connect, self._address), set_up)

    def _hold(self, control: Control, name: str) -> None:
        for number in range(_SLOTS):
            lock = literal(_slot(name, number))
            if control.rows(f"SELECT GET_LOCK({lock}, 0)") == [(1,)]:
                return

    def _release(self, control: Control) -> None:
        control.run("DO RELEASE_ALL_LOCKS()")

    def _acquire(self, control: Control, name: str, seconds: float) -> bool:
        lock = literal(f"arena.{name}"[:64])
        return bool(control.rows(f"SELECT GET_LOCK({lock}, {seconds})") == [(1,)])

    def _held(self, control: Control, names: Iterable[str]) -> set[str]:
        questions = []
        for name in names:
            users = [f"IS_USED_LOCK({literal(_slot(name, number))})" for number in range(_SLOTS)]
            questions.append(f"SELECT {literal(name)}, COALESCE({', '.join(users)})")
        rows = control.rows(" UNION ALL ".join(questions)) if questions else []
        return {name for name, session in rows if session is not None}

    # Read and write

    @staticmethod
    def url_of(address: Address, dialect: str, driver: str) -> URL:
        """Return the URL of a database for a driver."""
        url = URL.create(
            f"{dialect}+{driver}",
            username=address.user,
            password=address.password or None,
            database=address.database,
        )
        if address.is_socket:
            return url.set(host="localhost", query={"unix_socket": address.host})
        return url.set(host=address.host, port=address.port)

    def _describe(self, control: Control) -> list[OwnDatabase]:
        names = [name for (name,) in control.rows("SHOW DATABASES LIKE 'arena\\_%'")]
        labelled = control.rows(
            "SELECT table_schema FROM information_schema.tables "
            f"WHERE table_name = '{LABEL}' AND table_schema LIKE 'arena\\_%'"
        )
        labels = {name: self._text_of(control, name) for (name,) in labelled}
        return [OwnDatabase(name=name, manifest=read_manifest(labels.get(name))) for name in names]

    def _text_of(self, control: Control, name: str) -> str | None:
        try:
            rows = control.rows(f"SELECT label FROM {identifier(name)}.{LABEL}")
        except MySQLFailure as error:
            if error.is_lost:
                raise
            return None  # it does not exist, or is not finished
        return rows[0][0] if rows else None

    def _write_text(self, control: Control, name: str, text: str) -> None:
        place = f"{identifier(name)}.{LABEL}"
        control.run(
            f"CREATE TABLE IF NOT EXISTS {place} (id INT PRIMARY KEY, label LONGTEXT) "
            "ENGINE = InnoDB CHARACTER SET utf8mb4; "
            f"REPLACE INTO {place} VALUES (1, {literal(text)})"
        )

    # Build

    def ddl_dialect(self) -> Dialect:
        """Return a dialect that knows what changes DDL, as after a connection."""
        _, _, is_mariadb, *_ = self.identity().split(" ")
        dialect = MySQLDialect()
        if is_mariadb == "1":
            vars(dialect).update(supports_sequences=True, supports_native_uuid=True)
        return dialect

    @cached_property
    def app_login(self) -> ServerLogin:
        """The login of the app's connections, whichever login the app has."""
        with self.reporting("the server's settings cannot be read"):
            return self.control.call(app_login, self._address)

    def _build(self, address: Address, dialect: type[Dialect]) -> MySQLBuild:
        driver = dialect.driver
        if not dialect.is_async:
            driver = next(filter(find_spec, ASYNC_DRIVERS), ASYNC_DRIVERS[0])
        url = partial(self.url_of, address.as_(self.app_login), dialect.name)
        # PyMySQL converts values like the async drivers.
        return MySQLBuild(self, address.as_(self.app_login), url("pymysql"), url(driver))

    # Copy

    def _copy(self, control: Control, source: str | None, name: str) -> None:
        control.call(self.plan_of(source).run, name)

    def plan_of(self, name: str | None) -> CopyPlan:
        """Return the plan of a database that never changes, or of an empty database (None)."""
        if name is None:
            return EMPTY_PLAN
        if name not in self._plans:
            self._plans[name] = self.control.call(read_plan, name)
        return self._plans[name]

    def copy_now(self, kind: str, source: str) -> str:
        """Copy a database that may change later."""
        try:
            return self.create(kind, template=source)
        finally:
            self._plans.pop(source, None)

    def _finish(self, name: str, final: str, text: str) -> None:
        """End its sessions and copy the database, because a database cannot be renamed."""
        self.end_sessions(name)
        self._plans.pop(final, None)
        self._copy(self.control, name, final)
        self._write_text(self.control, final, text)
        self.drop_later(name)

    def keep(self, name: str, title: str) -> None:
        """Keep a database for inspection. The newest twenty kept databases stay."""
        with self.reporting(f"{name} cannot be kept"):
            self._write_text(self.control, name, Manifest(now(), title).text())
        self.databases.discard(name)

    # Drop

    def _drop_now(self, control: Control, name: str) -> None:
        self._plans.pop(name, None)
        self.end_sessions(name, control)
        control.run(f"DROP DATABASE IF EXISTS {identifier(name)}")

    def end_sessions(self, name: str, control: Control | None = None) -> None:
        """End all sessions whose database this is. An open transaction would block a drop."""
        self._end_sessions(f"db = {literal(name)}", control or self.control)

    def end_session(self, pid: int, name: str) -> None:
        """End a session. It keeps its locks until it has rolled back, so wait for that."""
        with self.reporting("a connection cannot be ended"):
            self._end_sessions(f"id = {pid} AND db = {literal(name)}", self.control)

    def _end_sessions(self, where: str, control: Control) -> None:
        question = (
            f"SELECT id FROM information_schema.processlist WHERE {where} AND id <> CONNECTION_ID()"
        )
        for (pid,) in control.rows(question):
            with suppress(MySQLFailure):  # the session has ended
                control.run(f"KILL {pid}")
        until(lambda: not control.rows(question), within=_END_SECONDS)


def _slot(name: str, number: int) -> str:
    """Return the name of a lock. The server has no shared locks, so each holder has a slot."""
    return f"{name}.{number}" if number else name
