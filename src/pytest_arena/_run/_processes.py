"""`arena.process`: another program on the test's database."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pytest_arena._process import until
from pytest_arena.errors import ConfigError, redact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Process:
    """A program on the test's database, begun by ``arena.process(…)``.

    pytest-arena stops it at the end of its ``with`` block, or of the test or the fixture that began
    it, before the database is restored. It sends SIGTERM. After at most five seconds it kills the
    program and the processes that it has started.
    """

    __module__ = "pytest_arena"

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> None:
        self.command: str = shlex.join(command)
        self._status_before: int | None = None  # the exit status before `stop`
        self._is_status_read = False  # by the test, after the end
        # Not a pipe: the program would block when the pipe is full.
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
        self._output: str | None = None  # set by `stop`

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal. None while the program runs."""
        status = self._process.poll()
        self._is_status_read |= status is not None
        return status

    @property
    def output(self) -> str:
        """The output so far: stdout and stderr."""
        if self._output is not None:
            return self._output
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait(self, seconds: float = 10.0) -> int:
        """Wait until the program ends by itself. Return its exit status.

        A test that expects a failure reads `status`.

        Raises:
            subprocess.TimeoutExpired: the program still runs.
        """
        return self._process.wait(seconds)

    def stop(self) -> None:
        """End the program and all processes that it has started. Idempotent."""
        if self._output is not None:
            return
        self._status_before = self._process.poll()
        self._process.terminate()
        until(lambda: self._process.poll() is not None, within=5.0)
        # Windows has no such function, and all processes of the group may have ended.
        with suppress(AttributeError, ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._output = self.output
        self._log.unlink()

    def until_ready(self, ready: str | Callable[[], object], *, patience: float) -> None:
        """Wait until the output has the text ``ready``, or the function ``ready`` returns True."""

        def is_ready() -> bool:
            if isinstance(ready, str):
                return ready in self.output
            return bool(ready())

        until(lambda: self._process.poll() is not None or is_ready(), within=patience)
        if is_ready():
            return
        what = f"is not ready after {patience:g} s (ready = {ready!r})"
        if self.status is not None:
            what = f"has ended with status {self.status}"
        self.stop()
        raise self._error(what)

    @property
    def failure(self) -> ConfigError | None:
        """The error for a program that failed before `stop`, if the test has not read that."""
        if self._is_status_read or not self._status_before:
            return None
        return self._error(f"had ended with status {self._status_before}")

    def _error(self, what: str) -> ConfigError:
        return ConfigError(
            f"{self.command} {what}",
            why="a test without the program proves nothing",
            cause="\n".join(self.shown.splitlines()[-3:]) or "the program has written nothing",
            fix=f"{self.command}   in a shell, with the database's URL in its environment\n"
            "or, if the program may end so, read its `status` in the test",
        )

    @property
    def shown(self) -> str:
        """The last forty lines of the output, without passwords."""
        return redact("\n".join(self.output.splitlines()[-40:]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
