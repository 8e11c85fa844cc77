"""A server for the stories: the developer's database, and a role whose databases are the runs'."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
from sqlalchemy.engine import URL

from pytest_arena._postgresql import _witness as sql
from pytest_arena._postgresql._control import Control, Failed, open_control
from pytest_arena._postgresql.journal import grant_replica
from pytest_arena._postgresql.registry import ServerRegistry
from pytest_arena._postgresql.servers import Wanted
from pytest_arena._postgresql.servers._find import find_server
from pytest_arena.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._postgresql.servers import Server
    from pytest_arena._values import Address

__all__ = ["StoryServer"]

_PATIENCE_SECONDS = 10.0
_ROOM = 1024**3
_IDLE_SECONDS = "4"
_PREFIX = "arena-stories-"


class StoryServer:
    """One for each process of tests. What is made on the server goes with the process.

    Without a URL it is a private one, where nobody else writes; else the first that is found.
    ``rights`` are those of the role, as in a setting; ``undoes`` whether they have to do for undo.

    Raises:
        ServerError: there is none.
        Failed: its login may not create roles, or it cannot give them such rights.
    """

    def __init__(self, url: str, *, rights: str, undoes: bool) -> None:
        self._folder: Path | None = None
        self._server = _found(url) if url else self._alone()
        self._name, self._password = f"stories_{secrets.token_hex(6)}", secrets.token_hex(8)
        # The registry of arena's databases is the server's, and not one of these runs'.
        ServerRegistry(self._server.address, project="stories").close()
        self._control = open_control(self._server.address)
        atexit.register(self._clean_up)
        may_all = rights == "all"
        self._control.run(sql.create_role(self._name, self._password, may_all=may_all))
        self._control.run(sql.create_database(self._name))
        if undoes and not may_all:
            self._control.run(grant_replica(self._name))
        self._developers = replace(self._server.address, database=self._name)
        self._look = open_control(self._developers)
        self._address = self._entered()

    def _alone(self) -> Server:
        with _another_place() as self._folder:
            try:
                return _found("", own=True)
            except ServerError:
                return _found("")

    def _entered(self) -> Address:
        """Return how the role logs in: as the server was found, or by a password."""
        usual = replace(self._server.address, user=self._name, password=self._password)
        with suppress(Failed):
            open_control(usual).close()
            return usual
        by_password = replace(usual, host="127.0.0.1")
        open_control(by_password).close()
        return by_password

    @property
    def version(self) -> str:
        """PostgreSQL's."""
        return self._server.shown.partition(",")[0]

    @property
    def tells_what_was_read(self) -> bool:
        """Whether a session can be made to tell at once what it has read."""
        return bool(self._control.rows(sql.tells_at_once())[0][0])

    @property
    def entrance(self) -> dict[str, Any]:
        """The role's login, in words."""
        return _arguments(self._address, "database")

    @property
    def developers_arguments(self) -> dict[str, Any]:
        """The developer's login to the developer's database, for libpq."""
        return _arguments(self._developers, "dbname")

    def url(self, driver: str) -> URL:
        """Return the server's URL, with the role's login."""
        return _url(self._address, driver)

    def developers_url(self, driver: str) -> URL:
        """Return the URL of the developer's own database, with the developer's login."""
        return _url(self._developers, driver)

    def fill_developers(self) -> None:
        """Make it as it was at first."""
        self._look.rows(sql.end_others())
        self._wait_for_others()
        self._look.run(sql.fill_developers())

    def developers(self) -> object:
        """Return it as it stands, and how often anybody has connected."""
        self._wait_for_others()
        [(sessions,)] = self._control.rows(sql.sessions(self._name))
        return self._look.rows(sql.touches()), sessions

    def _wait_for_others(self) -> None:
        """What is connected is counted when it has gone, and that is soon after its client."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while self._look.rows(sql.others()) and time.monotonic() < end:
            time.sleep(0.01)

    def left(self) -> list[str]:
        """Return what the runs have made and not dropped, but for templates."""
        owned = self._control.rows(sql.owned(self._name))
        return [name for name, is_template in owned if not is_template]

    def _clean_up(self) -> None:
        self._close(getattr(self, "_look", None))
        with suppress(Failed):
            for name, is_template in self._control.rows(sql.owned(self._name)):
                if is_template:
                    self._control.run(sql.unlock(name))
                self._control.run(sql.drop_database(name))
            self._control.run(sql.drop_database(self._name))
            self._forget_role()
        self._close(self._control)
        self._server.close()
        if self._folder is not None:  # the process that keeps a private server sees it, and ends
            shutil.rmtree(self._folder, ignore_errors=True)

    def _forget_role(self) -> None:
        registry = open_control(replace(self._server.address, database=sql.REGISTRY))
        try:
            registry.run(sql.forget_role(self._name))
        finally:
            registry.close()
        self._control.run(sql.drop_role(self._name))

    def _close(self, control: Control | None) -> None:
        if control is not None:
            control.close()


def _found(url: str, *, own: bool = False) -> Server:
    cache = platformdirs.user_cache_path("pytest-arena")
    return find_server(Wanted(url=url, own=own, cache=cache, place="the environment"))


@contextmanager
def _another_place() -> Iterator[Path]:
    """Give private servers a place beside the developer's, in memory where there is room."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
    has_room = memory.exists() and shutil.disk_usage(memory).free > _ROOM
    parent = memory if has_room else Path(tempfile.gettempdir())
    _sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    folder.chmod(0o711)  # its server's user may be another one, and passes through
    before = {name: os.environ.get(name) for name in ("ARENA_CLUSTERS", "ARENA_CLUSTER_IDLE")}
    os.environ |= {"ARENA_CLUSTERS": str(folder), "ARENA_CLUSTER_IDLE": _IDLE_SECONDS}
    try:
        yield folder
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _sweep(parent: Path) -> None:
    """Remove what killed processes have left: their servers have ended, their files stay."""
    from pytest_arena._postgresql.servers._places import is_held  # noqa: PLC0415 - not on Windows

    for folder in parent.glob(f"{_PREFIX}*"):
        if folder.stat().st_uid != os.getuid():
            continue
        used = list(folder.glob("*/*.used"))
        signs = [
            one.with_suffix(ending) for one in used for ending in (".used", ".keeper", ".lock")
        ]
        # One without any sign may be somebody's who has just begun.
        if used and not any(sign.exists() and is_held(sign) for sign in signs):
            shutil.rmtree(folder, ignore_errors=True)


def _url(address: Address, driver: str) -> URL:
    at_socket = {"host": address.host} if address.is_socket else {}
    return URL.create(
        driver,
        username=address.user,
        password=address.password or None,
        host=None if address.is_socket else address.host,
        port=address.port,
        database=address.database,
        query=at_socket,
    )


def _arguments(address: Address, database: str) -> dict[str, Any]:
    return {
        "host": address.host,
        "port": address.port,
        "user": address.user,
        "password": address.password,
        database: address.database,
    }
