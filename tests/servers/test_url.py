"""Is every form of URL read, and is the server that it names used, by whichever database?"""

from __future__ import annotations

import getpass
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql._control import open_control
from pytest_arena._postgresql.servers import _find
from pytest_arena._postgresql.servers._entrance import Elsewhere
from pytest_arena._postgresql.servers._find import find_server, read_url
from pytest_arena._product.servers import Server, Unavailable
from pytest_arena._values import Address
from pytest_arena.errors import ServerError
from tests.servers.crowded import PASSWORD

if TYPE_CHECKING:
    from pytest_arena._config._read import Config
    from tests.servers.crowded import Crowded

pytestmark = pytest.mark.usefixtures("no_libpq_variables")
ME = getpass.getuser()


@pytest.mark.parametrize(
    "text, expected",
    [
        ("postgresql://u:p@db:5433/shop", ("db", 5433, "u", "shop", "p")),
        ("postgresql+asyncpg://u@db/shop", ("db", 5432, "u", "shop", "")),
        ("postgres://u@db", ("db", 5432, "u", "", "")),
        ("postgresql+psycopg://db/", ("db", 5432, ME, "", "")),
        ("postgresql://u:a%40%2Fb%3A@db/shop", ("db", 5432, "u", "shop", "a@/b:")),
        ("postgresql://u@/shop?host=/run/x", ("/run/x", 5432, "u", "shop", "")),
        ("postgresql://u@/shop?host=/run/x&port=7", ("/run/x", 7, "u", "shop", "")),
        ("postgresql://u@%2Frun%2Fx:7/shop", ("/run/x", 7, "u", "shop", "")),
        ("postgresql://u@%2Frun%2Fx/shop", ("/run/x", 5432, "u", "shop", "")),
        ("postgresql://u@[::1]:7/shop", ("::1", 7, "u", "shop", "")),
        ("postgresql://u@[::1]/shop", ("::1", 5432, "u", "shop", "")),
        (
            "postgresql://db/shop?user=u&password=p%26q&sslmode=require",
            ("db", 5432, "u", "shop", "p&q"),
        ),
        ("postgresql://db?dbname=shop&user=u", ("db", 5432, "u", "shop", "")),
    ],
)
def test_every_form_of_a_url_is_read_pitfall_024(
    text: str, expected: tuple[str, int, str, str, str]
) -> None:
    """Those of SQLAlchemy and those of libpq."""
    assert read_url(text) == Address("postgresql", *expected)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://a:1,b:2/shop",
        "postgresql://a,b:2/shop",
        "postgresql:///shop?host=a:1&host=b:2",
        "postgresql:///shop?host=a,b&port=1,2",
    ],
)
def test_several_servers_are_refused(text: str) -> None:
    """Databases are made on one, and would be looked for on the next."""
    with pytest.raises(Unavailable, match=r"pytest-arena needs (one|a URL of one)"):
        read_url(text)


def test_what_a_url_leaves_open_the_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with psql."""
    for name, text in {"HOST": "db", "PORT": "7", "USER": "u", "PASSWORD": "p"}.items():
        monkeypatch.setenv(f"PG{name}", text)
    assert read_url("postgresql:///shop") == Address("postgresql", "db", 7, "u", "shop", "p")
    assert read_url("postgresql://other") == Address("postgresql", "other", 7, "u", "", "p")


def test_a_server_is_used_by_its_url(config: Config, crowded: Crowded) -> None:
    """It is named for the summary, without the password, and is not arena's."""
    found = find_server(replace(config, database=crowded.url(f"maker:{PASSWORD}")))
    assert found.address == crowded.address
    assert not found.is_private
    assert found.shown.startswith("PostgreSQL ")
    assert found.shown.endswith(f" on 127.0.0.1:{crowded.port}, from arena_database")
    assert PASSWORD not in found.shown + repr(found.address)
    found.close()
    found.close()


@pytest.mark.parametrize("login", ["boss", f"maker:{PASSWORD}"], ids=["open", "password"])
def test_a_database_that_is_missing_is_no_hindrance(
    config: Config, crowded: Crowded, login: str
) -> None:
    """It would only have been the entrance. Whether a password is asked first or not."""
    found = find_server(replace(config, database=crowded.url(login, "not_made_yet")))
    assert found.address.database == "postgres"


def test_a_database_that_is_there_is_the_entrance(config: Config, crowded: Crowded) -> None:
    """A role may be let into this one alone."""
    with closing(open_control(crowded.by_socket)) as control:
        control.run("CREATE DATABASE shop")
        try:
            found = find_server(replace(config, database=crowded.url("boss", "shop")))
        finally:
            control.run("DROP DATABASE shop WITH (FORCE)")
    assert found.address.database == "shop"


def test_a_socket_is_used_by_its_folder(config: Config, crowded: Crowded) -> None:
    """The form of SQLAlchemy."""
    host, port = crowded.by_socket.host, crowded.port
    url = f"postgresql+psycopg://postgres@/postgres?host={host}&port={port}"
    assert find_server(replace(config, database=url)).address == crowded.by_socket


@pytest.mark.parametrize(
    "reasons, asked, told",
    [
        ([Elsewhere("dead"), Unavailable("b"), Unavailable("c")], 1, "dead"),
        ([Unavailable("a"), Unavailable("b"), Unavailable("c")], 3, "c"),
        ([Unavailable("a"), Elsewhere("full"), Unavailable("c")], 2, "full"),
    ],
)
def test_a_server_that_cannot_be_used_is_asked_once(
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    reasons: list[Unavailable],
    asked: int,
    told: str,
) -> None:
    """Another database is tried only if this one may be the reason; the last reason is told."""
    tried: list[str] = []

    def enter(address: Address, _where: str) -> Server:
        tried.append(address.database)
        raise reasons[len(tried) - 1]

    monkeypatch.setattr(_find, "enter", enter)
    with pytest.raises(ServerError, match=rf"cannot be used: {told}\n"):
        find_server(replace(config, database="postgresql://me@db/shop"))
    assert tried == ["shop", "postgres", "template1"][:asked]
