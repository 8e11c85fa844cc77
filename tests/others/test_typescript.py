"""Tests in TypeScript, by Playwright's own runner, on `arena serve`."""

from __future__ import annotations

import os
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


def _playwright(folder: Path, packages: Path, **env: str) -> subprocess.CompletedProcess[str]:
    (folder / "node_modules").symlink_to(packages)
    return call("npx", "playwright", "test", "--reporter=list", folder=folder, **env)


@pytest.mark.parametrize("how", ["copy", "undo"])
def test_battle_d_by_playwrights_runner(battle_d: Path, packages: Path, how: str) -> None:
    """P1, P2, P3: two workers, a database each; nothing of it is in the next test."""
    env = {} if how == "copy" else {"ARENA_DATABASE": os.environ["TESTS_POSTGRESQL"]}
    if how == "undo":
        env["DATABASE_URL"] = "postgresql+asyncpg://me:s3cret@db.example.org/battle_d"
    done = _playwright(battle_d / "browser", packages, **env)
    assert "2 passed" in done.stdout, done.stdout
    assert not list(battle_d.glob("*.db"))


def test_what_a_failed_test_says(battle_d: Path, packages: Path) -> None:
    """P9: the story is attached, and a level's own problem fails its test."""
    test = """
import { expect, test } from './arena.ts'

test('fails', async ({ page, arena }) => {
  await arena.seed('event')
  await page.goto('/tournaments')
  await expect(page.getByText('Winter Jam')).toBeVisible({ timeout: 100 })
})

test('asks for what is not there', async ({ arena }) => {
  await arena.seed('evnet')
})

test('begins where all do', async ({ arena }) => {
  expect((await arena.ask('GET', '/changes')).changes).toEqual([])
})
"""
    (battle_d / "browser" / "event.spec.ts").write_text(test)
    done = _playwright(battle_d / "browser", packages)
    assert "2 failed" in done.stdout, done.stdout
    assert "1 passed" in done.stdout, done.stdout
    assert "tournaments +1" in done.stdout
    assert "module 'tests.data' has no attribute 'evnet'" in done.stdout


def test_the_pages_own_suite(tmp_path: Path, packages: Path) -> None:
    """What the how-to page shows is what runs."""
    for block in read_blocks(PAGE.name, PAGE.read_text(encoding="utf-8")):
        if "title" in block.attributes:
            write_file(block, tmp_path)
    shutil.copy(BATTLE_D / "browser" / CONFIG, tmp_path)
    done = _playwright(tmp_path, packages)
    assert "4 passed" in done.stdout, done.stdout
