"""The suite finds every planted defect, and says which promise it breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_arena.testing import Setting, Trial, Verdict
from tests.conformance import liars, liars_postgresql, liars_undo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIARS = {"copy": liars, "clone": liars_postgresql, "undo": liars_undo}


def found(isolation: str, text: str, stories: str, folder: Path) -> Verdict:
    """Run the stories that this defect concerns: their kind, and files, if not all."""
    kind, *files = stories.split()
    # One connection, so that somebody has to wait for it. A leak would make the others wait too
    # long.
    pool = "one" if kind in {"once", "twice"} else ""
    database = "sqlite" if isolation == "copy" else "postgresql"
    setting = Setting(database=database, isolation=isolation, pool=pool, plugins=("liar",))
    trial = Trial(setting, folder, {"liar.py": text})
    match kind:
        case "told":
            return trial.told()
        case "killed":
            return trial.killed()
        case "cheap":
            return trial.cheap()
    return trial.kept(("forward",) * (1 + (kind == "twice")), "--maxfail=12", *files)


def everyone() -> Iterator[object]:
    """Each defect of each isolation, most of them slow."""
    for isolation, module in LIARS.items():
        for name in module.LIARS:
            marks = [] if name in module.EVERYDAY else [pytest.mark.slow]
            yield pytest.param(isolation, name, marks=marks, id=f"{isolation}-{name}")


@pytest.mark.parametrize("isolation, name", list(everyone()))
def test_a_planted_defect_is_found(isolation: str, name: str, tmp_path: Path) -> None:
    """It breaks the promise that it is about, among others perhaps."""
    text, stories, promise = LIARS[isolation].LIARS[name]
    verdict = found(isolation, text, stories, tmp_path)
    assert verdict.tests, f"it could not be planted: {verdict}"
    assert promise in verdict.promises, str(verdict)


@pytest.mark.parametrize(
    "isolation", ["copy", *(pytest.param(one, marks=pytest.mark.slow) for one in ("clone", "undo"))]
)
def test_the_honest_twin_is_not_accused(isolation: str, tmp_path: Path) -> None:
    """What stands in the isolation's place without lying breaks nothing."""
    found(isolation, LIARS[isolation].HONEST, "once", tmp_path).check()
