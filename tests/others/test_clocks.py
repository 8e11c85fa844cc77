"""freezegun and time-machine: a test's own time is nobody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

TESTS = """
import datetime
import pytest
from app import Dancer
{library}

@pytest.fixture(scope="session", autouse=True)
def frozen():
    with {freeze}:
        yield

async def test_async(client, db_session):
    assert datetime.date.today().year == {year}
    assert (await client.get("/dancers")).json() == ["Sand"]
    db_session.add(Dancer(name="Grain"))
    assert (await client.post("/dancers/Dune")).status_code == 201
"""

FREEZE = {
    "freezegun": ("import freezegun", 'freezegun.freeze_time("{}-01-14")'),
    "time-machine": ("import time_machine", 'time_machine.travel("{}-01-14T00:00Z", tick=False)'),
}


@pytest.mark.parametrize("library, year", [("freezegun", "2061"), ("time-machine", "2001")])
def test_a_frozen_clock_is_the_tests_alone(example: Example, library: str, year: str) -> None:
    """Templates are built, found again and kept for as long as they would be; costs are real."""
    head, freeze = FREEZE[library]
    tests = TESTS.format(library=head, freeze=freeze.format(year), year=year)
    project = example.with_files(test_it=tests)
    project.run().expect(passed=1).says("template built in").never_says(" 0.00 ms")
    project.run().expect(passed=1).says("template built in").never_says("kept for")
