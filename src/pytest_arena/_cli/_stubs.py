"""`arena scenarios stubs`: which tests are lacking, printed or written?"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena._cli._options import read_project, read_setting
from pytest_arena._cli._shape import SHAPE
from pytest_arena.errors import ArenaError, ConfigError, ScenarioError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from pytest_arena._config import Config
    from pytest_arena._values import Route
    from pytest_arena.scenarios.specs import Index, Reference, Specification
    from pytest_arena.scenarios.stubs import Marker, StubFile

__all__ = ["add"]

_ABOUT = """\
Write a test for each scenario that has none: one file for a feature, one async
test for a scenario, with a block for each step. Such a test fails, as STUB, until
somebody writes it.

What has a test is known by the markers (pytest.mark.scenario) in the code of the
tests; they are not run. No line that is there is changed: tests are added at the
end of a feature's file, or go to another file where it cannot take them. Done
twice, nothing more is written.

The app (--app, else arena_app) is imported, for its routes; inside the arena, so
that it meets no database of yours. Scenarios are those of PATH, else of arena_specs.
"""
_STATUS = (
    "exit status: 0; 1 where --check finds a scenario without a test, or a scenario cannot be "
    "read; 2 for wrong options"
)


def add(verbs: Any) -> None:
    """Add the verb ``stubs`` to those of ``arena scenarios``."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "stubs", help="write tests that are lacking", description=_ABOUT, epilog=_STATUS, **SHAPE
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="a specification, or a folder")
    parser.add_argument("--write", metavar="DIR", help="write files into DIR, and print none")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; say what would be, with status 1"
    )
    parser.add_argument(
        "--app", metavar="MODULE:NAME", help="the app, as in arena_app; empty: import none"
    )
    parser.set_defaults(do=_do)


def _do(given: argparse.Namespace) -> int:
    from pytest_arena.scenarios.stubs import stubs  # noqa: PLC0415 - not for --help

    project = read_project()
    wanted, index, tests = _read(given, project)
    mapped, complaints = tests.mapped(index)
    files = stubs(
        wanted,
        index=index,
        folder=Path(given.write) if given.write else None,
        mapped={*mapped, *tests.bound(wanted)},
        routes=None if given.check else _routes(given.app, project),
        runner=_runner(),
        elsewhere=tests.elsewhere(),
    )
    wrong = [f"left out: {problem}" for problem in wanted.problems if problem.is_error]
    # Without arena_specs nobody knows whether a marker names a scenario that was not read.
    wrong += complaints if project.specs else []
    _warn(*wrong)
    _warn_of_other_names(files)
    if given.check:
        return _checked(files, is_all=not wrong) or int(bool(wrong))
    _give(files, is_to_write=bool(given.write), is_all=not wrong)
    return int(bool(wrong))


def _read(given: argparse.Namespace, project: Config) -> tuple[Specification, Index, _Tests]:
    """What was asked for, what knows it among all others, and the tests that there are."""
    from pytest_arena.scenarios.evidence import Lock  # noqa: PLC0415 - not for --help
    from pytest_arena.scenarios.specs import Index, read, require_scenarios  # noqa: PLC0415 - as above

    named = [str(Path.cwd() / path) for path in given.paths]
    patterns = named or list(project.specs)
    if not patterns:
        raise ConfigError(
            "there is no specification to read",
            why="each scenario of it gets a test",
            cause="no PATH was given, and the project has no arena_specs",
            fix="arena scenarios stubs docs/specification.md",
        )
    wanted = read(patterns, project.root)
    require_scenarios(wanted, patterns)
    # A marker's name has to be the only one in all of them.
    others = [*project.specs, *named]
    known = Lock.read(project.root / project.scenario_lock).known() if project.scenario_lock else {}
    index = Index(read(others, project.root) if named and project.specs else wanted, known)
    named_tests = [str(project.root / path) for path in read_setting("testpaths")]
    matched = (glob(name, recursive=True) for name in named_tests)  # noqa: PTH207 - absolute, too
    folders = [Path(path) for paths in matched for path in paths]
    written = [Path(given.write).absolute()] if given.write else []
    return wanted, index, _Tests(project.root, (*(folders or [project.root]), *written), *written)


