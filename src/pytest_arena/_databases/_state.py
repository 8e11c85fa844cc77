"""A level of all databases: what is entered and left."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_arena._values import Stage

__all__ = ["Level"]


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
    isolation: str = "auto"  # as the test's marker asks for
    is_anew: bool = False  # it begins as the template, whatever the levels below have written

    @property
    def is_test(self) -> bool:
        """Whether it is a test's, or an example's, and no wider fixture's."""
        return self.serial > 0
