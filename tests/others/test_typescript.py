"""Tests in TypeScript, by Playwright's own runner, on `arena serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.others.conftest import BROWSER, PROGRAMS, call

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason=f"no browser: none of {', '.join(PROGRAMS)}"),
]


def test_battle_d_by_playwrights_runner(battle_d: Path, packages: Path) -> None:
    """Two workers, a database each; nothing of it is in the next test."""
    folder = battle_d / "browser"
    (folder / "node_modules").symlink_to(packages)
    done = call("npx", "playwright", "test", "--reporter=list", folder=folder)
    assert "2 passed" in done.stdout, done.stdout
    assert not list(battle_d.glob("*.db"))
