"""What does this process do: what time is it, which loop runs, where is each thread?"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from contextlib import closing
from contextvars import Context
from functools import cache, partial, wraps
from importlib.abc import Loader, MetaPathFinder
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import FrameType, ModuleType
    from weakref import WeakKeyDictionary, WeakSet

    Change = Callable[[ModuleType], None]

_Answer = TypeVar("_Answer")
_Key = TypeVar("_Key")

_LONGEST_STEP = 0.05

# `time.perf_counter` and `time.sleep`, which a test may have frozen or replaced. As partials:
# freezegun looks through all modules for clocks, and puts its own in their places.
seconds = partial(time.perf_counter)
rest = partial(time.sleep)


# The event loop that runs in this thread, None where none does. asyncio exports it under this name.
running_loop = asyncio._get_running_loop  # noqa: SLF001 - as said


_one_by_one = threading.RLock()


def innermost_frames() -> dict[int, FrameType]:
    """Return where each thread is, by its number. Costs a microsecond for each.

    Python 3.11 waits for itself, for good, where the collector runs in the middle of that, and a
    ``threading.local`` is garbage: https://github.com/python/cpython/issues/106883.
    """
    with (
        _one_by_one
    ):  # else one of two might find the collector switched off, and leave it so
        was_on = gc.isenabled()
        gc.disable()
        try:
            return sys._current_frames()  # noqa: SLF001 - the documented way to other threads' frames
        finally:
            if was_on:
                gc.enable()


def until(ask: Callable[[], _Answer], *, within: float, step: float = 0.001) -> _Answer:
    """Ask until the answer is true or the time is up. Returns the last answer.

    Asks at least once. The first pause takes ``step`` seconds, each later one twice as long as the
    one before, up to 50 ms.
    """
    end = seconds() + within
    while not (answer := ask()) and seconds() < end:
        rest(step)
        step = min(step * 2, _LONGEST_STEP)
    return answer


def alive(known: WeakKeyDictionary[_Key, Any] | WeakSet[_Key]) -> list[_Key]:
    """Return the keys, while other threads add some and take some away.

    ``data``, what it has inside, is read in one step. Whatever else walks such a dictionary runs
    Python between two of them, and raises where it has changed by then.
    """
    data = known.data  # type: ignore[union-attr] # typeshed has it not
    return (
        [key for reference in [*data] if (key := reference()) is not None]
        if data
        else []
    )


def context_of(task: asyncio.Task[Any]) -> Context:
    """Return the context in which a task runs."""
    # From Python 3.12 on: task.get_context().
    return next(
        (one for one in gc.get_referents(task) if isinstance(one, Context)), Context()
    )


_heard: dict[str, tuple[Callable[..., object], ...]] = {}


def hear(calls: Mapping[str, Callable[..., object]]) -> Callable[[], None]:
    """Call these with what Python's audit events of these names tell. Returns what ends that.

    https://docs.python.org/3/library/audit_events.html
    """
    _listen()
    for event, call in calls.items():
        _heard[event] = (*_heard.get(event, ()), call)
    return partial(_end_hearing, calls)


def _end_hearing(calls: Mapping[str, Callable[..., object]]) -> None:
    for event, call in calls.items():
        _heard[event] = tuple(one for one in _heard[event] if one is not call)


@cache
def _listen() -> None:
    # One hook for all: it can never be taken back, and each event of the process calls it, six in
    # a test that does nothing. Names of a module may be gone when the interpreter ends.
    heard = _heard.get

    def hook(event: str, args: tuple[object, ...]) -> None:
        __tracebackhide__ = (
            True  # what is refused is refused at the line that asks for it
        )
        for call in heard(event, ()):
            call(*args)

    sys.addaudithook(hook)


def run_in_new_loop(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine where no loop runs.

    Unlike asyncio.run, it leaves the main thread's event loop to the user.
    """
    with closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(coroutine)


def when_imported(name: str, change: Change) -> None:
    """Call ``change`` with this module: now if it is loaded, and whenever it is loaded later on.

    Several changes of one module are called in the order in which they were asked for. A reload,
    and an import after somebody took it out of ``sys.modules``, are new loads.
    """
    _finder.changes.setdefault(name, []).append(change)
    # In front, so that no other finder (pytest's, a tracer's) comes first.
    sys.meta_path[:] = [_finder, *(one for one in sys.meta_path if one is not _finder)]
    if (module := sys.modules.get(name)) is not None:
        change(module)


def send_to_spawned(make: Callable[[], list[object]]) -> None:
    """Send what ``make`` returns to each process that multiprocessing starts, unless by a fork.

    The new process unpickles it before it imports a module of the user's.
    """

    def change(module: Any) -> None:
        prepare = module.get_preparation_data

        @wraps(prepare)
        def get_preparation_data(name: str) -> dict[str, Any]:
            # multiprocessing pickles all of it, and ignores names that it does not know.
            data: dict[str, Any] = prepare(name)
            data["pytest_arena"] = [*data.get("pytest_arena", ()), *make()]
            return data

        module.get_preparation_data = get_preparation_data

    when_imported("multiprocessing.spawn", change)


class _Finder(MetaPathFinder):
    """Finds nothing by itself: it asks the finders after it, and adds to what they find."""

    def __init__(self) -> None:
        self.changes: dict[str, list[Change]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        """Return what the others find, with a loader that calls the changes afterwards."""
        changes = self.changes.get(name)
        if changes is None:
            return None
        others = (one for one in list(sys.meta_path) if one is not self)
        found = (
            one.find_spec(name, path, target)
            for one in others
            if hasattr(one, "find_spec")
        )
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Loader(spec.loader, changes)
        return spec


class _Loader(Loader):
    """Loads as another loader does, which stands in the module as if nothing had happened."""

    def __init__(self, loader: Any, changes: list[Change]) -> None:
        self._loader, self._changes = loader, changes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the other one does."""
        spec.loader = self._loader
        try:
            module: ModuleType | None = self._loader.create_module(spec)
        finally:
            spec.loader = self
        return module

    def exec_module(self, module: ModuleType) -> None:
        """As the other one does, and then the changes."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        for change in tuple(self._changes):
            change(module)


_finder = _Finder()