@dataclass(frozen=True, slots=True)
class _Tests:
    """The code of the tests that there are."""

    root: Path
    folders: tuple[Path, ...]
    written: Path | None = None

    def _files(self) -> Iterator[Path]:
        from pytest_arena.scenarios.stubs import python_files  # noqa: PLC0415 - not for --help

        files = (file.resolve() for folder in self.folders for file in python_files(folder))
        yield from dict.fromkeys(files)

    def elsewhere(self) -> frozenset[str]:
        """Names that another folder has taken, since Python knows a module by its name alone."""
        here = self.written.resolve() if self.written else None
        others = (file for file in self._files() if file.parent != here)
        return frozenset(file.name for file in others if not (file.parent / "__init__.py").exists())

    def mapped(self, index: Index) -> tuple[set[str], list[str]]:
        """The keys of the scenarios that a marker names, and what is wrong with other markers.

        A scenario that such a marker must mean, since it was renamed, or the name is misspelt, has
        its test: it would get a second one.
        """
        from pytest_arena.scenarios.specs import reference  # noqa: PLC0415 - not for --help
        from pytest_arena.scenarios.stubs import markers  # noqa: PLC0415 - not for --help

        keys: set[str] = set()
        wrong: list[Reference] = []
        complaints: list[str] = []
        for marker in (marker for file in self._files() for marker in markers(file)):
            place = self._place(marker)
            try:
                meant = reference(marker.arguments, marker.options, place=place)
            except ScenarioError as error:
                complaints += _complaint(place, error)
                continue
            one = index.only(meant)
            keys.update({one.key} if one else ())
            wrong += [] if one else [meant]
        likely = [index.likely(one, named=keys) for one in wrong]
        complaints += [line for one in wrong for line in _why(index, one, keys)]
        return keys.union(one.key for one in likely if one), complaints

    def bound(self, specification: Specification) -> Iterator[str]:
        """The keys of the scenarios that pytest-bdd makes tests of."""
        from pytest_arena.scenarios.stubs import bindings  # noqa: PLC0415 - not for --help

        base = read_setting("bdd_features_base_dir")
        homes = {spec: (self.root / spec).resolve() for spec in specification.files}
        for file in self._files():
            folder = self.root / base[0] if base else file.parent
            for binding in bindings(file):
                path = (folder / binding.path).resolve()
                bound = {spec for spec, home in homes.items() if home.is_relative_to(path)}
                in_it = (one for one in specification.scenarios if one.spec in bound)
                yield from (one.key for one in in_it if binding.name in {"", one.name})

    def _place(self, marker: Marker) -> str:
        file = marker.file
        root = self.root.resolve()
        shown = file.relative_to(root) if file.is_relative_to(root) else file
        return f"{shown.as_posix()}:{marker.line}"


def _why(index: Index, meant: Reference, keys: set[str]) -> list[str]:
    try:
        index.find(meant, named=keys)
    except ScenarioError as error:
        return _complaint(meant.place, error)
    return []


def _complaint(place: str, error: ScenarioError) -> list[str]:
    return [f"{place}: {error.what}", f"  next: {error.fix}"]


def _routes(app: str | None, project: Config) -> Sequence[Route] | None:
    """The routes of the app, None where there is none; what its import prints is no code."""
    path = project.app if app is None else app
    if not path:
        return None
    places = {**project.places, "app": "the command line"} if app else project.places
    for folder in (".", *read_setting("pythonpath")):
        sys.path.insert(0, str(project.root / folder))
    try:
        with redirect_stdout(sys.stderr):
            return _looked_up(replace(project, app=path, places=places))
    except ArenaError as error:
        if app:
            raise
        _warn(f"no route was looked up: {error.what}")
        return None


def _looked_up(project: Config) -> Sequence[Route]:
    from pytest_arena._app._routes import routes  # noqa: PLC0415 - not for --help
    from pytest_arena._ledger import Ledger  # noqa: PLC0415 - not for --help
    from pytest_arena._run import ArenaRun  # noqa: PLC0415 - not for --help

    run = ArenaRun(project, Ledger())
    try:
        run.start()
        run.apps.load()
        return routes(run.apps.build())
    finally:
        run.finish()


def _runner() -> str:
    """The marker without which the project's runner would leave async tests alone."""
    modes = {*read_setting("asyncio_mode"), *read_setting("anyio_mode"), *read_setting("addopts")}
    if modes & {"auto", "--asyncio-mode=auto"}:
        return ""
    return next((one for one in ("asyncio", "anyio") if find_spec(_RUNNERS[one])), "")


_RUNNERS = {"asyncio": "pytest_asyncio", "anyio": "anyio"}


def _warn_of_other_names(files: Sequence[StubFile]) -> None:
    patterns = read_setting("python_files")
    for name in (file.path.name for file in files if patterns):
        if not any(fnmatch(name, pattern) for pattern in patterns):
            _warn(f"pytest does not collect {name}: python_files = {' '.join(patterns)}")


def _checked(files: Sequence[StubFile], *, is_all: bool) -> int:
    for file in files:
        print(f"{file.path.as_posix()}: {_counted(file.tests)} lacking")  # noqa: T201 - a command prints
    if not files and is_all:
        print("every scenario has a test")  # noqa: T201 - a command prints
    return int(bool(files))


def _give(files: Sequence[StubFile], *, is_to_write: bool, is_all: bool) -> None:
    for file in files:
        if not is_to_write:
            print(f"# {file.path.as_posix()}\n{file.text}")  # noqa: T201 - a command prints
            continue
        _write(file)
        done = "written" if file.is_new else "added"
        print(f"{file.path.as_posix()}: {_counted(file.tests)} {done}")  # noqa: T201 - a command prints
    if not files and is_all:
        _warn("every scenario has a test: there is nothing to write")


def _write(file: StubFile) -> None:
    try:
        file.write()
    except OSError as error:
        raise ConfigError(
            f"{file.path} cannot be written: {error.strerror or error}",
            why="the tests that are lacking were to go there",
            cause=f"--write {file.path.parent}",
            fix="arena scenarios stubs --write <a folder of tests>",
        ) from error


def _counted(tests: int) -> str:
    return f"{tests} test" + "s" * (tests != 1)


def _warn(*lines: str) -> None:
    for line in lines:
        sys.stderr.write(f"{line}\n")
