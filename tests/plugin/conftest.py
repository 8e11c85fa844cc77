"""The starting points of the stories."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.example import Example, fastapi_example

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def example(tmp_path: Path) -> Example:
    """A FastAPI app on the developer's own file, with a schema and one seeded row."""
    return fastapi_example(tmp_path)
