"""The commands, their options and their exit statuses."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pytest_arena.errors import ArenaError, ConfigError
from pytest_arena.scenarios import verbs as scenarios

if TYPE_CHECKING:
    from collections.abc import Sequence

    # argparse has no public name for the result of add_subparsers().
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - no public name
    Options = argparse.Namespace

_FAILED = 1
_USAGE = 2
_STOPPED = 130
_LIST = """\
List the databases of pytest-arena: those of test runs, templates, kept databases and
private servers. The command looks at the SQLite files of your runs, the cache
(ARENA_CACHE), private servers, and one server of each product: that of --database,
ARENA_DATABASE or arena_database, or the local service. It starts no server."""
_SWEEP = """\
Remove the databases of dead runs, as each run does at its start. --all also removes all
other databases of pytest-arena that no living run uses, after a question. Databases that
pytest-arena did not create stay."""
_SERVE = """\
Serve the app of arena_app to tests in another language, such as those of Playwright.
Between POST /level/enter and POST /level/leave to the control interface, the app has a
test database. stdout gets one line of JSON with the URLs. Each request needs the secret
of ARENA_SERVE_TOKEN, as the header Authorization: Bearer ... pytest gets all other
arguments."""
_INIT = """\
Read the files of the project in this folder. Print the options of pytest-arena and a
first test. --write writes them, unless the project has such options. The command imports
no code of the project."""


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
        status: int = options.do(options)
    except ArenaError as error:
        sys.stderr.write(f"{error}\n")
        return _USAGE if isinstance(error, ConfigError) else _FAILED
    except KeyboardInterrupt:
        return _STOPPED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="arena")
    parser.add_argument(
        "--version", action="version", version=f"arena {version('pytest-arena')}"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    about = "list or remove the databases of pytest-arena"
    databases = commands.add_parser("databases", help=about)
    _add_databases(databases.add_subparsers(metavar="COMMAND", required=True))

    about = "serve the app and its database to tests in another language"
    serve = _add(commands, "serve", _serve, about, _SERVE)
    serve.set_defaults(takes_others=True)
    for name, what in (("--port", "the app"), ("--control-port", "its control")):
        about = f"the port of {what} (default: a free one)"
        serve.add_argument(name, type=int, default=0, metavar="N", help=about)
    about = "the module with the functions that POST /seed/NAME calls with a session"
    serve.add_argument("--seeds", default="", metavar="MODULE", help=about)

    about = "propose the options of a project and a first test"
    init = _add(commands, "init", _init, about, _INIT)
    init.add_argument("--write", action="store_true", help="write both")
    scenarios.add(commands)
    return parser


def _add_databases(commands: Commands) -> None:
    listing = _add(commands, "list", _databases, "list all databases", _LIST)
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(sweeps=False, everything=False)
    about = "remove the databases of dead runs"
    sweep = _add(commands, "sweep", _databases, about, _SWEEP)
    sweep.set_defaults(sweeps=True)
    about = "also remove templates, kept databases and private servers"
    sweep.add_argument("--all", action="store_true", dest="everything", help=about)
    sweep.add_argument("--yes", action="store_true", help="with --all: do not ask")
    about = "the server, as in arena_database: a URL, own, sqlite, postgresql or auto"
    for command in (listing, sweep):
        command.add_argument("--database", metavar="URL", help=about)


def _add(
    commands: Commands, name: str, do: Any, about: str, text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=about,
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(do=do)
    return parser


def _databases(options: Options) -> int:
    from pytest_arena._cli._databases import list_or_sweep  # noqa: PLC0415 - imports SQLAlchemy

    return list_or_sweep(options)


def _serve(options: Options) -> int:
    from pytest_arena._cli._serve import serve  # noqa: PLC0415 - imports pytest

    return serve(options)


def _init(options: Options) -> int:
    from pytest_arena._cli._init import init  # noqa: PLC0415 - not for --help

    return init(writes=options.write)
