"""Chooses the isolation by option and rights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._postgresql.isolation._server_isolation import (
    ServerIsolation,
    as_built,
)
from pytest_arena._postgresql.journal._journal_templates import (
    FIX_FOR_UNDO,
    Unjournaled,
    why_no_undo,
)
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._postgresql.registry import ServerRegistry
    from pytest_arena._product import Usage

__all__ = ["ServerIsolation", "isolate"]


def isolate(
    registry: ServerRegistry,
    requested: str,
    template: str | None,
    *,
    with_rights: Callable[[str | None], str | None] = as_built,
    shown: str,
    place: str,
    uses: Usage,
    note: Callable[[str], None],
) -> ServerIsolation:
    """Return the isolation of a database that begins with a template's content.

    ``auto`` is undo. If undo does not work here, it is clone, and the summary says why.
    ``with_rights`` returns the template with the rights and objects of the app's role. ``shown`` is
    the server in messages. ``place`` is the line that sets ``arena_isolation``. ``note`` gets
    lines for the summary.

    Raises:
        ConfigError: ``requested`` is undo, which does not work here.
    """

    def create(isolation: str) -> ServerIsolation:
        return ServerIsolation(
            registry, template, isolation, with_rights=with_rights, uses=uses, note=note
        )

    if requested == "clone":
        return create("clone")
    reason = why_no_undo(registry)
    fix = FIX_FOR_UNDO
    if not reason:
        try:
            return create("undo")
        except Unjournaled as error:
            reason = error.cause
            fix = error.fix
    if requested == "undo":
        raise ConfigError(
            f"arena_isolation = undo: {reason}",
            why="the tests would run with another isolation than the option names",
            cause=place,
            fix=f"{fix}\nor arena_isolation = auto   (clone, as long as undo does not work)",
        )
    note(f"{shown}: tests are isolated by clone, since {reason}. For undo: {fix}")
    return create("clone")
