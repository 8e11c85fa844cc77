"""BR-TEST-002: every scenario of the specification has a test that proves it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from httpx2 import AsyncClient
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Phase, Tournament
from pytest_arena import Scenario
from tests.factories import a_category, a_tournament, save

PROJECT = Path(__file__).parent.parent


class TestScenarioCoverage:
    """Gherkin scenarios are actually tested."""

    @pytest.mark.scenario("Feature spec scenarios map to tests")
    def test_feature_spec_scenarios_map_to_tests(self, tmp_path: Path) -> None:
        """The plugin collects the tests, without running one, and says which scenario is whose."""
        scenarios = _collected(tmp_path / "scenarios.json")

        assert len(scenarios) == 5
        assert [one["name"] for one in scenarios if not one["tests"]] == []

    @pytest.mark.scenario("Tests prove scenarios pass")
    async def test_tests_prove_scenarios_pass(
        self,
        scenario: Scenario,
        client_as: Callable[[str], AsyncClient],
        db_session: AsyncSession,
    ) -> None:
        """The scenario that the first step quotes, proven here."""
        with scenario.given(
            'a Gherkin scenario: "Given tournament in PRESELECTION, When MC views command center, '
            'Then page loads"'
        ):
            made = await save(db_session, a_tournament(a_category(performers=8)))

        with scenario.when("the automated test runs"):
            response = await client_as("mc").get(f"/event/{made.id}")

        with scenario.then("it should create the tournament in PRESELECTION"):
            tournament = await db_session.get_one(Tournament, made.id)
            assert tournament.phase is Phase.PRESELECTION

        with scenario.then("it should authenticate as MC"):
            assert "The Mc (mc)" in response.text

        with scenario.then("it should make HTTP request to command center"):
            assert response.url.path == f"/event/{tournament.id}"

        with scenario.then("it should verify page loads successfully (200 status)"):
            assert response.status_code == 200


def _collected(to: Path) -> list[dict[str, Any]]:
    """Have this suite collected, and give what it says of each scenario."""
    pytest = (sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider")
    subprocess.run((*pytest, f"--scenarios-out=json:{to}"), cwd=PROJECT, check=True)
    scenarios: list[dict[str, Any]] = json.loads(to.read_text(encoding="utf-8"))["scenarios"]
    return scenarios
