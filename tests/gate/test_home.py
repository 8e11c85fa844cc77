"""The folder of a run's live files: nobody else's, and gone after ``kill -9`` and the next run."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pytest_arena._sqlite import _product
from pytest_arena._sqlite._product import Home

HOLDS = """
import sys
from pathlib import Path
from pytest_arena._sqlite import _product
_product._MEMORY = Path(sys.argv[1])
home = _product.Home()
(home.path / "live.db").write_text("data")
print(home.path, flush=True)
sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All homes are in the test's folder."""
    monkeypatch.setattr(_product, "_MEMORY", tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def holder(place: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that has a home, and return it with that home's folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_folder_of_a_killed_run_goes_and_that_of_a_live_one_stays(
    tmp_path: Path,
) -> None:
    """The lock of a dead process is free, that of a live one is not."""
    (killed, left), (alive, used) = holder(tmp_path), holder(tmp_path)
    with killed, alive:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert (left / "live.db").exists()
        assert left.is_relative_to(tmp_path)
        home = Home()
        assert not left.exists()
        assert not left.with_name(f"{left.name}.lock").exists()
        assert (used / "live.db").exists()
        home.close()
        alive.communicate("\n")
    Home().close()
    assert list(tmp_path.glob("*/*")) == []


def test_the_folder_is_the_users_alone(tmp_path: Path) -> None:
    """Nobody else can enter it."""
    home = Home()
    assert home.path.stat().st_mode & 0o077 == 0
    assert home.path.parent.stat().st_mode & 0o077 == 0
    home.close()
    assert not home.path.exists()
    home.close()
