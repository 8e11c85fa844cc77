"""A private server of pytest-arena, which this version does not start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._product.servers import Unavailable

if TYPE_CHECKING:
    from pytest_arena._config._read import Config
    from pytest_arena._product.servers import Server


def private_server(config: Config) -> Server:
    """Return a private server.

    Raises:
        Unavailable: always.
    """
    del config
    raise Unavailable("this version starts no private MySQL or MariaDB")
