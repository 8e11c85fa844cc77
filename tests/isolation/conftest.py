"""A run's registry and a template on a server. More random work: ``--hypothesis-profile=long``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._postgresql.registry import ServerRegistry

settings.register_profile("long", max_examples=10_000)
# Which server it is, is not known before the suite has been configured.


@pytest.fixture(name="own", scope="module")
def _own() -> Iterator[ServerRegistry]:
    """One run for all tests of a module."""
    from tests.servers.postgresql import own_databases, own_registry  # noqa: PLC0415 - as said

    with own_registry() as registry, own_databases(registry) as own:
        yield own


@pytest.fixture(name="template", scope="module")
def _template(own: ServerRegistry) -> str:
    """A database with something of everything."""
    from tests.isolation.server_world import made_template  # noqa: PLC0415 - as said

    return made_template(own)
