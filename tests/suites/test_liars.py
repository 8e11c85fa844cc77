"""The suites find each planted defect of `apps/liar.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.suites.harness import ROOT, Suite

if TYPE_CHECKING:
    from pathlib import Path

# The defect, and the stories that find it. They pass if it is not planted: see `test_suites.py`.
LIARS = {
    "leaves_the_level_too_early": "visibility/test_clients.py::test_the_async_client",
    "leaves_a_wide_level_at_once": "wide/test_scopes.py::TestClass",
    "never_leaves_a_wide_level": "wide/test_scopes.py",
    "commits_by_itself": (
        "visibility/test_clients.py::test_a_commit_that_the_app_forgot_is_not_seen"
    ),
    "lets_one_engine_through": "isolated/test_endings.py::test_that_is_skipped_in_the_middle",
    "knows_one_loop": "isolated/test_rows.py::test_numbers_begin_where_the_seed_ended",
    "sees_no_leak": "isolated/test_endings.py::test_that_leaves_a_transaction_open",
    "names_no_line": "isolated/test_endings.py::test_that_leaves_a_transaction_open",
}


@pytest.mark.parametrize("liar", LIARS)
def test_a_planted_defect_is_found(liar: str, shared: Path) -> None:
    """A story fails, or the run as a whole."""
    folder, stories = LIARS[liar].split("/")
    suite = Suite(ROOT / folder, f"sqlite -pliar -oliar={liar} {stories}")
    result = suite.result(shared)
    assert result.phases, result.output
    problems = result.whole()
    for story in result.phases:
        problems += result.problems(story)
    assert problems
