"""Each test function of each suite, on each database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.suites.harness import ROOT, Suite

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = {
    "clients": ("sqlite",),
    "visibility": ("sqlite", "postgresql", "clone", "rollback", "mysql"),
    "visibility_sync": ("sqlite", "postgresql"),
    "visibility_flask": ("sqlite", "mysql"),
    "visibility_flask_sqlalchemy": ("postgresql",),
    "visibility_sqlmodel": ("sqlite",),
    "changes": ("sqlite", "postgresql", "clone", "mysql"),
    "isolated": ("sqlite", "postgresql", "postgresql -oreverse=true", "clone", "mysql"),
    "late": ("sqlite", "postgresql", "clone", "mysql"),
    "lifespan": ("sqlite", "postgresql", "sqlite -oarena_lifespan=session"),
    "lost": ("sqlite", "postgresql", "mysql"),
    "migrated": ("sqlite", "postgresql"),
    "report": ("sqlite", "postgresql"),
    "drivers": (
        "sqlite",
        "postgresql",
        "postgresql -odriver=psycopg",
        "rollback",
        "rollback -odriver=psycopg",
    ),
    "mysql": ("mysql", "mysql -odriver=aiomysql"),
    "mysql_programs": ("mysql",),
    "rollback": ("rollback", "rollback -odriver=psycopg"),
    "runners": ("sqlite", "postgresql"),
    "wide": ("sqlite", "postgresql", "clone", "mysql"),
}
SUITES = [
    Suite(ROOT / name, setting) for name, settings in SETTINGS.items() for setting in settings
]
STORIES = [(suite, story) for suite in SUITES for story in suite.stories()]


@pytest.mark.parametrize(
    "suite, story", [pytest.param(*each, id="-".join(map(str, each))) for each in STORIES]
)
def test_story(suite: Suite, story: str, shared: Path) -> None:
    """The test of the inner run passed, or failed as it expects."""
    result = suite.result(shared)
    if reason := result.skipped(story):
        pytest.skip(reason)
    if problems := result.problems(story):
        pytest.fail("\n\n".join(problems), pytrace=False)


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_whole(suite: Suite, shared: Path) -> None:
    """The inner run ended, ran no unknown test, and did not reach the developer's file."""
    if problems := suite.result(shared).whole():
        pytest.fail("\n\n".join(problems), pytrace=False)


def test_each_folder_is_a_suite() -> None:
    """A suite that nobody runs would prove nothing."""
    assert {path.parent.name for path in ROOT.glob("*/pytest.ini")} == {*SETTINGS}
