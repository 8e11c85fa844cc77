"""The search for a server: the URL, a local service, a private server. Each refusal says why."""

from __future__ import annotations

import getpass
import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_arena._mysql._product import MySQL
from pytest_arena._postgresql import _clusters, _product
from pytest_arena._postgresql._product import PostgreSQL
from pytest_arena._values import Address
from pytest_arena.errors import ServerError
from tests.servers.crowded import PASSWORD, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_arena._config._read import Config
    from tests.servers.crowded import Crowded

ME = getpass.getuser()


def refused(config: Config, url: str) -> ServerError:
    with pytest.raises(ServerError) as raised:
        PostgreSQL(None, replace(config, database=url)).find()
    text = str(raised.value)
    assert re.findall(r"^  (why|cause|next):", text, re.MULTILINE) == ["why", "cause", "next"]
    assert text.splitlines()[-1].startswith("  [A301] ")
    assert len(text.splitlines()) <= 12
    assert "ARENA_DATABASE" in raised.value.cause
    assert PASSWORD not in text
    return raised.value


@pytest.fixture
def untouched(crowded: Crowded) -> Iterator[Crowded]:
    before = crowded.contents()
    yield crowded
    assert crowded.contents() == before


@pytest.mark.parametrize(
    "login, reason",
    [
        ("maker:wRong-" + PASSWORD, "password authentication failed"),
        ("maker", "no password supplied"),
        ("stranger", "refuses stranger: "),
        ("nobody_here", "refuses nobody_here: "),
        ("humble", "humble on 127.0.0.1"),
    ],
)
def test_a_login_that_cannot_be_used_is_refused(
    config: Config, untouched: Crowded, login: str, reason: str
) -> None:
    error = refused(config, untouched.url(login))
    assert reason in error.what
    assert ('ALTER ROLE "humble" CREATEDB' in error.fix) == (login == "humble")


def test_a_server_without_a_free_connection_is_named(config: Config, untouched: Crowded) -> None:
    with untouched.filled():
        error = refused(config, untouched.url(f"maker:{PASSWORD}"))
    assert "has no free connection" in error.what


@pytest.mark.parametrize(
    "url, reason",
    [
        (f"postgresql://me:{PASSWORD}@no-such-host.invalid/shop", "nothing answers on"),
        ("postgresql://me@127.0.0.1:1/shop", "nothing answers on 127.0.0.1:1"),
        ("postgresql://me@/shop?host=/nowhere", "nothing answers on /nowhere:5432"),
        ("postgresql://me@db:port/shop", "the URL cannot be read"),
        ("postgresql://a,b:2/shop", "pytest-arena needs one"),
        ("postgresql:///shop?host=a:1&host=b:2", "pytest-arena needs one"),
    ],
)
def test_a_url_without_a_server_is_refused(config: Config, url: str, reason: str) -> None:
    assert reason in refused(config, url).what


@pytest.mark.parametrize(
    "text, expected",
    [
        ("postgresql://u:p@db:5433/shop", ("db", 5433, "u", "shop", "p")),
        ("postgres://u@db", ("db", 5432, "u", "postgres", "")),
        ("postgresql+psycopg://db/", ("db", 5432, ME, "postgres", "")),
        ("postgresql://u:a%40%2Fb%3A@db/shop", ("db", 5432, "u", "shop", "a@/b:")),
        ("postgresql+asyncpg://u@/shop?host=/run/x", ("/run/x", 5432, "u", "shop", "")),
        ("postgresql://u@%2Frun%2Fx:7/shop", ("/run/x", 7, "u", "shop", "")),
        ("postgresql://u@[::1]:7/shop", ("::1", 7, "u", "shop", "")),
        ("postgresql://db/shop?user=u&password=p%26q", ("db", 5432, "u", "shop", "p&q")),
    ],
)
def test_forms_of_urls(config: Config, text: str, expected: tuple[str, int, str, str, str]) -> None:
    assert PostgreSQL(None, config).read_url(text) == Address(*expected)


