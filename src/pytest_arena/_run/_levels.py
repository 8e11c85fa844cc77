"""The stack of levels: as long as a fixture lives, what it wrote is there."""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # without enums, which take ten times as long
import gc
import threading
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from pytest_arena import _process
from pytest_arena._product import Database, Held, Isolation, nothing
from pytest_arena._run import _leaks
from pytest_arena.errors import ArenaError, impossible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pluggy import HookRelay

    from pytest_arena._databases._resolver import Databases, Level
    from pytest_arena._gate._listeners import Gate
    from pytest_arena._gate._registry import Checkout
    from pytest_arena._ledger import Ledger
    from pytest_arena._run._leaks import Tasks

_Answer = TypeVar("_Answer")
_Every: TypeAlias = "list[tuple[Database, Isolation]]"

# What must not be broken off in the middle.

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGALRM") if hasattr(signal, name)
]


@contextmanager
def unbroken() -> Iterator[None]:
    """Have whoever rings wait until the block is done; who rings twice does not wait.

    A database that is brought back by halves would be the next test's. Cost: some microseconds.

    Example::

        with unbroken():
            isolation.leave()
    """
    rung: dict[int, Any] = {}
    is_main = (
        threading.get_ident() == threading.main_thread().ident
    )  # handlers run in no other
    # Those that lead into Python: what the system does itself cannot wait.
    signals = _SIGNALS * is_main
    kept: dict[int, Any] = {
        one: now for one in signals if callable(now := signal.getsignal(one))
    }

    def wait(number: int, frame: Any) -> None:
        if number in rung:
            kept[number](number, frame)
        rung[number] = frame

    try:
        for number in kept:
            signal.signal(number, wait)
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        for number, frame in rung.items():
            kept[number](number, frame)


# Where nothing is to be done, nothing can be done by halves. It is a lock, which is in C: a
# `nullcontext` takes ten times as long.
_ALONE = threading.RLock()


class LevelHooks(Protocol):
    """Hooks of our own, for what is in the process's memory (a cache) or in another service."""

    def pytest_arena_enter(self, level: Level) -> object:
        """Called when a level begins: a test's, or a wider fixture's.

        ``level.name`` is the test's or the fixture's, ``level.is_test`` tells them apart. What
        the databases do not hold is brought back here, or in `pytest_arena_leave`.

        Example::

            def pytest_arena_enter(level):
                limiter.reset()
        """

    def pytest_arena_leave(self, level: Level) -> object:
        """Called when a level ends, before the databases are brought back.

        A failure of this hook fails the test; the databases are brought back all the same.
        """


# Seconds; others work in another thread, or in a loop, and come to an end.
_PATIENCE, _PATIENCE_WITH_OTHERS, _STEP = 0.1, 1.0, 0.002


