"""`arena serve`: tests in another language say when a level begins and ends."""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena._cli._serve import TOKEN
from tests.command import arena
from tests.example import fastapi_example
from tests.plugin.shop import shop

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.example import Example

SEEDS = """
import asyncio
from subprocess import run
from sqlalchemy import func, select
from app import Order, Stock


async def sofa(session, amount=1):
    session.add(Stock(item="sofa", amount=amount))
    await asyncio.sleep(0)


def order(session, item):
    one = Order(item=item)
    session.add(one)
    session.flush()
    return {"id": one.id}


def broken(session):
    session.add(Order(item="half"))
    session.flush()
    raise LookupError("by purpose")


def _secret(session):
    raise AssertionError("nobody may call it")
"""

CONFTEST = """
import pytest


@pytest.fixture(autouse=True, scope="session")
def every_run():
    print("THE RUN BEGINS")
    yield
    print("THE RUN ENDS")


@pytest.fixture(autouse=True)
def every_level(request):
    print("begins", request.node.name)
"""
CALL = "import sys; from pytest_arena._cli import main; sys.exit(main())"
WORD = "sesame"
PLUGINS = ("-p", "pytest_arena.plugin", "-p", "pytest_asyncio.plugin")


class Served:
    """An `arena serve` that runs, and all that it has said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self._lines = process, list[str]()
        self.names: list[str] = []  # of the levels
        self.app, self.control = "", ""
        assert process.stdout is not None
        for line in process.stdout:
            self._lines.append(line)
            if line.startswith("{"):
                where = json.loads(line)
                self.app, self.control = where["app"], where["control"]
                break
        self._reader = Thread(target=self._lines.extend, args=[process.stdout], daemon=True)
        self._reader.start()

    def ask(self, path: str, /, key: str = WORD, **given: object) -> tuple[int, Any]:
        method = "GET" if path == "/story" else "POST"
        headers = {"Authorization": f"Bearer {key}"}
        return asked(method, self.control + path, headers, json.dumps(given).encode())

    def done(self, path: str, /, **given: Any) -> Any:
        if "name" in given:
            self.names.append(given["name"])
        status, answer = self.ask(path, **given)
        assert status == 200, answer
        return answer

    def get(self, path: str) -> tuple[int, Any]:
        return asked("GET", self.app + path)

    def post(self, path: str) -> tuple[int, Any]:
        return asked("POST", self.app + path)

    def end(self, number: int | None = signal.SIGTERM) -> int:
        if number and self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(30)
        self._reader.join(30)
        return status

    @property
    def said(self) -> str:
        """What it has said to people, once it has ended; white space is one space."""
        return " ".join("".join(self._lines).split())


def asked(
    method: str, url: str, headers: dict[str, str] | None = None, body: bytes = b""
) -> tuple[int, Any]:
    request = urllib.request.Request(  # noqa: S310 - our own
        url, body if method == "POST" else None, headers or {}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode()
        return error.code, json.loads(text) if text.startswith("{") else text


@contextmanager
def serving(example: Example, *options: str, **env: str) -> Iterator[Served]:
    """Serve an example, with a token unless the environment says otherwise."""
    process = example.start_python("-c", CALL, "serve", *PLUGINS, *options, env={TOKEN: WORD} | env)
    served = Served(process)
    try:
        yield served
    finally:
        process.kill()
        served.end()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server for all tests of levels. Each of them leaves its level."""
    files = {"conftest": CONFTEST, "seeds": SEEDS, "test_never": "raise AssertionError('imported')"}
    example = shop(fastapi_example(tmp_path_factory.mktemp("served")), **files)
    with serving(example, "--seeds", "seeds", "-Werror::pytest_arena.LostWriteWarning") as served:
        yield served
        status = served.end()
    assert status == int("LostWriteWarning" in served.said)  # another worker may have that test
    assert served.said.count("THE RUN BEGINS") == served.said.count("THE RUN ENDS") == 1
    for name in served.names:
        assert f"begins level[{name}]" in served.said
    assert not (example.folder / "shop.db").exists()


def test_levels_of_another_language(served: Served) -> None:
    assert served.get("/orders")[0] == 503
    for turn in range(2):
        served.done("/level/enter", name=f"shop.spec.ts > buys {turn}")
        served.done("/seed/sofa", amount=3)
        assert served.done("/seed/order", item="desk") == {"id": 1}
        assert served.post("/orders/sofa")[0] == 201
        assert served.get("/orders") == (200, ["desk", "sofa"])
        story = served.done("/story")["story"]
        assert "POST /orders/sofa 201" in story
        assert "~ stock item='sofa'  amount 3 → 2" in story
        assert "s3cret" not in story
        assert served.done("/level/leave") == {"problems": []}


def test_requests_that_are_refused(served: Served) -> None:
    for path in ("/level/enter", "/seed/sofa", "/story", "/nowhere"):
        assert served.ask(path, key="open")[0] == 401
    assert served.ask("/level/leave")[0] == 409
    assert served.ask("/nowhere")[0] == 409
    headers = {"Authorization": f"Bearer {WORD}"}
    assert asked("POST", f"{served.control}/level/enter", headers, b"[]")[0] == 400
    served.done("/level/enter")
    assert served.ask("/level/enter")[0] == 409
    status, answer = served.ask("/seed/nix")
    assert (status, "A101" in answer["error"]) == (500, True)
    status, answer = served.ask("/seed/broken")
    assert "LookupError: by purpose" in answer["error"]
    assert "half" not in served.done("/story")["story"]
    assert served.done("/level/leave") == {"problems": []}


def test_a_level_with_a_problem(served: Served) -> None:
    served.done("/level/enter")
    assert served.post("/forgets/vase")[0] == 200
    status, told = served.ask("/level/leave")
    assert (status, "LostWriteWarning" in told["problems"][0]) == (500, True)
    served.done("/level/enter")
    served.post("/settle/1")  # 500: there is no such order
    assert "AttributeError" in served.done("/story")["story"]
    assert served.done("/level/leave") == {"problems": []}


def test_a_port_that_is_taken(example: Example) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        with serving(example, "--port", port) as served:
            assert served.end() == 2
    assert f"cannot listen on port {port} of this machine" in served.said
    assert "Traceback" not in served.said


def test_it_ends_inside_of_a_level(example: Example) -> None:
    """The first signal ends it, and the level."""
    with serving(shop(example), "-p", "pytest_timeout", "-otimeout=0.5") as served:
        served.done("/level/enter")
        time.sleep(1)  # a level has no time limit
        assert served.end() == 0
    assert "1 passed" in served.said


def test_without_a_token_it_does_not_begin(example: Example) -> None:
    called = arena("serve", folder=example.write())
    assert called.status == 2
    assert f"{TOKEN} is not set" in called.output + called.errors


PARENT = """
import os, subprocess, sys
server = subprocess.Popen([*sys.argv[1:]], stdin=subprocess.DEVNULL)
sys.stdin.read()
os._exit(9)
"""


def test_it_ends_with_the_process_that_started_it(example: Example) -> None:
    """A runner that dies leaves no server."""
    command = (sys.executable, "-c", CALL, "serve", *PLUGINS)
    parent = shop(example).start_python("-c", PARENT, *command, env={TOKEN: WORD})
    served = Served(parent)
    served.done("/level/enter")
    served.post("/orders/chair")
    assert parent.stdin is not None
    parent.stdin.close()  # the parent ends at once
    assert served.end(None) == 9  # its output ends when the server has
    assert "1 passed" in served.said
    with pytest.raises(urllib.error.URLError):
        served.get("/orders")
    assert parent.stdout is not None
    parent.stdout.close()
