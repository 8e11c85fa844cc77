"""Random work in levels, with each isolation. Each leave restores the content of its enter.

``TESTS_SEEDS=100`` plays so many histories of each kind.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena.errors import ArenaError
from tests.isolation.defects import DEFECTS
from tests.isolation.makers import KINDS
from tests.isolation.random_levels import RandomLevels

if TYPE_CHECKING:
    from tests.isolation.defects import Defect
    from tests.isolation.makers import Makers

SEEDS = range(int(os.environ.get("TESTS_SEEDS", "1")))
STEPS = 100


def play(makers: Makers, kind: str, seed: int, **options: Any) -> None:
    """Play one history."""
    chance = random.Random(seed)  # noqa: S311 - it must be repeatable
    with makers.world(kind, chance, **options) as world:
        RandomLevels(world, chance).play(STEPS)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_leave_restores_the_content_of_its_enter(makers: Makers, kind: str, seed: int) -> None:
    """Rows, sequences and the schema. The reported changes are the difference."""
    play(makers, kind, seed)


@pytest.mark.parametrize("kind, seed", sorted({(defect.kind, defect.seed) for defect in DEFECTS}))
def test_the_history_that_finds_a_defect_is_restored(makers: Makers, kind: str, seed: int) -> None:
    """Without the defect. So it fails if a maintainer makes exactly this mistake."""
    play(makers, kind, seed)


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_planted_defect_is_found(
    makers: Makers, monkeypatch: pytest.MonkeyPatch, defect: Defect
) -> None:
    """One of some histories fails."""
    options = defect.plant(monkeypatch)
    with pytest.raises((AssertionError, ArenaError)):  # noqa: PT012 - one of the seeds fails
        for seed in range(defect.seed, defect.seed + 3):
            play(makers, defect.kind, seed, **options)
