"""Which database do connect arguments mean, and what is left of them when they are led elsewhere?

What libpq itself makes of the same arguments is the measure.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import psycopg2  # noqa: F401 - an app imports its driver
import pytest
from psycopg.conninfo import make_conninfo
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import create_async_engine

from pytest_arena._postgresql._arguments import is_redirected, redirect, target
from pytest_arena._values import Address
from tests.servers.postgresql import address

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_arena._product._server_connections import ServerTarget

ADDRESS = replace(address(), password="")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # no ~/.pgpass, no ~/.pg_service.conf


ENVIRONMENTS: dict[str, dict[str, str]] = {
    "nothing": {},
    "place": {"PGHOST": "127.0.0.9", "PGPORT": "9999", "PGDATABASE": "of_env", "PGUSER": "env"},
}

Call = tuple[tuple[Any, ...], dict[str, Any]]

OF_LIBPQ: list[Call] = [
    ((), {}),
    ((), {"host": "127.0.0.1", "dbname": "shop"}),
    ((), {"host": "/var/run/postgresql", "dbname": "shop", "port": None}),
    ((), {"host": "shop.example", "hostaddr": "127.0.0.5", "dbname": "shop"}),
    ((), {"dbname": "", "user": "me", "host": "127.0.0.1"}),
    (("host=127.0.0.1 port=6543 dbname='sh op' user=me password=pw",), {}),
    (("postgresql://me:pw@127.0.0.1:6543/shop",), {}),
    (("postgresql://%2Fvar%2Frun%2Fpostgresql/shop",), {}),
    (("postgresql://[::1]:6543/shop",), {}),
    (("dbname=shop host=127.0.0.1",), {"host": "127.0.0.2", "dbname": "other"}),
]


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_libpq_means_the_same(
    environment: str, driver: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each form of its arguments, in each environment, as libpq begins to connect by them."""
    _enter(ENVIRONMENTS[environment], monkeypatch, tmp_path)
    compared = 0
    for args, kwargs in OF_LIBPQ:
        connecting = psycopg.pq.PGconn.connect_start(make_conninfo(*args, **kwargs).encode())
        try:
            if not connecting.db or b"could not match" in connecting.error_message:
                continue  # libpq refuses it, and opens nothing
            host = connecting.hostaddr or connecting.host
            expected = (host.decode(), connecting.port.decode() or "5432", connecting.db.decode())
        except AssertionError:  # an old psycopg, of an attempt that has failed already
            continue
        finally:
            connecting.finish()
        found = target(driver, list(args), dict(kwargs))
        assert (*_current_host(found, expected), found.database) == expected, (args, kwargs)
        compared += 1
    assert compared > len(OF_LIBPQ) // 3


def _current_host(found: ServerTarget, expected: tuple[str, str, str]) -> tuple[str, str]:
    """Return the host to which libpq connects, for one without a name a folder."""
    host, _, port = found.server.rpartition(":")
    if host == "localhost" and expected[0].startswith("/"):
        host = expected[0]
    return host, port


