"""A random walk over a run of pytest, against a model in plain Python. Needs Hypothesis.

Tests, wide fixtures that come and go, connections of two engines and of another process, real
transactions, schema changes, ``kill -9``: after every step a fresh connection has to see what the
model says.
"""

from __future__ import annotations

import copy
import sys
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.conformance.products import product_of
from tests.conformance.walk_processes import Child, Processes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.conformance.products import Product
    from tests.conformance.setting import Setting

__all__ = ["Walk", "walk"]

_OURS = ("app", "second")
_HANDS = (*_OURS, "other")
_EXTRA = "extra"
_RARELY = 77  # no value that Hypothesis tries more often than others
_WITH_SCORES = 2  # the first rows: they cannot be deleted


@dataclass(slots=True)
class State:
    """What stands in a database: rows by their ids, the last id that was given, tables."""

    rows: dict[int, list[str]] = field(
        default_factory=lambda: {
            number: [name, "power"] for number, name in enumerate(("Sand", "Dune", "Grain"), 1)
        }
    )
    last: int = 3
    tables: set[str] = field(default_factory=lambda: {"dancers", "notes", "scores"})

    def seen(self) -> dict[str, object]:
        """Return it as a fresh connection sees it."""
        rows = {str(number): row for number, row in self.rows.items()}
        return {"tables": sorted(self.tables), "dancers": rows}


@dataclass(slots=True)
class Level:
    """What stood when a fixture or a test began."""

    name: str
    before: State


@dataclass(slots=True)
class Writing:
    """An open transaction: whose it is, what it would commit, its savepoints."""

    hand: str
    state: State
    savepoints: list[State] = field(default_factory=list)


