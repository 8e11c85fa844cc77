"""BR-TEST-002: every scenario of the specification has a test, and the test says so itself."""

import ast
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from inspect import getdoc, getmembers, getsource, isclass, isfunction
from pathlib import Path
from textwrap import dedent
from types import FunctionType, ModuleType

from httpx2 import AsyncClient
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Phase, Tournament
from tests.factories import a_category, a_tournament, save

TESTS = Path(__file__).parent
SPECIFICATION = TESTS.parent / "specs" / "FEATURE_SPEC_E2E.md"
FENCE = re.compile(r"^```gherkin\n(.*?)^```", re.DOTALL | re.MULTILINE)
OUTCOMES = re.compile(r"^ *Then .*", re.DOTALL | re.MULTILINE)


class TestScenarioCoverage:
    """Gherkin scenarios are actually tested."""

    def test_feature_spec_scenarios_map_to_tests(self) -> None:
        """Scenario: Feature spec scenarios map to tests

        Given a feature specification with Gherkin scenarios
        When the feature is implemented
        Then each scenario should have a corresponding test function
        And the test should validate the Given/When/Then conditions
        """
        scenarios = list(_find_scenarios(SPECIFICATION.read_text(encoding="utf-8")))
        tests = {_flatten(getdoc(test) or ""): test for test in _find_tests()}
        assert len(scenarios) == 5

        untested = [each for each in scenarios if _flatten(each) not in tests]
        assert untested == []

        for each in scenarios:
            assert _count_assertions(tests[_flatten(each)]) >= _count_outcomes(each), each

    async def test_tests_prove_scenarios_pass(
        self, client_as: Callable[[str], AsyncClient], db_session: AsyncSession
    ) -> None:
        """Scenario: Tests prove scenarios pass

        Given a Gherkin scenario: "Given tournament in PRESELECTION, When MC views command center,
          Then page loads"
        When the automated test runs
        Then it should create the tournament in PRESELECTION
        And it should authenticate as MC
        And it should make HTTP request to command center
        And it should verify page loads successfully (200 status)
        """
        made = await save(db_session, a_tournament(a_category(performers=8)))
        tournament = await db_session.get_one(Tournament, made.id)
        assert tournament.phase is Phase.PRESELECTION

        response = await client_as("mc").get(f"/event/{tournament.id}")

        assert "The Mc (mc)" in response.text
        assert response.url.path == f"/event/{tournament.id}"
        assert response.status_code == 200


def _find_scenarios(markdown: str) -> Iterator[str]:
    """Give every scenario of a specification, from its name to its last step."""
    for block in FENCE.findall(markdown):
        yield from re.split(r"^(?=Scenario: )", block, flags=re.MULTILINE)[1:]


def _find_tests() -> Iterator[FunctionType]:
    """Give every function of this folder, at any depth, that pytest takes for a test."""
    for path in sorted(TESTS.rglob("test_*.py")):
        module = import_module(".".join(path.relative_to(TESTS.parent).with_suffix("").parts))
        for holder in (module, *_find_test_classes(module)):
            yield from (each for name, each in getmembers(holder, isfunction) if _is_test(name))


def _find_test_classes(module: ModuleType) -> list[type]:
    return [each for name, each in getmembers(module, isclass) if name.startswith("Test")]


def _is_test(name: str) -> bool:
    return name.startswith("test_")


def _flatten(text: str) -> str:
    """Forget how a text is broken into lines."""
    return " ".join(text.split())


def _count_outcomes(scenario: str) -> int:
    """Count what a scenario promises: its Then, and each And after it."""
    return len(OUTCOMES.findall(scenario)[0].split("\n\n")[0].strip().splitlines())


def _count_assertions(test: FunctionType) -> int:
    source = ast.parse(dedent(getsource(test)))
    return sum(isinstance(node, ast.Assert) for node in ast.walk(source))
