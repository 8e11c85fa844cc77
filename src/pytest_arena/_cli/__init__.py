"""The command `arena`: its subcommands, their options and their exit statuses."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from pytest_arena.errors import ArenaError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    AddCommand = Callable[..., argparse.ArgumentParser]

_FAILED = 1
_USAGE = 2
_LIST = "list the databases of test runs, templates, kept databases and private servers"
_SERVE = "serve the app to tests in another language. pytest gets all other arguments"
_SCENARIOS = "list the scenarios of a specification"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Return the exit status."""
    parser = _parser()
    options, others = parser.parse_known_args(arguments)
    if others and not hasattr(options, "takes_others"):
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    options.others = others  # the arguments of pytest
    try:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")
        # `--help` imports no command.
        status: int = resolve_name(f"pytest_arena.{options.do}")(options)
    except ArenaError as error:
        sys.stderr.write(f"{error}\n")
        return _USAGE if isinstance(error, ConfigError) else _FAILED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="arena")
    parser.add_argument("--version", action="version", version=f"arena {version('pytest-arena')}")
    add = parser.add_subparsers(metavar="COMMAND", required=True).add_parser
    databases = add("databases", help="list or remove the databases of pytest-arena")
    _add_databases(databases.add_subparsers(metavar="COMMAND", required=True).add_parser)

    serve = _add(add, "serve", "_cli._serve:serve", _SERVE)
    serve.set_defaults(takes_others=True)
    about = "the port of the app (default: a free one)"
    serve.add_argument("--port", type=int, default=0, metavar="N", help=about)
    about = "the module with the functions that POST /seed/NAME calls with a session"
    serve.add_argument("--seeds", default="", metavar="MODULE", help=about)

    init = _add(add, "init", "_cli._init:init", "propose the options of a project and a first test")
    init.add_argument("--write", action="store_true", help="write both")

    scenarios = add("scenarios", help=_SCENARIOS)
    add = scenarios.add_subparsers(metavar="COMMAND", required=True).add_parser
    listing = _add(add, "list", "_cli:list_scenarios", _SCENARIOS)
    listing.add_argument("specs", nargs="+", metavar="SPEC", help="files or folders")
    return parser


def _add_databases(add: AddCommand) -> None:
    listing = _add(add, "list", "_cli._databases:list_or_sweep", _LIST)
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(sweeps=False, everything=False)
    sweep = _add(add, "sweep", "_cli._databases:list_or_sweep", "remove databases of dead runs")
    sweep.set_defaults(sweeps=True)
    about = "also remove templates, kept databases and private servers"
    sweep.add_argument("--all", action="store_true", dest="everything", help=about)
    about = "the server, as in arena_database: a URL, own, auto or a product"
    for command in (listing, sweep):
        command.add_argument("--database", metavar="URL", help=about)


def _add(add: AddCommand, name: str, do: str, about: str) -> argparse.ArgumentParser:
    parser = add(name, help=about, description=about, allow_abbrev=False)
    parser.set_defaults(do=do)
    return parser


def list_scenarios(options: argparse.Namespace) -> int:
    """Print the scenarios of files. Return the exit status."""
    from pytest_arena.scenarios import require_extra  # noqa: PLC0415 - as below

    require_extra("arena scenarios list")
    from pytest_arena.scenarios._outputs import listing  # noqa: PLC0415 - needs the extra
    from pytest_arena.scenarios._specs import read_specs  # noqa: PLC0415 - needs the extra

    sys.stdout.write("\n".join([*listing(read_specs(options.specs, Path.cwd())), ""]))
    return 0
