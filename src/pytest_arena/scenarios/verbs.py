"""The command line of ``arena scenarios``."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_arena.scenarios import FORMS, require_extra

if TYPE_CHECKING:
    # argparse has no public name for the result of add_subparsers().
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - no public name


_ABOUT = """\
Scenarios of specifications (in Gherkin), and which of them have a test.
A run of the tests says whether a scenario is also proven: pytest --scenarios=report."""
_LIST = """\
List the scenarios of these files, folders and patterns (docs/**/*.md), and their
problems. Without PATH, list those of arena_specs in pytest's configuration file.
arena reads .feature files, Gherkin fences in Markdown, and *.feature.md."""
_CHECK = """\
Report the scenarios that have no test, and those whose steps have changed since their
test was written. No test is run and no database is created. pytest gets all arguments."""
_STUBS = """\
Write a test for each scenario that has none: one file for a feature, one async
test for a scenario, with a block for each step. Such a test fails, as STUB, until
you write it. Without PATH, the scenarios are those of arena_specs.

arena collects the tests to see which scenario has one, and runs none. It changes no
existing line. It adds tests at the end of a feature's file, or in another file if
that is impossible."""
_EXPLAIN = """\
Print one scenario: its steps, its status with the reason, what each of its tests did,
and what to do next. KEY is its name, Feature :: name, or @ID. Tests are only collected.
--json FILE has the file of a run, which records what its tests did."""
_ACCEPT = """\
Record that tests fit the present steps of their scenarios. The command writes a line for
each scenario to scenarios.lock beside pytest's configuration file. Commit that file."""
_MERGE = """\
Judge several runs as one. Use it on CI if each job runs a part of the tests with
--scenarios-out=json:FILE. With --strict, give the files of all parts, because a
scenario that no part has run is a gap."""
_REPORT = """\
Read the files that runs have written by --scenarios-out=json:FILE, and write a page or
a summary. Without an output, print the lines that pytest prints."""

_SHAPE: dict[str, Any] = {
    "formatter_class": argparse.RawDescriptionHelpFormatter,
    "allow_abbrev": False,
}


def add(commands: Verbs) -> None:
    """Add the command, with its verbs, to those of ``arena``."""
    about = "list scenarios, find those without a test, and write reports"
    scenarios = commands.add_parser(
        "scenarios", help=about, description=_ABOUT, **_SHAPE
    )
    verbs = scenarios.add_subparsers(metavar="COMMAND", required=True)
    _add_specification_verbs(verbs)
    _add_accept(verbs)
    _add_document_verbs(verbs)


def _add_verb(
    verbs: Verbs,
    name: str,
    about: str,
    text: str,
    *,
    fails: str,
    usage: str | None = None,
) -> argparse.ArgumentParser:
    """Add a verb. Its help says when it ``fails`` with exit status 1."""
    parser = verbs.add_parser(
        name,
        help=about,
        description=text,
        usage=usage,
        epilog=f"exit status: 0, 1 if {fails}, or 2 for wrong options or files",
        **_SHAPE,
    )
    parser.set_defaults(do=partial(_do, name), parser=parser)
    return parser


def _add_specification_verbs(verbs: Verbs) -> None:
    """Add the verbs that read specifications."""
    parser = _add_verb(
        verbs, "list", "list the scenarios", _LIST, fails="no scenario was found"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="a file, a folder, a pattern"
    )

    about = "find scenarios without a test"
    fails = "a scenario has no test, or has changed"
    usage = "arena scenarios check [-h] [PYTEST ARGUMENTS]"
    parser = _add_verb(verbs, "check", about, _CHECK, fails=fails, usage=usage)
    parser.set_defaults(takes_others=True)

    fails = "--check finds a scenario without a test, or a scenario cannot be read"
    parser = _add_verb(verbs, "stubs", "write missing tests", _STUBS, fails=fails)
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="a specification, or a folder"
    )
    parser.add_argument(
        "--write", metavar="DIR", help="write files into DIR, and print none"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing, print what is missing, and exit with 1 if a test is missing",
    )

    about = "print one scenario, its status and its tests"
    fails = "no scenario has the name"
    parser = _add_verb(verbs, "explain", about, _EXPLAIN, fails=fails)
    parser.add_argument("key", metavar="KEY", help="a name, or @ID")
    parser.add_argument("--json", metavar="FILE", help="the file of a run")


def _add_accept(verbs: Verbs) -> None:
    """Add the verb that writes the lock file."""
    about = "record that tests fit the changed steps"
    fails = "no scenario has a name"
    parser = _add_verb(verbs, "accept", about, _ACCEPT, fails=fails)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "keys", nargs="*", default=[], metavar="KEY", help="a name, or @ID"
    )
    which.add_argument(
        "--all", action="store_true", dest="everything", help="all scenarios"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show the changes, and write nothing"
    )


def _add_document_verbs(verbs: Verbs) -> None:
    """Add the verbs that read the files of runs."""
    fails = "there is a gap (with --strict), or the specifications differ"
    parser = _add_verb(verbs, "merge", "judge several runs as one", _MERGE, fails=fails)
    parser.add_argument("--strict", action="store_true", help="fail if there is a gap")
    _add_documents(parser)

    about = "make a page of the files of runs"
    parser = _add_verb(
        verbs, "report", about, _REPORT, fails="the specifications differ"
    )
    for form, (_, what) in FORMS.items():
        parser.add_argument(
            f"--{form}",
            metavar="PATH",
            help=f"write {what}",
        )
    _add_documents(parser)


def _add_documents(parser: argparse.ArgumentParser) -> None:
    forms = ", ".join(f"{form}:PATH" for form in sorted(FORMS))
    about = f"write {forms}, with commas between them"
    parser.add_argument("--out", default="", metavar="FORM:PATH", help=about)
    parser.add_argument(
        "documents", nargs="+", metavar="JSON", help="the file of a run"
    )


def _do(verb: str, options: argparse.Namespace) -> int:
    """Import and call a verb. ``--help`` does not need this import."""
    require_extra("arena scenarios")
    from pytest_arena.scenarios import _commands  # noqa: PLC0415 - not for --help

    status: int = getattr(_commands, f"do_{verb}")(options)
    return status