def _enter(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_several_hosts_are_all_named() -> None:
    """Each has to be allowed, not the first alone; and no name has a password."""
    url = "postgresql://me:secret@a:1,b:2/shop"
    for driver in ("psycopg", "psycopg2"):
        assert target(driver, [url], {}).name == "postgresql://a,b:1,2/shop"
    with pytest.raises(ValueError, match="b:2"):
        target("asyncpg", [url], {})
    assert target("asyncpg", ["postgresql://a/shop?host=b"], {}).server == "a:5432"


# What would keep a connection from the arena's server, if it were read.
HOSTILE = {
    "PGHOST": "db.invalid",
    "PGHOSTADDR": "192.0.2.1",
    "PGPORT": "1",
    "PGDATABASE": "no_such_database",
    "PGUSER": "nobody",
    "PGOPTIONS": "-c no.such=1 -c search_path=of_the_environment -c statement_timeout=999",
    "PGSSLMODE": "verify-full",
    "PGTARGETSESSIONATTRS": "standby",
    "PGPASSFILE": "no_such_file",
}

SHOWN = text(
    "SELECT current_database() || ' ' || current_user || ' ' || current_setting('search_path')"
    " || ' ' || current_setting('statement_timeout') || ' ' || current_setting('application_name')"
)
KEPT = f"{ADDRESS.database} {ADDRESS.user} app 4321ms mine"
OF_A_SESSION = {"search_path": "app", "statement_timeout": "4321"}

# The attacks of tests/plugin have the other arguments that lead elsewhere.
OF_LIBPQ_ELSEWHERE = {
    "hostaddr": "192.0.2.1",
    "channel_binding": "require",
    "target_session_attrs": "standby",
    "options": "-csearch_path=app -cstatement_timeout=4321",
    "application_name": "mine",
}
OF_ASYNCPG_ELSEWHERE = {
    "dsn": "postgresql://c/x?application_name=mine&search_path=b&ssl=x&target_session_attrs=x",
    "server_settings": OF_A_SESSION,
    "target_session_attrs": "standby",
    "passfile": "no_such_file",
}


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A developer's shell whose every variable would redirect elsewhere."""
    _enter(HOSTILE, monkeypatch, tmp_path)


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_led_by_libpq(driver: str) -> None:
    """It lands at the address; the session's own settings stay, the environment's do not."""
    url = f"postgresql+{driver}://db.invalid/shop"
    engine = create_engine(url, connect_args=OF_LIBPQ_ELSEWHERE)
    _lead(engine, driver)
    with engine.connect() as connection:
        assert connection.scalar(SHOWN) == KEPT
    engine.dispose()


@pytest.mark.usefixtures("hostile")
def test_led_by_asyncpg() -> None:
    async def show() -> None:
        url = "postgresql+asyncpg://db.invalid/shop"
        engine = create_async_engine(url, connect_args=OF_ASYNCPG_ELSEWHERE)
        _lead(engine.sync_engine, "asyncpg")
        async with engine.connect() as connection:
            assert await connection.scalar(SHOWN) == KEPT
        await engine.dispose()

    asyncio.run(show())


def _lead(engine: Any, driver: str) -> None:
    @event.listens_for(engine, "do_connect")
    def connecting(_dialect: Any, _entry: Any, cargs: Any, cparams: Any) -> None:
        redirect(driver, ADDRESS, cargs, cparams)
        redirect(driver, ADDRESS, cargs, cparams)  # a second time changes nothing
        assert is_redirected(driver, cargs, cparams)


def test_arguments_that_were_changed_afterwards_are_not_led() -> None:
    """By a listener of the app's, which runs after ours."""
    changes: dict[str, list[dict[str, Any]]] = {
        "asyncpg": [{"host": "b"}, {"port": 1}, {"database": "b"}, {"host": ["a", "b"]}],
        "psycopg": [{"host": "b"}, {"port": 1}, {"dbname": "b"}, {"hostaddr": "127.0.0.2"}],
        "psycopg2": [{"host": "b"}, {"port": 1}, {"database": "b"}, {"hostaddr": "127.0.0.2"}],
    }
    for driver, later in changes.items():
        for change in later:
            kwargs: dict[str, Any] = {"host": "a"}
            redirect(driver, ADDRESS, [], kwargs)
            assert is_redirected(driver, [], kwargs)
            assert not is_redirected(driver, [], kwargs | change), (driver, change)


def test_only_a_server_elsewhere_may_ask_for_encryption() -> None:
    """And for a password, which is the address's own. On this machine it would take time."""
    off = {"asyncpg": ("ssl", False), "psycopg": ("sslmode", "disable")}
    for driver, (name, value) in (off | {"psycopg2": off["psycopg"]}).items():
        kwargs: dict[str, Any] = {"password": "mines", "sslrootcert": "apps.crt"}
        redirect(driver, Address("ci.example", 5432, "ci", "d", "of_ci"), [], kwargs)
        assert (kwargs[name], kwargs["password"]) == ("prefer", "of_ci")
        redirect(driver, ADDRESS, [], kwargs)
        assert kwargs[name] == value


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_service_file_is_not_read(driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`arena_allow` can name no such server."""
    found = target(driver, ["service=shop"], {})
    assert found.server == "service=shop"
    monkeypatch.setenv("PGSERVICE", "shop")
    assert target(driver, ["dbname=x"], {}) == replace(found, database="x")
    assert target(driver, ["dbname=x host=a"], {}).server == "a:5432"
    arguments: list[object] = ["service=shop"]
    redirect(driver, ADDRESS, arguments, {})
    assert arguments == [""]
