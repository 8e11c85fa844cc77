"""What browsers need, and packages for those that are driven from another language."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
BATTLE_D = ROOT / "examples" / "battle_d"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, PROGRAMS)), None)


def call(*words: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command, with the scripts of this environment before all others."""
    scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        words,
        cwd=folder,
        env=kept | {"PATH": scripts, "CHROMIUM": BROWSER or "", "NO_COLOR": "1"} | env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the packages that the example's suite names."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("packages")
    shutil.copy(BATTLE_D / "browser" / "package.json", folder)
    done = call(
        *("npm", "install", "--no-audit", "--no-fund"),
        folder=folder,
        PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD="1",
    )
    if done.returncode and "network" in done.stdout:
        pytest.skip(f"npm reaches no registry: {done.stdout.splitlines()[0]}")
    assert done.returncode == 0, done.stdout
    return folder / "node_modules"


@pytest.fixture
def battle_d(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("node_modules", "__pycache__", "*.db", "test-results")
    return Path(shutil.copytree(BATTLE_D, tmp_path / "battle_d", ignore=ignored))
