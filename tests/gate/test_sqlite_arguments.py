"""The statements of a script, and the file that a ``database`` argument names."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_arena._sqlite._sql import requested, split_script

HERE = str(Path("a.db").absolute())


def test_a_script_is_split_where_its_statements_end() -> None:
    """Together they are the script."""
    trigger = "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; SELECT 2; END;"
    statements = ["SELECT ';' -- ;\n;", trigger, " SELECT 3"]
    assert list(split_script("".join(statements))) == statements


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
