"""The folders of suites belong to the inner runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

collect_ignore = [path.name for path in Path(__file__).parent.iterdir() if path.is_dir()]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    return base / "suites"
