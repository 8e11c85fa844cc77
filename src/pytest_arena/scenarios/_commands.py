"""What do the verbs of ``arena scenarios`` do? Each returns its exit status."""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from glob import glob
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from pytest_arena._config._project import read_project, read_setting
from pytest_arena.errors import ConfigError, ScenarioError
from pytest_arena.scenarios import FORMS
from pytest_arena.scenarios.evidence._agreed import Lock, baseline_text
from pytest_arena.scenarios.evidence._document import Document, as_json, from_json
from pytest_arena.scenarios.evidence._judge import listed, merged
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
_USAGE, _NO_TESTS = 4, 5  # pytest's own exit statuses
_SHOWN = 30
_RUNNERS = {"asyncio": "pytest_asyncio", "anyio": "anyio"}


def do_list(given: argparse.Namespace) -> int:
    """List the scenarios, and what is wrong with them."""
    example = "list docs/   or   arena_specs = docs/**/*.md"
    root, patterns = (
        (Path.cwd(), tuple(given.paths)) if given.paths else _configured(example)
    )
    specification = reader.read(patterns, root)
    problems, nothing = specification.problems, None
    try:
        reader.require_scenarios(specification, patterns)
    except ScenarioError as error:
        nothing = error
        problems = tuple(problem for problem in problems if problem.what != error.what)
    if given.json:
        # JSON is UTF-8, whatever the terminal is: https://www.rfc-editor.org/rfc/rfc8259#section-8.1
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(encoding="utf-8")
        if nothing:  # whoever reads the JSON alone has to see it, too
            problems += (Problem(spec="", line=0, what=nothing.what, hint=nothing.fix),)
        _print([as_json(listed(replace(specification, problems=problems))).rstrip()])
    elif problems or not nothing:
        _print(terminal.listing(replace(specification, problems=problems)))
        if nothing:
            nothing.cause = (
                "what stands above"  # it would say the first of it once more
            )
    if nothing:
        raise nothing
    return 0


def do_check(given: argparse.Namespace) -> int:
    """Collect the tests, and say which scenario has none."""
    is_seen_from_here = any(
        word.startswith("--arena-specs") or not word.startswith("-")
        for word in given.others
    )
    folder = None if is_seen_from_here else _configured()[0]
    document, is_whole = _collected(given.others, folder=folder)
    _print(terminal.lines(document, specs=_specs_to_name(document)))
    return _FAILED if document.gaps or not is_whole else 0


def do_stubs(given: argparse.Namespace) -> int:
    """Write, or print, the tests that are lacking."""
    project = read_project()
    root, named = project.root, [str(Path.cwd() / path) for path in given.paths]
    asked = named or _configured("stubs docs/specification.md")[1]
    wanted = reader.read(asked, root)
    reader.require_scenarios(wanted, asked)
    # A marker's name has to be the only one in all of them.
    patterns = (*project.specs, *named)
    index = Index(reader.read(patterns, root) if named and project.specs else wanted)
    folder = Path(given.write).absolute() if given.write else None
    folders = _test_folders(root, folder)
    files_there = list(chain.from_iterable(map(reader.files_in, folders)))
    words = ["--arena-specs=" + "\n".join(patterns)] * bool(named)
    document = _all_collected([*words, *map(str, folders)], folder=root)
    orphans = [
        problem
        for problem in document.problems
        if "pytest.mark.scenario(" in problem.hint
    ]
    hints = "\n".join(problem.hint for problem in orphans)
    mapped = {one.scenario.key for one in document.scenarios if one.tests}
    # What a marker must mean, since it was renamed or the name is misspelt, has its test.
    mapped |= {one.key for one in wanted.scenarios if index.marker(one)[:-1] in hints}
    malformed = [problem for problem in wanted.problems if problem.is_error]
    files = stubs(
        wanted.scenarios,
        index=index,
        mapped={*mapped, *(problem.scenario for problem in malformed)},
        folder=Path(given.write) if given.write else None,
        runner=None if _are_sync(files_there) else _runner(),
        # Outside of packages Python knows a module by its name alone.
        elsewhere={
            path.name
            for path in files_there
            if path.parent != folder and not (path.parent / "__init__.py").exists()
        },
    )
    wrong = [f"left out: {problem}" for problem in malformed]
    for problem in document.problems if project.specs else ():
        if problem.spec not in document.specs:  # it stands in the tests
            wrong += [
                f"{problem.spec}:{problem.line}: {problem.what}",
                f"  next: {problem.hint}",
            ]
    _warn(wrong)
    collects = read_setting("python_files")
    for name in (file.path.name for file in files if collects):
        if not any(fnmatch(name, pattern) for pattern in collects):
            _warn(
                [f"pytest does not collect {name}: python_files = {' '.join(collects)}"]
            )
    _print(_given(file, given) for file in files)
    if not files and not wrong:
        done = "every scenario has a test"
        _print([done]) if given.check else _warn([f"{done}: there is nothing to write"])
    return _FAILED if wrong or (given.check and files) else 0


