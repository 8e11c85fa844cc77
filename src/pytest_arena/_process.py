"""The time, event loops, threads, audit events and imports of this process."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from asyncio import new_event_loop
from contextlib import (
    ExitStack,
    closing,
)
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
    Listener = Callable[..., object]  # gets the arguments of an audit event

AnyTask = asyncio.Task[Any]
_Answer = TypeVar("_Answer")
_Key = TypeVar("_Key")

_LONGEST_STEP = 0.05

# Set after Ctrl-C. Then pytest-arena leaves slow clean-up to a later run.
interrupted = threading.Event()

# `time.perf_counter`, `time.sleep`, `asyncio.sleep` and `os.path.exists`, also if a test freezes
# or replaces them. The first two are partials, because freezegun replaces the clocks that it finds
# in modules.
seconds = partial(time.perf_counter)
rest = partial(time.sleep)
async_rest = asyncio.sleep
path_exists = os.path.exists


# Returns the event loop that runs in this thread, or None. asyncio exports it under this name.
running_loop = asyncio._get_running_loop  # noqa: SLF001 - see above


_collector_lock = threading.RLock()


def innermost_frames() -> dict[int, FrameType]:
    """Return the innermost frame of each thread by the thread's number. Takes 1 µs for each.

    Python 3.11 deadlocks if the collector runs during the call, and collects a
    ``threading.local``: https://github.com/python/cpython/issues/106883.
    """
    # Without the lock, a second thread would find the collector disabled, and leave it disabled.
    with _collector_lock:
        was_on = gc.isenabled()
        gc.disable()
        try:
            return sys._current_frames()  # noqa: SLF001 - the documented way to other threads' frames
        finally:
            if was_on:
                gc.enable()


def until(ask: Callable[[], _Answer], *, within: float, step: float = 0.001) -> _Answer:
    """Call ``ask`` until its answer is true or the time is up. Return the last answer.

    ``ask`` is called at least once. The first pause takes ``step`` seconds. Each later pause is
    twice as long, up to 50 ms.
    """
    end = seconds() + within
    while True:
        answer = ask()
        if answer or seconds() >= end:
            return answer
        rest(step)
        step = min(step * 2, _LONGEST_STEP)


def replace_attribute(undo: ExitStack, owner: object, name: str, value: object) -> None:
    """Replace an attribute of a class or a module. ``undo`` restores it."""
    undo.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)


def alive(known: WeakKeyDictionary[_Key, Any] | WeakSet[_Key]) -> list[_Key]:
    """Return the keys of a weak collection, while other threads add and remove keys.

    The inner dictionary is copied in one step. An iteration over the weak collection would run
    Python code between two keys, and raise if the dictionary has changed.
    """
    data = known.data  # type: ignore[union-attr] # typeshed lacks the attribute
    keys = []
    for reference in [*data]:
        key = reference()
        if key is not None:
            keys.append(key)
    return keys


def context_of(task: object) -> Context:
    """Return the context in which a task, or a callback of a loop, runs."""
    # Python 3.12 has task.get_context().
    for referent in gc.get_referents(task):
        if isinstance(referent, Context):
            return referent
    return Context()


_listeners: dict[str, tuple[Listener, ...]] = {}


def on_audit_events(
    listeners: Mapping[str, Listener],
) -> Callable[[], None]:
    """Call ``listeners[event]`` with the arguments of each audit event of that name.

    Return a function that removes the listeners. The events of Python:
    https://docs.python.org/3/library/audit_events.html
    """
    _install_hook()
    for event, listener in listeners.items():
        _listeners[event] = (*_listeners.get(event, ()), listener)
    return partial(_remove_listeners, listeners)


def _remove_listeners(listeners: Mapping[str, Listener]) -> None:
    for event, removed in listeners.items():
        kept = [other for other in _listeners[event] if other is not removed]
        _listeners[event] = tuple(kept)


@cache
def _install_hook() -> None:
    # One hook serves all listeners. Python cannot remove a hook, and calls it for each event of the
    # process, six times in an empty test.
    # The method is bound here, because the interpreter may clear module globals at its exit.
    listeners_of = _listeners.get

    def hook(event: str, args: tuple[object, ...]) -> None:
        __tracebackhide__ = True  # the traceback of a refusal ends at the user's line
        for listener in listeners_of(event, ()):
            listener(*args)

    sys.addaudithook(hook)


def on_stat(listener: Callable[..., None]) -> Callable[[], None]:
    """Call ``listener(path, exists=…)`` after each call of ``os.stat`` by Python code.

    ``os.stat`` has no audit event. ``os.path.exists`` and ``Path.exists`` call it. Imports do not.
    Return a function that removes the listener.
    """
    real = os.stat
    is_on = True

    @wraps(real)
    def reporting_stat(path: Any, *args: object, **kwargs: Any) -> os.stat_result:
        __tracebackhide__ = True
        is_reported = is_on and kwargs.get("dir_fd") is None
        try:
            status = real(path, *args, **kwargs)
        except (FileNotFoundError, NotADirectoryError):
            if is_reported:
                listener(path, exists=False)
            raise
        if is_reported:
            listener(path, exists=True)
        return status

    def end() -> None:
        nonlocal is_on
        is_on = False
        # Another library may have replaced `os.stat` meanwhile.
        if os.stat is reporting_stat:
            os.stat = real

    os.stat = reporting_stat
    return end


def run_in_new_loop(coroutine: Coroutine[object, object, None]) -> None:
    """Run a coroutine in a thread without a running loop.

    Unlike asyncio.run, it leaves the main thread's event loop to the user.
    """
    with closing(new_event_loop()) as loop:
        loop.run_until_complete(coroutine)


def when_imported(name: str, change: Change) -> None:
    """Call ``change`` with the module of this name: now if it is loaded, and at each later load.

    Several changes of a module are called in the order in which they were registered. A reload,
    and an import after the removal from ``sys.modules``, are new loads.
    """
    _finder.changes.setdefault(name, []).append(change)
    # In front of all other finders, such as pytest's or a tracer's.
    others = [finder for finder in sys.meta_path if finder is not _finder]
    sys.meta_path[:] = [_finder, *others]
    module = sys.modules.get(name)
    if module is None:
        return
    package = name.partition(".")[0]
    is_incomplete = getattr(module.__spec__, "_initializing", False)
    if is_incomplete and package != name:
        # The import of the module began before. It ends when the package is imported.
        changes = _finder.changes.setdefault(package, [])
        changes.append(lambda _package: change(sys.modules[name]))
        return
    change(module)


def send_to_spawned(make: Callable[[], list[object]]) -> None:
    """Send the objects that ``make`` returns to each process that multiprocessing spawns.

    The new process unpickles them before it imports the user's modules. A forked process does not
    get them.
    """

    def change(module: Any) -> None:
        prepare = module.get_preparation_data

        @wraps(prepare)
        def get_preparation_data(name: str) -> dict[str, Any]:
            # multiprocessing pickles the whole dictionary, and ignores unknown names in it.
            data: dict[str, Any] = prepare(name)
            data["pytest_arena"] = [*data.get("pytest_arena", ()), *make()]
            return data

        module.get_preparation_data = get_preparation_data

    when_imported("multiprocessing.spawn", change)


class _Finder(MetaPathFinder):
    """Finds modules with the finders after this one, and adds the changes to their loaders."""

    def __init__(self) -> None:
        self.changes: dict[str, list[Change]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        """Return the spec of the other finders, with a loader that calls the changes."""
        changes = self.changes.get(name)
        if changes is None:
            return None
        for finder in list(sys.meta_path):
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, changes)
                return spec
        return None


class _Loader(Loader):
    """Loads as another loader does. The module gets the other loader as its ``__loader__``."""

    def __init__(self, loader: Any, changes: list[Change]) -> None:
        self._loader = loader
        self._changes = changes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Let the other loader create the module."""
        spec.loader = self._loader
        try:
            module: ModuleType | None = self._loader.create_module(spec)
        finally:
            spec.loader = self
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Let the other loader run the module, then call the changes."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        for change in tuple(self._changes):
            change(module)


_finder = _Finder()