class Levels:
    """Enters and leaves levels on all databases at once, last in, first out.

    A database that is first connected to inside some levels joins them all with the state that
    it starts with.
    """

    def __init__(
        self,
        databases: Databases,
        gate: Gate,
        ledger: Ledger,
        hooks: HookRelay,
        tasks: Tasks,
    ) -> None:
        self._databases, self.gate, self._ledger, self._hooks = (
            databases,
            gate,
            ledger,
            hooks,
        )
        self._stack, self._tasks = databases.levels, tasks
        self._before: dict[Level | None, _leaks.HeldByFixtures] = {}
        self._sessions_of_tests: frozenset[int] = frozenset()  # that outlive them
        self._in_the_way: list[Checkout] = []
        self._has_ended_leaks = False

    def find(self, owner: object) -> Level | None:
        """Return the level of a fixture or a test, None if it has none."""
        for level in self._stack:
            if level.owner is owner:
                return level
        return None

    def above(self, level: Level) -> list[Level]:
        """Return the levels above this one, the top first."""
        return (
            []
            if self._stack[-1] is level
            else self._stack[: self._stack.index(level) : -1]
        )

    def enter(
        self, level: Level, of_the_test: _leaks.HeldByFixtures | None = None
    ) -> None:
        """Open a level above all that stands; a test may hold something by then."""
        started = _process.seconds()
        every = self._isolations()
        with unbroken() if every else _ALONE:
            if every:
                self._enter_each(level, every)
                self.gate.let_go_of_stale()
            self._stack.append(level)
            held = _leaks.HeldByFixtures.now(self.gate, self._sessions_of_tests)
            self._before[level] = held.without(of_the_test) if of_the_test else held
            self._ledger.isolation_seconds += _process.seconds() - started
            if (
                self._hooks.pytest_arena_enter.get_hookimpls()
            ):  # to call it takes longer
                self._hooks.pytest_arena_enter(level=level)

    def _enter_each(self, level: Level, every: _Every) -> None:
        number = len(self._stack)
        self._cut_to(number, every)
        try:
            for database, isolation in every:
                enter = partial(
                    self._databases.provision.enter, isolation, database, level
                )
                self._with_patience(enter, _PATIENCE_WITH_OTHERS)
                # A wider fixture that slips below it may write to it: it is that one's as well.
                database.level = (
                    database.level if database.level in self._stack else None
                )
        except (Held, ArenaError) as error:
            for _, isolation in self._isolations():
                if isolation.depth > number:
                    isolation.forget()
            if not isinstance(error, Held):
                raise
            raise _leaks.lost_error(
                _leaks.open_transactions(self.gate), level.name
            ) from error
        except BaseException:  # who rang twice; nobody knows of this level
            self._cut_to(number, self._isolations())
            raise

    def _told_of_leaving(self, level: Level) -> list[Exception]:
        try:
            self._hooks.pytest_arena_leave(level=level)
        except Exception as error:  # noqa: BLE001 - told when the databases are back
            return [error]
        return []

    def end_leaks(
        self,
        level: Level | None,
        serial: int,
        cancel_jobs: Callable[[], None] = nothing,
    ) -> None:
        """End the transactions and take back the connections that a level's owner has left.

        ``cancel_jobs`` is called when these are known, and before one of them is ended.

        Raises:
            ConnectionLeak: there were some.
        """
        held = self.held_before(level)
        if level is not None:
            self._sessions_of_tests = held.sessions_since()
        try:
            leaks = _leaks.connection_leaks(self.gate, serial, held)
        finally:
            cancel_jobs()
        if leaks:
            self._has_ended_leaks = True
            error = _leaks.leak_error(leaks)
            _leaks.take_back([leak for leak in leaks if leak.serial == serial])
            _leaks.end_transactions([leak for leak in leaks if leak.serial != serial])
            raise error

    def held_before(self, level: Level | None) -> _leaks.HeldByFixtures:
        """Return what wider fixtures held when a level was entered."""
        return self._before.get(level, _leaks.NOTHING_HELD)

    def drop_clean_ones_of_the_test(self) -> dict[Level, _leaks.HeldByFixtures]:
        """Forget the test's level, and its example's, while nothing was written in the top one.

        Returns what was taken in each, and is held.
        """
        dropped: dict[Level, _leaks.HeldByFixtures] = {}
        now = _leaks.HeldByFixtures.now(self.gate)
        for level in self._stack[::-1]:
            held = now.without(self.held_before(level))
            if not level.is_test or not self.drop_if_clean(level):
                break
            dropped[level] = held
        return dropped

    @unbroken()
    def drop_if_clean(self, level: Level) -> bool:
        """Forget a level in which nothing was written, if it is the top one."""
        isolations = [isolation for _, isolation in self._isolations()]
        if self._stack[-1] is not level or not all(
            one.is_clean() for one in isolations
        ):
            return False
        self._hooks.pytest_arena_leave(level=level)
        self._stack.pop()
        self._before.pop(level, None)
        for isolation in isolations:
            isolation.forget()
        return True

    @unbroken()
    def begin_anew(self, level: Level) -> None:
        """Take back what was written in the top level, and go on in it: nobody has left it.

        Raises:
            IsolationError: an open transaction is in the way, which goes on.
        """
        left: list[tuple[Database, Isolation]] = []
        try:
            for database, isolation in self._isolations():
                isolation.leave()
                left.append((database, isolation))
        except Held as error:
            raise _leaks.lost_error(
                _leaks.open_transactions(self.gate), level.name
            ) from error
        finally:
            for database, isolation in left:
                self._databases.provision.enter(isolation, database, level)
            self.gate.let_go_of_stale()

    def leave(self, level: Level) -> list[str]:
        """Go back to what stood when this level, the top one, was entered.

        Returns the names of the databases that had changed.

        Raises:
            IsolationError: a wider fixture had to lose its open transaction for that, or there is
                no room for it. The level is gone all the same.
        """
        if self._stack[-1:] != [level]:
            raise impossible(f"{level.name}: a level was left that is not the top one")
        started = _process.seconds()
        number = len(self._stack) - 1
        every = self._isolations()
        has_hook = bool(self._hooks.pytest_arena_leave.get_hookimpls())
        if not (every or has_hook):
            self._has_ended_leaks = False
            self._before.pop(self._stack.pop(), None)
            self._ledger.isolation_seconds += _process.seconds() - started
            return []
        with unbroken():
            changed: list[str] = []
            failed: list[Exception] = []
            self._cut_to(number + 1, every)
            try:
                if has_hook:  # to call it takes longer
                    failed += self._told_of_leaving(level)
                    every = self._isolations()  # it may have connected to one
                if every and level.is_test:
                    self.gate.end_raw(level.serial)
                for database, isolation in every:
                    is_changed = self._taken_back(database, isolation, level, failed)
                    changed += [database.name] * is_changed
            finally:  # also where somebody rang twice
                self._cut_to(number, self._isolations())  # some are dropped
                self._has_ended_leaks = False
                if every:  # else no connection is led anywhere
                    self.gate.let_go_of_stale()
                    self.gate.drop_altered(level.serial)
                self._ledger.isolation_seconds += _process.seconds() - started
            lost, self._in_the_way = self._in_the_way, []
            if lost:
                raise _leaks.lost_error(lost, level.name)
            if failed:
                raise failed[0]
            return changed

    def _isolations(self) -> _Every:
        every = [*self._databases.known.by_key.values()]
        return [(one, kept) for one in every if (kept := one.isolation) is not None]

    def _cut_to(self, number: int, databases: _Every) -> None:
        """Have only so many levels, on these databases: somebody was broken off at the others."""
        for database, isolation in databases:
            while isolation.depth > number:
                reason = (
                    f"{database.name}: arena was broken off at it (a timeout, Ctrl-C)"
                )
                try:
                    self._leave_by_force(isolation, database, reason)
                except (
                    ArenaError
                ) as error:  # the level is gone, and another failure is raised
                    self._ledger.note(error.what)
        for level in self._stack[number:]:
            self._before.pop(level, None)
        del self._stack[number:]

    def _leave_by_force(
        self, isolation: Isolation, database: Database, reason: str
    ) -> None:
        isolation.leave_by_force()
        self._ledger.note(f"{reason}; {database.product.forced}")

    def _taken_back(
        self,
        database: Database,
        isolation: Isolation,
        level: Level,
        failed: list[Exception],
    ) -> bool:
        """Whether there was a change in a database, which is as it was before this level."""
        if isolation.depth < len(self._stack):
            return False  # it was done when somebody broke in
        is_its_own = database.level is level
        if (is_its_own or not level.is_test) and self._databases.drop_with_level(
            database, level
        ):
            return True
        if is_its_own:
            database.level = None  # it would keep the test
        reason = (
            f"{database.name}: locked by a connection that arena does not know or cannot end "
            "(another process, a half-read cursor)"
        )
        try:
            # A leaked reader that wrote nothing keeps no level, and would lock the next test out.
            if not self._has_ended_leaks or isolation.is_free():
                with suppress(Held):
                    return isolation.leave()
            left = self._left_where_held(isolation, level)
        except ArenaError as error:  # a server that is gone, too
            left, reason = None, error.what
        if left is None:
            try:
                self._leave_by_force(isolation, database, reason)
            except ArenaError as error:  # the other databases are left all the same
                failed.append(error)
        return left is not False

    def _left_where_held(self, isolation: Isolation, level: Level) -> bool | None:
        """Whether there was a change; None where a lock keeps the database.

        A fixture's transaction may stay; others end by themselves, or are ended.
        """
        before, now = self.held_before(level), _leaks.open_transactions(self.gate)
        is_theirs = all(one in before.transactions for one in now)
        if now and is_theirs and isolation.is_untouched():
            # Suites do that which undo their tests by savepoints in a fixture's transaction.
            self._ledger.note(
                f"a fixture holds a transaction open over its tests ({now[0].line}): what is done "
                "inside of it is the fixture's to undo"
            )
            isolation.forget(is_undone=sum(one.writes for one in now) <= before.writes)
            return False
        here, taken = threading.get_ident(), self.gate.registry.taken()
        others = any(one.thread != here for one in taken) or (
            taken and self._tasks.go_on()
        )
        patience = _PATIENCE_WITH_OTHERS if others else 0
        if (left := self._left_with_patience(isolation, patience)) is not None:
            return left
        # A half-read cursor that only a cycle keeps has the lock of its connection, closed or not.
        gc.collect()
        # If no reader was seen, no time has passed yet. A reader may have been between two of its
        # transactions.
        patience = _PATIENCE_WITH_OTHERS - patience
        left = self._left_with_patience(isolation, patience)
        if left is not None:
            return left
        # Whoever holds them; of a wider fixture's it is said that they were lost.
        now = _leaks.open_transactions(self.gate)
        self._in_the_way += [one for one in now if one in before.transactions]
        _leaks.end_transactions(self.gate.registry.taken())
        return self._left_with_patience(isolation, _PATIENCE)

    def _left_with_patience(self, isolation: Isolation, seconds: float) -> bool | None:
        # A reader that polls the database holds its lock for less than a millisecond each time.
        def leave() -> bool:
            if self._has_ended_leaks and not isolation.is_free():
                raise Held
            return isolation.leave()

        with suppress(Held):
            return self._with_patience(leave, seconds)
        return None

    def _with_patience(self, call: Callable[[], _Answer], seconds: float) -> _Answer:
        """Call until nobody is in the way; whoever works in a loop of this thread goes on."""
        end = _process.seconds() + seconds
        while True:
            try:
                return call()
            except Held:
                if _process.seconds() > end:
                    raise
            self._tasks.go_on()
            _process.rest(_STEP)
