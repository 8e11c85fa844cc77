"""BR-TEST-002: each scenario of the specification has a test that proves it."""

import re
from pathlib import Path

import pytest

from app.models import Battle, Phase, Tournament
from pytest_arena import ClientAs

TESTS = Path(__file__).parent
SPEC = TESTS.parent / "specs" / "FEATURE_SPEC_E2E.md"


@pytest.mark.scenario("Feature spec scenarios map to tests")
async def test_each_scenario_has_a_test(
    client_as: ClientAs, summer_battle: Tournament, queue: list[Battle]
) -> None:
    """A marker names each scenario, and the app has the pages that the scenarios read.

    The option arena_scenarios = strict lets the run fail if a marked test proves nothing.
    """
    spec = SPEC.read_text(encoding="utf-8")
    names = re.findall(r"^Scenario: (.+)$", spec, re.MULTILINE)
    assert len(names) == 5
    code = "".join(file.read_text(encoding="utf-8") for file in TESTS.glob("test_*.py"))
    assert [name for name in names if f'scenario("{name}")' not in code] == []

    addresses = re.findall(r"(?:GET request to|navigate to) (\S+)", spec)
    mc = client_as("mc")
    for address in addresses:
        response = await mc.get(address.format(tournament_id=summer_battle.id))
        assert response.status_code == 200
        assert queue[0].first.blaze in response.text


@pytest.mark.scenario("Tests prove scenarios pass")
async def test_the_mc_views_the_command_center(
    client_as: ClientAs, summer_battle: Tournament
) -> None:
    """The test of the scenario that the first step quotes. Each Then has an assertion."""
    response = await client_as("mc").get(f"/event/{summer_battle.id}")

    assert summer_battle.phase is Phase.PRESELECTION
    assert "PRESELECTION, for the mc" in response.text
    assert response.url.path == f"/event/{summer_battle.id}"
    assert response.status_code == 200
