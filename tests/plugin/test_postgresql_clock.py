"""Which request has changed a row, with a server whose clock differs, jumps, or is far away?"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from tests.plugin.private_server import on_postgresql
from tests.servers.postgresql import URL, address, own_registry, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.example import Example

# Sessions of the login of the run find this function before PostgreSQL's.
SCHEMA = """
CREATE TABLE dancers (id serial PRIMARY KEY, name text UNIQUE);
INSERT INTO dancers (name) VALUES ('Sand');
CREATE SCHEMA skew;
CREATE SEQUENCE skew.ahead START 3;
CREATE FUNCTION skew.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS
    'SELECT pg_catalog.clock_timestamp() + (SELECT last_value FROM skew.ahead) * interval ''1 s''';
"""
TESTS = """
import asyncio

import pytest
from app import engine
from pytest_arena import IsolationError
from sqlalchemy import text


def names(changes):
    return sorted(one.after["name"] for one in changes.inserted)


async def add(client, name):
    assert (await client.post(f"/dancers/{name}")).status_code == 201


async def test_each_request_has_its_rows(client, arena):
    await add(client, "Dune")
    async with engine.begin() as held:
        await held.execute(text("INSERT INTO dancers (name) VALUES ('Held')"))
    for name in ("Reef", "Moor"):
        await add(client, name)
    await client.get("/dancers")
    await asyncio.gather(add(client, "Fen"), add(client, "Bog"))
    found = [names(arena.changes(number)) for number in range(5)]
    assert found == [["Dune"], ["Reef"], ["Moor"], [], ["Bog", "Fen"]]
    assert names(arena.changes()) == ["Bog", "Dune", "Fen", "Held", "Moor", "Reef"]


async def test_the_story_has_them_too(client):
    await add(client, "Dune")
    await add(client, "Reef")
    assert False


async def test_a_jump(client, arena):
    await add(client, "Dune")
    async with engine.begin() as connection:
        await connection.execute(text("SELECT setval('skew.ahead', 60)"))
    await add(client, "Reef")
    with pytest.raises(IsolationError, match="clock"):
        arena.changes(0)
    assert names(arena.changes()) == ["Dune", "Reef"]
    assert False


async def test_the_sequence_is_restored_which_is_a_jump_too(client, arena):
    await add(client, "Dune")
    with pytest.raises(IsolationError, match="clock"):
        arena.changes(-1)


async def test_after_the_jumps(client, arena):
    await add(client, "Dune")
    assert names(arena.changes(-1)) == ["Dune"]
"""


def test_a_clock_that_is_off_and_jumps(example: Example) -> None:
    """After a jump the report says that the rows of each request are not known."""
    with own_registry() as role, far_away() as port:
        run(f"ALTER ROLE {role} SET search_path = skew, public, pg_catalog")
        project = on_postgresql(example, test_it=TESTS).with_paths({"schema.sql": SCHEMA})
        options = ("arena_schema = app:Base\narena_seed = seed:seed", "arena_schema = schema.sql")
        project = project.change("pytest.ini", *options)
        server = URL.set(username=role, password=None, host="127.0.0.1", port=port)
        url = server.render_as_string(hide_password=False)
        found = project.run("test_it.py", env={"ARENA_DATABASE": url})
    found.expect(1, passed=3, failed=2)
    story, jump = found.output.split("_ test_a_jump _")
    assert story.index("POST /dancers/Dune 201") < story.index("Dune'") < story.index("Reef 201")
    assert "which request has changed which rows is not known" in jump


_DELAY = 0.02  # seconds in each direction


@contextmanager
def far_away() -> Iterator[int]:
    """Return the port of a way to the server that delays each message."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]


def _accept(listener: socket.socket) -> None:
    with suppress(OSError):  # the test has ended
        while True:
            near, _ = listener.accept()
            threading.Thread(target=_connect, args=(near,), daemon=True).start()


def _connect(near: socket.socket) -> None:
    server = address()
    with near, socket.create_connection((server.host, server.port)) as far:
        back = threading.Thread(target=_pass_on, args=(far, near), daemon=True)
        back.start()
        _pass_on(near, far)
        back.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    """Pass on what arrives, each message after the delay."""
    with suppress(OSError):
        while data := source.recv(65536):
            time.sleep(_DELAY)
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
