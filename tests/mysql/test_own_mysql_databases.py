"""Which databases are pytest-arena's own, and who may drop them."""

from __future__ import annotations

import os
import secrets
import signal
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.engine import make_url

from pytest_arena._mysql._control import MySQLFailure, open_control
from pytest_arena._mysql._server_registry import MySQLRegistry, look
from pytest_arena._mysql.servers._search import read_url
from pytest_arena._product.servers import Unavailable
from pytest_arena._values import Address
from pytest_arena.errors import IsolationError, ServerError
from tests.mysql.shop import shop, shop_on

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conformance.story_mysql_server import StoryMySQLServer


@pytest.fixture
def address(server: StoryMySQLServer) -> Address:
    """The server, with the login of the runs."""
    login = server.entrance
    return Address("mysql", login["host"], login["port"], login["user"], "", login["password"])


@pytest.fixture
def registry(address: Address) -> Iterator[str]:
    """A registry for one test."""
    name = f"arena_registry_{secrets.token_hex(4)}"
    yield name
    with closing(open_control(address)) as control:
        control.run(f"DROP DATABASE IF EXISTS {name}")


def databases(address: Address) -> set[str]:
    """Return the names of all databases that the login sees."""
    with closing(open_control(address)) as control:
        return {name for (name,) in control.rows("SHOW DATABASES")}


def test_a_database_without_a_row_is_left(address: Address, registry: str) -> None:
    """A name like ours is not enough."""
    foreign = f"arena_live_{secrets.token_hex(8)}"
    with closing(open_control(address)) as control:
        control.run(f"CREATE DATABASE {foreign}")
        with closing(MySQLRegistry(address, registry=registry)) as own:
            own.drop(foreign)
            own.sweep(everything=True)
        assert foreign in databases(address)
        control.run(f"DROP DATABASE {foreign}")


def test_a_foreign_database_of_the_registrys_name(address: Address, registry: str) -> None:
    """It is refused, and not touched."""
    with closing(open_control(address)) as control:
        control.run(f"CREATE DATABASE {registry}; CREATE TABLE {registry}.mine (a INT)")
        with pytest.raises(ServerError, match="is not pytest-arena's"):
            MySQLRegistry(address, registry=registry)
        assert control.rows(f"SELECT COUNT(*) FROM {registry}.mine") == [(0,)]


def test_a_run_drops_its_databases(address: Address, registry: str) -> None:
    """Templates stay, until a sweep of everything, which leaves no registry either."""
    own = MySQLRegistry(address, registry=registry)
    live = own.create("live")
    built = own.create("building")
    with closing(open_control(replace(address, database=built))) as control:
        control.run("CREATE TABLE t (a INT); INSERT INTO t VALUES (1)")
    own.finish_template(built, fingerprint="f", manifest="{}", title="t")
    copy = own.create("live", template=built)
    with closing(open_control(replace(address, database=copy))) as control:
        assert control.rows("SELECT a FROM t") == [(1,)]
    assert own.close() == 0
    assert databases(address) & {live, built, copy} == {built}
    assert built.startswith("arena_template_")  # `arena databases list` shows this name
    with closing(MySQLRegistry(address, registry=registry)) as later:
        assert later.templates("f") == [(built, "{}")]
        assert later.sweep() == []
        assert later.sweep(everything=True) == [built]
    assert registry not in databases(address)


def test_a_template_in_use_is_not_swept(address: Address, registry: str) -> None:
    """A run that uses it lives."""
    with closing(MySQLRegistry(address, registry=registry)) as own:
        built = own.create("building")
        own.finish_template(built, fingerprint="f", manifest="{}", title="t")
        with closing(MySQLRegistry(address, registry=registry)) as other:
            assert other.sweep(everything=True) == []
    with closing(MySQLRegistry(address, registry=registry)) as later:
        assert later.sweep(everything=True) == [built]


def test_a_template_of_a_run_ends_with_its_last_process(address: Address, registry: str) -> None:
    """Or with the next run, if the process was killed."""

    def build(own: MySQLRegistry) -> str:
        built = own.create("building")
        own.finish_template(built, fingerprint="of-run-f", manifest="{}", title="t")
        return built

    first = MySQLRegistry(address, registry=registry)
    with closing(MySQLRegistry(address, registry=registry)) as second:
        built = build(first)
        second.used(built)
        first.close()
        assert second.templates("of-run-f") == [(built, "{}")]
    assert built not in databases(address)
    child = os.fork()
    if not child:
        build(MySQLRegistry(address, registry=registry))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with closing(MySQLRegistry(address, registry=registry)):
        assert look(address, registry=registry).databases == ()


