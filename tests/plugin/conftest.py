"""What several files of this folder share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.private_server import private_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.plugin.private_server import PrivateServer


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    """One for the tests of a file that do it no harm."""
    with private_server() as found:
        yield found
