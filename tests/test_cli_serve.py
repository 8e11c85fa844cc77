"""`arena serve`: tests in another language say when a level begins and ends."""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena._cli._control_server import TOKEN
from tests.plugin.shop import HOWS, env_of, shop
from tests.plugin.test_streams import LIVE

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


def untold(session):
    session.add(Order(item="told"))
    return {(1, 2): object()}


def _secret(session):
    raise AssertionError("nobody may call it")
"""

SLOW = """

@app.post("/slow")
async def slow(db=Depends(get_db)):
    db.add(Order(item="slow"))
    await db.commit()
    print("SLOW BEGINS", flush=True)
    await asyncio.sleep(3600)
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
        self.app, self.control = "", ""
        assert process.stdout is not None
        for line in process.stdout:
            self._lines.append(line)
            if line.startswith("{"):
                where = json.loads(line)
                self.app, self.control = where["app"], where["control"]
                break
        self._reader = threading.Thread(target=self._lines.extend, args=[process.stdout])
        self._reader.start()

    def ask(self, path: str, /, key: str = WORD, **given: object) -> tuple[int, Any]:
        """Ask the control interface."""
        method = "GET" if path in {"/changes", "/story"} else "POST"
        headers = {"Authorization": f"Bearer {key}"}
        return asked(method, self.control + path, headers, json.dumps(given).encode())

    def done(self, path: str, /, **given: Any) -> Any:
        """Ask it for what it does."""
        status, answer = self.ask(path, **given)
        assert status == 200, answer
        return answer

    def get(self, path: str) -> tuple[int, Any]:
        """Ask the app."""
        return asked("GET", self.app + path)

    def post(self, path: str) -> tuple[int, Any]:
        """Ask the app."""
        return asked("POST", self.app + path)

    def end(self, number: int | None = signal.SIGTERM) -> int:
        """Have it end, and return its status."""
        if number and self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(30)
        self._reader.join()
        return status

    @property
    def said(self) -> str:
        """What it has said to people, once it has ended; white space is one space."""
        return " ".join("".join(self._lines).split())


def asked(
    method: str, url: str, headers: dict[str, str] | None = None, body: bytes = b""
) -> tuple[int, Any]:
    """Ask, and return the status and the JSON."""
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


@pytest.fixture
def served_shop(example: Example) -> Example:
    """A shop with seeds, whose conftest file says when it acts."""
    files = shop(example, conftest=CONFTEST, seeds=SEEDS)
    return files.with_files(app=LIVE + SLOW, test_never="raise AssertionError('imported')")


@pytest.mark.slow
@pytest.mark.parametrize("how", HOWS)
def test_levels_of_another_language(served_shop: Example, how: str) -> None:
    """P1, P2, P3: a seed is seen by requests, all is told, and taken back; fixtures act."""
    with serving(served_shop, "--seeds", "seeds", **env_of(how)) as served:
        assert served.get("/orders")[0] == 503
        for turn in range(3):
            served.done("/level/enter", name=f"shop.spec.ts > buys {turn}")
            assert served.get("/orders") == (200, [])
            served.done("/seed/sofa", amount=3)
            assert served.done("/seed/order", item="desk") == {"id": 1}
            assert served.post("/orders/sofa")[0] == 201
            assert served.get("/orders") == (200, ["desk", "sofa"])
            changes = served.done("/changes")["changes"]
            assert [(one["table"], one["kind"]) for one in changes] == [
                ("orders", "inserted"),
                ("orders", "inserted"),
                ("stock", "inserted"),
            ]
            assert changes[1]["after"]["item"] == "sofa"
            assert "***" in changes[1]["after"].values()
            assert changes[2]["after"] == {"item": "sofa", "amount": 2}
            story = served.done("/story")["story"]
            assert "POST /orders/sofa 201" in story
            assert "s3cret" not in story
            if turn == 1:
                assert served.done("/level/reset", name="anew")["problems"] == []
                assert served.get("/orders") == (200, [])
            assert served.done("/level/leave") == {"problems": []}
        assert served.end() == 0
    assert served.said.count("THE RUN BEGINS") == served.said.count("THE RUN ENDS") == 1
    assert "begins level[shop.spec.ts > buys 2]" in served.said
    assert "level[anew]" in served.said
    assert "4 passed" in served.said
    assert not (served_shop.folder / "shop.db").exists()


