"""The suite finds every planted defect, and says which promise it breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_arena.testing import Setting, Trial, Verdict
from tests.conformance import liars, liars_postgresql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIARS = {"sqlite": liars, "postgresql": liars_postgresql}


def found(database: str, text: str, stories: str, folder: Path) -> Verdict:
    """Run the stories that this defect concerns: their kind, and files, if not all."""
    kind, *files = stories.split()
    # One connection, so that somebody has to wait for it. A leak would make the others wait too
    # long.
    pool = "one" if kind in {"once", "twice"} else ""
    setting = Setting(database=database, pool=pool, plugins=("liar",))
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
    """Each defect of each product, most of them slow."""
    for database, module in LIARS.items():
        for name in module.LIARS:
            marks = [] if name in module.EVERYDAY else [pytest.mark.slow]
            yield pytest.param(database, name, marks=marks, id=f"{database}-{name}")


@pytest.mark.parametrize("database, name", list(everyone()))
def test_a_planted_defect_is_found(database: str, name: str, tmp_path: Path) -> None:
    """It breaks the promise that it is about, among others perhaps."""
    text, stories, promise = LIARS[database].LIARS[name]
    verdict = found(database, text, stories, tmp_path)
    assert verdict.tests, f"it could not be planted: {verdict}"
    assert promise in verdict.promises, str(verdict)


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_the_honest_twin_is_not_accused(database: str, tmp_path: Path) -> None:
    """What stands in the isolation's place without lying breaks nothing."""
    found(database, LIARS[database].HONEST, "once", tmp_path).check()
