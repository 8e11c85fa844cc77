"""What does ``arena scenarios`` do?"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena._cli._shape import SHAPE
from pytest_arena._cli._stubs import add as add_stubs
from pytest_arena.errors import ConfigError, ScenarioError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Sequence

    from pytest_arena.scenarios.evidence import Document
    from pytest_arena.scenarios.specs import Specification

    # argparse has no public name for what add_subparsers() returns.
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - as above

__all__ = ["add"]

_ABOUT = """\
What a specification says (its scenarios, in Gherkin), and which of that has a test.
Read are .feature files, Gherkin fences in Markdown, whatever the file's ending is,
and *.feature.md. A run of the tests says whether a scenario is also proven:
pytest --scenarios=report."""
_LIST = """\
List the scenarios of these files, folders and patterns (docs/**/*.md), and what is
wrong with them. Without PATH those of arena_specs in pytest's configuration file.
Nothing is run, and nothing needs to be configured."""
_CHECK = """\
Say which scenarios have no test, and whose steps have changed since their test was
written. No test is run and no database made; it is quick enough for each commit. All
arguments go to pytest."""
_EXPLAIN = """\
Say all that is known of one scenario: its steps, its status and why, what each of
its tests has done, what to do next. KEY is its name, Feature :: name, or @ID. What
tests did stands in the JSON of a run, pytest --scenarios-out=json:FILE; without it
the tests are collected, and none is run."""
_ACCEPT = """\
Say that tests fit the present steps of their scenarios: after the steps have changed,
and somebody has looked at the tests. Shows what has changed, and writes the steps to
the lock file (arena_scenario_lock, scenarios.lock if not set), to be committed. Where
a test's marker names a version itself (rev=), the marker to paste is shown."""
_MERGE = """\
Judge several runs as if they were one. On CI, where each job runs a part of the tests:
let each write its results by --scenarios-out=json:FILE, and merge these files. With
--strict these are all the parts that there are: what none of them has run is a gap."""
_REPORT = """\
Make a page or a summary of what a run, or several, have written by
--scenarios-out=json:FILE. Without an output the lines are shown that pytest shows.
--baseline writes the gaps that there are, to be put up with for now, into the file
that arena_scenario_baseline names; a file that is there only becomes shorter."""

_STATUS = "exit status: 0; 1 where {fails}; 2 for wrong options"
_FAILED = 1


def add(commands: Verbs) -> None:
    """Add the command, with its verbs, to those of ``arena``."""
    about = "what specifications say, and what of it has a test"
    scenarios = commands.add_parser("scenarios", help=about, description=_ABOUT, **SHAPE)
    verbs = scenarios.add_subparsers(metavar="COMMAND", required=True)
    _add_list(verbs)
    _add_check(verbs)
    add_stubs(verbs)
    _add_accept(verbs)
    _add_explain(verbs)
    _add_merge(verbs)
    _add_report(verbs)


def _verb(
    verbs: Verbs, name: str, text: str, *, about: str, fails: str, do: Callable[..., int]
) -> argparse.ArgumentParser:
    status = _STATUS.format(fails=fails)
    parser = verbs.add_parser(name, help=about, description=text, epilog=status, **SHAPE)
    parser.set_defaults(do=do)
    return parser


def _add_list(verbs: Verbs) -> None:
    fails = "no scenario was found"
    parser = _verb(verbs, "list", _LIST, about="list what there is", fails=fails, do=_list)
    parser.add_argument("--json", action="store_true", help="JSON to stdout, and nothing else")
    parser.add_argument("paths", nargs="*", metavar="PATH", help="a file, a folder, a pattern")


def _add_check(verbs: Verbs) -> None:
    about, fails = "see whether each scenario has a test", "a scenario has none, or has changed"
    parser = _verb(verbs, "check", _CHECK, about=about, fails=fails, do=_check)
    parser.usage = "arena scenarios check [-h] [PYTEST ARGUMENTS]"
    parser.set_defaults(takes_others=True)


def _add_accept(verbs: Verbs) -> None:
    about = "say that tests fit the changed steps"
    fails = "there is no such scenario, or a marker names an older version itself"
    parser = _verb(verbs, "accept", _ACCEPT, about=about, fails=fails, do=_accept)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("keys", nargs="*", default=[], metavar="KEY", help="a name, or @ID")
    which.add_argument("--all", action="store_true", dest="everything", help="all that have a test")
    parser.add_argument("--dry-run", action="store_true", help="show it, and write nothing")


