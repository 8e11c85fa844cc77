"""Is a server of this machine found, and is none asked that may be somebody's?"""

from __future__ import annotations

import getpass
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql.servers import _find
from pytest_arena._postgresql.servers._find import local_service
from pytest_arena._product.servers import Unavailable
from tests.servers.crowded import PASSWORD, free_port
from tests.servers.stand_ins import StandIn, greets

if TYPE_CHECKING:
    from pytest_arena._config._read import Config
    from tests.servers.crowded import Crowded


@pytest.fixture(autouse=True)
def sockets(no_libpq_variables: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own servers are left alone."""
    monkeypatch.setattr(_find, "_SOCKETS", ())
    monkeypatch.setenv("PGPORT", str(free_port()))


def reason(config: Config) -> str:
    """Why there is none."""
    with pytest.raises(Unavailable) as error:
        local_service(config)
    return str(error.value)


def test_it_is_found_by_its_port(
    config: Config, crowded: Crowded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the first of the users that may create databases."""
    monkeypatch.setenv("PGPORT", str(crowded.port))
    monkeypatch.setenv("PGUSER", "boss")
    found = local_service(config)
    assert (found.address.user, found.is_private) == ("boss", False)
    assert found.shown.endswith(f", a local service on 127.0.0.1:{crowded.port}")


def test_it_is_found_by_its_socket(
    config: Config, crowded: Crowded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sockets come first."""
    monkeypatch.setattr(_find, "_SOCKETS", (crowded.by_socket.host,))
    monkeypatch.setenv("PGPORT", str(crowded.port))
    assert local_service(config).address == crowded.by_socket


def test_the_next_user_is_tried(
    config: Config, crowded: Crowded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PGUSER may not create databases, the user of the system has no role, ``postgres`` may."""
    monkeypatch.setattr(getpass, "getuser", lambda: "nobody_here")
    monkeypatch.setenv("PGPORT", str(crowded.port))
    monkeypatch.setenv("PGUSER", "humble")
    assert local_service(config).address.user == "postgres"


def test_the_variables_password_is_used(
    config: Config, crowded: Crowded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the address, for the connections of the app."""
    monkeypatch.setenv("PGPORT", str(crowded.port))
    monkeypatch.setenv("PGUSER", "maker")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.setenv("PGHOST", "127.0.0.1")
    assert local_service(config).address == crowded.address


def test_each_user_that_failed_is_named_with_the_reason(
    config: Config, crowded: Crowded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line."""
    monkeypatch.setenv("PGPORT", str(crowded.port))
    monkeypatch.setenv("PGUSER", "humble")
    monkeypatch.setattr(getpass, "getuser", lambda: "stranger")
    monkeypatch.setattr(_find, "_USUAL_USER", "humble")
    told = reason(config)
    assert "role humble on 127.0.0.1:" in told
    assert "refuses role stranger" in told


def test_a_server_on_another_machine_is_not_asked(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PGHOST may lead to production: it counts only where it leads here."""
    monkeypatch.setenv("PGHOST", "db.example.org")
    told = reason(config)
    assert "PGHOST=db.example.org is another machine" in told
    assert "nothing answers on 127.0.0.1" in told


def test_none_is_asked_where_a_private_one_is_wanted(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even knocked at."""
    monkeypatch.setattr(_find, "_local_places", None)
    assert "private" in reason(replace(config, database="own"))


def test_what_is_something_else_is_said(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The port may be anybody's."""
    with StandIn(greets(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as other:
        monkeypatch.setenv("PGPORT", str(other.port))
        assert "is not PostgreSQL" in reason(config)


def test_a_user_without_a_name_is_no_hindrance(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers run as numbers."""

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 1000")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert "nothing answers" in reason(config)
