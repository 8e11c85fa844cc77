"""What of arena's is on a server, for somebody who begins no run there?"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_arena._postgresql import _registry_sql as sql
from pytest_arena._postgresql._control import Failed, open_control
from pytest_arena._postgresql._look_sql import REGISTRY_BYTES, is_there
from pytest_arena._postgresql.registry import _messages as messages
from pytest_arena._postgresql.registry._server_registry import RegistryRow

if TYPE_CHECKING:
    from pytest_arena._postgresql._control import Control
    from pytest_arena._values import Address

__all__ = ["Seen", "look"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a server's registry holds, and its own size."""

    databases: tuple[RegistryRow, ...]
    bytes: int


def look(address: Address, *, registry: str = sql.REGISTRY) -> Seen | None:
    """Read the registry of a server; None where there is none. Nothing is made or changed.

    Raises:
        ServerError: no server, or a registry that this version does not know.
    """
    try:
        # Asked first: a login to a missing database fails in words that differ.
        with closing(open_control(address)) as control:
            if control.rows(is_there(registry)) != [(True,)]:
                return None
        with closing(open_control(replace(address, database=registry))) as control:
            return _seen(control, address)
    except Failed as error:
        raise messages.failed("arena's databases cannot be listed", error, address) from error


def _seen(control: Control, address: Address) -> Seen | None:
    [(comment, _, _)] = control.rows(sql.registry_state())
    if comment != sql.MARK:
        return None  # somebody else's database of that name, or one that is just being made
    layout = control.rows(sql.layout_found())
    if layout != [(sql.LAYOUT,)]:
        raise messages.other_layout(address, layout[0][0] if layout else "none")
    [(size,)] = control.rows(REGISTRY_BYTES)
    return Seen(tuple(RegistryRow(*row) for row in control.rows(sql.listed())), int(size))
