"""A project whose tests restart their server. Only the one whose transaction it ends may fail."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_arena._values import Address
    from tests.example import Example

_TESTS = """
import json
import os
import socket
import subprocess
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest
from app import Dancer, maker
from pytest_arena._product._server_control import ServerFailure
from pytest_arena._values import Address

server = json.loads(Path("server.json").read_text())
control = import_module(server["control"])


def restart(how):
    pid_file = Path(server["pid_file"])
    pid = int(pid_file.read_text().split()[0])
    os.kill(pid, how)
    while os.path.exists(f"/proc/{pid}") and " Z " not in Path(f"/proc/{pid}/stat").read_text():
        time.sleep(0.01)
    pid_file.unlink(missing_ok=True)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = subprocess.Popen(server["command"], **quiet, **server["options"])
    started.returncode = 0  # the server outlives the test
    while not answers():
        time.sleep(0.01)


def answers():
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(server["socket"]):
            return False
    with suppress(ServerFailure):
        control.open_control(Address(*server["address"])).close()
        return True


@pytest.mark.parametrize("how", server["signals"])
async def test_at_its_end(client, how):
    assert (await client.get("/dancers")).json() == ["Sand"]
    assert (await client.post("/dancers/Dune")).status_code == 201
    restart(how)


async def test_after_it(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
    assert (await client.post("/dancers/Dune")).status_code == 201


async def test_in_a_transaction(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
    async with maker() as session:
        session.add(Dancer(name="open"))
        await session.flush()
        restart(server["signals"][-1])
        await session.commit()


async def test_at_last(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
"""


def restarting(example: Example, address: Address, **facts: Any) -> Example:
    """Return the project with these tests. The facts are how the server is ended and started."""
    facts["address"] = (address.host, address.port, address.user, address.database)
    return example.with_files(test_it=_TESTS).with_paths({"server.json": json.dumps(facts)})
