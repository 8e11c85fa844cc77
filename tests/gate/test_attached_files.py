"""Which file does an ATTACH name, and which one does a ``database`` argument mean?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_arena._sqlite._guarded_connection import replace_attached, split_script
from pytest_arena._sqlite._sql import file_of

HERE = str(Path("a.db").absolute())


@pytest.mark.parametrize(
    "script, values, expected",
    [
        ("SELECT 1", (), []),
        ("ATTACH 'a.db' AS x", (), ["a.db"]),
        ("attach database 'it''s.db' as x ;", (), ["it's.db"]),
        ("ATTACH 'a AS b.db' AS x", (), ["a AS b.db"]),
        ("\ufeff-- a comment;\n/* ; */ ATTACH 'a'\nAS x", (), ["a"]),
        ("ATTACH'a'AS x", (), ["a"]),
        ("ATTACH('a') AS x", (), ["a"]),
        ("ATTACH DATABASE('a')AS'x'", (), ["a"]),
        ("ATTACH '' AS x", (), [""]),
        ("ATTACH ? AS x", (None,), [""]),
        ("ATTACH ? AS x", (b"a.db",), ["a.db"]),
        ("ATTACH $f AS x", {"f": "a.db"}, ["a.db"]),
        ("ATTACH 'a' || 'b' AS x", (), ["ab"]),
        ("ATTACH upper('a') AS x", (), ["A"]),
        ("SELECT 1; /* ; */ ATTACH 'a' AS x; ATTACH 'b' AS y", (), ["a", "b"]),
        ("INSERT INTO t VALUES ('; ATTACH ''a'' AS x')", (), []),
    ],
)
def test_the_files_that_a_script_attaches(script: str, values: Any, expected: list[str]) -> None:
    """Each file of an ATTACH statement. A text that looks like one is none."""
    assert attached(script, values) == expected


@pytest.mark.parametrize(
    "statement, values",
    [
        ("ATTACH a AS x", ()),
        ("ATTACH ? AS x", ()),
        ("ATTACH ? AS x", ([],)),
        ("ATTACH :f AS x", {}),
        ("ATTACH ? AS ?", ("a", "x")),
        ("ATTACH 'a', 'b' AS x", ()),
        ("ATTACH 'a' WHERE 0 AS x", ()),
        ("ATTACH of_the_app('a') AS x", ()),
        ("ATTACH", ()),
        ("ATTACH 'unfinished", ()),
    ],
)
def test_an_attach_that_cannot_be_read_stays(statement: str, values: Any) -> None:
    """SQLite's authorizer names its file, or that there is none yet."""
    assert attached(statement, values) == []
    assert replace_attached(statement, values, lambda _: "b.db") == statement


def attached(script: str, values: Any) -> list[str]:
    """The files that the statements of a script name."""
    names: list[str] = []

    def note(name: str) -> str:
        names.append(name)
        return name

    for statement in split_script(script):
        replace_attached(statement, values, note)
    return names


def test_a_script_is_split_where_its_statements_end() -> None:
    """Together they are the script."""
    trigger = "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; SELECT 2; END;"
    statements = ["SELECT ';' -- ;\n;", trigger, " SELECT 3"]
    assert list(split_script("".join(statements))) == statements


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
    "statement, values, expected",
    [
        ("ATTACH 'a.db' AS x", (), "ATTACH 'it''s' AS x"),
        ("\n attach DATABASE ? as x ; ", ("a",), "\n attach DATABASE 'it''s' as x ; "),
        ("ATTACH :f AS x", {"f": "a", "g": 1}, "ATTACH 'it''s' AS x"),
        ("ATTACH('a')AS x", (), "ATTACH'it''s'AS x"),
    ],
)
def test_another_file_takes_the_place_of_the_one_that_is_named(
    statement: str, values: Any, expected: str
) -> None:
    """As a literal. The rest of the statement stays."""
    assert replace_attached(statement, values, lambda _: "it's") == expected
