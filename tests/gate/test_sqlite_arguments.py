"""The file that a ``database`` argument names."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_arena._sqlite._sql import requested

HERE = str(Path("a.db").absolute())


@pytest.mark.parametrize(
    "database, uri, expected",
    [
        ("a.db", False, HERE),
        ("file:a.db?mode=ro#x", True, HERE),
        ("file:%61.db", True, HERE),
        (f"file://localhost{HERE}", True, HERE),
        ("file:a.db", False, str(Path("file:a.db").absolute())),
        (":memory:", False, ""),
        ("file::memory:?cache=shared", True, ""),
        ("file:x?mode=memory&cache=shared", True, ""),
        ("", False, ""),
    ],
)
def test_the_file_that_is_meant(database: str, *, uri: bool, expected: str) -> None:
    """As SQLite reads it."""
    assert requested(database, uri=uri).file == expected
