"""pytest-django's fixture for tests that commit: the database is flushed after each."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _isolated(transactional_db: None) -> None:
    pass
