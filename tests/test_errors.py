"""Does every error say what, why, where and what next, in a few lines, without a password?"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_arena import errors, warnings
from pytest_arena.errors import ArenaError, ConfigError, redact, redact_url

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "errors.md"


def below(kind: type[ArenaError]) -> Iterator[type[ArenaError]]:
    """The classes of the tree, the root first, in the order of the file."""
    yield kind
    for one in kind.__subclasses__():
        yield from below(one)


TREE = [kind for kind in below(ArenaError) if kind.__module__ == errors.__name__]
# Subclasses of a leaf within one package have its code and its page.
LEAVES = [kind for kind in TREE if not set(kind.__subclasses__()) & set(TREE)]

# One password, in each way that a message may come to hold it.
SECRETS = [
    "postgresql://me:s3cret@db/shop",
    "postgresql+asyncpg://me:s3cret@s3cret@db:5432/shop",
    "postgresql://db/shop?user=me&password=s3cret&sslmode=require",
    "host=db password=s3cret dbname=shop",
    "host=db password='s3 cret' dbname=shop",
    "connect(host='db', password='s3cret')",
    'connect(host="db", passwd="s3cret")',
    "{'user': 'me', 'password': 's3cret'}",
    "PGPASSWORD=s3cret pytest",
    "https://host/path?token=s3cret",
    "POST /pay?otp=s3cret&hashed_pin=s3cret",
    "rate:Bearer s3cret",
    "session:eyJs3cret.s3cret",
]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://boss:hun ter2@127.0.0.1/x",
        'postgresql://boss:hun"ter2@127.0.0.1/x',
        "postgresql:/boss:hun:ter2@127.0.0.1/x",
        "postgres:boss:hun@ter2@127.0.0.1/x",
        "boss:hunter2@127.0.0.1/x",
    ],
)
def test_what_should_be_a_url_shows_no_password_either(url: str) -> None:
    """A space, a quote or a slash too few makes it none, and it is told that it is none."""
    shown = redact_url(url)
    assert "ter2" not in shown
    assert "hun" not in shown
    assert shown.endswith(":***@127.0.0.1/x")
    assert redact_url("postgresql://boss@127.0.0.1:5432/x") == "postgresql://boss@127.0.0.1:5432/x"


def test_each_error_and_warning_has_a_section() -> None:
    text = PAGE.read_text(encoding="utf-8")
    headings = re.findall(r"^## (\w+)$", text, re.MULTILINE)
    names = {name for name in warnings.__all__ if name != "ArenaWarning"}
    assert sorted(headings) == sorted({kind.code for kind in LEAVES} | names | {"Warnings"})
    for kind in LEAVES:
        assert f"\n## {kind.code}\n\n`{kind.__name__}`: " in text


def test_a_message_has_four_parts_and_at_most_twelve_lines() -> None:
    kind = LEAVES[0]
    long = "\n".join(f"line {number} " + "x" * 3000 for number in range(30))
    lines = str(kind(long, why=long, cause=long, fix=long)).splitlines()
    assert len(lines) <= 12
    assert [line[:8] for line in lines if line.startswith("  ") and line[2] != " "] == [
        "  why:  ",
        "  cause:",
        "  next: ",
        f"  [{kind.code}]",
    ]
    assert max(map(len, lines)) < 450


@pytest.mark.parametrize("text", SECRETS)
def test_no_part_of_a_message_shows_a_password(text: str) -> None:
    error = ConfigError(text, why=text, cause=text, fix=text)
    shown = f"{error} {error!r} {error.args}"
    assert "s3c" not in shown
    assert "cret" not in shown
    assert "***" in shown


def test_no_list_or_object_of_secrets_is_shown() -> None:
    """Random ones, in the forms of JSON and of Python. What is beside them stays."""
    chance = random.Random(1)  # noqa: S311 - it is no key

    def value(depth: int) -> object:
        parts = {name: value(depth - 1) for name in "ab"[: chance.randrange(3)] if depth}
        secret = "s3cret".join(["", chance.choice(".]})'\"[(,=\\ "), ""])
        return chance.choice([secret, [*parts.values()], parts])

    for _ in range(500):
        row = {"name": "Sand", "api_tokens": value(2), "city": "Bern"}
        for shown in (redact(json.dumps(row)), redact(repr(row))):
            assert not re.search("s3cret|secret", shown)
            assert re.search("Sand.+Bern", shown)


@pytest.mark.parametrize(
    "text",
    [
        "the password is wrong",
        "app.db:5: in get_password, of TestPasswords::test_it: assert token == expected",
        "sqlite:////home/me/dev.db",
        "sqlite+aiosqlite:///./dev.db and me@example.org",
        "http://testserver:80/dancers",
        "docker run -e MARIADB_ALLOW_EMPTY_ROOT_PASSWORD=1 mariadb:11",
        "Access denied for user 'me'@'localhost' (using password: NO)",
        "a basic example, and a bearer of news",
    ],
)
def test_what_is_no_password_stays(text: str) -> None:
    """A message without its values helps nobody."""
    assert redact(text) == text
