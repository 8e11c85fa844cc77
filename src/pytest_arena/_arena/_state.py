"""What does arena know of one database of the app's, and of one level of them all?"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_arena._values import Stage

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.engine import Dialect

    from pytest_arena._arena._products import Product
    from pytest_arena._gate import Aim, Key
    from pytest_arena._isolation import Isolation
    from pytest_arena.errors import ArenaError

__all__ = ["Database", "Level"]


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """A state of all databases that is entered and left.

    ``serial`` is a test's or an example's own number, by which it is known what was taken in it;
    0 for a wider fixture's.
    """

    owner: object
    name: str
    serial: int = 0
    stage: Stage = Stage.SEEDED

    @property
    def is_test(self) -> bool:
        """Whether it is a test's, or an example's, and no wider fixture's."""
        return self.serial > 0


@dataclass(slots=True, eq=False)
class Database:
    """One database of the app, and the arena's in its place."""

    key: Key
    name: str
    tails: tuple[str, ...]  # all names that an option may give it, the longest first
    product: Product
    dialect: type[Dialect]  # the class: an instance would keep the app's engine alive
    live: Path | None = None  # its file, if it has one
    isolation: Isolation | None = None
    failure: ArenaError | None = None
    busy: bool = False
    attached: bool = False  # also to connections that no engine of its own has opened
    is_of_a_test: bool = False  # made in a test, after which it is as its template again
    born: int = 0  # one that is dropped and made again lands elsewhere than before
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def is_expected(self) -> bool:
        """Whether only an option or a test has named it, and no engine has meant it yet."""
        return self.key.kind == "expected"

    @property
    def file(self) -> str:
        """The path of its file; "" for one on a server."""
        return str(self.live) if self.live else ""

    @property
    def aim(self) -> Aim:
        """Where a connection lands now."""
        return self.product.aim(self)
