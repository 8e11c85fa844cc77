"""What does pytest-arena's own connection to PostgreSQL do?"""

from __future__ import annotations

import gc
import threading
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_arena._origin import is_own
from pytest_arena._postgresql._control import (
    ControlFailure,
    identifier,
    literal,
    open_control,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._postgresql._control import Control
    from pytest_arena._values import Address
    from tests.servers.crowded import Crowded


@pytest.fixture
def control(address: Address) -> Iterator[Control]:
    """A connection, closed after the test."""
    with closing(open_control(address)) as opened:
        yield opened


def test_a_control_runs_statements_and_gives_rows(control: Control) -> None:
    """Each statement is committed by itself; several go at once."""
    control.run("CREATE TEMP TABLE numbers (n int, word text); INSERT INTO numbers VALUES (1, 'a')")
    control.run("INSERT INTO numbers VALUES (2, '100 % of :it')")
    assert control.rows("SELECT n, word FROM numbers ORDER BY n") == [(1, "a"), (2, "100 % of :it")]
    assert control.rows("SELECT 1 WHERE false") == []
    assert control.rows("SELECT pg_backend_pid()") == [(control.pid,)]


def test_no_transaction_is_left_open(control: Control) -> None:
    """It runs what refuses to be part of one."""
    control.run("CREATE DATABASE control_was_here")
    control.run("DROP DATABASE control_was_here")


def test_a_refused_statement_has_its_code_and_ends_nothing(control: Control) -> None:
    """The caller decides by the code."""
    with pytest.raises(ControlFailure, match="nowhere") as failed:
        control.rows("SELECT * FROM nowhere")
    assert failed.value.sqlstate == "42P01"
    with pytest.raises(ControlFailure) as failed:
        control.run("SELECT 1/0")
    assert failed.value.sqlstate == "22012"
    assert control.rows("SELECT 1") == [(1,)]


def test_a_lost_connection_is_a_failure(control: Control, address: Address) -> None:
    """Somebody may end every connection; closing it then is no mistake."""
    with closing(open_control(address)) as other:
        other.run(f"SELECT pg_terminate_backend({control.pid})")
    with pytest.raises(ControlFailure):
        control.rows("SELECT 1")
    control.close()


def test_any_thread_may_use_it(control: Control) -> None:
    """One at a time, whoever asks."""
    answers: list[int] = []

    def ask() -> None:
        answers.extend(control.rows(f"SELECT {number}")[0][0] for number in range(20))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted(list(range(20)) * 4)


def test_it_may_be_closed_twice_and_leaves_nothing(address: Address) -> None:
    """No socket and no thread: warnings are errors in this suite."""
    before = threading.active_count()
    opened = open_control(address)
    opened.close()
    opened.close()
    del opened
    gc.collect()
    assert threading.active_count() == before


@pytest.mark.parametrize("database", ["postgres", "no_such_database"])
@pytest.mark.parametrize("port", [None, 1])
def test_a_failed_login_leaves_nothing(address: Address, database: str, port: int | None) -> None:
    """Neither where nobody answers nor where somebody says no."""
    before = threading.active_count()
    refused = replace(address, database=database, port=port or address.port, user="nobody_here")
    with pytest.raises(ControlFailure):
        open_control(refused)
    gc.collect()
    assert threading.active_count() == before


def test_a_wrong_password_is_refused_and_not_told(crowded: Crowded) -> None:
    """A message may be read by anybody."""
    open_control(crowded.address).close()
    with pytest.raises(ControlFailure) as failed:
        open_control(replace(crowded.address, password="wRong-0815"))  # noqa: S106 - a wrong one
    assert "wRong-0815" not in str(failed.value)
    gc.collect()


def test_the_shell_does_not_reach_it(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a developer has set for psql changes no statement of arena's."""
    monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=7 -c search_path=elsewhere")
    monkeypatch.setenv("PGDATABASE", "no_such_database")
    monkeypatch.setenv("PGUSER", "nobody_here")
    monkeypatch.setenv("PGHOST", "nowhere.invalid")
    monkeypatch.setenv("PGSSLMODE", "require")
    monkeypatch.setenv("PGSERVICE", "no_such_service")
    with closing(open_control(address)) as opened:
        asked = "SELECT current_setting('statement_timeout'), current_database(), current_user"
        assert opened.rows(asked) == [("0", "postgres", "postgres")]


def test_it_says_who_it_is(control: Control) -> None:
    """In the list of connections, and to the guard while it is opened."""
    assert control.rows("SELECT current_setting('application_name')") == [("pytest-arena",)]
    assert not is_own()


def test_words_stand_for_themselves(control: Control) -> None:
    """A name or a text may hold any sign."""
    words = """it's "here" \\ and % :there"""
    control.run(f"CREATE TEMP TABLE {identifier(words)} (t text)")
    control.run(f"INSERT INTO {identifier(words)} VALUES ({literal(words)})")
    assert control.rows(f"SELECT t FROM {identifier(words)}") == [(words,)]
