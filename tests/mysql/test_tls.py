"""A server that requires TLS gets encrypted connections of pytest-arena and of the app."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from pytest_arena._mysql import _servers
from pytest_arena._mysql._servers import SEARCH
from pytest_arena._product._server_search import Unavailable
from tests.mysql.server import PrivateServer, certificate, connect
from tests.mysql.shop import shop
from tests.servers.crowded import folder_in_memory, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conformance.story_mysql_server import StoryMySQLServer

TEST = """
import app
from sqlalchemy import text


async def test_the_app_encrypts(client):
    assert (await client.post("/items/pear")).json() == 2
    async with app.maker() as session:
        rows = await session.execute(text("SHOW STATUS LIKE 'Ssl_cipher'"))
        assert rows.one()[1].startswith("TLS_")


def test_a_session_encrypts(arena):
    with arena.session() as session:
        rows = session.execute(text("SHOW STATUS LIKE 'Ssl_cipher'"))
        assert rows.one()[1].startswith("TLS_")
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server that refuses a connection without TLS."""
    port = free_port()
    file = certificate(folder_in_memory())
    server = PrivateServer(
        "--skip-networking=0",
        "--bind-address=127.0.0.1",
        f"--port={port}",
        "--require-secure-transport=ON",
        f"--ssl-cert={file}",
        f"--ssl-key={file.with_name('key.pem')}",
    )
    try:
        with closing(connect(server.socket)) as control, control.cursor() as cursor:
            cursor.execute("CREATE USER 'runs'@'localhost' IDENTIFIED BY 'pw'")
            cursor.execute("GRANT ALL ON `arena\\_%`.* TO 'runs'@'localhost'")
        yield f"mysql://runs:pw@127.0.0.1:{port}/"
    finally:
        server.stop()


def test_a_server_that_requires_tls(server: StoryMySQLServer, url: str, tmp_path: Path) -> None:
    """The URL has no option for it."""
    example = shop(server, tmp_path).with_files(test_tls=TEST)
    example.run("-q", f"--arena-database={url}").expect(passed=2)


def test_a_server_elsewhere_that_offers_tls(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is used there, because a password passes a network."""
    monkeypatch.setattr(_servers, "is_here", lambda _: False)
    assert SEARCH.enter(SEARCH.read_url(url), "").address.is_encrypted
    with pytest.raises(Unavailable, match="verifies no certificate"):
        SEARCH.read_url(f"{url}?ssl_ca=ca.pem")
