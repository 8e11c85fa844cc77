"""A server of the test databases that requires TLS, with a certificate that no authority signed."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_arena._mysql._arguments import redirect
from pytest_arena._mysql.servers import _search
from pytest_arena._mysql.servers._search import enter, read_url
from pytest_arena._product.servers import Unavailable
from tests.mysql.server import PrivateServer, connect, program
from tests.mysql.shop import shop
from tests.servers.crowded import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conformance.story_mysql_server import StoryMySQLServer
    from tests.example import Example

_CERTIFICATE = (
    "req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
)


def certificate(folder: Path) -> Path:
    """Make a folder with a key and its certificate, which the server's user can read."""
    openssl = shutil.which("openssl") or pytest.skip("no openssl to make a certificate")
    folder.mkdir()
    files = ["-keyout", "key.pem", "-out", "cert.pem"]
    command = [openssl, *_CERTIFICATE.split(), *files]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    user = "mysql" if os.geteuid() == 0 else getpass.getuser()
    shutil.chown(folder / "key.pem", user)
    return folder / "cert.pem"


@dataclass(frozen=True)
class TLSServer:
    """A server that refuses a connection without TLS, and its certificate."""

    port: int
    certificate: Path
    foreign: Path
    """the certificate of no server"""

    @property
    def url(self) -> str:
        """The URL for `arena_database`, without options."""
        return f"mysql://runs:pw@127.0.0.1:{self.port}/"


@pytest.fixture(scope="module")
def demanding() -> Iterator[TLSServer]:
    """One server for the stories of this file."""
    program("mariadbd")
    folder = Path(tempfile.mkdtemp(prefix="arena-"))  # pytest's are closed to the server's user
    folder.chmod(0o755)
    cert = certificate(folder / "server")
    port = free_port()
    server = PrivateServer(
        "--skip-networking=0",
        "--bind-address=127.0.0.1",
        f"--port={port}",
        "--require-secure-transport=ON",
        f"--ssl-cert={cert}",
        f"--ssl-key={cert.with_name('key.pem')}",
    )
    try:
        with closing(connect(server.socket)) as control, control.cursor() as cursor:
            cursor.execute("CREATE USER 'runs'@'localhost' IDENTIFIED BY 'pw'")
            cursor.execute("GRANT ALL ON `arena\\_%`.* TO 'runs'@'localhost'")
        yield TLSServer(port, cert, certificate(folder / "foreign"))
    finally:
        server.stop()
        shutil.rmtree(folder)


TEST = """
import app
from sqlalchemy import text


async def test_the_app_encrypts(client):
    assert (await client.post("/items/pear")).json() == 2
    async with app.maker() as session:
        rows = await session.execute(text("SHOW STATUS LIKE 'Ssl_cipher'"))
        assert rows.one()[1].startswith("TLS_")


async def test_a_request_in_another_loop(client):
    assert (await client.get("/items")).json() == ["seeded"]


def test_a_sync_client(test_client):
    assert test_client.get("/items").json() == ["seeded"]


def test_a_session_encrypts(arena):
    with arena.session() as session:
        rows = session.execute(text("SHOW STATUS LIKE 'Ssl_cipher'"))
        assert rows.one()[1].startswith("TLS_")
"""


def project(server: StoryMySQLServer, folder: Path, driver: str, authority: Path | None) -> Example:
    """Return the shop, whose engine verifies the server of production by an authority."""
    example = shop(server, folder, f"mysql+{driver}").with_files(test_tls=TEST)
    if authority is None:
        return example
    context = f"__import__('ssl').create_default_context(cafile={str(authority)!r})"
    arguments = f"pool_pre_ping=True, connect_args={{'ssl': {context}}}"
    return example.change("app.py", "pool_pre_ping=True", arguments)


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["asyncmy", "aiomysql"])
def test_a_server_that_requires_tls(
    server: StoryMySQLServer, demanding: TLSServer, tmp_path: Path, driver: str
) -> None:
    """The URL says nothing of TLS. The connections of the app and of its sessions use it."""
    example = project(server, tmp_path, driver, authority=None)
    options = ["-q", f"--arena-database={demanding.url}"]
    if driver == "aiomysql":
        # With TLS aiomysql never closes its first transport.
        options += ["-W", "ignore::ResourceWarning"]
    example.run(*options).expect(passed=4)


