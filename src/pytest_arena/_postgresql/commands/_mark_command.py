"""`arena databases mark` and `unmark`: whether tests may run in a database that has tables."""

from __future__ import annotations

from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

from pytest_arena._postgresql._control import ControlFailure, open_control
from pytest_arena._postgresql.named._mark import (
    counted_content,
    mark_sql,
    read_state,
    unmark_sql,
)
from pytest_arena._postgresql.servers._entrance import CreatesNone, enter
from pytest_arena._postgresql.servers._find import read_url
from pytest_arena._product.servers import Unavailable
from pytest_arena.errors import ConfigError, ServerError, redact_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_arena._postgresql._control import Control
    from pytest_arena._postgresql.named._mark import DatabaseState
    from pytest_arena._values import Address

_FAILED = 1
_PLACE = "the command line"
_WHY = "the mark is in the comment of the database, which only its owner may write"


def mark(
    url: str, *, is_agreed: bool, say: Callable[..., None], ask: Callable[..., bool]
) -> int:
    """Mark a database if the user agrees. Return the exit status.

    Raises:
        ConfigError: the URL names no database, or one in which tests never run.
        ServerError: the server cannot be used, or refuses the mark.
    """
    address = _address(url)
    with _connected(address, url) as control:
        state = read_state(control)
        if state.refusal:
            raise ConfigError(
                f"the database {state.name} is never marked: {state.refusal}",
                why="tests lock tables and move sequences in a marked database",
                cause=f"{redact_url(url)} on {_PLACE}",
                fix="name a database that only tests use",
            )
        where = f"{state.name} on {address.server}"
        if state.is_marked:
            say(f"{where} is marked already")
            return 0
        say(f"{where}: {counted_content(control)}")
        is_agreed = ask(
            "Tests with arena_isolation = rollback lock its tables and move its sequences, "
            "and never commit.\nMay tests run in this database?",
            is_agreed=is_agreed,
            refusal="nothing is marked",
            command=f"arena databases mark {redact_url(url)} --yes",
        )
        if not is_agreed:
            return _FAILED
        _write(control, address, state, mark_sql(state))
        say(f"{where} is marked")
    return 0


def unmark(url: str, *, say: Callable[..., None]) -> int:
    """Remove the mark of a database. Return the exit status. Raises as ``mark`` does."""
    address = _address(url)
    with _connected(address, url) as control:
        state = read_state(control)
        if state.is_marked:
            _write(control, address, state, unmark_sql(state))
        say(f"{state.name} on {address.server} has no mark")
    return 0


def _address(url: str) -> Address:
    try:
        address = read_url(url)
        if address.database:
            return address
        reason = Unavailable("the URL names no database")
    except Unavailable as unavailable:
        reason = unavailable
    raise ConfigError(
        f"{redact_url(url)}: {reason}",
        why="a mark belongs to one database",
        cause=_PLACE,
        fix="arena databases mark postgresql://owner@host:5432/name",
    )


@contextmanager
def _connected(address: Address, url: str) -> Iterator[Control]:
    try:
        with suppress(CreatesNone):
            enter(address, "")
        with closing(open_control(address)) as control:
            yield control
    except (Unavailable, ControlFailure) as error:
        raise ServerError(
            f"the database cannot be read: {error}",
            why="the command reads and writes the comment of the database",
            cause=f"{redact_url(url)} on {_PLACE}",
            fix="arena databases mark postgresql://owner@host:5432/name",
        ) from error


def _write(control: Control, address: Address, state: DatabaseState, sql: str) -> None:
    try:
        control.run(sql)
    except ControlFailure as error:
        raise ServerError(
            f"{address.server} refuses the mark of {state.name}: {error.first_line}",
            why=_WHY,
            cause=f"role {address.user} does not own the database",
            fix=f"{' '.join(sql.split())};   -- as its owner",
        ) from error
