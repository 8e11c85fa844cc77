"""When was a database on a server used, and who wants to know before it is used again?"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_arena._product import Aim, Key

__all__ = ["Uses", "UsesOfOne"]


class Uses:
    """How often each database was used, as far as the pools of this process tell. Any thread asks.

    ``out`` returns whose connections are out of their pools. What is out, or has come without a
    pool, may be used at any time; so may all, once there are other processes.
    """

    def __init__(self, out: Callable[[], Iterable[Key]]) -> None:
        self._out = out
        self._turn = threading.RLock()
        self._numbers: Counter[Key] = Counter()
        self._unwatched: set[Key] = set()
        self._waiting: dict[Key, Callable[[], None]] = {}
        self._has_others = False
        self._renamed: dict[Key, Key] = {}

    def rename(self, old: Key, new: Key) -> None:
        """A database has another key from here on; who asks by the old one is told of it, too."""
        with self._turn:
            self._renamed[old] = new
            self._numbers[new] += self._numbers.pop(old, 0) + 1
            if old in self._unwatched:
                self._unwatched.add(new)
            if (call := self._waiting.pop(old, None)) is not None:
                call()

    def _now(self, key: Key) -> Key:
        return self._renamed.get(key, key)

    def of(self, key: Key) -> UsesOfOne:
        """Return what tells of one database."""
        return UsesOfOne(self, key)

    def begin(self, aims: Iterable[Aim]) -> None:
        """A connection is about to be handed out; it is known to be out of its pool."""
        with self._turn:
            for aim in aims:
                # However it came: by a listener or a creator of the app's as well.
                if aim.address is not None:
                    self._numbers[self._now(aim.key)] += 1
                    self._tell(aim.key)

    def end(self, key: Key) -> None:
        """A connection was given back: it may have been used since it was asked for last."""
        with self._turn:
            self._numbers[self._now(key)] += 1

    def unwatched(self, key: Key) -> None:
        """From here on somebody has a connection that no pool sees."""
        with self._turn:
            self._unwatched.add(self._now(key))
            self._tell(key)

    def open_to_others(self) -> None:
        """Another process is about to be started, which may use them all."""
        with self._turn:
            self._has_others = True
            for key in list(self._waiting):
                self._tell(key)

    def _tell(self, key: Key) -> None:
        if (call := self._waiting.pop(self._now(key), None)) is not None:
            call()

    def number(self, key: Key) -> int:
        """Return a number that has moved since it was last asked for, if one may have been used."""
        with self._turn:
            if self._may_be_used(key := self._now(key)):
                self._numbers[key] += 1
            return self._numbers[key]

    def before_next(self, key: Key, call: Callable[[], None]) -> bool:
        """Have this called before it is used again, if nobody can be using it now."""
        with self._turn:
            is_quiet = not self._may_be_used(key := self._now(key))
            if is_quiet:
                self._waiting[key] = call
            return is_quiet

    def _may_be_used(self, key: Key) -> bool:
        return self._has_others or key in self._unwatched or key in map(self._now, self._out())


@dataclass(frozen=True, slots=True)
class UsesOfOne:
    """When one database was used."""

    all: Uses
    key: Key

    def __call__(self) -> int:
        """Return a number that has moved since it was last asked for, if it may have been used.

        That is so where a connection was taken from its pool, or given back; as long as one is
        out; from when one was opened without a pool, or taken out of it for good; and as soon as
        there are other processes.
        """
        return self.all.number(self.key)

    def before_next(self, call: Callable[[], None]) -> bool:
        """Have this called before it is used the next time, by whoever is about to.

        Only the last that was asked for is called, and once; it must not raise. Returns whether
        that can be had: not, where somebody may be using it right now.
        """
        return self.all.before_next(self.key, call)
