"""How pytest-arena gets into other code: audit events, the imports of modules, and patches."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from copy import copy
from functools import cache, partial
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import ExitStack
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    Change = Callable[[ModuleType], None]
    Listener = Callable[..., object]  # gets the arguments of an audit event


def patch(owner: object, name: str, value: object, undo: ExitStack | None = None) -> None:
    """Replace an attribute of another library. ``undo`` restores it, otherwise it stays.

    Each call is in a table of docs/explanation/architecture.md, and a test compares both.
    """
    if undo is not None:
        undo.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)


_listeners: dict[str, list[Listener]] = {}


def on_audit_events(listeners: Mapping[str, Listener]) -> None:
    """Call ``listeners[event]`` with the arguments of each audit event of that name.

    The events of Python: https://docs.python.org/3/library/audit_events.html
    """
    _install_hook()
    for event, listener in listeners.items():
        # A listener that is added during an event gets this event, too.
        _listeners.setdefault(event, []).append(listener)


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


def on_file_changes(check: Callable[[str, str], object]) -> None:
    """Call ``check`` with an action and a path before code writes, removes or renames a file.

    An audit hook is called before the system call, and can refuse it.
    """

    def changed(action: str, name: Any, folder: int = -1) -> None:
        path = Path(os.fsdecode(name))
        if folder >= 0:  # `shutil.rmtree` names a file relative to an open folder
            with suppress(OSError):
                path = Path(f"/proc/self/fd/{folder}").readlink() / path
        check(action, str(path))

    def renamed(old: Any, new: Any, folder: int = -1, new_folder: int = -1) -> None:
        changed("renaming", old, folder)
        changed("replacing", new, new_folder)

    def opened(name: Any, _mode: object, flags: int = os.O_WRONLY) -> None:
        is_written = flags & (os.O_WRONLY | os.O_RDWR | os.O_TRUNC)
        # `tempfile` opens a folder for a file without a name.
        if is_written and not isinstance(name, int) and not os.path.isdir(name):  # noqa: PTH112 - pathlib is slower
            changed("writing", name)

    on_audit_events(
        {
            "os.remove": partial(changed, "removing"),
            "os.rename": renamed,
            "open": opened,
            "os.truncate": opened,
        }
    )


# Where connections lead. With this variable, `pytest_arena.pth` starts the guard in a program.
PROGRAM = "ARENA_PROGRAM"
# The events of programs that start. The last argument is the environment, except of `os.system`.
STARTS = {"subprocess.Popen", "os.posix_spawn", "os.system", "os.spawn", "os.exec"}


def guard_programs(environment: object, facts: str, clients: Callable[[str], str]) -> None:
    """Give the facts to programs with this environment, or the present one, "" for none.

    ``clients`` returns the folder with programs for the database clients of a ``PATH``.
    """
    # The caller's own mapping, which `subprocess` has not read yet. `os.posix_spawn` has.
    if not isinstance(environment, MutableMapping):
        environment = os.environ
    environment[PROGRAM] = facts
    path = environment.get("PATH", os.defpath)
    folder = clients(path)
    if not path.startswith(folder):
        environment["PATH"] = f"{folder}{os.pathsep}{path}"


def send_refusal(file: str, error: object) -> None:
    """Append an error of a program or a fork to the file that the process of the tests reads."""
    import pickle  # noqa: PLC0415 - few processes need it

    with Path(file).open("ab") as opened:
        opened.write(pickle.dumps(error))


def when_imported(name: str, change: Change) -> None:
    """Call ``change`` with the module of this name: now if it is loaded, and at each later load.

    Several changes of a module are called in the order in which they were registered. A reload,
    and an import after the removal from ``sys.modules``, are new loads.
    """
    _finder.changes.setdefault(name, []).append(change)
    _stand_first()
    module = sys.modules.get(name)
    if module is not None:
        change(module)


def _stand_first() -> None:
    """Put the finder in front of all others, such as pytest's or a tracer's."""
    sys.meta_path[:] = [_finder, *[finder for finder in sys.meta_path if finder is not _finder]]


class _Finder(MetaPathFinder):
    """Finds modules with the finders after this one, and adds the changes to their loaders.

    It finds pytest-arena's modules as Python does. pytest would rewrite the assertions in each
    module of a package with a plugin, and compile it anew where no bytecode is written.
    """

    def __init__(self) -> None:
        self.changes: dict[str, list[Change]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        """Return the spec of the other finders, with a loader that calls the changes."""
        if name.startswith("pytest_arena."):
            return PathFinder.find_spec(name, path)
        changes = self.changes.get(name)
        if changes is None:
            return None
        for finder in list(sys.meta_path):
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                spec.loader = _calling(spec.loader, changes)
                return spec
        return None


def _calling(loader: Any, changes: list[Change]) -> Any:
    """Return a loader that calls the changes after it has run a module."""
    loader = copy(loader)  # pytest's loader serves several modules
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        del loader.exec_module
        execute(module)
        for change in tuple(changes):
            change(module)

    patch(loader, "exec_module", exec_module)
    return loader


_finder = _Finder()
_stand_first()
