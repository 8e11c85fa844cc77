"""The suite finds every planted defect, and says which promise it breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_arena.testing import Setting, Trial, Verdict
from tests.conformance.liars import EVERYDAY, HONEST, LIARS

if TYPE_CHECKING:
    from pathlib import Path

# One connection, so that somebody has to wait for it. A leak would make the others wait too long.
WAITING = Setting(pool="one", plugins=("liar",))
SETTING = Setting(plugins=("liar",))


def found(text: str, stories: str, folder: Path) -> Verdict:
    """Run the stories that this defect concerns."""
    if stories in {"once", "twice"}:
        orders = ("forward",) * (1 + (stories == "twice"))
        return Trial(WAITING, folder, {"liar.py": text}).kept(orders, "--maxfail=12")
    trial = Trial(SETTING, folder, {"liar.py": text})
    match stories:
        case "told":
            return trial.told()
        case "killed":
            return trial.killed()
    return trial.cheap()


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in EVERYDAY else [pytest.mark.slow]) for name in LIARS],
)
def test_a_planted_defect_is_found(name: str, tmp_path: Path) -> None:
    """It breaks the promise that it is about, among others perhaps."""
    text, stories, promise = LIARS[name]
    verdict = found(text, stories, tmp_path)
    assert verdict.tests, f"it could not be planted: {verdict}"
    assert promise in verdict.promises, str(verdict)


def test_the_honest_twin_is_not_accused(tmp_path: Path) -> None:
    """What stands in the isolation's place without lying breaks nothing."""
    found(HONEST, "once", tmp_path).check()