class Walk(RuleBasedStateMachine):
    """The machine. ``processes`` is what it walks on; ``steps`` counts what it did."""

    processes: ClassVar[Processes]
    steps: ClassVar[Counter[str]] = Counter()
    errors: ClassVar[list[str]] = []

    def __init__(self) -> None:
        super().__init__()
        self.now, self.levels = State(), list[Level]()
        self.writing: Writing | None = None
        self.open: set[str] = set()  # hands that hold a connection
        self.at, self.next_item, self.leaks = "idle", "", False
        self.failed = True  # until the end is reached: what an error leaves is thrown away
        self.run = self.processes.run

    # What can be done.

    @precondition(lambda self: self.at == "idle")
    @rule(item=st.integers(0, 11), following=st.integers(0, 11))
    def run_a_test(self, item: int, following: int) -> None:
        """Run a test; what comes after it decides which fixtures end."""
        items = self.processes.items
        chosen = self.next_item or items[item % len(items)]
        others = [one for one in items if one != chosen]  # pytest runs no item twice in a row
        self.next_item = others[following] if following < len(others) else ""
        self._count("test")
        self.run.tell(do="run", item=chosen, next=self.next_item)
        self._hear()

    @precondition(lambda self: self.at != "idle")
    @rule(fail=st.integers(0, 5), tidy=st.booleans())
    def go_on(self, fail: int, *, tidy: bool) -> None:
        """End the test, set-up or tear-down that pauses; sometimes it fails, or leaves a leak."""
        if tidy or self.at != "test":
            self._tidy()
        elif self.open & {*_OURS}:
            self._count("leak")
        fails = fail == 0 and self.at != "teardown"
        if self.at == "test":
            self.leaks = bool(self.open & {*_OURS}) and not fails
        self._count(f"{self.at} {'failed' if fails else 'ended'}")
        held = self.writing is not None and self.writing.hand == "other"
        self.run.tell(do="go", fail=fails)
        if self.writing is not None:
            self._has_ended(self.writing)
        if self.at != "setup" or fails:
            self.now = self.levels.pop().before
        self.writing = None
        self.open -= {*_OURS}
        self._hear()
        if held:  # its file may be gone
            self.processes.kill_other()
        if held or not self._product.keeps_url:
            self.open.discard("other")
        self.processes.new_level()

    @precondition(lambda self: self.at != "idle")
    @rule(hand=st.sampled_from(_HANDS), what=st.integers(0, 3), style=st.sampled_from("abc"))
    def write(self, hand: str, what: int, style: str) -> None:
        """Insert, update or delete, in a transaction that stays open."""
        if self.writing is not None and self.writing.hand != hand:
            return  # it would wait for the other one
        self.writing = self.writing or Writing(hand, copy.deepcopy(self.now))
        self._write(self.writing, what, style)

    @precondition(lambda self: self.writing is not None)
    @rule(commit=st.integers(0, 3))
    def end(self, commit: int) -> None:
        """Commit, or roll back."""
        writing, self.writing = self.writing, None
        assert writing is not None
        if commit:
            self.now = writing.state
        self._has_ended(writing)
        self._do(writing.hand, "commit" if commit else "rollback")

    @precondition(lambda self: self.writing is not None)
    @rule(back=st.booleans())
    def savepoint(self, *, back: bool) -> None:
        """Set a savepoint, or go back to one."""
        writing = self.writing
        assert writing is not None
        if back and writing.savepoints:
            last, writing.state = writing.state.last, writing.savepoints.pop()
            writing.state.last = self._number_after(writing.state.last, last)
            self._do(writing.hand, "back")
        elif len(writing.savepoints) < 3:
            writing.savepoints.append(copy.deepcopy(writing.state))
            self._do(writing.hand, "savepoint")

    @precondition(lambda self: self.at != "idle" and self.writing is None)
    @rule(hand=st.sampled_from(_HANDS), chance=st.integers(0, 3))
    def change_the_schema(self, hand: str, chance: int) -> None:
        """Make a table, or drop it."""
        if chance:
            return
        if _EXTRA in self.now.tables:
            self.now.tables.remove(_EXTRA)
            self._do(hand, "ddl", "drop", _EXTRA)
        else:
            self.now.tables.add(_EXTRA)
            self._do(hand, "ddl", "create", _EXTRA)

    @precondition(lambda self: self.open and self.writing is None)
    @rule(hand=st.sampled_from(_HANDS))
    def give_back(self, hand: str) -> None:
        """Give a connection back to its pool."""
        if hand in self.open:
            self._do(hand, "close")
            self.open.remove(hand)

    @precondition(lambda self: self.at == "test" and self.processes.setting.is_async)
    @rule()
    def change_the_loop(self) -> None:
        """From here on the app's engine is used in another event loop."""
        if "app" not in self.open:
            self._do("app", "loop")

    @precondition(lambda self: self.writing is not None and self.writing.hand == "other")
    @rule()
    def kill_the_writer(self) -> None:
        """The other process dies in the middle of its transaction."""
        self._count("writer killed")
        if self.writing is not None:
            self._has_ended(self.writing)
        self.writing = None
        self.open.discard("other")
        self.processes.kill_other()

    @precondition(lambda self: self.at != "idle")
    @rule(chance=st.integers(0, 99))
    def kill_the_run(self, chance: int) -> None:
        """The whole run dies; the next one begins as if it had not been."""
        if chance == _RARELY:
            self._count("run killed")
            self.processes.kill_run()
            self.run = self.processes.run
            self.now, self.at, self.next_item = State(), "idle", ""
            self.leaks = False  # nobody is left to tell of one
            self.levels.clear()
            self.open.clear()
            self.writing = None

    @invariant()
    def a_fresh_connection_sees_what_the_model_says(self) -> None:
        """After every step."""
        seen = self.run.do(do="look")
        assert seen == self.now.seen(), f"at {self.at} in {[one.name for one in self.levels]}"

    def teardown(self) -> None:
        """Walk to the end of the run's fixtures: what stands then is what stood at first."""
        error = sys.exception()
        if isinstance(error, Exception) and not isinstance(error, Flaky):  # of the step that failed
            self.errors.append(traceback.format_exc())
        try:
            self._walk_to_the_end()
            self.failed = False
        except Exception:
            self.errors.append(traceback.format_exc())
            raise
        finally:
            if self.failed:
                self.processes.kill_run()

    # How it is done.

    @property
    def _product(self) -> Product:
        return product_of(self.processes.setting)

    def _number_after(self, kept: int, given: int) -> int:
        """Return the last number of a sequence, where what gave another one was rolled back."""
        return kept if self._product.gives_numbers_back else max(kept, given)

    def _has_ended(self, writing: Writing) -> None:
        self.now.last = self._number_after(self.now.last, writing.state.last)

    def _walk_to_the_end(self) -> None:
        while self.at != "idle":
            self.go_on(fail=1, tidy=True)
        self.run_a_test(0, len(self.processes.items))  # the next one, and nothing after it
        while self.at != "idle":
            self.go_on(fail=1, tidy=True)
        assert not self.levels
        assert self.run.do(do="look") == State().seen()

    def _write(self, writing: Writing, what: int, style: str) -> None:
        state, rows = writing.state, sorted(writing.state.rows)
        if what == 0 and len(rows) > _WITH_SCORES:
            number = rows[-1 - len(rows[_WITH_SCORES:]) // 2]
            del state.rows[number]
            self._do(writing.hand, "delete", number)
        elif what == 1:
            state.rows[rows[0]] = [state.rows[rows[0]][0], style]
            self._do(writing.hand, "update", rows[0], style)
        else:
            state.last += 1
            state.rows[state.last] = [f"row {state.last}", ""]
            given = self._do(writing.hand, "insert", f"row {state.last}")
            assert given == state.last, f"the sequence gave {given}, and not {state.last}"

    def _do(self, hand: str, name: str, *values: object) -> object:
        self._count(name)
        if name not in {"loop", "close"}:
            self.open.add(hand)
        return self._child(hand).do(do=name, hand=hand, values=values)

    def _child(self, hand: str) -> Child:
        return self.processes.other if hand == "other" else self.run

    def _tidy(self) -> None:
        if self.writing is not None:
            self.end(commit=0)
        for hand in sorted(self.open & {*_OURS}):
            self.give_back(hand)

    def _hear(self) -> None:
        heard = self.run.hear()
        self.at = heard["at"]
        if self.at == "idle":
            self._judge(heard["reports"])
        elif self.at == "teardown":
            self._end_of(heard["name"])
        else:
            self.levels.append(Level(heard.get("name", "the test"), copy.deepcopy(self.now)))

    def _end_of(self, name: str) -> None:
        """A fixture ends: all that has changed something above it has ended before."""
        after = [*(level.before for level in self.levels[1:]), self.now]
        pairs = zip(self.levels, after, strict=False)
        self.levels = [level for level, then in pairs if level.before != then]
        if name not in [level.name for level in self.levels]:
            self.levels.append(Level(name, copy.deepcopy(self.now)))
        assert self.levels[-1].name == name, f"{name} ends below {self.levels[-1].name}"

    def _judge(self, reports: list[str]) -> None:
        untold = [text for text in reports if "as it was told" not in text]
        leaks = [text for text in untold if "the test ended with" in text]
        assert leaks == untold, "\n".join(untold)
        assert bool(leaks) == self.leaks, f"a leak: {self.leaks}, reported: {leaks}"
        self.leaks = False

    def _count(self, name: str) -> None:
        self.steps[name] += 1


def walk(
    setting: Setting,
    folder: Path,
    planted: Mapping[str, str] | None = None,
    *,
    examples: int = 30,
    steps: int = 30,
    shrink: bool = True,
) -> Counter[str]:
    """Walk at random, and return how often each thing was done.

    Costs about five seconds for 30 examples of 30 steps. ``planted`` as for `Trial`. Each run takes
    other walks: Hypothesis draws what it "derandomizes" by the modules that are imported, and then
    misses a planted defect in each run of an environment, or in none.

    Example::

        print(walk(Setting(journal="wal"), tmp_path, examples=500, steps=60))

    Raises:
        AssertionError: a promise was not kept; Hypothesis prints the shortest way there.
    """
    profile = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        phases=[Phase.generate] + [Phase.shrink] * shrink,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    processes, counted = Processes(setting, folder, planted or {}), Counter[str]()
    errors: list[str] = []
    own = {"processes": processes, "steps": counted, "errors": errors}
    machine = type("Walk", (Walk,), own)
    try:
        any(_has_walked(machine, profile, errors, is_last=one) for one in (False, False, True))
    finally:
        processes.kill_run()
    return counted


def _has_walked(
    machine: type[Walk], profile: settings, errors: list[str], *, is_last: bool
) -> bool:
    """Walk; False where two walks of one way have parted, and no step has failed.

    What waits for a lock has it or has not, by the time that a busy machine takes. Hypothesis
    wants each way to be the same again, which is no promise of arena's.
    """
    try:
        run_state_machine_as_test(machine, settings=profile)
    except Flaky as flaky:  # it says where two walks parted, and not why the first one did
        if errors or is_last:
            flaky.add_note("\n".join(["what failed once:", *errors]))
            raise
        return False
    return True