def _add_explain(verbs: Verbs) -> None:
    about, fails = "say all that is known of one", "there is no such scenario"
    parser = _verb(verbs, "explain", _EXPLAIN, about=about, fails=fails, do=_explain)
    parser.add_argument("key", metavar="KEY", help="a name, or @ID")
    parser.add_argument("--json", metavar="FILE", help="what a run has written")


def _add_merge(verbs: Verbs) -> None:
    about = "judge several runs as one"
    fails = "there is a gap (with --strict), or a file cannot be read"
    parser = _verb(verbs, "merge", _MERGE, about=about, fails=fails, do=_merge)
    parser.add_argument("--strict", action="store_true", help="fail where there is a gap")
    _add_documents(parser)


def _add_report(verbs: Verbs) -> None:
    about, fails = "make a page of what runs have written", "a file cannot be read"
    parser = _verb(verbs, "report", _REPORT, about=about, fails=fails, do=_report)
    for form, what in _FORMS.items():
        parser.add_argument(f"--{form}", metavar="PATH", help=f"write {what}")
    parser.add_argument("--baseline", metavar="PATH", help="write the gaps there are, as known")
    _add_documents(parser)


_FORMS = {
    "html": "a page that is one file",
    "md": "a summary in Markdown",
    "messages": "Cucumber Messages",
    "json": "JSON",
}


def _add_documents(parser: argparse.ArgumentParser) -> None:
    forms = "json:PATH, html:PATH, md:PATH, messages:PATH, with commas between them"
    parser.add_argument("--out", default="", metavar="FORM:PATH", help=f"write {forms}")
    parser.add_argument("documents", nargs="+", metavar="JSON", help="what a run has written")


def _list(given: argparse.Namespace) -> int:
    from pytest_arena.scenarios.evidence import as_json, listed  # noqa: PLC0415 - not for --help
    from pytest_arena.scenarios.outputs import listing  # noqa: PLC0415 - as above

    specification, nothing = _read(given.paths)
    if given.json:
        # JSON is UTF-8, whatever the terminal is: https://www.rfc-editor.org/rfc/rfc8259#section-8.1
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(encoding="utf-8")
        print(as_json(listed(specification)).rstrip())  # noqa: T201 - a command prints
    elif not nothing:
        _print(listing(specification))
    elif problems := [one for one in specification.problems if one.what != nothing.what]:
        _print(listing(replace(specification, problems=tuple(problems))))
        cause = "what stands above"  # the error would say the first of it once more
        raise ScenarioError(nothing.what, why=nothing.why, cause=cause, fix=nothing.fix)
    if nothing:
        raise nothing
    return 0


def _read(paths: Sequence[str]) -> tuple[Specification, ScenarioError | None]:
    """Return what is there, and the error where a pattern has found nothing."""
    from pytest_arena.scenarios.specs import read, require_scenarios  # noqa: PLC0415 - not for --help

    root, patterns = (Path.cwd(), tuple(paths)) if paths else _configured()
    specification = read(patterns, root)
    try:
        require_scenarios(specification, patterns)
    except ScenarioError as error:
        return _with_problem(specification, error), error
    return specification, None


def _with_problem(specification: Specification, error: ScenarioError) -> Specification:
    """Whoever reads the JSON alone has to see it, too."""
    from pytest_arena.scenarios.specs import Problem  # noqa: PLC0415 - not for --help

    if any(problem.what == error.what for problem in specification.problems):
        return specification
    problem = Problem(spec="", line=0, what=error.what, hint=error.fix)
    return replace(specification, problems=(*specification.problems, problem))


def _configured() -> tuple[Path, tuple[str, ...]]:
    from pytest_arena._cli._options import read_project  # noqa: PLC0415 - not for --help

    config = read_project()
    if not config.specs:
        raise ConfigError(
            "no file is named, and arena_specs is not set in this project",
            why="a scenario that nobody looks for is in no list",
            cause=f"the configuration of pytest, in {config.root}",
            fix="arena scenarios list docs/   or   arena_specs = docs/**/*.md",
        )
    return config.root, config.specs


