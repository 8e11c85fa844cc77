"""Worlds for the tests of this folder."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.isolation.makers import Makers


@pytest.fixture(scope="session")
def makers() -> Iterator[Makers]:
    """One login of each server for all tests."""
    from tests.isolation.makers import Makers  # noqa: PLC0415 - after the suite is configured

    with closing(Makers()) as makers:
        yield makers