def _test_folders(root: Path, folder: Path | None) -> list[Path]:
    """Where tests are looked for: ``testpaths``, else everywhere, and the folder to write to."""
    named = [str(root / path) for path in read_setting("testpaths")]
    paths = [Path(path) for name in named for path in glob(name, recursive=True)]  # noqa: PTH207 - absolute, too
    return [*(paths or [root]), *([folder] if folder and folder.is_dir() else [])]


def _are_sync(files: Iterable[Path]) -> bool:
    """Whether there are tests, and none of them is a coroutine."""
    texts = [
        file.read_text("utf-8", "replace") for file in files if file.match("test_*.py")
    ]
    tests = [words for text in texts for words in _TESTS.findall(text)]
    return bool(tests) and not any(words.startswith("async") for words in tests)


_TESTS = re.compile(r"^[ \t]*((?:async )?def test_)", re.MULTILINE)


def _runner() -> str:
    """The marker without which the project's runner would leave async tests alone."""
    modes = {
        *read_setting("asyncio_mode"),
        *read_setting("anyio_mode"),
        *read_setting("addopts"),
    }
    if modes & {"auto", "--asyncio-mode=auto"}:
        return ""
    return next(
        (runner for runner, module in _RUNNERS.items() if find_spec(module)), ""
    )


def _given(file: StubFile, given: argparse.Namespace) -> str:
    """What is said of a file, after it was written if it was to be."""
    path, tests = file.path.as_posix(), f"{file.tests} test{'s' * (file.tests != 1)}"
    if given.check:
        return f"{path}: {tests} lacking"
    if not given.write:
        return f"# {path}\n{file.text}"
    with writing(
        file.path,
        why="the tests that are lacking were to go there",
        cause=f"--write {file.path.parent}",
        fix="arena scenarios stubs --write <a folder of tests>",
    ):
        file.write()
    return f"{path}: {tests} {'written' if file.is_new else 'added'}"


def do_accept(given: argparse.Namespace) -> int:
    """Write the scenarios' present steps to the lock file; ``--all``: those of all with a test."""
    config = read_project()
    path = config.root / config.scenario_lock
    document = _all_collected(folder=_configured()[0])
    scenarios = tuple(verdict.scenario for verdict in document.scenarios)
    index = Index(Specification(scenarios=scenarios))
    keys = [_key(name, index, "accept") for name in given.keys]
    before = Lock.read(path)
    lock, difference = before.accepted(document, keys)
    outdated = list(_outdated(document, index, keys))
    _print([*outdated, *difference])
    if lock.text() == before.text():
        _print([f"{path.name} says so already"])
    elif given.dry_run:
        _print([f"{path.name} would be written"])
    else:
        _write(path, lock.text(), option="arena_scenario_lock")
        _print([f"{path.name} written"])
    return _FAILED if outdated else 0


def _outdated(document: Document, index: Index, keys: Sequence[str]) -> Iterator[str]:
    """Which markers name an older version themselves, each with the marker to paste.

    Their scenarios are DRIFTED until that is done, whatever the lock file says.
    """
    for one in document.scenarios:
        scenario = one.scenario
        revs = {"", scenario.rev, *(row.rev for row in scenario.rows)}
        for test in one.tests if not keys or scenario.key in keys else ():
            if test.rev not in revs:
                yield f"{test.place}: its marker names rev={test.rev!r}, and has to change; paste:"
                yield f"    {index.marker(scenario, rev=scenario.rev, row=test.row)}"


def do_explain(given: argparse.Namespace) -> int:
    """Say all that is known of one scenario."""
    document = (
        _document(given.json) if given.json else _collected(folder=_configured()[0])[0]
    )
    verdicts = {
        verdict.scenario.key: verdict for verdict in reversed(document.scenarios)
    }
    scenarios = tuple(verdict.scenario for verdict in document.scenarios)
    index = Index(Specification(scenarios=scenarios))
    verdict = verdicts[_key(given.key, index, "explain")]
    marker = index.marker(verdict.scenario)
    _print(terminal.explained(verdict, marker=marker, is_list=document.is_list))
    return 0


