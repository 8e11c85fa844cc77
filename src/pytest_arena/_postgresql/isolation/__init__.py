"""How a database on a server is brought back: as it is asked for, or as rights and schema allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._postgresql.isolation._isolation import ServerIsolation, as_built
from pytest_arena._postgresql.journal import _journal_templates as templates
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._postgresql.isolation._live import Uses
    from pytest_arena._postgresql.registry import ServerRegistry

__all__ = ["ServerIsolation", "isolate"]


def isolate(
    own: ServerRegistry,
    asked_for: str,
    template: str | None,
    *,
    given: Callable[[str | None], str | None] = as_built,
    shown: str,
    place: str,
    uses: Uses,
    tell: Callable[[str], None],
) -> ServerIsolation:
    """Return the isolation of a database that begins with a template's content.

    ``auto`` is undo; where that cannot be had, it is clone, and a line says why. ``given``
    returns the template in which the app's role has what is its own. ``shown`` is the server in
    messages, ``place`` where ``arena_isolation`` stands. ``tell`` is given lines for the
    summary.

    Raises:
        ConfigError: undo was asked for by its name, and cannot be had.
    """

    def made(isolation: str) -> ServerIsolation:
        return ServerIsolation(
            own, template, isolation, given=given, uses=uses, tell=tell
        )

    if asked_for == "clone":
        return made("clone")
    try:
        if not (reason := templates.lacking(own)):
            undo = made("undo")
            for remark in templates.remarks(own, given(template)):
                tell(f"undo: {remark}")
            return undo
        fix = templates.what_would_do(own)
        line = f"{reason}. For undo: {fix}"
    except templates.Unjournaled as error:
        reason = error.reason
        fix = error.fix
        line = f"{reason}. For undo: {fix}" if error.is_of_the_server else reason
    if asked_for == "undo":
        raise ConfigError(
            f"arena_isolation = undo: {reason}",
            why="tests that were isolated another way than was asked for would prove nothing",
            cause=place,
            fix=f"{fix}\nor arena_isolation = auto   (by clone, as long as undo cannot be had)",
        )
    tell(f"{shown}: tests are isolated by clone, since {line}")
    return made("clone")
