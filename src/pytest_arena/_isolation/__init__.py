"""How is a level of a database entered and left?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_arena._isolation._base import Held, Isolation
from pytest_arena._isolation._choice import Choice
from pytest_arena._isolation._clone import Clone
from pytest_arena._isolation._copy import Copy
from pytest_arena._isolation._switched import Switched
from pytest_arena._isolation._undo import Undo
from pytest_arena._isolation._verified import verified
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from pytest_arena._config import Config

__all__ = [
    "ISOLATIONS",
    "Choice",
    "Clone",
    "Copy",
    "Held",
    "Isolation",
    "Switched",
    "Undo",
    "isolation_named",
    "verified",
]

# By product, and by the values of ``arena_isolation``; a new variant is one more line. What
# ``auto`` comes to on a server is the ``Choice`` of its rights and of the schema.
ISOLATIONS: dict[str, dict[str, Any]] = {
    "sqlite": {"auto": Copy, "copy": Copy},
    "postgresql": {"auto": Undo, "undo": Undo, "clone": Clone},
}


def isolation_named(config: Config, product: str, shown: str) -> Any:
    """Return the class of the isolation that the configuration asks for on a product.

    Raises:
        ConfigError: the product does not have it.
    """
    kinds = ISOLATIONS[product]
    if config.isolation not in kinds:
        names = ", ".join(name for name in kinds if name != "auto")
        raise ConfigError(
            f"arena_isolation = {config.isolation} is not to be had on {shown}",
            why="tests that were isolated another way than was asked for would prove nothing",
            cause=config.place("isolation"),
            fix=f"arena_isolation = auto   (here: {names})",
        )
    return kinds[config.isolation]
