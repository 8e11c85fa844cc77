"""Which file does an ATTACH name, and which one does a ``database`` argument mean?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_arena._sqlite._guard import lead_attached
from pytest_arena._sqlite._sql import file_of

HERE = str(Path("a.db").absolute())


@pytest.mark.parametrize(
    "script, values, expected",
    [
        ("SELECT 1", (), []),
        ("ATTACH 'a.db' AS x", (), ["a.db"]),
        ("attach database 'it''s.db' as x", (), ["it's.db"]),
        ("ATTACH`a``b`AS x", (), ["a`b"]),
        ("ATTACH a AS x", (), ["a"]),
        ("\ufeffATTACH\ufeff 'a' \ufeffAS x", (), ["a"]),
        ("ATTACH '' AS x", (), [""]),
        ("ATTACH ? AS x", (None,), [""]),
        ("ATTACH ? AS x", (), [None]),
        ("ATTACH $f AS x", {"f": "a.db"}, ["a.db"]),
        ("ATTACH :f AS x", {}, [None]),
        ("ATTACH 'a' || 'b' AS x", (), [None]),
        ("ATTACH upper('a') AS x", (), [None]),
        ("ATTACH 1 AS x", (), [None]),
        ("ATTACH", (), [None]),
        ("SELECT 1; /* ; */ ATTACH 'a' AS x; ATTACH 'b' AS y", (), ["a", "b"]),
        ("INSERT INTO t VALUES ('; ATTACH ''a'' AS x')", (), []),
        ("ATTACH 'unfinished", (), [None]),
    ],
)
def test_the_files_that_a_script_attaches(
    script: str, values: Any, expected: list[str | None]
) -> None:
    """Each name once, None where only SQLite can tell, nothing for a text that looks like one."""
    names: list[str | None] = []
    assert lead_attached(script, values, names.append) == (script, values)
    assert names[::-1] == expected  # the last one is asked for first


@pytest.mark.parametrize(
    "database, uri, expected",
    [
        ("a.db", False, HERE),
        ("a.db", True, HERE),
        ("file:a.db", True, HERE),
        ("file:a.db?mode=ro#x", True, HERE),
        ("file:%61.db", True, HERE),
        (f"file://localhost{HERE}", True, HERE),
        (f"file:{HERE}%00rest", True, HERE),
        ("file:a.db", False, str(Path("file:a.db").absolute())),
        (":memory:", False, ""),
        ("file::memory:?cache=shared", True, ""),
        ("file:x?mode=memory&cache=shared", True, ""),
        ("file:/x?vfs=memdb", True, ""),
        ("", False, ""),
    ],
)
def test_the_file_that_is_meant(database: str, *, uri: bool, expected: str) -> None:
    """As SQLite reads it."""
    assert file_of(database, uri=uri) == expected


@pytest.mark.parametrize(
    "script, values, expected",
    [
        ("ATTACH 'a.db' AS x", (), ("ATTACH 'it''s' AS x", ())),
        (
            "SELECT 1; attach a as x; ATTACH'b'AS y",
            (),
            ("SELECT 1; attach 'it''s' as x; ATTACH'it''s'AS y", ()),
        ),
        ("ATTACH ? AS x", ("a",), ("ATTACH ? AS x", ["it's"])),
        ("ATTACH ?2 AS x", ("a", "b"), ("ATTACH ?2 AS x", ["a", "it's"])),
        ("ATTACH :f AS x", {"f": "a", "g": 1}, ("ATTACH :f AS x", {"f": "it's", "g": 1})),
    ],
)
def test_another_file_takes_the_place_of_the_one_that_is_named(
    script: str, values: Any, expected: tuple[str, Any]
) -> None:
    """In the statement, or in its parameters; all else stays."""
    assert lead_attached(script, values, lambda _: "it's") == expected
