"""The verbs of ``arena scenarios``. Each returns its exit status."""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from pytest_arena._config._project import read_project, read_setting
from pytest_arena._values import counted
from pytest_arena.errors import ConfigError, ScenarioError
from pytest_arena.scenarios import FORMS
from pytest_arena.scenarios.evidence._document import Document, as_json, from_json
from pytest_arena.scenarios.evidence._judge import listed, merged
from pytest_arena.scenarios.evidence._lock import FILE as LOCK
from pytest_arena.scenarios.evidence._lock import Lock
from pytest_arena.scenarios.evidence._verdicts import NO_TEST
from pytest_arena.scenarios.outputs import _terminal as terminal
from pytest_arena.scenarios.outputs._stubs import StubFile, stubs
from pytest_arena.scenarios.outputs._targets import (
    OutputTarget,
    targets,
    write,
    write_text,
    writing,
)
from pytest_arena.scenarios.specs import _reader as reader
from pytest_arena.scenarios.specs._index import Index, Reference
from pytest_arena.scenarios.specs._specification import Problem, Specification

_FAILED = 1
_USAGE = 4  # pytest's exit statuses
_NO_TESTS = 5
_LAST_LINES = 30
_OUT = "--out "  # the option of `merge` and `report`, as messages write it
_SPECS = "arena_specs = docs/**/*.md"
_RUNNERS = {"asyncio": "pytest_asyncio", "anyio": "anyio"}
_TESTS = re.compile(r"^[ \t]*((?:async )?def test_)", re.MULTILINE)


# list


def do_list(options: argparse.Namespace) -> int:
    """List the scenarios, and their problems."""
    if options.paths:
        root = Path.cwd()
        patterns = tuple(options.paths)
    else:
        root, patterns = _configured(f"arena scenarios list docs/   or   {_SPECS}")
    specification = reader.read(patterns, root)
    problems = specification.problems
    nothing = None
    try:
        reader.require_scenarios(specification, patterns)
    except ScenarioError as error:
        nothing = error
        problems = tuple(problem for problem in problems if problem.what != error.what)
    if options.json:
        if nothing:  # readers of the JSON do not see the error
            problem = Problem(
                spec="",
                line=0,
                what=nothing.what,
                hint=nothing.fix,
            )
            problems = (*problems, problem)
        specification = replace(specification, problems=problems)
        # JSON is always UTF-8: https://www.rfc-editor.org/rfc/rfc8259#section-8.1
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(encoding="utf-8")
        _print([as_json(listed(specification)).rstrip()])
    elif problems or nothing is None:
        _print(terminal.listing(replace(specification, problems=problems)))
    if nothing is None:
        return 0
    if problems and not options.json:
        raise ScenarioError(
            nothing.what,
            why=nothing.why,
            cause="the problems above",
            fix=nothing.fix,
        )
    raise nothing


# check


def do_check(options: argparse.Namespace) -> int:
    """Collect the tests, and report the scenarios without a test."""
    names_files = any(not argument.startswith("-") for argument in options.others)
    # Files on the command line are relative to this folder.
    folder = None if names_files else _configured()[0]
    document, is_complete = _collected(options.others, folder=folder)
    _print(terminal.lines(document))
    if document.gaps or not is_complete:
        return _FAILED
    return 0


# stubs


def do_stubs(options: argparse.Namespace) -> int:
    """Write or print a stub for each scenario without a test."""
    project = read_project()
    root = project.root
    named = [str(Path.cwd() / path) for path in options.paths]
    wanted_patterns = (
        named or _configured("arena scenarios stubs docs/specification.md")[1]
    )
    wanted = reader.read(wanted_patterns, root)
    reader.require_scenarios(wanted, wanted_patterns)
    # The name in a marker must be unique in all specifications.
    patterns = (*project.specs, *named)
    known = reader.read(patterns, root) if named and project.specs else wanted
    index = Index(known)
    folder = Path(options.write).absolute() if options.write else None
    test_folders = _test_folders(root, folder)
    arguments = [str(path) for path in test_folders]
    if named:
        arguments.insert(0, "-oarena_specs=" + "\n".join(patterns))
    document = _all_collected(arguments, folder=root)
    malformed = [problem for problem in wanted.problems if problem.is_error]
    without_stub = {problem.scenario for problem in malformed}
    without_stub |= _mapped(document, wanted, index)
    existing = [
        path for test_folder in test_folders for path in reader.files_in(test_folder)
    ]
    # Outside of packages Python identifies a module by its name alone.
    elsewhere = set()
    for path in existing:
        is_in_package = (path.parent / "__init__.py").exists()
        if path.parent != folder and not is_in_package:
            elsewhere.add(path.name)
    files = stubs(
        wanted.scenarios,
        index=index,
        mapped=without_stub,
        folder=Path(options.write) if options.write else None,
        runner=None if _are_sync(existing) else _runner(),
        elsewhere=elsewhere,
    )
    wrong = [f"left out: {problem}" for problem in malformed]
    for problem in document.problems:
        is_in_test = problem.spec not in document.specs
        if is_in_test and project.specs:
            wrong.append(f"{problem.spec}:{problem.line}: {problem.what}")
            wrong.append(f"  next: {problem.hint}")
    _warn(wrong)
    _warn_of_uncollected(files)
    for file in files:
        _print([_write_stub(file, options)])
    if not files and not wrong:
        done = "every scenario has a test"
        if options.check:
            _print([done])
        else:
            _warn([f"{done}: there is nothing to write"])
    if wrong or (options.check and files):
        return _FAILED
    return 0


