"""The suite finds every planted defect, and says which promise it breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance.liars import EVERYDAY, HONEST, LIARS, NOT_COUNTED
from tests.conformance.setting import Setting
from tests.conformance.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conformance.verdict import Verdict


def judged(isolation: str, text: str, stories: str, folder: Path) -> Verdict:
    """Run the stories that this defect concerns: their kind, and files, if not all."""
    kind, *files = stories.split()
    name, _, database = isolation.partition(" on ")
    setting = Setting(database=database, isolation=name, plugins=("liar",))
    trial = Trial(setting, folder, {"liar.py": text})
    match kind:
        case "told":
            return trial.told()
        case "killed":
            return trial.killed()
        case "cheap":
            return trial.cheap()
    return trial.kept(("forward",), "--maxfail=12", *files)


def everyone() -> Iterator[object]:
    """Yield each defect with each isolation. Most are slow.

    The cost of a copy is not promised, so no defect is planted there that only adds to it.
    """
    for isolation, everyday in EVERYDAY.items():
        counts_copies = isolation.startswith("clone") or isolation.endswith("mysql")
        for name in LIARS:
            if not (counts_copies and name in NOT_COUNTED):
                marks = [] if name in everyday else [pytest.mark.slow]
                yield pytest.param(isolation, name, marks=marks, id=f"{isolation}-{name}")


@pytest.mark.parametrize("isolation, name", list(everyone()))
def test_a_planted_defect_is_found(isolation: str, name: str, tmp_path: Path) -> None:
    """It breaks the promise that it is about, among others perhaps."""
    text, stories, promise = LIARS[name]
    verdict = judged(isolation, text, stories, tmp_path)
    assert verdict.tests, f"it could not be planted: {verdict}"
    assert promise in verdict.promises, str(verdict)


@pytest.mark.parametrize(
    "isolation",
    [
        "copy on sqlite",
        pytest.param("undo on postgresql", marks=pytest.mark.slow),
        pytest.param("undo on mysql", marks=pytest.mark.slow),
        pytest.param("clone on mysql", marks=pytest.mark.slow),
    ],
)
def test_the_honest_twin_is_not_accused(isolation: str, tmp_path: Path) -> None:
    """What looks as often as the defects do, and does not lie, breaks nothing."""
    judged(isolation, HONEST, "once", tmp_path).check()