def do_merge(given: argparse.Namespace) -> int:
    """Judge several runs as one."""
    wanted = targets(given.out)  # a mistake in it is told before anything else is done
    document = merged(map(_document, given.documents), is_complete=given.strict)
    strict = "--strict" * given.strict
    told = terminal.lines(document, strict=strict, specs=_specs_to_name(document))
    _print(
        [*told, *write(wanted, document, root=read_project().root, folder=Path.cwd())]
    )
    return _FAILED if given.strict and document.gaps else 0


def do_report(given: argparse.Namespace) -> int:
    """Make pages and summaries of what runs have written."""
    forms = {form: path for form in FORMS if (path := getattr(given, form))}
    wanted = (*targets(given.out), *(OutputTarget(*form) for form in forms.items()))
    document = merged(map(_document, given.documents))
    written = write(wanted, document, root=read_project().root, folder=Path.cwd())
    _print(written)
    if given.baseline:
        if document.is_list:
            raise ConfigError(
                "the tests were only collected: nothing is known of what they prove",
                why="each scenario would be NOT-RUN in the baseline, and excused for ever",
                cause="the document is one of --collect-only",
                fix="pytest --scenarios-out=json:scenarios.json",
            )
        path = Path(given.baseline)
        _write(path, baseline_text(path, document), option="arena_scenario_baseline")
        _print([f"baseline written to {path}"])
    elif not written:
        _print(terminal.lines(document, specs=_specs_to_name(document)))
    return 0


def _specs_to_name(document: Document) -> Sequence[str]:
    """The specifications of a document, where a command would find none in the configuration."""
    return () if read_project().specs else document.specs


def _configured(example: str = "list docs/") -> tuple[Path, tuple[str, ...]]:
    """The project's root, from which all its tests are collected, and its specifications."""
    config = read_project()
    if not config.specs:
        raise ConfigError(
            "no file is named, and arena_specs is not set in this project",
            why="a scenario that nobody looks for is in no list",
            cause=f"the configuration of pytest, in {config.root}",
            fix=f"arena scenarios {example}",
        )
    return config.root, config.specs


def _collected(
    arguments: Sequence[str] = (), *, folder: Path | None
) -> tuple[Document, bool]:
    """Have pytest collect the tests, in a process of its own; no database is made.

    Returns the document, and whether all tests were seen; if not, pytest's words go to stderr.
    """
    with TemporaryDirectory(prefix="arena-scenarios-") as made:
        path = Path(made) / "scenarios.json"
        options = [
            "--collect-only",
            "-q",
            "--scenarios=report",
            f"--scenarios-out=json:{path}",
        ]
        run = subprocess.run(  # noqa: S603 - this very Python, and what the user wrote after `check`
            [sys.executable, "-m", "pytest", *options, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
    is_whole = bool(text) and run.returncode in {0, _NO_TESTS}
    if not is_whole:
        _warn((run.stderr + run.stdout).rstrip().splitlines()[-_SHOWN:])
    if not text:
        kind = ConfigError if run.returncode == _USAGE else ScenarioError
        raise kind(
            "pytest could not begin to collect the tests: "
            f"pytest --collect-only ended with exit status {run.returncode}",
            why="they have to be collected, to see which scenario has one",
            cause="what pytest says above, or arena_scenarios is off",
            fix="pytest --collect-only --scenarios=report",
        )
    return from_json(text, where="pytest --collect-only"), is_whole


def _all_collected(arguments: Sequence[str] = (), *, folder: Path) -> Document:
    document, is_whole = _collected(arguments, folder=folder)
    if is_whole:
        return document
    raise ScenarioError(
        "not all tests could be collected",
        why="nobody can say which scenarios the others have a test for",
        cause="what pytest says above",
        fix="pytest --collect-only",
    )


def _document(path: str) -> Document:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}",
            why="it should be the document of a run",
            cause="the command line",
            fix="pytest --scenarios-out=json:scenarios.json",
        ) from error
    return from_json(text, where=path)


def _key(name: str, index: Index, verb: str) -> str:
    form = f"arena scenarios {verb} {{}}"
    return index.find(Reference(name=name, place="the command line", form=form)).key


def _write(path: Path, text: str, *, option: str) -> None:
    """Write a file that keeps what has been agreed to, and whose path the option names."""
    with writing(
        path,
        why="it keeps what has been agreed to",
        cause=f"{option}, or the command line",
        fix=f"{option} = a file in a folder that can be written to",
    ):
        write_text(path, text)


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)  # noqa: T201 - a command prints


def _warn(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stderr.write(f"{line}\n")
