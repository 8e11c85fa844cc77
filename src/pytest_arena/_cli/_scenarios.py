"""What does ``arena scenarios`` do?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from pytest_arena._cli._shape import SHAPE

if TYPE_CHECKING:


    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["add"]

_ABOUT = """\
The scenarios of specifications: Gherkin in .feature files, in fences of Markdown
(whatever the file's ending is), and in *.feature.md. Whether they are proven,
says a test run: pytest --scenarios=report."""
_LIST = """\
List the scenarios of these files, folders and patterns (docs/**/*.md), and what is
wrong with them. Without PATH those of arena_specs in pytest's configuration file.
Nothing is run, and nothing needs to be configured."""
_CHECK = """\
See whether each scenario has a test, without running one: pytest collects, and no
database is made. All arguments go to pytest."""
_EXPLAIN = """\
Say all that is known of one scenario: its steps, its status and why, what each of
its tests has done, what to do next. KEY is its name, Feature :: name, or @ID. What
tests did stands in the JSON of a run, pytest --scenarios-out=json:FILE; without it
the tests are collected, and none is run."""
_ACCEPT = """\
Agree to the present steps of scenarios: show what is different from those that were
agreed to before, and write them to the lock file (arena_scenario_lock). Where a
test's marker names the version itself, the marker to paste is shown."""
_MERGE = """\
Judge the documents of several runs together, as if they were one: of shards, whose
runs were each given a part of the tests and --scenarios-out=json:FILE."""
_REPORT = """\
Make outputs of the documents of one run or more. Without an output the lines are
shown that pytest shows."""

_STATUS = "exit status: 0; 1 where {fails}; 2 for wrong options"
_NOTHING = "nothing was found, or what was found cannot be read"


def add(commands: Verbs) -> None:
    """Add the command and its verbs."""
    scenarios = commands.add_parser(
        "scenarios", help="what specifications say, and what of it has a test", description=_ABOUT,
        **SHAPE,
    )
    verbs = scenarios.add_subparsers(metavar="COMMAND", required=True)
    _add_list(verbs)
    _add_check(verbs)
    _add_stubs(verbs)
    _add_accept(verbs)
    _add_explain(verbs)
    _add_merge(verbs)
    _add_report(verbs)


def _verb(
    verbs: Verbs, name: str, text: str, help: str, fails: str, **more: Any
) -> argparse.ArgumentParser:
    return verbs.add_parser(
        name, help=help, description=text, epilog=_STATUS.format(fails=fails), **SHAPE, **more
    )


def _add_list(verbs: Verbs) -> None:
    parser = _verb(verbs, "list", _LIST, "list what there is", "no scenario was found")
    parser.add_argument("--json", action="store_true", help="JSON, and nothing else, to stdout")
    parser.add_argument("paths", nargs="*", metavar="PATH", help="files, folders, patterns")
    parser.set_defaults(do=_list)