TAKES = """
import pytest


@pytest.fixture
def live_server():
    pytest.skip("no settings of mine")
"""
SKIPS = """
import pytest


@pytest.fixture(autouse=True)
def every_level():
    pytest.skip("not today")
"""


@pytest.mark.slow
def test_a_fixture_of_another_plugin_has_the_servers_name(example: Example) -> None:
    """As pytest-django's, where it comes later: a level asks for no name that others have."""
    with serving(shop(example, taken=TAKES), "-p", "taken") as served:
        served.done("/level/enter")
        assert served.get("/orders") == (200, [])
        assert served.done("/level/leave") == {"problems": []}


@pytest.mark.slow
def test_a_level_that_is_skipped_says_why(example: Example) -> None:
    """By a fixture of the reader's, for one: whoever asks for it is told."""
    with serving(shop(example, conftest=SKIPS)) as served:
        status, answer = served.ask("/level/enter")
        assert status == 500
        assert "not today" in answer["problems"][0]


@pytest.mark.slow
def test_nobody_else_asks(served_shop: Example) -> None:
    """Who does not know the token, or asks for what is not there, changes nothing."""
    with serving(served_shop, "--seeds", "seeds") as served:
        for path in ("/level/enter", "/level/leave", "/seed/sofa", "/changes", "/nowhere"):
            assert served.ask(path, key="open")[0] == 401
        assert served.ask("/level/leave")[0] == 409
        assert served.ask("/seed/sofa")[0] == 409
        assert served.ask("/nowhere")[0] == 404
        headers = {"Authorization": f"Bearer {WORD}"}
        assert asked("GET", f"{served.control}/level/enter", headers)[0] == 404
        assert asked("POST", f"{served.control}/level/enter", headers, b"{")[0] == 400
        assert asked("POST", f"{served.control}/level/enter", headers, b"[]")[0] == 400
        served.done("/level/enter")
        assert served.ask("/level/enter")[0] == 409
        assert served.ask("/level/leave", key="")[0] == 401
        for name in ("nix", "_secret", "run", "select"):
            status, answer = served.ask(f"/seed/{name}")
            assert (status, "A101" in answer["error"]) == (500, True)
        status, answer = served.ask("/seed/broken")
        assert "LookupError: by purpose" in answer["error"]
        assert "seeds.py" in answer["error"]
        assert "site-packages" not in answer["error"]
        assert served.done("/changes") == {"changes": []}
        status, answer = served.ask("/seed/untold")
        assert (status, "TypeError: keys must be" in answer["error"]) == (500, True)
        assert served.done("/level/leave") == {"problems": []}
        assert served.end(signal.SIGINT) == 0


@pytest.mark.slow
def test_a_level_with_a_problem(served_shop: Example) -> None:
    """P9: who leaves it is told, and the next one stands on clean ground."""
    with serving(
        served_shop,
        "-Werror::pytest_arena.LostWriteWarning",
        "-Werror::pytest_arena.LateWorkWarning",
    ) as served:
        served.done("/level/enter")
        served.post("/orders/chair")
        assert served.post("/pay/1")[0] == 200
        status, told = served.ask("/level/leave")
        assert (status, "LostWriteWarning" in told["problems"][0]) == (500, True)
        served.done("/level/enter")
        served.post("/pay/1")  # 500: there is no such order
        assert "AttributeError" in served.done("/story")["story"]
        slow = threading.Thread(target=served.post, args=["/slow"])
        slow.start()
        while not served.done("/changes")["changes"]:
            pass
        status, told = served.ask("/level/reset")
        assert (status, "POST /slow" in told["problems"][0]) == (500, True)
        slow.join()
        assert served.get("/orders") == (200, [])
        assert served.done("/level/leave") == {"problems": []}
        assert served.end() == 1