@pytest.mark.slow
def test_the_options_of_the_url_verify_the_server(
    server: StoryMySQLServer, demanding: TLSServer, tmp_path: Path
) -> None:
    """They replace the app's, which are for the server of production."""
    example = project(server, tmp_path, "asyncmy", demanding.foreign)
    verified = f"{demanding.url}?ssl_ca={demanding.certificate}"
    example.run("-q", f"--arena-database={verified}").expect(passed=4)
    wrong = f"{demanding.url}?ssl_ca={demanding.foreign}"
    run = example.run("-q", f"--arena-database={wrong}")
    run.expect(1, failed=4).says("TLS to 127.0.0.1:", "certificate verify failed", "[A301]")


def test_mysqlclient_verifies_the_server(demanding: TLSServer) -> None:
    """It takes files and a mode. By a context it would encrypt, and accept each server."""
    driver = pytest.importorskip("MySQLdb")

    def connected(query: str) -> bool:
        arguments: dict[str, object] = {}
        redirect("mysqldb", read_url(f"{demanding.url}?{query}"), arguments)
        with closing(driver.connect(**arguments)) as connection:
            cursor = connection.cursor()
            cursor.execute("SHOW STATUS LIKE 'Ssl_cipher'")
            return bool(cursor.fetchone()[1].startswith("TLS_"))

    assert connected(f"ssl_ca={demanding.certificate}")
    assert connected(f"ssl_ca={demanding.certificate}&ssl_check_hostname=false")
    with pytest.raises(driver.OperationalError, match="SSL"):
        connected(f"ssl_ca={demanding.foreign}")


@pytest.mark.slow
def test_the_apps_arguments_are_passed_on(
    server: StoryMySQLServer, demanding: TLSServer, tmp_path: Path
) -> None:
    """An app that trusts another authority cannot connect."""
    example = project(server, tmp_path, "asyncmy", demanding.certificate)
    example.run("-q", f"--arena-database={demanding.url}").expect(passed=4)
    example = project(server, tmp_path / "other", "asyncmy", demanding.foreign)
    run = example.run("-q", f"--arena-database={demanding.url}")
    assert run.status == 1
    run.says("certificate verify failed")


@pytest.mark.slow
def test_a_server_without_tls_takes_an_app_that_asks_for_it(
    server: StoryMySQLServer, demanding: TLSServer, tmp_path: Path
) -> None:
    """The app's arguments are for the server of production."""
    example = project(server, tmp_path, "asyncmy", demanding.foreign)
    example = example.with_files(test_tls=TEST.replace('startswith("TLS_")', "strip() == ''"))
    example.run("-q").expect(passed=4)


def test_a_server_elsewhere_that_offers_tls(
    demanding: TLSServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is used there, as a password and rows pass a network."""
    address = read_url(demanding.url)
    assert address.tls is None
    assert enter(address, "").address.tls == ()
    monkeypatch.setattr(_search, "is_here", lambda _: False)
    verified = read_url(f"{demanding.url}?ssl_ca={demanding.certificate}")
    assert enter(verified, "").address.tls == (("ssl_ca", str(demanding.certificate)),)


@pytest.mark.parametrize(
    "query, reason",
    [
        ("ssl_mode=REQUIRED", "ssl_mode is none of: ssl_ca, "),
        ("ssl_ca=/nowhere.pem", "cannot be used: .*No such file"),
    ],
)
def test_options_that_cannot_be_used(query: str, reason: str) -> None:
    """No option is ignored."""
    with pytest.raises(Unavailable, match=reason):
        read_url(f"mysql://me@db/?{query}")
