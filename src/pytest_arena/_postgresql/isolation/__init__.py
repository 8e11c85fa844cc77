"""Chooses the isolation by option, rights and schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._postgresql.isolation._isolation import ServerIsolation, as_built
from pytest_arena._postgresql.journal import _journal_templates as templates
from pytest_arena._postgresql.rollback._sockets import check_for_sockets
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
        ConfigError: ``requested`` is undo or rollback, which does not work here.
    """

    def create(isolation: str) -> ServerIsolation:
        return ServerIsolation(
            registry,
            template,
            isolation,
            with_rights=with_rights,
            uses=uses,
            note=note,
            may_clone=requested == "auto",
        )

    if requested == "rollback":
        check_for_sockets(place)
    if requested in {"clone", "rollback"}:
        return create(requested)
    try:
        reason = templates.why_no_undo(registry)
        if not reason:
            undo = create("undo")
            for remark in templates.remarks(registry, with_rights(template)):
                note(f"undo: {remark}")
            return undo
        fix = templates.fix_for_undo(registry)
        line = f"{reason}. For undo: {fix}"
    except templates.Unjournaled as error:
        reason = error.reason
        fix = error.fix
        line = f"{reason}. For undo: {fix}" if error.is_of_the_server else reason
    if requested == "undo":
        raise ConfigError(
            f"arena_isolation = undo: {reason}",
            why="the tests would run with another isolation than the option names",
            cause=place,
            fix=f"{fix}\nor arena_isolation = auto   (clone, as long as undo does not work)",
        )
    note(f"{shown}: tests are isolated by clone, since {line}")
    return create("clone")
