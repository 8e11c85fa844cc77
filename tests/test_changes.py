"""Changes as values: which row has become which, what is expected of them, how they read."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from pytest_arena import Changes, deleted, inserted
from pytest_arena._changes import shown
from pytest_arena._run._expect import Expected, difference
from pytest_arena._values import TableRows


def rows(
    table: str = "orders",
    *,
    removed: tuple[Any, ...] = (),
    added: tuple[Any, ...] = (),
    columns: tuple[str, ...] = ("id", "total"),
    key: tuple[str, ...] = ("id",),
    more: int = 0,
) -> TableRows:
    return TableRows(table, columns, key, removed, added, more)


def test_without_a_key_nothing_is_an_update() -> None:
    """As many rows as are the same in both cancel each other; copies are counted."""
    same, other = (1, None), (1, 2)
    changes = Changes.of([rows(removed=(same, same, other), added=(same, (1, 3)), key=())])
    assert [one.kind for one in changes] == ["inserted", "deleted", "deleted"]
    assert [one.before["total"] for one in changes.deleted] == [2, None]
    assert not Changes.of([rows(removed=(same, same), added=(same, same), key=())])


@pytest.mark.parametrize(
    "old, new", [(Decimal("1.0"), Decimal("1.00")), (1, True), (None, 0), ([1], [2]), (0.0, -0.0)]
)
def test_values_that_python_finds_equal_are_different_ones_to_a_database(
    old: object, new: object
) -> None:
    """1.0 and 1.00 are two values of a numeric column."""
    [change] = Changes.of([rows(removed=((1, old),), added=((1, new),))])
    assert change.columns == ("total",)


def test_changes_read_as_a_list() -> None:
    columns = ("id", "total", "status", "note")
    new, old, now = (7, Decimal("12.50"), "new", None), (1, 5, "a", None), (1, 5, "b", "x")
    changes = Changes.of(
        [
            rows(removed=(old,), added=(new, now), columns=columns),
            rows("stock", removed=((3, 4),), key=()),
        ]
    )
    assert str(changes).splitlines() == [
        "orders +1 ~1, stock -1",
        "  + orders id=7  total=12.50 status='new' NULL: note",
        "  ~ orders id=1  status 'a' → 'b', note NULL → 'x'",
        "  - stock  id=3 total=4",
    ]
    assert repr(changes) == "<Changes: orders +1 ~1, stock -1>"
    assert str(Changes.of([])) == "nothing"
    assert str(Changes.of([rows(more=5_000)])) == "orders some 5,000 rows"


@pytest.mark.parametrize(
    "value, text",
    [
        (None, "NULL"),
        ("it's", '"it\'s"'),
        ("two\nlines\x1b[31m", r"'two\nlines\x1b[31m'"),
        (b"ab", "b'ab'"),
        ("x" * 1500, f"'{'x' * 58}…"),
        (b"x" * 9000, f"b'{'x' * 57}…"),
        ("postgresql://me:s3cret@db/shop", "'postgresql://me:***@db/shop'"),
        ("y" * 30 + " postgresql://me:s3cr" + "e" * 90 + "t@db", None),
        ({"token": "s3cret", "n": 1}, "{'token': ***, 'n': 1}"),
    ],
)
def test_a_value_is_short_on_one_line_and_no_secret(value: object, text: str | None) -> None:
    if text is not None:
        assert shown(value) == text
    assert "s3cr" not in shown(value)


@pytest.mark.parametrize(
    "column",
    [
        *("password", "hashed_password", "passwd", "password_hash", "pwhash_salt", "secret"),
        *("api_key", "session_id", "ApiKey", "access_token", "tokenHash", "otp", "private_key"),
    ],
)
def test_columns_that_are_named_like_a_secret_are_masked(column: str) -> None:
    """In new rows as in updates; that there is none is no secret."""
    masked = [
        rows(
            "users",
            removed=((1, "s3cret"),),
            added=((1, "s3crets"), (2, "s3cret"), (3, None)),
            columns=("id", column),
        )
    ]
    text = str(Changes.of(masked))
    assert "s3cret" not in text
    assert f"~ users id=1  {column} *** → ***" in text
    assert f"+ users id=3  NULL: {column}" in text


def test_what_is_masked_is_so_in_an_assertion_too() -> None:
    """Pytest writes a row's ``repr`` into a report; an expectation has values, too."""
    user = rows("users", added=((1, "s3cret", "555"),), columns=("id", "password", "phone"))
    changes = Changes.of([user])
    [change] = changes
    assert repr(change) == "<Change: + users id=1  password=*** phone='555'>"
    text = difference(changes, {"users": inserted(1, id=2, api_key="x", phone=None)})
    assert "missing:    users: 1 inserted row with id=2 api_key=*** phone=NULL" in text
    with pytest.raises(TypeError, match="unhashable type: 'Change'"):
        {change}  # noqa: B018 - that is the test


# Expectations.

ORDERS = Changes.of([rows(added=((1, "a"), (2, "b")), removed=((9, "z"),))])


def test_each_row_answers_one_expectation_and_gives_way_where_it_has_a_substitute() -> None:
    """Two rows answer the first one, of which only the one that it would take answers the next."""
    changes = Changes.of([rows(added=(("x", 1), ("x", 2)), key=())])
    assert difference(changes, {"orders": inserted(1, id="x") & inserted(1, total=1)}) == ""
    assert difference(changes, {"orders": inserted(2, id="x") & inserted(1, total=1)})
    with pytest.raises(ValueError, match=r"inserted\(0\)"):
        inserted(0)


@pytest.mark.parametrize(
    "expected, lines",
    [
        (inserted(2), ["unexpected: - orders id=9  total='z'"]),
        (inserted(1) & deleted(), ["unexpected: + orders id=2  total='b'"]),
        (inserted(3) & deleted(), ["missing:    orders: 3 inserted rows (only 2)"]),
        (
            inserted(2, total="a") & deleted(),
            [
                "unexpected: + orders id=2  total='b'",
                "missing:    orders: 2 inserted rows with total='a' (only 1)",
            ],
        ),
        (
            inserted(2) & deleted(1, totl="z"),
            [
                "unexpected: - orders id=9  total='z'",
                "missing:    orders: 1 deleted row with totl='z'",
                "orders has no totl. Its columns: id, total",
            ],
        ),
    ],
)
def test_what_is_not_as_expected_is_named_row_by_row(expected: Expected, lines: list[str]) -> None:
    found = difference(ORDERS, {"orders": expected}).splitlines()
    assert found[0] == "the database did not change as expected"
    assert [line.strip() for line in found[1:-1]] == lines
    assert found[-1] == "all changes: orders +2 -1"
