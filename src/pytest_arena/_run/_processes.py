"""Other programs on the test's database: a queue's worker, a script, a server."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pytest_arena._gate._engines import requested_by_url
from pytest_arena._process import until
from pytest_arena.errors import ConfigError, redact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy.engine import URL

    from pytest_arena._databases._app_databases import Environment, KnownDatabases
    from pytest_arena._product import Database

__tracebackhide__ = True  # a traceback ends at the line of the test

_END_SECONDS = 5.0
_SHOWN = 40  # lines of output


class Process:
    """A program on the test's database, begun by ``arena.process(…)``.

    It ends with its ``with`` block, by ``stop()``, or with the test or the fixture that began it,
    before the database is taken back: it is told to (SIGTERM), and killed after five seconds, with
    all that it has started.
    """

    __module__ = "pytest_arena"

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path
    ) -> None:
        self.command: str = shlex.join(command)
        self._status_before: int | None = None  # it was told to end
        self.was_killed: bool = False
        # A file: nobody reads a pipe while the test goes on.
        number, name = tempfile.mkstemp(prefix="arena-process-")
        self._log = Path(name)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the test's own command
                command,
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=number,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except BaseException:
            self._log.unlink()
            raise
        finally:
            os.close(number)
        self._output: str | None = None  # once it has ended

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """With what it has ended; None as long as it goes on. Negative: by that signal."""
        return self._process.poll()

    @property
    def output(self) -> str:
        """What it has written by now, to both streams."""
        if self._output is not None:
            return self._output
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait(self, seconds: float = 10.0) -> int:
        """Wait until it ends by itself. Returns its status.

        Raises:
            subprocess.TimeoutExpired: it goes on.
        """
        return self._process.wait(seconds)

    def stop(self) -> None:
        """End it, and all that it has started. Idempotent."""
        if self._output is not None:
            return
        self._status_before = self.status
        self._process.terminate()
        if not until(lambda: self.status is not None, within=_END_SECONDS):
            self.was_killed = True
        with suppress(AttributeError, ProcessLookupError):  # Windows; nobody is left
            os.killpg(self.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._output = self.output
        self._log.unlink(missing_ok=True)

    def until_ready(
        self, ready: str | Callable[[], object], *, patience: float
    ) -> None:
        """Wait until it says a text, or something is so.

        Raises:
            ConfigError: that has not come in time, or it has ended before.
        """

        def is_ready() -> bool:
            return ready in self.output if isinstance(ready, str) else bool(ready())

        until(lambda: self.status is not None or is_ready(), within=patience)
        if not is_ready():
            status = self.status
            self.stop()
            raise self._not_ready(ready, status, patience)

    def _not_ready(
        self, ready: object, status: int | None, patience: float
    ) -> ConfigError:
        ended = (
            f"has ended with status {status}"
            if status is not None
            else f"after {patience:g} s"
        )
        what = f"has not said {ready!r}" if isinstance(ready, str) else "is not ready"
        return ConfigError(
            f"{self.command} {what}: {ended}"
            if status is None
            else f"{self.command} {ended}",
            why="the test would go on without it",
            cause="\n".join(self.shown.splitlines()[-3:]) or "it has written nothing",
            fix=f"{self.command}   by hand, with the database's URL in its environment",
        )

    @property
    def shown(self) -> str:
        """The end of its output, without passwords."""
        return redact("\n".join(self.output.splitlines()[-_SHOWN:]))

    @property
    def complaint(self) -> str:
        """What is to be told of how it ended; "" for nothing."""
        if self.was_killed:
            return f"did not end within {_END_SECONDS:g} s when it was told to, and was killed"
        return (
            f"had ended with status {self._status_before}"
            if self._status_before
            else ""
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def variables(
    environment: Environment, known: KnownDatabases, given: Callable[[Database], URL]
) -> dict[str, str]:
    """Return the variables of ``arena_env``, with URLs that lead another process to the databases.

    One that nobody has set means the app's first database, if it is the first of all. ``given``
    gives the URL of a database away.
    """
    found: dict[str, URL] = {}
    for name, url in environment.originals().items():
        asked = requested_by_url(url) if url is not None else None
        if asked is not None and url is not None:
            found[name] = given(known.register(asked)).set(drivername=url.drivername)
        elif not found and known.primary is not None:
            found[name] = given(known.primary)
    return {
        name: url.render_as_string(hide_password=False) for name, url in found.items()
    }