def _mapped(
    document: Document,
    wanted: Specification,
    index: Index,
) -> set[str]:
    """Return the keys of the scenarios that a test names."""
    keys = {judged.scenario.key for judged in document.scenarios if judged.tests}
    # The hint of a wrong marker shows the correct marker.
    hints = "\n".join(problem.hint for problem in document.problems)
    for scenario in wanted.scenarios:
        if index.marker(scenario)[:-1] in hints:
            keys.add(scenario.key)
    return keys


def _warn_of_uncollected(files: Iterable[StubFile]) -> None:
    """Warn of files that pytest does not collect by their names."""
    patterns = read_setting("python_files")
    for file in files:
        name = file.path.name
        if patterns and not any(fnmatch(name, pattern) for pattern in patterns):
            setting = f"python_files = {' '.join(patterns)}"
            _warn([f"pytest does not collect {name}, because of {setting}"])


def _test_folders(root: Path, folder: Path | None) -> list[Path]:
    """Return the folders of tests, ``testpaths`` or the root, and the folder to write to."""
    folders: list[Path] = []
    for path in read_setting("testpaths"):
        matches = glob(str(root / path), recursive=True)  # noqa: PTH207 - absolute patterns, too
        folders += map(Path, matches)
    if not folders:
        folders = [root]
    if folder and folder.is_dir():
        folders.append(folder)
    return folders


def _are_sync(files: Iterable[Path]) -> bool:
    """Return whether there are tests, and all of them are plain functions."""
    tests = []
    for file in files:
        if file.match("test_*.py"):
            tests += _TESTS.findall(file.read_text("utf-8", "replace"))
    return bool(tests) and not any(test.startswith("async") for test in tests)


def _runner() -> str:
    """Return the marker that async tests of the project need, or "" if they need none."""
    modes = {
        *read_setting("asyncio_mode"),
        *read_setting("anyio_mode"),
        *read_setting("addopts"),
    }
    if modes & {"auto", "--asyncio-mode=auto"}:
        return ""
    for runner, module in _RUNNERS.items():
        if find_spec(module):
            return runner
    return ""


def _write_stub(file: StubFile, options: argparse.Namespace) -> str:
    """Write a file with --write. Return the text to print."""
    path = file.path.as_posix()
    tests = counted(file.tests, "test")
    if options.check:
        return f"{path}: {tests} missing"
    if not options.write:
        return f"# {path}\n{file.text}"
    with writing(
        file.path,
        why="the missing tests would be written there",
        cause=f"--write {file.path.parent}",
        fix="arena scenarios stubs --write <a folder of tests>",
    ):
        file.write()
    return f"{path}: {tests} {'written' if file.is_new else 'added'}"


# accept


def do_accept(options: argparse.Namespace) -> int:
    """Write the current steps of scenarios to the lock file."""
    root, patterns = _configured()
    specification = reader.read(patterns, root)
    reader.require_scenarios(specification, patterns)
    for problem in specification.problems:
        if problem.is_error:
            raise ScenarioError(
                f"{problem.place}: {problem.what}",
                why="pytest-arena may have misread the steps",
                cause=problem.place,
                fix=problem.hint or "correct the specification",
            )
    index = Index(specification)
    keys = [_key(name, index, "accept") for name in options.keys]
    path = root / LOCK
    before = Lock.read(path)
    lock, changes = before.accepted(specification.scenarios, keys)
    _print(changes)
    if lock == before:
        _print([f"{LOCK} is up to date"])
    elif options.dry_run:
        _print([f"{LOCK} would be written"])
    else:
        with writing(
            path,
            why="the file records what the project has agreed to",
            cause=str(path),
            fix="make the file writable",
        ):
            write_text(path, lock.text())
        _print([f"{LOCK} written"])
    return 0


# explain


