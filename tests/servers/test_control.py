"""pytest-arena's own connection to PostgreSQL."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import (
    PostgreSQLControl,
    connect,
    identifier,
    literal,
    open_control,
)
from tests.servers.postgresql import address

if TYPE_CHECKING:
    import pytest

    from pytest_arena._product._server_control import Control

_PID = "SELECT pg_backend_pid()"


def test_a_name_or_a_text_may_have_any_character() -> None:
    words = """it's "here" \\ and 100 % :there"""
    with closing(open_control(address())) as control:
        control.run(f"CREATE TEMP TABLE {identifier(words)} (n int, t text); SELECT 1")
        control.run(f"INSERT INTO {identifier(words)} VALUES (1, {literal(words)})")
        assert control.rows(f"SELECT n, t FROM {identifier(words)}") == [(1, words)]
        assert control.rows("SELECT 1 WHERE false") == []


def test_a_loss_repeats_a_statement_or_a_whole_function() -> None:
    """No function has half of its statements on a new connection."""
    pids: list[tuple[object, ...]] = []
    losses: list[int] = []

    def end(pid: object) -> None:
        with closing(open_control(address())) as other:
            other.run(f"SELECT pg_terminate_backend({pid})")

    def ask_twice(control: Control) -> tuple[object, ...]:
        [first] = control.rows(_PID)
        if not pids:
            end(*first)
        pids.append(first)
        [second] = control.rows(_PID)
        pids.append(second)
        return second

    connecting = partial(connect, address())
    reconnecting = PostgreSQLControl(connecting, on_lost=lambda: losses.append(len(pids)))
    with closing(reconnecting) as control:
        assert control.call(ask_twice) == pids[-1]
        assert losses == [1]
        assert pids[0] != pids[1] == pids[2]
        end(*pids[-1])
        assert control.rows(_PID) != [pids[-1]]
        assert losses == [1, 3]


def test_variables_of_the_shell_change_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer has set them for psql."""
    monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=7 -c search_path=elsewhere")
    monkeypatch.setenv("PGDATABASE", "no_such_database")
    monkeypatch.setenv("PGUSER", "nobody_here")
    monkeypatch.setenv("PGHOST", "nowhere.invalid")
    monkeypatch.setenv("PGSSLMODE", "require")
    with closing(open_control(address())) as opened:
        question = "SELECT current_setting('statement_timeout'), current_database(), current_user"
        assert opened.rows(question) == [("0", "postgres", "postgres")]