def test_databases_of_a_killed_run(address: Address, registry: str) -> None:
    """The next run drops them, and not those of a living run."""
    with closing(MySQLRegistry(address, registry=registry)) as living:
        kept = living.create("live")
        child = os.fork()
        if not child:
            MySQLRegistry(address, registry=registry).create("live")
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        with closing(MySQLRegistry(address, registry=registry)):
            rows = look(address, registry=registry).databases
            assert [row.name for row in rows] == [kept]
            assert rows[0].alive


def test_a_template_that_is_gone(address: Address, registry: str) -> None:
    """The error says so."""
    with closing(MySQLRegistry(address, registry=registry)) as own:
        with pytest.raises(IsolationError) as raised:
            own.create("live", template="arena_building_0000000000000000")
        assert "is gone" in str(raised.value)


def test_a_lost_connection(address: Address, registry: str) -> None:
    """The run connects again, and takes its lock again."""
    with closing(MySQLRegistry(address, registry=registry)) as own:
        name = own.create("live")
        with closing(open_control(address)) as control:
            control.run(f"KILL {own.control.opened().pid}")
        assert [row.name for row in own.listed()] == [name]
        assert own.listed()[0].alive


def test_urls() -> None:
    """A socket, a password, and a URL of another product."""
    assert read_url("mysql://me:secret@db:3307/shop") == Address(
        "mysql", "db", 3307, "me", "", "secret"
    )
    socket = read_url("mariadb+pymysql://me@/shop?unix_socket=/run/x.sock")
    assert (socket.host, socket.is_socket) == ("/run/x.sock", True)
    with pytest.raises(Unavailable, match="is not MySQL's"):
        read_url("postgresql://me@db/shop")


def test_nothing_answers(server: StoryMySQLServer, tmp_path: Path) -> None:
    """The error names the server and the option."""
    example = shop(server, tmp_path).with_files(
        test_it="async def test_it(client):\n    await client.get('/items')\n"
    )
    run = example.run("-q", "--arena-database=mysql://me@127.0.0.1:9/")
    run.expect(1, failed=1).says(
        "the server for the tests cannot be used: nothing answers on 127.0.0.1:9", "[A301]"
    )


@pytest.mark.slow
def test_the_apps_database_is_refused_before_its_server(
    server: StoryMySQLServer, tmp_path: Path
) -> None:
    """pytest-arena does not try to connect. The port has no server."""
    apps = make_url("mysql+asyncmy://shop@127.0.0.1:9/shop")
    example = shop_on(apps, server.url("mysql"), tmp_path).with_files(
        test_it="async def test_it(client):\n    await client.get('/items')\n"
    )
    run = example.run("-q", "--arena-database=mysql://me@127.0.0.1:9/shop")
    run.expect(1, failed=1).says(
        "arena_database names a database that the tests use: mysql://127.0.0.1:9/shop",
        "ARENA_DATABASE=mysql://me@127.0.0.1:9/ pytest",
    )


def test_a_login_without_rights(server: StoryMySQLServer, tmp_path: Path) -> None:
    """The error has the GRANT to paste."""
    name = f"poor_{secrets.token_hex(4)}"
    with closing(open_control(_root(server))) as control:
        control.run(f"CREATE USER '{name}'@'%' IDENTIFIED BY 'pw'")
        try:
            example = shop(server, tmp_path).with_files(
                test_it="async def test_it(client):\n    await client.get('/items')\n"
            )
            url = server.url("mysql").set(username=name, password="pw")  # noqa: S106 - of a test
            shown = url.render_as_string(hide_password=False)
            run = example.run("-q", f"--arena-database={shown}")
            run.expect(1, failed=1).says("may not create databases", "GRANT ALL ON `arena")
            run.never_says("pw@")
        finally:
            control.run(f"DROP USER '{name}'@'%'")


def _root(server: StoryMySQLServer) -> Address:
    login = server.developers_arguments
    return Address("mysql", login["host"], login["port"], login["user"], "", login["password"])


def test_a_refused_statement_has_the_servers_number(address: Address) -> None:
    """And the connection stays usable."""
    with closing(open_control(address)) as control:
        with pytest.raises(MySQLFailure) as raised:
            control.run("SELECT * FROM nowhere.t")
        assert raised.value.number in {1049, 1142}
        assert control.rows("SELECT 1") == [(1,)]
