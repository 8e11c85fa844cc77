"""Whatever three connections do in up to four levels, each leave gives back its enter."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_arena._sqlite import Copy
from tests.isolation.conformance import new_world
from tests.isolation.random_work import LAYOUTS, LEVELS, WORK, RandomWork, Step
from tests.isolation.test_copy import MODES, ByBackup

STEPS = st.lists(
    st.one_of(st.sampled_from(LEVELS), st.tuples(st.integers(0, 2), st.sampled_from(WORK))),
    max_size=40,
)


@pytest.fixture(
    scope="module", params=[(mode, make) for mode in MODES for make in (Copy, ByBackup)]
)
def kind(request: pytest.FixtureRequest) -> tuple[str, type[Copy]]:
    """Journal mode and isolation; a fixture: Hypothesis does not mix with parametrize here."""
    found: tuple[str, type[Copy]] = request.param
    return found


def work(kind: tuple[str, type[Copy]], layout: str, steps: list[Step]) -> None:
    """Take all steps in a world of its own."""
    mode, make = kind
    with TemporaryDirectory() as folder:
        world = new_world(make, Path(folder), mode, layout=layout)
        try:
            random_work = RandomWork(world)
            for step in ["enter", *steps, "leave"]:
                random_work.do(step)
        finally:
            world.close()


@given(layout=st.sampled_from(LAYOUTS), steps=STEPS)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_work_is_undone(
    kind: tuple[str, type[Copy]], layout: str, steps: list[Step]
) -> None:
    """A little of it each time."""
    work(kind, layout, steps)


@pytest.mark.slow
@given(layout=st.sampled_from(LAYOUTS), steps=STEPS)
@settings(
    max_examples=max(500, settings().max_examples),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_much_random_work_is_undone(
    kind: tuple[str, type[Copy]], layout: str, steps: list[Step]
) -> None:
    """More of it, or as much as ``--hypothesis-profile`` says."""
    work(kind, layout, steps)
