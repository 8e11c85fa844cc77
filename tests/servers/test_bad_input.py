"""Does each server that cannot be used say why, in four parts, without a password, untouched?"""

from __future__ import annotations

import re
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql.servers import _find
from pytest_arena._postgresql.servers._find import find_server
from pytest_arena.errors import ServerError
from tests.servers.crowded import PASSWORD, free_port
from tests.servers.stand_ins import StandIn, greets, says

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._config._read import Config
    from tests.servers.crowded import Crowded


def told(config: Config, url: str) -> ServerError:
    """The error that a URL leads to, which has all that an error must have."""
    with pytest.raises(ServerError) as error:
        find_server(replace(config, database=url))
    text = str(error.value)
    assert re.findall(r"^  (why|cause|next):", text, re.MULTILINE) == ["why", "cause", "next"]
    assert text.splitlines()[-1].startswith("  [A301] ")
    assert len(text.splitlines()) <= 12
    assert "ARENA_DATABASE" in error.value.cause
    assert PASSWORD not in text
    return error.value


@pytest.fixture
def untouched(crowded: Crowded) -> Iterator[Crowded]:
    """The server has afterwards what it had before."""
    before = crowded.contents()
    yield crowded
    assert crowded.contents() == before


def test_a_server_that_is_too_old(config: Config) -> None:
    """By its own word."""
    with StandIn(says("PostgreSQL 12.22 on x86_64", "120022", "12.22")) as old:
        error = told(config, f"postgresql://me@127.0.0.1:{old.port}/shop")
    assert f"the server on 127.0.0.1:{old.port} is PostgreSQL 12.22" in error.what
    assert "arena needs 13 or newer" in error.what
    assert "docker run" in error.fix


def test_a_server_that_only_speaks_like_postgresql(config: Config) -> None:
    """Other products have its protocol and not its databases."""
    with StandIn(says("CockroachDB CCL v24.1 (x86_64)", "130000", "13.0.0")) as other:
        error = told(config, f"postgresql://me@127.0.0.1:{other.port}/shop")
    assert "is CockroachDB CCL v24.1, not PostgreSQL" in error.what


@pytest.mark.slow
def test_a_role_that_may_not_create_databases(config: Config, untouched: Crowded) -> None:
    """The next step is the statement that lets it."""
    error = told(config, untouched.url("humble"))
    assert "role humble" in error.what
    assert "may not create databases" in error.what
    assert error.fix == 'ALTER ROLE "humble" CREATEDB'


@pytest.mark.parametrize(
    "login, reason",
    [
        ("maker:wRong-" + PASSWORD, "refuses the password of role maker"),
        ("maker", "asks for a password of role maker, and none was given"),
        ("stranger", "refuses role stranger: "),
        ("nobody_here", "refuses role nobody_here: "),
    ],
    ids=["wrong", "none", "rejected", "no role"],
)
@pytest.mark.usefixtures("no_libpq_variables")
def test_a_login_that_is_refused(
    config: Config, untouched: Crowded, login: str, reason: str
) -> None:
    """The password is wrong, or missing; the role is not let in, or is not there."""
    assert reason in told(config, untouched.url(login)).what


def test_a_host_that_is_not_there(config: Config) -> None:
    """The reserved name that no resolver knows."""
    error = told(config, f"postgresql://me:{PASSWORD}@no-such-host.invalid/shop")
    assert "the host no-such-host.invalid does not exist" in error.what
    assert "me:***@no-such-host.invalid" in error.cause


def test_a_port_where_nobody_listens(config: Config) -> None:
    """It is said at once."""
    port = free_port()
    error = told(config, f"postgresql://me@127.0.0.1:{port}/shop")
    assert f"nothing answers on 127.0.0.1:{port} (Connection refused)" in error.what


def test_a_socket_that_is_not_there(config: Config, tmp_path: object) -> None:
    """The folder is named."""
    error = told(config, f"postgresql://me@/shop?host={tmp_path}")
    assert f"nothing answers on {tmp_path}:5432 (No such file or directory)" in error.what


def test_a_server_without_a_free_connection(
    config: Config, untouched: Crowded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What to raise is named."""
    monkeypatch.setattr(_find, "TURN_SECONDS", 0)
    taken = untouched.fill()
    try:
        error = told(config, untouched.url(f"maker:{PASSWORD}"))
    finally:
        for control in taken:
            control.close()
    assert "has no free connection" in error.what
    assert "max_connections" in error.fix


MARIADB = b"Z\0\0\0\x0a5.5.5-10.11.6-MariaDB\0" + bytes(60)


@pytest.mark.parametrize(
    "words",
    [MARIADB, b"E\0\0\0\x0a5.5.5\0" + bytes(60), b"SSH-2.0-OpenSSH_9.2\r\n", b"R"],
    ids=["mariadb", "mariadb like an error", "ssh", "one letter"],
)
def test_what_is_not_postgresql_at_all(config: Config, words: bytes) -> None:
    """A database of another product, and whatever else has that port."""
    with StandIn(greets(words)) as other:
        error = told(config, f"postgresql://me@127.0.0.1:{other.port}/shop")
    assert f"the server on 127.0.0.1:{other.port} is not PostgreSQL" in error.what


def test_a_real_mariadb(config: Config) -> None:
    """Where one runs."""
    try:
        socket.create_connection(("127.0.0.1", 3306), timeout=1).close()
    except OSError:
        pytest.skip("no MariaDB on 3306")
    error = told(config, "postgresql://me@127.0.0.1:3306/shop")
    assert "the server on 127.0.0.1:3306 is not PostgreSQL" in error.what


@pytest.mark.parametrize(
    "url, reason",
    [
        ("mysql://me@db/shop", "mysql is not PostgreSQL's"),
        ("postgresql://me@db:port/shop", "the URL cannot be read"),
        ("://no-url", "the URL cannot be read"),
    ],
)
def test_a_url_that_is_none(config: Config, url: str, reason: str) -> None:
    """Nothing is connected to."""
    assert reason in told(config, url).what
