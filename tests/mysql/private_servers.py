"""Private servers of tests, in a folder of each module, which ends with it."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena._mysql._control import open_control
from pytest_arena._mysql.servers._mysql_programs import installed, read_programs
from pytest_arena._mysql.servers._private_mysql import PRIVATE_SERVERS
from pytest_arena._product.servers import Unavailable
from pytest_arena._product.servers._keeper import is_held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._mysql.servers._mysql_programs import MySQLPrograms
    from pytest_arena._product.servers._places import ServerFolder
    from pytest_arena._product.servers._private_servers import PrivateServer

__all__ = ["newest_of_each", "place_for_servers", "rows", "until"]

_SECONDS = 60.0


def newest_of_each() -> list[MySQLPrograms]:
    """Return the programs of MySQL and of MariaDB that are installed here and new enough."""
    found: dict[str, MySQLPrograms] = {}
    for program in installed():
        with suppress(Unavailable):
            programs = read_programs(program)
            found.setdefault(programs.product, programs)
    return list(found.values())


@contextmanager
def place_for_servers() -> Iterator[Path]:
    """Yield a folder for servers. Stop them and remove it."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder with a new name is made in it
    parent = memory if memory.exists() else None
    place = Path(tempfile.mkdtemp(prefix="arena-", dir=parent))
    place.chmod(0o711)  # the server's user passes through
    try:
        yield place
    finally:
        for used in place.glob("*/*.used"):
            _end(PRIVATE_SERVERS.folder(used.with_suffix("")))
        shutil.rmtree(place, ignore_errors=True)


def _end(folder: ServerFolder) -> None:
    if PRIVATE_SERVERS.is_running(folder):
        os.kill(PRIVATE_SERVERS.server_pid(folder), signal.SIGKILL)
    keeper = folder.beside("keeper")
    if keeper.exists():
        until(lambda: not is_held(keeper))


def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def rows(server: PrivateServer, statements: str) -> list[tuple[Any, ...]]:
    """Execute statements on a server. Return the rows of the last one."""
    with closing(open_control(server.address)) as control:
        return control.rows(statements)
