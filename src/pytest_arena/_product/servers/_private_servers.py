"""Starts, finds, stops and removes private servers, one for each user and version of a product."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from pytest_arena._process import until
from pytest_arena._product.servers import Server, Unavailable, _keeper
from pytest_arena._product.servers import _places as places
from pytest_arena._product.servers._keeper import attempt, is_held
from pytest_arena._product.servers._server_programs import (
    Programs,
    account,
    environment,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._product.servers._places import ServerFolder
    from pytest_arena._product.servers._server_programs import Account
    from pytest_arena._values import Address

_IDLE_SECONDS = 600.0  # an unused server stops after this time
_START_SECONDS = 60.0
_KNOCK_SECONDS = 5.0
_PROGRAM_SECONDS = 120
_OLD_SECONDS = 14 * 24 * 3600

# The class at import: a plugin may replace `socket.socket` by a class that refuses to connect.
_Socket = socket.socket

ProgramsT = TypeVar("ProgramsT", bound=Programs)


@dataclass(frozen=True)
class PrivateServer(Server):
    """A running private server. It runs at least until all processes have closed it."""

    folder: places.ServerFolder = field(kw_only=True)
    held: places.SharedLock = field(kw_only=True)

    def close(self) -> None:
        """End this process' use of the server. The keeper stops an unused server later."""
        self.held.close()


