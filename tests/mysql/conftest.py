"""A server, and a login of each test process, which owns what its runs make."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest

from tests.conformance.story_mysql_server import StoryMySQLServer, server_arguments

if TYPE_CHECKING:
    from collections.abc import Iterator


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
