"""A server, and a login of each test process, which owns what its runs make."""

from __future__ import annotations

from contextlib import closing
from functools import cache
from typing import TYPE_CHECKING

import pytest

from pytest_arena._mysql._server_registry import MySQLRegistry
from tests.conformance.story_mysql_server import StoryMySQLServer, server_arguments
from tests.mysql.server import address_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._values import Address


@cache
def _server() -> StoryMySQLServer:
    return StoryMySQLServer()


@pytest.fixture
def server() -> Iterator[StoryMySQLServer]:
    """The developer's database, as it was at first. It has not changed after the test."""
    server_arguments()
    made = _server()
    made.fill_developers()
    before = made.developers()
    yield made
    assert made.developers() == before


@pytest.fixture
def address(server: StoryMySQLServer) -> Address:
    return address_of(server.entrance)


@pytest.fixture(scope="module")
def own() -> Iterator[MySQLRegistry]:
    server_arguments()
    with closing(MySQLRegistry(address_of(_server().entrance))) as own:
        yield own