class PrivateServers(ABC, Generic[ProgramsT]):
    """The private servers of a product: its programs, its settings and its protocol."""

    shown: str
    """The product, in a message."""
    label: str
    """The product, in the name of a folder."""
    socket_name: str
    users: tuple[str, ...]
    """Users of the system that run a server for root."""
    form: str
    """A version of the arguments for new data. Another version does not use the data."""
    protocol: Path
    """A module whose ``clients`` counts the clients of a server.

    It imports only Python's standard library.
    """
    signals: tuple[int, ...]
    """Signals that stop the server, the gentlest first."""

    @abstractmethod
    def address_of(self, folder: ServerFolder) -> Address:
        """Return the address of the server's maintenance database."""

    @abstractmethod
    def title(self, folder: ServerFolder) -> str:
        """Return the server's product and version."""

    @abstractmethod
    def answers(self, folder: ServerFolder) -> bool:
        """Return whether the server has started, also if it has no free connection."""

    @abstractmethod
    def clients(self, folder: ServerFolder) -> int:
        """Return the number of connected clients, 1 if the server is too busy to answer.

        Raises:
            ConnectionError: the server does not run.
        """

    @abstractmethod
    def server_pid(self, folder: ServerFolder) -> int:
        """Return the server's process id.

        Raises:
            OSError: the folder has no running server.
        """

    @abstractmethod
    def make_data(self, folder: ServerFolder, programs: ProgramsT) -> None:
        """Fill the folder with the data of a new server.

        Raises:
            Unavailable: the product's program failed. The text is its message.
        """

    @abstractmethod
    def command(self, folder: ServerFolder, programs: ProgramsT) -> list[str]:
        """Return the command that runs the server."""

    @abstractmethod
    def is_last_word(self, line: str) -> bool:
        """Return whether a line of the log says why the server ended."""

    def reachable(self, programs: ProgramsT, folder: ServerFolder) -> ProgramsT:
        """Return the programs, or a copy of them that the server's user can run.

        Raises:
            Unavailable: the server's user can run neither.
        """
        if folder.account.is_other and not self.runs(programs, folder.account):
            raise Unavailable(
                f"the user that runs private servers cannot enter {programs.folder}"
            )
        return programs

    def other_folders(self, folder: ServerFolder) -> tuple[Path, ...]:
        """Return further folders that belong to the server."""
        del folder
        return ()

    def account(self) -> Account:
        """Return the user that runs the servers.

        Raises:
            Unavailable: root runs the tests, and the system has no user of the product.
        """
        return account(self.users, self.shown)

    def folder(self, path: Path) -> ServerFolder:
        """Return the folder of a server at this path."""
        return places.ServerFolder(path, self.account(), self.label, self.socket_name)

    def parents(self, cache: Path) -> list[Path]:
        """Return the existing folders in which this user may have servers."""
        try:
            return places.existing_parents(self.label, cache, self.account())
        except Unavailable:  # no account can run a server
            return []

    def in_parent(self, parent: Path) -> list[ServerFolder]:
        """Return the servers in a folder. Each has a file with the suffix ``.used``."""
        return [
            self.folder(used.with_suffix("")) for used in sorted(parent.glob("*.used"))
        ]

    def find(self, programs: ProgramsT, *, cache: Path) -> PrivateServer:
        """Return the running server of these programs. Start it if it does not run.

        Raises:
            Unavailable: the server does not start. The text is the server's message.
        """
        account = self.account()
        parents = places.parents(self.label, cache, account)
        folder = self.folder(places.path_for(programs.key(self.form), parents))
        folder.ensure()
        # Only one of several starting processes starts the server.
        with places.exclusive(folder.beside("lock")):
            folder.ensure()  # the previous owner of the lock may have removed the folder
            used = folder.beside("used")
            used.touch()
            self._sweep(folder)
            # A server without a keeper would never stop. Restart it if no process uses it.
            if not is_held(folder.beside("keeper")) and not is_held(used):
                self.stop(folder)
            if not self.answers(folder):
                self._start(folder, programs)
            return PrivateServer(
                self.address_of(folder),
                f"{self.title(folder)}, a private server from {programs.shown}",
                is_private=True,
                folder=folder,
                held=places.SharedLock(used),
            )

    def is_running(self, folder: ServerFolder) -> bool:
        """Return whether the folder has a server, also a starting, stopping or busy one."""
        with _Socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocking:
            knocking.settimeout(_KNOCK_SECONDS)
            try:
                knocking.connect(str(folder.socket))
            except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
                return False
            except OSError:  # the server's queue is full
                return True
        return True

    def is_in_use(self, folder: ServerFolder) -> bool:
        """Return whether a run uses or starts the server, or a client is connected."""
        for name in ("used", "lock"):
            lock = folder.beside(name)
            if lock.exists() and is_held(lock):
                return True
        try:
            return self.clients(folder) > 0
        except ConnectionError:
            return False

    def stop(self, folder: ServerFolder) -> bool:
        """Stop the server. Return whether the server and its keeper have ended.

        Raises:
            OSError: another server uses the folder.
        """
        if self.is_running(folder):
            os.kill(self.server_pid(folder), self.signals[0])
        keeper = folder.beside("keeper")
        return until(
            lambda: not self.is_running(folder) and not is_held(keeper),
            within=_START_SECONDS,
        )

    def remove(self, folder: ServerFolder) -> None:
        """Remove a stopped server and its files, except its lock.

        Another process may wait for the lock, and a later process must use the same file.
        """
        others = self.other_folders(folder)
        for path in (folder.path, folder.socket_folder, *others):
            shutil.rmtree(path, ignore_errors=True)
        for ending in ("used", "keeper", "log", "boot"):
            folder.beside(ending).unlink(missing_ok=True)

    def top_folders(self, folder: ServerFolder) -> Iterator[Path]:
        """Yield folders of a server that ``remove`` may leave."""
        yield folder.socket_folder.parent
        yield folder.path
        for other in self.other_folders(folder):
            yield other.parent
            yield other.parent.parent

    def runs(self, programs: ProgramsT, account: Account) -> bool:
        """Return whether a user can run the server's program."""
        try:
            run_as(account, [str(programs.server), "--version"], cwd=Path("/"))
        except (OSError, subprocess.SubprocessError):
            return False
        return True

    def _start(self, folder: ServerFolder, programs: ProgramsT) -> None:
        programs = self.reachable(programs, folder)
        boot = folder.beside("boot")
        # Data from before the machine's last start may be incomplete, because it is not flushed.
        if (
            folder.data.exists()
            and boot.exists()
            and boot.read_text("ascii") == _boot()
        ):
            # If the server does not start with the data, replace it: later runs rebuild it.
            with suppress(Unavailable):
                self._run(folder, programs)
                return
        shutil.rmtree(folder.data, ignore_errors=True)
        self.make_data(folder, programs)
        boot.write_text(_boot(), encoding="ascii")
        self._run(folder, programs)

    def _run(self, folder: ServerFolder, programs: ProgramsT) -> None:
        folder.beside("log").unlink(missing_ok=True)
        keeper = folder.beside("keeper")
        # Wait until the keeper of a dead server has ended.
        with places.exclusive(keeper):
            pass
        started = subprocess.run(  # noqa: S603 - pytest-arena's file, by this Python
            [sys.executable, "-I", "-S", _keeper.__file__],
            input=json.dumps(self._task(folder, programs)),
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        if started.returncode:
            raise Unavailable(f"the keeper of {programs.shown} did not start")
        has_ended_or_answers = until(
            lambda: self.answers(folder) or not is_held(keeper), within=_START_SECONDS
        )
        if not has_ended_or_answers:
            raise Unavailable(
                f"{programs.shown} has not started in {_START_SECONDS:.0f} seconds"
            )
        if not self.answers(folder):
            raise Unavailable(
                f"{programs.shown} did not start: {self._last_logged(folder.beside('log'))}"
            )

    def _task(self, folder: ServerFolder, programs: ProgramsT) -> dict[str, object]:
        return {
            "keeper": str(folder.beside("keeper")),
            "lock": str(folder.beside("lock")),
            "used": str(folder.beside("used")),
            "log": str(folder.beside("log")),
            "command": self.command(folder, programs),
            "folder": str(folder.path),
            "environment": environment(),
            "account": folder.account.as_arguments(),
            "socket": str(folder.socket),
            "protocol_folder": str(self.protocol.parent),
            "protocol_module": self.protocol.stem,
            "signals": self.signals,
            "idle": _IDLE_SECONDS,
        }

    def _last_logged(self, log: Path) -> str:
        text = ""
        with suppress(OSError):
            text = log.read_text(encoding="utf-8", errors="replace")
        return self.last_words(text)

    def last_words(self, text: str) -> str:
        """Return the line of a log that says why a program ended, else the last line."""
        lines = text.strip().splitlines()
        lines = [line for line in lines if self.is_last_word(line)] or lines
        return lines[-1] if lines else "its log is empty"

    def _sweep(self, folder: ServerFolder) -> None:
        """Remove servers that no process has used for two weeks."""
        for other in self.in_parent(folder.path.parent):
            age = time.time() - other.beside("used").stat().st_mtime
            if age < _OLD_SECONDS:
                continue
            with attempt(other.beside("lock")) as is_ours:
                if not is_ours or is_held(other.beside("keeper")):
                    continue
                if not self.is_running(other):
                    self.remove(other)


def run_as(account: Account, command: list[str], *, cwd: Path) -> None:
    """Run a program of the product as a user. Raises the errors of ``subprocess.run``."""
    subprocess.run(  # noqa: S603 - a program of the product
        command,
        cwd=cwd,
        env=environment(),
        check=True,
        timeout=_PROGRAM_SECONDS,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        **account.as_arguments(),
    )


def _boot() -> str:
    """Return an identifier of the machine's last start."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    command = ["/usr/sbin/sysctl", "-n", "kern.boottime"]
    answer = subprocess.run(  # noqa: S603 - a program of macOS
        command, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip()
