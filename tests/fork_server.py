"""A script: the process that runs are forked from, with their libraries. See tests/forks.py."""

from __future__ import annotations

import atexit
import compileall
import contextlib
import gc
import importlib.metadata
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
import threading
import time
import types
import warnings
from pathlib import Path
from typing import Any, NoReturn

from _pytest.config import default_plugins

LIBRARIES = """
    pytest pytest_asyncio.plugin pygments.lexers.python pygments.formatters.terminal
    unittest.mock pdb xml.etree.ElementTree mmap pydantic.v1
    sqlalchemy.orm sqlalchemy.ext.asyncio sqlalchemy.dialects.sqlite.aiosqlite
    sqlalchemy.dialects.postgresql.asyncpg sqlalchemy.dialects.postgresql.psycopg aiosqlite asyncpg
    psycopg fastapi.testclient starlette.middleware.sessions httpx2 pydantic filelock platformdirs
    concurrent.futures.thread multiprocessing.connection
    anyio._backends._asyncio encodings.utf_8_sig faulthandler fastapi.telemetry._runtime
    packaging.version pygments.style readline tomllib xdist.remote
    aiomysql asyncmy pymysql sqlalchemy.dialects.mysql.aiomysql sqlalchemy.dialects.mysql.asyncmy
"""
LONGEST = 1 << 20


def serve(requests: socket.socket) -> None:
    """Fork for each request; return when nobody can ask any more."""
    children: dict[int, tuple[int, int]] = {}
    while True:
        ready = select.select([requests.fileno(), *children], [], [])[0]
        for child in children.keys() & set(ready):
            pid, status = children.pop(child)
            with contextlib.suppress(BrokenPipeError):
                os.write(status, f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n".encode())
            os.close(status)
            os.close(child)
        if requests.fileno() not in ready:
            continue
        request, pipes, _, _ = socket.recv_fds(requests, LONGEST, 2)
        if not request:
            break
        output, status = pipes
        if not (pid := os.fork()):
            become(output, *json.loads(request))
        os.write(status, f"{pid}\n".encode())
        os.close(output)
        children[os.pidfd_open(pid)] = pid, status
    for pid, _ in children.values():
        os.killpg(pid, signal.SIGKILL)


def become(
    output: int, words: list[str], folder: str, env: dict[str, str], *, stdin: int = 0
) -> NoReturn:
    """Turn a forked process into Python started with these words; does not return.

    With a stdin of its own it is part of the run that it is forked from: its errors go there.
    """
    os.dup2(output, 1)
    if stdin:
        os.dup2(stdin, 0)
        sys.stdin = os.fdopen(0, closefd=False)
    else:
        os.setsid()
        os.dup2(output, 2)
    os.closerange(3, 1024)
    # The server's own know what they were opened on: a file perhaps, which has places to go to.
    named, wrong = sys.stdout.encoding, sys.stderr.errors
    sys.stdout = os.fdopen(1, "w", encoding=named, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding=named, errors=wrong, closefd=False)
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]  # a new process
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    sys.dont_write_bytecode = bool(env.get("PYTHONDONTWRITEBYTECODE"))
    spreads = any(word == "xdist.plugin" or word.startswith("-n") for word in words)
    workers = Workers() if spreads else None
    try:
        interpret(words)
        status = 0
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
        status = 128 + signal.SIGINT
    except BaseException:  # noqa: BLE001 - what an interpreter does with what nobody has caught
        sys.excepthook(*sys.exc_info())
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]  # as an interpreter does it at its end
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if workers:
        workers.end()
    os._exit(status & 0xFF)


class Workers:
    """Has execnet fork the workers of pytest-xdist, from a process that has begun nothing yet."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if not (pid := os.fork()):
            self._requests.close()
            self._serve(theirs)
        self._pid = pid
        theirs.close()
        gateways: Any = importlib.import_module("execnet.gateway_io")
        gateways.Popen2IOMaster.__init__ = lambda gateway, _, execmodel: self._open(
            gateway, execmodel
        )
        self._base: Any = gateways.Popen2IO
        self._words = ["-c", gateways.popen_bootstrapline]

    def end(self) -> None:
        """Let it end, after its last worker; the time that they took is this process's then."""
        self._requests.close()
        os.waitpid(self._pid, 0)

    def _open(self, gateway: Any, execmodel: object) -> None:
        """Stand for the start of a process by execnet."""
        stdin, to_worker = os.pipe()
        from_worker, stdout = os.pipe()
        request = json.dumps([self._words, str(Path.cwd()), dict(os.environ)]).encode()
        socket.send_fds(self._requests, [request], [stdin, stdout])
        os.close(stdin)
        os.close(stdout)
        gateway.popen = Worker(int(self._requests.recv(32)))
        streams = os.fdopen(to_worker, "wb"), os.fdopen(from_worker, "rb")
        self._base.__init__(gateway, *streams, execmodel=execmodel)

    @staticmethod
    def _serve(requests: socket.socket) -> NoReturn:
        while True:
            request, pipes, _, _ = socket.recv_fds(requests, LONGEST, 2)
            if not request:
                break
            stdin, stdout = pipes
            if not (pid := os.fork()):
                become(stdout, *json.loads(request), stdin=stdin)
            os.close(stdin)
            os.close(stdout)
            requests.send(str(pid).encode())
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()
        os._exit(0)


class Worker:
    """What execnet asks of a process: of a worker that another process has forked."""

    def __init__(self, pid: int) -> None:
        self.pid, self._ended = pid, os.pidfd_open(pid)

    def wait(self) -> None:
        select.select([self._ended], [], [])

    def kill(self) -> None:
        signal.pidfd_send_signal(self._ended, signal.SIGKILL)


def interpret(words: list[str]) -> None:
    """Run a module, a text or a script, as the interpreter's command line does."""
    while words[0] == "-W":
        sys.warnoptions.append(words[1])
        warnings._processoptions(words[1:2])  # type: ignore[attr-defined]  # as at its import
        words = words[2:]
    kind, *rest = words
    if kind == "-m":
        sys.argv = ["-m", *rest[1:]]
        sys.path[0] = str(Path.cwd())
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        return
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    if kind == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        text, name = rest[0], "<string>"
    else:
        sys.argv, sys.path[0] = words, str(Path(kind).resolve().parent)
        text, name = Path(kind).read_text(encoding="utf-8"), kind
        module.__file__ = kind
    exec(compile(text, name, "exec"), module.__dict__)  # noqa: S102 - this is an interpreter


def import_all() -> None:
    """Import what runs need: all modules of pytest_arena, and all plugins that are installed."""
    package = importlib.import_module("pytest_arena")
    compileall.compile_dir(package.__path__[0], quiet=2)
    own = [found.name for found in pkgutil.walk_packages(package.__path__, "pytest_arena.")]
    plugins = [entry.module for entry in importlib.metadata.entry_points(group="pytest11")]
    names = [*LIBRARIES.split(), *[f"_pytest.{name}" for name in default_plugins], *plugins, *own]
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # pytest warns of what a plugin brings and was imported before pytest could rewrite it.
    packages = {name for name in sys.modules if "." not in name} - sys.stdlib_module_names
    for name in packages.union(names) & sys.modules.keys():
        sys.modules[name].__doc__ = f"{sys.modules[name].__doc__} PYTEST_DONT_REWRITE"
    gc.freeze()


if __name__ == "__main__":
    import_all()
    serve(socket.socket(fileno=int(sys.argv[1])))