@pytest.mark.slow
def test_an_app_that_does_not_start(served_shop: Example) -> None:
    """The level is not there; once that is mended the next one is."""
    broken = """

from contextlib import asynccontextmanager
from pathlib import Path


@asynccontextmanager
async def lifespan(app):
    if not Path("mended").exists():
        raise RuntimeError("no broker")
    yield


app.router.lifespan_context = lifespan
"""
    with serving(served_shop.with_files(app=LIVE + broken)) as served:
        status, told = served.ask("/level/enter")
        assert status == 500
        assert "no broker" in told["problems"][0]
        assert served.ask("/level/leave")[0] == 409
        (served_shop.folder / "mended").touch()
        served.done("/level/enter")
        assert served.get("/orders") == (200, [])
        assert served.end() == 1


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--port", "--control-port"])
def test_a_port_that_is_taken(served_shop: Example, option: str) -> None:
    """It says which, and how to have another."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        with serving(served_shop, option, port) as served:
            assert served.end() == 2
    assert f"cannot listen on port {port} of this machine" in served.said
    assert "Traceback" not in served.said


@pytest.mark.slow
def test_ports_that_are_asked_for(served_shop: Example) -> None:
    """A runner that waits for an address is told it before."""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        ports = [str(each.getsockname()[1]) for each in (one, two)]
    with serving(served_shop, "--port", ports[0], "--control-port", ports[1]) as served:
        assert (served.app, served.control) == tuple(f"http://127.0.0.1:{port}" for port in ports)


@pytest.mark.slow
@pytest.mark.parametrize(
    "env, change, words",
    [
        ({TOKEN: ""}, ("", ""), f"{TOKEN} is not set"),
        ({}, ("arena_app = app:app", "arena_app = app:nix"), "has no attribute 'nix'"),
    ],
)
def test_what_cannot_begin(
    served_shop: Example, env: dict[str, str], change: tuple[str, str], words: str
) -> None:
    """A sentence and a status, without a traceback."""
    with serving(served_shop.change("pytest.ini", *change), **env) as served:
        assert served.end() == 2
    assert words in served.said
    assert "Traceback" not in served.said


@pytest.mark.slow
def test_without_the_plugin(served_shop: Example) -> None:
    """Its settings would be unknown, and nothing kept."""
    process = served_shop.start_python("-c", CALL, "serve", env={TOKEN: WORD})
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "pytest-arena is switched off for this run" in output


@pytest.mark.slow
def test_what_a_suite_has_for_its_own_runs(served_shop: Example) -> None:
    """Workers, a limit of time, strict scenarios: levels are none of these tests."""
    specs = {"specs/shop.feature": "Feature: A\n  Scenario: B\n    Given c\n"}
    ini = (
        "[pytest]\naddopts = -n 2 --cov --nonsense\narena_specs = specs\narena_scenarios = strict\n"
    )
    with serving(served_shop.change("pytest.ini", "[pytest]\n", ini).with_paths(specs)) as served:
        served.done("/level/enter")
        assert served.done("/level/leave") == {"problems": []}
        assert served.end() == 0


PARENT = """
import os, subprocess, sys
server = subprocess.Popen([*sys.argv[1:]], stdin=subprocess.DEVNULL)
sys.stdin.read()
os._exit(9)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["copy", "undo"])
def test_it_ends_with_whoever_began_it(served_shop: Example, how: str) -> None:
    """P7: a runner that dies leaves no server, no database."""
    command = (sys.executable, "-c", CALL, "serve", *PLUGINS)
    env = {TOKEN: WORD} | env_of(how)
    parent = served_shop.start_python("-c", PARENT, *command, env=env)
    served = Served(parent)
    served.done("/level/enter")
    served.post("/orders/chair")
    assert parent.stdin is not None
    parent.stdin.close()  # it ends at once, and tells nobody
    assert served.end(None) == 9  # its output ends when the server has
    assert "1 passed" in served.said
    with pytest.raises(urllib.error.URLError):
        served.get("/orders")
    assert parent.stdout is not None
    parent.stdout.close()