def do_explain(options: argparse.Namespace) -> int:
    """Print all facts about one scenario."""
    if options.json:
        document = _document(options.json)
    else:
        document, _ = _collected(folder=_configured()[0])
    index = _index(document)
    key = _key(options.key, index, "explain")
    judged = next(each for each in document.scenarios if each.scenario.key == key)
    marker = index.marker(judged.scenario)
    _print(
        terminal.explained(
            judged,
            marker=marker,
            is_list=document.is_list,
        )
    )
    return 0


# merge, report


def do_merge(options: argparse.Namespace) -> int:
    """Judge several runs as one."""
    outputs = targets(options.out, _OUT)  # a wrong option fails before the judgement
    documents = [_document(path) for path in options.documents]
    strict = ""
    shards: list[str] = []
    without_test = NO_TEST
    if options.strict:
        strict = "--strict"
        if any(document.partial for document in documents):
            shards = options.documents
            # The file of the shard with the test may be missing.
            without_test = "no test of the merged runs names it"
    document = merged(
        documents,
        is_complete=options.strict,
        without_test=without_test,
    )
    _print(
        terminal.lines(
            document,
            strict=strict,
            shards=shards,
        )
    )
    _print(
        write(
            outputs,
            document,
            root=read_project().root,
            folder=Path.cwd(),
        )
    )
    if options.strict and document.gaps:
        return _FAILED
    return 0


def do_report(options: argparse.Namespace) -> int:
    """Write pages and summaries of runs."""
    outputs = [*targets(options.out, _OUT)]
    for form in FORMS:
        path = getattr(options, form)
        if path:
            outputs.append(OutputTarget(form, path, _OUT))
    document = merged(map(_document, options.documents))
    written = write(
        outputs,
        document,
        root=read_project().root,
        folder=Path.cwd(),
    )
    _print(written or terminal.lines(document))
    return 0


# Helpers of several commands.


def _configured(
    fix: str = f"{_SPECS}   in pytest's configuration",
) -> tuple[Path, tuple[str, ...]]:
    """Return the project's root and its specifications.

    Raises:
        ConfigError: the configuration names no specifications.
    """
    config = read_project()
    if not config.specs:
        raise ConfigError(
            "no file is named, and arena_specs is not set in this project",
            why="pytest-arena does not know which files have the scenarios",
            cause=f"the configuration of pytest, in {config.root}",
            fix=fix,
        )
    return config.root, config.specs


def _collected(
    arguments: Sequence[str] = (), *, folder: Path | None
) -> tuple[Document, bool]:
    """Collect the tests in a process of pytest. No database is created.

    Returns:
        The document, and whether all tests were collected. If not, pytest's output goes to stderr.

    Raises:
        ConfigError: pytest did not understand its arguments.
        ScenarioError: pytest could not collect any test.
    """
    with TemporaryDirectory(prefix="arena-scenarios-") as temporary:
        path = Path(temporary) / "scenarios.json"
        options = [
            "--collect-only",
            "-q",
            "--scenarios=report",
            f"--scenarios-out=json:{path}",
        ]
        run = subprocess.run(  # noqa: S603 - this Python, and what the user wrote after `check`
            [sys.executable, "-m", "pytest", *options, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        text = ""
        if path.is_file():
            text = path.read_text(encoding="utf-8")
    is_complete = bool(text) and run.returncode in {0, _NO_TESTS}
    if not is_complete:
        output = (run.stderr + run.stdout).rstrip().splitlines()
        _warn(output[-_LAST_LINES:])
    if not text:
        kind = ConfigError if run.returncode == _USAGE else ScenarioError
        raise kind(
            "pytest could not begin to collect the tests: "
            f"pytest --collect-only ended with exit status {run.returncode}",
            why="pytest-arena collects the tests to see which scenario has one",
            cause="see pytest's output above, or arena_scenarios is off",
            fix="pytest --collect-only --scenarios=report",
        )
    return from_json(text, where="pytest --collect-only"), is_complete


def _all_collected(arguments: Sequence[str] = (), *, folder: Path) -> Document:
    document, is_complete = _collected(arguments, folder=folder)
    if not is_complete:
        raise ScenarioError(
            "not all tests could be collected",
            why="pytest-arena does not know which scenarios the other tests prove",
            cause="see pytest's output above",
            fix="pytest --collect-only",
        )
    return document


def _document(path: str) -> Document:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}",
            why="the command reads the document of a run",
            cause="the command line",
            fix="pytest --scenarios-out=json:scenarios.json",
        ) from error
    return from_json(text, where=path)


def _index(document: Document) -> Index:
    scenarios = [judged.scenario for judged in document.scenarios]
    return Index(Specification(scenarios=tuple(scenarios)))


def _key(
    name: str,
    index: Index,
    verb: str,
) -> str:
    form = f"arena scenarios {verb} {{}}"
    return index.find(
        Reference(
            name=name,
            place="the command line",
            form=form,
        )
    ).key


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)  # noqa: T201 - a command prints


def _warn(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stderr.write(f"{line}\n")
