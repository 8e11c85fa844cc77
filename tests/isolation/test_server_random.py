"""Whatever two connections do in up to three levels, each leave gives back its enter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.isolation.random_server_work import work
from tests.isolation.server_world import made_template
from tests.servers.postgresql import own_databases, own_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._postgresql.registry import ServerRegistry

KINDS = pytest.mark.parametrize("kind", ["clone", "undo"])


@pytest.fixture(scope="module")
def own() -> Iterator[ServerRegistry]:
    """One run for all."""
    with own_registry() as registry, own_databases(registry) as own:
        yield own


@pytest.fixture(scope="module")
def template(own: ServerRegistry) -> str:
    """A database with something of everything."""
    return made_template(own)


@KINDS
def test_random_work_is_undone_pitfall_087(own: ServerRegistry, template: str, kind: Any) -> None:
    """A little of it each time."""
    work(own, template, kind, seed=3, steps=100)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 14))
@KINDS
def test_much_random_work_is_undone(
    own: ServerRegistry, template: str, kind: Any, seed: int
) -> None:
    """More of it."""
    work(own, template, kind, seed=seed, steps=300)
