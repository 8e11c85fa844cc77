"""Tests in TypeScript, by Playwright's own runner, on `arena serve`."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.others.conftest import BATTLE_D, BROWSER, PROGRAMS, ROOT, call
from tests.pages import read_blocks, write_file

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

PAGE = ROOT / "docs" / "how-to" / "other-languages.md"
CONFIG = "playwright.config.ts"

pytestmark = [
    pytest.mark.slow,
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


def test_the_pages_own_suite(tmp_path: Path, packages: Path) -> None:
    """What the how-to page shows is what runs."""
    for block in read_blocks(PAGE.name, PAGE.read_text(encoding="utf-8")):
        if "title" in block.attributes:
            write_file(block, tmp_path)
    shutil.copy(BATTLE_D / "browser" / CONFIG, tmp_path)
    done = _playwright(tmp_path, packages)
    assert "4 passed" in done.stdout, done.stdout