def _check(given: argparse.Namespace) -> int:
    from pytest_arena._cli._collected import collected  # noqa: PLC0415 - not for --help
    from pytest_arena.scenarios.outputs import lines  # noqa: PLC0415 - as above

    given_specs = any(word.startswith("--arena-specs") for word in given.others)
    has_words = any(not word.startswith("-") for word in given.others)
    found = collected(given.others, folder=None if has_words or given_specs else _root())
    _print(lines(found.document))
    return _FAILED if found.document.gaps or not found.is_whole else 0


def _accept(given: argparse.Namespace) -> int:
    from pytest_arena._cli._accepted import accept, outdated  # noqa: PLC0415 - not for --help
    from pytest_arena._cli._collected import collected  # noqa: PLC0415 - as above
    from pytest_arena._cli._options import read_project  # noqa: PLC0415 - as above

    config = read_project()
    path = config.root / config.scenario_lock
    found = collected(folder=_root())
    if not found.is_whole:
        raise ScenarioError(
            "not all tests could be collected",
            why="the lock file names the tests of each scenario, and would lose some",
            cause="what pytest says above",
            fix="pytest --collect-only",
        )
    _print(accept(found.document, given.keys, path=path, is_dry=given.dry_run))
    return _FAILED if any(outdated(found.document, given.keys)) else 0


def _root() -> Path:
    """Where all tests of the project are collected, whichever of its folders this is."""
    return _configured()[0]


def _explain(given: argparse.Namespace) -> int:
    from pytest_arena._cli._collected import collected  # noqa: PLC0415 - not for --help
    from pytest_arena._cli._named import named  # noqa: PLC0415 - as above
    from pytest_arena.scenarios.outputs import explained  # noqa: PLC0415 - as above
    from pytest_arena.scenarios.specs import Index, Specification  # noqa: PLC0415 - as above

    document = _document(given.json) if given.json else collected(folder=_root()).document
    scenarios = tuple(one.scenario for one in document.scenarios)
    index = Index(Specification(scenarios=scenarios))
    key = named(given.key, index, verb="explain").key
    for one in document.scenarios:
        if one.scenario.key == key:
            marker = index.marker(one.scenario)
            _print(explained(one, marker=marker, is_list=document.is_list))
    return 0


def _merge(given: argparse.Namespace) -> int:
    from pytest_arena.scenarios.outputs import lines  # noqa: PLC0415 - not for --help

    document = _together(given, is_complete=given.strict)
    told = lines(document, strict="--strict" * given.strict)
    _print([*told, *_written(given.out, document)])
    return _FAILED if given.strict and document.gaps else 0


def _report(given: argparse.Namespace) -> int:
    from pytest_arena._cli._agreed import write_baseline  # noqa: PLC0415 - not for --help
    from pytest_arena.scenarios.outputs import lines  # noqa: PLC0415 - as above

    document = _together(given)
    asked = {form: path for form in _FORMS if (path := getattr(given, form))}
    written = _written(given.out, document, **asked)
    _print(written)
    if given.baseline:
        _print([write_baseline(Path(given.baseline), document)])
    elif not written:
        _print(lines(document))
    return 0


def _written(outputs: str, document: Document, **paths: str) -> list[str]:
    from pytest_arena._cli._options import read_project  # noqa: PLC0415 - not for --help
    from pytest_arena.scenarios.outputs import Target, targets, write  # noqa: PLC0415 - as above

    wanted = (*targets(outputs), *(Target(form, path) for form, path in paths.items()))
    return write(wanted, document, root=read_project().root, folder=Path.cwd())


def _together(given: argparse.Namespace, *, is_complete: bool = False) -> Document:
    from pytest_arena.scenarios.evidence import merged  # noqa: PLC0415 - not for --help
    from pytest_arena.scenarios.outputs import targets  # noqa: PLC0415 - as above

    targets(given.out)  # a mistake in it is told before anything else is done
    documents = [_document(path) for path in given.documents]
    return merged(documents, is_complete=is_complete)


def _document(path: str) -> Document:
    from pytest_arena.scenarios.evidence import from_json  # noqa: PLC0415 - not for --help

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


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)  # noqa: T201 - a command prints
