"""Does `arena databases mark` ask, and mark only a database of tests?"""

from __future__ import annotations

import secrets
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from pytest_arena._cli._main import main
from pytest_arena._postgresql._control import literal
from tests.command import Called, arena
from tests.servers.postgresql import URL, create_database, rows, run

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWORD = "hush-hush"  # noqa: S105 - the server asks for none


@pytest.fixture(name="owned")
def _owned() -> Iterator[str]:
    """A database with rows, and a role of its name that owns it."""
    name = f"ci_{secrets.token_hex(6)}"
    create_database(name)
    run(f"CREATE ROLE {name} LOGIN", f"ALTER DATABASE {name} OWNER TO {name}")
    run(
        f"CREATE SCHEMA shop AUTHORIZATION {name}",
        f"SET ROLE {name}",
        "CREATE TABLE shop.orders AS SELECT generate_series(1, 1200) AS id",
        "CREATE TABLE shop.empty (id int)",
        "RESET ROLE",
        "CREATE TABLE hidden (id int)",
        database=name,
    )
    yield name
    run(f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {name}")


def url_of(name: str, user: str = "") -> str:
    """Return the URL of a database."""
    return f"postgresql://{user or name}:{PASSWORD}@{URL.host}:{URL.port}/{name}"


def call(*words: str) -> Called:
    """Call the command. It never prints the password."""
    called = arena("databases", *words)
    assert PASSWORD not in called.output + called.errors
    return called


def comment_of(name: str) -> object:
    """Return the comment of a database."""
    sql = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = "
    [(comment,)] = rows(sql + literal(name))
    return comment


@pytest.mark.parametrize("answer, status", [("", 1), ("no", 1), ("y", 0)])
def test_it_shows_what_is_there_and_asks(
    owned: str,
    answer: str,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A mark needs a yes."""
    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setattr(sys.stdout, "isatty", terminal.isatty, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: print(question) or answer)
    assert main(["databases", "mark", url_of(owned)]) == status
    output = capsys.readouterr().out
    place = f"{owned} on {URL.host}:{URL.port}"
    shown = f"{place}: 3 tables, 1,200 rows (1 table cannot be read)"
    assert output.splitlines()[0] == shown
    assert "May tests run in this database? [y/N]" in output
    assert PASSWORD not in output
    assert (f"{place} is marked" in output) is (status == 0)
    assert (comment_of(owned) is None) is (status == 1)


def test_without_a_terminal_it_names_the_option(owned: str) -> None:
    """A script has to agree by ``--yes``. The comment keeps its text."""
    called = call("mark", url_of(owned))
    assert called.status == 1
    assert "next: arena databases mark postgresql://" in called.output
    assert comment_of(owned) is None
    run(f"COMMENT ON DATABASE {owned} IS 'of the team''s tests'")
    assert call("mark", url_of(owned), "--yes").status == 0
    assert str(comment_of(owned)).startswith("of the team's tests\npytest-arena may run tests")
    assert "is marked already" in call("mark", url_of(owned), "--yes").output
    assert "has no mark" in call("unmark", url_of(owned)).output
    assert comment_of(owned) == "of the team's tests"
    run(f"COMMENT ON DATABASE {owned} IS NULL")
    call("mark", url_of(owned), "--yes")
    call("unmark", url_of(owned))
    call("unmark", url_of(owned))
    assert comment_of(owned) is None


def test_a_copy_has_no_mark(owned: str) -> None:
    """Neither by TEMPLATE, nor with the comment of another database."""
    call("mark", url_of(owned), "--yes")
    copy = f"{owned}_copy"
    create_database(copy, owned)
    try:
        run(f"COMMENT ON DATABASE {copy} IS {literal(str(comment_of(owned)))}")
        called = call("mark", url_of(copy, str(URL.username)), "--yes")
        assert "is marked already" not in called.output
        assert called.status == 0
    finally:
        run(f"DROP DATABASE {copy}")


def test_only_the_owner_can_mark(owned: str) -> None:
    """The error has the statement for the owner."""
    other = f"{owned}_other"
    run(f"CREATE ROLE {other} LOGIN")
    try:
        called = call("mark", url_of(owned, other), "--yes")
    finally:
        run(f"DROP ROLE {other}")
    assert called.status == 1
    assert f"refuses the mark of {owned}: must be owner of database {owned}" in called.errors
    assert f'next:  COMMENT ON DATABASE "{owned}" IS \'pytest-arena may run' in called.errors
    assert comment_of(owned) is None


@pytest.mark.slow
def test_other_databases_are_never_marked(owned: str) -> None:
    """Those of each server, templates, pytest-arena's, and what is no database."""
    template = f"{owned}_template"
    live = f"arena_live_{secrets.token_hex(8)}"
    for name in (template, live):
        create_database(name)
    run(f"ALTER DATABASE {template} IS_TEMPLATE true")
    try:
        for name in ("postgres", "template1", template, live):
            called = call("mark", url_of(name, str(URL.username)), "--yes")
            assert called.status == 2
            assert f"the database {name} is never marked" in called.errors
    finally:
        run(f"ALTER DATABASE {template} IS_TEMPLATE false")
        for name in (template, live):
            run(f"DROP DATABASE {name}")
    called = call("mark", url_of("", str(URL.username)), "--yes")
    assert called.status == 2
    assert "the URL names no database" in called.errors
    called = call("mark", "sqlite:///dev.db", "--yes")
    assert called.status == 2
    called = call("mark", url_of(f"{owned}_none", owned), "--yes")
    assert called.status == 1
    assert "does not exist" in called.errors
