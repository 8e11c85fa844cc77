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
from pytest_arena._values import Address
from pytest_arena.errors import IsolationError
from tests.mysql.shop import shop, shop_on

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conformance.story_mysql_server import StoryMySQLServer


def databases(address: Address) -> set[str]:
    """Return the names of all databases that the login sees."""
    with closing(open_control(address)) as control:
        return {name for (name,) in control.rows("SHOW DATABASES")}


def test_a_database_of_another_name_is_left(address: Address) -> None:
    """A beginning like ours is not enough."""
    foreign = f"arena_live_{secrets.token_hex(4)}"
    with closing(open_control(address)) as control:
        control.run(f"CREATE DATABASE {foreign}")
        with closing(MySQLRegistry(address)) as own:
            own.drop(foreign)
            own.sweep()
        assert foreign in databases(address)
        control.run(f"DROP DATABASE {foreign}")


def test_a_run_drops_its_databases(address: Address) -> None:
    """Its templates stay. A copy of a template has no label."""
    fingerprint = secrets.token_hex(8)
    own = MySQLRegistry(address)
    live = own.create("live")
    built = own.create("building")
    with closing(open_control(replace(address, database=built))) as control:
        control.run("CREATE TABLE t (a INT); INSERT INTO t VALUES (1)")
    template = own.finish_template(built, fingerprint=fingerprint, manifest="{}", title="t")
    copy = own.create("live", template=template)
    with closing(open_control(replace(address, database=copy))) as control:
        assert control.rows("SELECT a FROM t") == [(1,)]
        assert control.rows("SHOW TABLES") == [("t",)]
    assert own.close() == 0
    assert databases(address) & {live, built, copy, template} == {template}
    with closing(MySQLRegistry(address)) as later:
        assert later.templates(fingerprint) == [(template, "{}")]
        later.sweep()
        assert later.templates(fingerprint) == [(template, "{}")]
        later.drop(template)
        assert later.templates(fingerprint) == []


def test_a_template_in_use_is_not_swept(address: Address) -> None:
    """A process that uses it lives."""

    def is_in_use(registry: MySQLRegistry) -> bool:
        [use] = [row.is_in_use for row in registry.listed() if row.name == template]
        return use

    with closing(MySQLRegistry(address)) as other:
        with closing(MySQLRegistry(address)) as own:
            built = own.create("building")
            fingerprint = secrets.token_hex(8)
            template = own.finish_template(built, fingerprint=fingerprint, manifest="", title="")
            own.create("live", template=template)
            assert is_in_use(other)
        assert not is_in_use(other)
        other.drop(template)


def test_databases_of_a_killed_run(address: Address) -> None:
    """The next run drops them, and not those of a living run."""
    with closing(MySQLRegistry(address)) as living:
        kept = living.create("live")
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.write(writer, MySQLRegistry(address).create("live").encode())
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        dead = os.read(reader, 100).decode()
        assert dead.startswith("arena_live_")
        with closing(MySQLRegistry(address)) as later:
            later.rest()
            names = {database.name for database in look(address)}
            assert kept in names
            assert dead not in names


def test_a_template_that_is_gone(address: Address) -> None:
    """The error says so."""
    with closing(MySQLRegistry(address)) as own:
        with pytest.raises(IsolationError) as raised:
            own.create("live", template="arena_template_0000000000000000")
        assert "is gone" in str(raised.value)


def test_a_lost_connection(address: Address) -> None:
    """The run connects again, and takes its lock again."""
    with closing(MySQLRegistry(address)) as own:
        name = own.create("live")
        with closing(open_control(address)) as control:
            control.run(f"KILL {own.control.opened().pid}")
        assert [row.is_in_use for row in own.listed() if row.name == name] == [True]


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
