"""Random work of some connections in some levels of a database, of whichever product.

Each leave restores the content of its enter. No level with a change is found clean. The reported
changes are the difference of the rows.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_arena._product import Held
from pytest_arena.errors import IsolationError

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from pytest_arena._values import TableRows
    from tests.isolation.world import World

_VERBS = {"work": 83, "enter": 6, "leave": 7, "forget": 1, "force": 1, "look": 2}
_MOST_LEVELS = 3
_SCHEMA = "the schema"
_Rows = dict[str, Counter[str]]


@dataclass
class Level:
    """The content at an enter."""

    content: dict[str, object]
    rows: _Rows
    digests: Mapping[str, str]


class RandomLevels:
    """Connections at work, and the content at each enter. All of it follows from a seed."""

    def __init__(self, world: World, chance: random.Random, *, hands: int = 2) -> None:
        self.world = world
        self.isolation = world.isolation
        self.chance = chance
        self.hands = [world.connect() for _ in range(hands)]
        self.levels: list[Level] = []
        self.moment: tuple[object, _Rows] | None = None
        self.done: list[str] = []

    def play(self, steps: int) -> None:
        """Take some steps within a level, and leave the open levels."""
        try:
            self.enter()
            for verb in self.chance.choices([*_VERBS], [*_VERBS.values()], k=steps):
                getattr(self, verb)()
            while self.levels:
                self.leave()
            # A copy would hide that the journal is wrong.
            assert self.world.failed_undo() == []
        except BaseException as error:
            error.add_note("\n".join(self.done))
            raise

    def work(self) -> None:
        """Execute a statement. It may fail, as an app's statement may."""
        number = self.chance.randrange(len(self.hands))
        statement = self.world.statement(self.chance)
        self.done.append(f"{number}: {statement}")
        if statement == "(reconnect)":
            self.hands[number].close()
            return
        try:
            self.hands[number].execute(statement).fetchone()
        except self.world.errors as error:
            self.done.append(f"-- {str(error).splitlines()[0]}")
            self.world.recover(self.hands[number])

    def enter(self) -> None:
        """Open a level, often inside of open transactions."""
        if len(self.levels) >= _MOST_LEVELS:
            return
        self.done.append("-- enter")
        if self.chance.random() < 0.5 or not self.world.knows_open_transactions:
            self.end_transactions()
        try:
            level = self.now()
            self.isolation.enter()
        except (Held, IsolationError, self.world.errors):  # a lock of an open transaction
            self.end_transactions()
            level = self.now()
            self.isolation.enter()
        self.levels.append(level)
        self.moment = None

    def now(self) -> Level:
        return Level(self.world.content(), self.world.rows(), self.isolation.content())

    def leave(self) -> None:
        if not self.levels:
            return
        if self.chance.random() < 0.3:
            self.look()
        self.done.append("-- leave")
        if self.chance.random() < 0.7:
            self.end_transactions()
        if self.isolation.is_clean():
            with suppress(self.world.errors):  # a lock
                assert self.world.content() == self.levels[-1].content
        try:
            self.isolation.leave()
        except Held:
            self.end_transactions()
            try:
                self.isolation.leave()
            except Held:
                self.force()
                return
        self.compare()

    def force(self) -> None:
        if self.levels:
            self.done.append("-- force")
            self.isolation.leave_by_force()
            self.compare()

    def forget(self) -> None:
        """Forget a level, whose changes then belong to the level below."""
        if len(self.levels) > 1:
            self.done.append("-- forget")
            self.isolation.forget()
            self.levels.pop()
            self.moment = None

    def look(self) -> None:
        if not self.levels:
            return
        self.done.append("-- look")
        self.end_transactions()
        now = self.world.rows()
        level = self.levels[-1]
        changed = difference(level.rows, now)
        assert self.net(self.isolation.rows_changed()) == changed
        if changed:
            assert self.isolation.content() != level.digests
        moment = self.isolation.moment(exact=True)
        if self.moment is not None:
            since, before = self.moment
            with suppress(IsolationError):  # the columns have changed
                assert self.net(self.isolation.rows_changed(since)) == difference(before, now)
                between = self.isolation.rows_changed(since, moment)
                assert self.net(between) == difference(before, now)
        self.moment = (moment, now)

    def net(self, changed: list[TableRows]) -> _Rows:
        found: _Rows = {}
        for rows in changed:
            if rows.table != _SCHEMA:
                counts = Counter(map(self.world.shown, rows.added))
                counts.subtract(map(self.world.shown, rows.removed))
                found[rows.table] = counts
        return difference({}, found)

    def compare(self) -> None:
        self.end_transactions()
        level = self.levels.pop()
        contents = [self.world.content()]
        if self.world.is_read_by_old_connections:
            contents += [hand.content() for hand in self.hands]
        for content in contents:
            assert content == level.content, differing(level.content, content)
        assert self.isolation.content() == level.digests
        self.moment = None

    def end_transactions(self) -> None:
        """Commit or roll back the open transactions."""
        for hand in self.hands:
            with suppress(self.world.errors):  # a deferred constraint may refuse
                if self.chance.random() < 0.5:
                    hand.execute("COMMIT")
            hand.rollback()


def differing(before: dict[str, object], after: dict[str, object]) -> str:
    """Return what differs, for a message."""
    names = [name for name in {*before, *after} if before.get(name) != after.get(name)]
    return "\n".join(f"{name}: {before.get(name)} -> {after.get(name)}" for name in names)


def difference(before: _Rows, after: _Rows) -> _Rows:
    """Return the difference of the rows, by table."""
    found = {}
    for table in {*before, *after}:
        rows = Counter(after.get(table, Counter()))
        rows.subtract(before.get(table, Counter()))
        changed = Counter({row: number for row, number in rows.items() if number})
        if changed:
            found[table] = changed
    return found
