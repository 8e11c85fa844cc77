"""Tests in TypeScript, by Playwright's own runner, on `arena serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.others.conftest import BROWSER, PROGRAMS, call

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason=f"no browser: none of {', '.join(PROGRAMS)}"),
]


def _playwright(folder: Path, packages: Path) -> subprocess.CompletedProcess[str]:
    (folder / "node_modules").symlink_to(packages)
    return call("npx", "playwright", "test", "--reporter=list", folder=folder)


def test_battle_d_by_playwrights_runner(battle_d: Path, packages: Path) -> None:
    """P1, P2, P3: two workers, a database each; nothing of it is in the next test."""
    done = _playwright(battle_d / "browser", packages)
    assert "2 passed" in done.stdout, done.stdout
    assert not list(battle_d.glob("*.db"))
