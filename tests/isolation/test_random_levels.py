"""Random work in levels, with each isolation. Each leave restores the content of its enter.

``TESTS_SEEDS=100`` plays so many histories of each kind.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from tests.isolation.makers import KINDS
from tests.isolation.random_levels import RandomLevels

if TYPE_CHECKING:
    from tests.isolation.makers import Makers

SEEDS = range(int(os.environ.get("TESTS_SEEDS", "1")))
# The histories that find the faults of ``tests/mutants.toml``.
FINDING = {
    "copy on sqlite in wal": {8},
    "undo on postgresql": {1, 2, 5, 7, 8, 10},
    "undo on mysql": {1, 2},
}
HISTORIES = [(kind, seed) for kind in KINDS for seed in sorted({*SEEDS} | FINDING.get(kind, set()))]
STEPS = 100


@pytest.mark.parametrize("kind, seed", HISTORIES)
def test_each_leave_restores_the_content_of_its_enter(makers: Makers, kind: str, seed: int) -> None:
    """Rows, sequences and the schema. The reported changes are the difference."""
    chance = random.Random(seed)  # noqa: S311 - it must be repeatable
    with makers.world(kind, chance) as world:
        RandomLevels(world, chance).play(STEPS)