def test_a_password_may_come_from_its_variable(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "p")
    found = PostgreSQL(None, config).read_url("postgresql://u@db/shop")
    assert found == Address("db", 5432, "u", "shop", "p")


def test_urls_of_mysql(config: Config) -> None:
    found = MySQL(None, config).read_url("mysql://me:secret@db:3307/shop")
    assert found == Address("db", 3307, "me", "", "secret")
    socket = MySQL(None, config).read_url("mariadb+pymysql://me@/shop?unix_socket=/run/x.sock")
    assert (socket.host, socket.is_socket) == ("/run/x.sock", True)


def test_a_server_is_used_by_its_url(config: Config, crowded: Crowded) -> None:
    found = PostgreSQL(None, replace(config, database=crowded.url(f"maker:{PASSWORD}"))).find()
    assert found.address == crowded.address
    assert not found.is_private
    assert found.shown.startswith("PostgreSQL ")
    assert found.shown.endswith(f" on 127.0.0.1:{crowded.port}, from arena_database")
    assert PASSWORD not in found.shown + repr(found.address)
    found.close()


@pytest.fixture
def local(crowded: Crowded, monkeypatch: pytest.MonkeyPatch) -> Crowded:
    """A server of this machine, in place of the machine's servers."""
    monkeypatch.setattr(_product, "_SOCKETS", ())
    monkeypatch.setenv("PGPORT", str(crowded.port))
    return crowded


def test_a_local_service_is_found_by_its_socket_and_its_port(
    config: Config, local: Crowded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user that may create no database is passed over. A container's user may have no name."""

    def getuser() -> str:
        raise KeyError("getpwuid(): uid not found: 1000")

    monkeypatch.setattr(getpass, "getuser", getuser)
    monkeypatch.setenv("PGUSER", "humble")
    found = PostgreSQL(None, config).local_service()
    assert found.address.user == "postgres"
    assert found.shown.endswith(f", a local service on 127.0.0.1:{local.port}")
    monkeypatch.setattr(_product, "_SOCKETS", (local.by_socket.host,))
    assert PostgreSQL(None, config).local_service().address.host == local.by_socket.host
    monkeypatch.setenv("PGUSER", "maker")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.setenv("PGHOST", "127.0.0.1")
    assert PostgreSQL(None, config).local_service().address == local.address


def test_without_a_server_each_source_says_why(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PGPORT", str(free_port()))
    monkeypatch.setenv("PGHOST", "db.example.org")
    monkeypatch.setattr(_product, "_SOCKETS", ())
    monkeypatch.setattr(_clusters, "_USUAL", (f"{tmp_path}/*/bin",))
    monkeypatch.setattr(_clusters, "_WHEEL", "no_such_package")
    folder = tmp_path / "16" / "bin"
    folder.mkdir(parents=True)
    for program in ("initdb", "postgres"):
        (folder / program).write_text("#!/bin/sh\nexit 1\n")
        (folder / program).chmod(0o755)
    with pytest.raises(ServerError) as error:
        PostgreSQL(None, config).find()
    local, private = error.value.cause.splitlines()
    assert local.startswith("a local service: nothing answers on 127.0.0.1")
    assert private.startswith(f"a private server: {tmp_path}/16/bin/postgres does not run")
    assert error.value.fix.splitlines() == [
        "pip install 'pytest-arena[postgresql]'",
        "or ARENA_DATABASE=postgresql://user@host:5432/postgres pytest …",
    ]


def test_own_uses_no_local_service(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has no private server, because that listens on a socket."""
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ServerError) as error:
        PostgreSQL(None, replace(config, database="own")).find()
    assert "a private server is" in error.value.cause
    assert "not for Windows" in error.value.cause


def test_own_is_refused_on_mysql(config: Config) -> None:
    """pytest-arena starts private servers of PostgreSQL alone."""
    with pytest.raises(ServerError) as error:
        MySQL(None, replace(config, database="own")).find()
    assert "pytest-arena starts no server of MySQL" in error.value.cause
    assert "docker run" in error.value.fix
