"""A server that the URL names and that cannot be used."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.engine import make_url

from pytest_arena._mysql._control import MySQLFailure, open_control
from tests.mysql.shop import shop_on

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_arena._values import Address
    from tests.conformance.story_mysql_server import StoryMySQLServer


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


def test_a_refused_statement_has_the_servers_number(address: Address) -> None:
    """And the connection stays usable."""
    with closing(open_control(address)) as control:
        with pytest.raises(MySQLFailure) as raised:
            control.run("SELECT * FROM nowhere.t")
        assert raised.value.number in {1049, 1142}
        assert control.rows("SELECT 1") == [(1,)]
