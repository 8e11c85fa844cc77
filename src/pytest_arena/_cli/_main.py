"""The commands, their options and their exit statuses."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_arena.errors import ArenaError, ConfigError
from pytest_arena.scenarios import verbs as scenarios

if TYPE_CHECKING:
    from collections.abc import Sequence

_FAILED = 1
_USAGE = 2
_STOPPED = 130
_SHAPE: dict[str, Any] = {
    "formatter_class": argparse.RawDescriptionHelpFormatter,
    "allow_abbrev": False,
}

_ABOUT = """\
What pytest-arena has on this machine and on its database server, and what your
specifications say. The tests themselves are run by pytest."""
_DATABASES = """\
The databases that pytest-arena has made: those of test runs, the templates that
they are copied from, those kept for a look, and its private servers."""
_WHERE = """\
Looked at are the SQLite files of this user's runs, the cache (ARENA_CACHE), the
private servers, and one PostgreSQL server: that of --database, else of
ARENA_DATABASE, else of arena_database in pytest's configuration file, else the
local service. No server is started for it."""
_LIST = f"""\
List what there is: its name, what it is, whose (the process of the run, alive or
dead), how old it is, when it was last used, and its size.

{_WHERE}"""
_SWEEP = f"""\
Remove what runs have left that are dead, after a crash or a kill -9. The next run
does the same by itself. What a living run uses is left alone, and so is whatever
arena has not made.

With --all, sweep lists what it would remove, and removes it after a yes. With the URL of a
server, it removes only what is on that server. With sqlite, it removes the files of runs and
the cache.

{_WHERE}"""
_SERVE = """\
Serve the app of arena_app, and its database, to tests in another language: to those
of Playwright's own runner, say. They say by HTTP when a test begins and when it ends;
in between the app has a database of its own, which is taken back then.

Printed is one line of JSON: where the app is, and where the control interface. What
pytest says goes to stderr. ARENA_SERVE_TOKEN is the secret that each request to the
control interface names: Authorization: Bearer ...

Other arguments go to pytest: a folder, whose conftest.py acts, and options; addopts of
the configuration file do not count. It ends on SIGTERM and Ctrl-C, and when the process
is gone that began it."""
_EXPLAIN = """\
Print the page for coding agents: how tests are written in a project that uses
pytest-arena, what not to write, and how a failure is read. With the code that stands at
the end of an error, print that error's page. Neither needs a network."""
_INIT = """\
Look at the project of this folder without importing it, then import its app once, under
the guard; show the options that it lacks and a first test, and write them after a yes.
With --check, run the suite with the plugin and without it, and tell what differs, why,
and what to do. The run without it (-p no:arena) may reach your own databases."""
_DOCTOR = """\
Find what is wrong in a test suite, without importing it: tests that reach a database which
is not theirs, that mix event loops, that hang on each other, or that are green whatever
the app does. Read are test_*.py, *_test.py, conftest.py, and all in folders named tests or test.

A comment on the line waives a fault, with a reason: # arena: ignore[ARD602] why it is right
For a whole file: # arena: ignore-file[ARD602] why it is right

With --migrations, doctor checks no rule and runs no test. It imports the tests under the guard, and
compares the database that Alembic's migrations build with the app's models."""
_STATUS = (
    "exit status: 0; 1 where a server cannot be used, or without a yes to --all;\n"
    "2 for wrong options"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says. Returns the exit status."""
    parser = _parser()
    given, others = parser.parse_known_args(arguments)
    if others and not hasattr(given, "takes_others"):
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    given.others = others  # pytest's, for the verb that runs it
    try:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")
        status: int = given.do(given)
        sys.stdout.flush()
    except ArenaError as error:
        sys.stderr.write(f"{error}\n")
        return _USAGE if isinstance(error, ConfigError) else _FAILED
    except KeyboardInterrupt:
        return _STOPPED
    except BrokenPipeError:  # `| head`: Python's own flush at the end would complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="arena", description=_ABOUT, **_SHAPE)
    parser.add_argument(
        "--version", action="version", version=f"arena {version('pytest-arena')}"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    databases = commands.add_parser(
        "databases",
        help="list what is there, or remove it",
        description=_DATABASES,
        **_SHAPE,
    )
    verbs = databases.add_subparsers(metavar="COMMAND", required=True)
    listing = verbs.add_parser(
        "list", help="list what is there", description=_LIST, epilog=_STATUS, **_SHAPE
    )
    listing.add_argument("--json", action="store_true", help="JSON in place of tables")
    about = "remove what dead runs have left"
    sweep = verbs.add_parser(
        "sweep", help=about, description=_SWEEP, epilog=_STATUS, **_SHAPE
    )
    sweep.add_argument(
        "--all",
        action="store_true",
        dest="everything",
        help="also templates, kept databases, the registry and private servers: all that no "
        "living run uses; asks first",
    )
    sweep.add_argument("--yes", action="store_true", help="with --all: ask nothing")
    listing.set_defaults(everything=False)
    for command in (listing, sweep):
        command.set_defaults(do=_do_databases, sweeps=command is sweep)
        command.add_argument(
            "--database",
            metavar="URL",
            help="the server, as in arena_database: a URL, own, sqlite, postgresql or auto",
        )
    _add_serve(commands)
    _add_explain(commands)
    _add_init(commands)
    _add_doctor(commands)
    scenarios.add(commands)
    return parser


def _add_serve(commands: Any) -> None:
    status = "exit status: 0; 1 where a level had a problem; 2 for wrong options"
    parser = commands.add_parser(
        "serve",
        help="the app and its database, for tests in another language",
        usage="arena serve [-h] [--port N] [--control-port N] [--seeds MODULE] [PYTEST ARGUMENTS]",
        description=_SERVE,
        epilog=status,
        **_SHAPE,
    )
    parser.add_argument(
        "--port", type=int, default=0, metavar="N", help="the app's; else a free one"
    )
    about = "that of the control interface; else a free one"
    parser.add_argument("--control-port", type=int, default=0, metavar="N", help=about)
    about = "the module whose functions POST /seed/NAME calls, with a session"
    parser.add_argument("--seeds", default="", metavar="MODULE", help=about)
    parser.set_defaults(do=_do_serve, takes_others=True)


def _add_explain(commands: Any) -> None:
    status = "exit status: 0; 2 for a code that no error has"
    about = "the page for coding agents, or that of an error"
    parser = commands.add_parser(
        "explain", help=about, description=_EXPLAIN, epilog=status, **_SHAPE
    )
    parser.add_argument(
        "code",
        nargs="?",
        type=str.upper,
        default="for-agents",
        metavar="CODE",
        help="such as A203, or ARD206 of arena doctor; else the page for agents",
    )
    parser.set_defaults(do=_do_explain)


def _do_explain(given: argparse.Namespace) -> int:
    if given.code.startswith("ARD"):
        return main(["doctor", "--explain", given.code])
    names = ("how-to/for-agents.md", "reference/errors/A*.md")
    pages = {
        page.stem.upper(): page for name in names for page in sorted(_docs().glob(name))
    }
    if given.code not in pages:
        raise ConfigError(
            f"arena explain {given.code}: no error has this code",
            why="each error of arena ends with its code, in brackets",
            cause="the command line",
            fix=f"one of {', '.join(pages)}",
        )
    print(pages[given.code].read_text(encoding="utf-8"), end="")  # noqa: T201 - a command prints
    return 0


def _docs() -> Path:
    """Return the folder of the pages: the wheel has a part of them, an editable install all."""
    package, checkout = (Path(__file__).parents[up] / "docs" for up in (1, 3))
    return package if package.is_dir() else checkout


def _add_doctor(commands: Any) -> None:
    about = "what is wrong in a test suite, without importing it"
    status = "exit status: 0; 1 where there are faults; 2 for wrong options, or no test found"
    parser = commands.add_parser(
        "doctor", help=about, description=_DOCTOR, epilog=status, **_SHAPE
    )
    parser.add_argument(
        "paths", nargs="*", default=["."], metavar="PATH", help="a folder or file"
    )
    several = {"default": [], "metavar": "CODES", "type": _codes}
    parser.add_argument(
        "--select", help="only rules whose codes begin so: ARD1,ARD602", **several
    )
    parser.add_argument(
        "--ignore", help="no rules whose codes begin so: ARD1,ARD602", **several
    )
    about = "what a rule is about, with its example; a beginning of codes: all of these"
    parser.add_argument("--explain", metavar="CODE", help=about)
    forms = ("text", "json", "sarif", "github")
    parser.add_argument(
        "--output-format", choices=forms, default="text", help="text, if not said"
    )
    parser.add_argument(
        "--fix", action="store_true", help="repair what can be repaired safely"
    )
    parser.add_argument(
        "--diff", action="store_true", help="what --fix would do; write nothing"
    )
    about = "compare the database that Alembic's migrations build with the models, and nothing else"
    parser.add_argument("--migrations", action="store_true", help=about)
    parser.set_defaults(do=_do_doctor)


def _codes(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def _do_doctor(given: argparse.Namespace) -> int:
    if given.migrations:
        from pytest_arena._cli.doctor import _compare_migrations  # noqa: PLC0415 - it imports pytest

        return _compare_migrations.compare_migrations()
    from pytest_arena._cli.doctor._doctor import doctor  # noqa: PLC0415 - as said below

    return doctor(given)


def _do_serve(given: argparse.Namespace) -> int:
    from pytest_arena._cli._serve import serve  # noqa: PLC0415 - it imports pytest

    return serve(given)


def _add_init(commands: Any) -> None:
    about = "set a project up: its options, and a first test"
    status = "exit status: 0; 1 where nothing was written, or tests differ; 2 for wrong options"
    parser = commands.add_parser(
        "init", help=about, description=_INIT, epilog=status, **_SHAPE
    )
    app = {"default": "", "metavar": "MODULE:NAME"}
    seconds = {"default": 60, "metavar": "SECONDS"}
    parser.add_argument(
        "--app", help="the app, where several are found, or none", **app
    )
    parser.add_argument("--yes", action="store_true", help="ask nothing: write, or run")
    parser.add_argument(
        "--check", action="store_true", help="compare the suite with and without"
    )
    about = "how long the app may take to be imported, and to be asked: 60 each"
    parser.add_argument("--timeout", type=float, help=about, **seconds)
    parser.set_defaults(do=_do_init)


def _do_init(given: argparse.Namespace) -> int:
    from pytest_arena._cli.init._compare import check  # noqa: PLC0415 - it imports pytest
    from pytest_arena._cli.init._init import init  # noqa: PLC0415 - as above

    if given.check:
        return check(is_agreed=given.yes)
    return init(given.app, is_agreed=given.yes, seconds=given.timeout)


def _do_databases(given: argparse.Namespace) -> int:
    # Imported when it is asked for, and not for --help.
    from pytest_arena._cli._databases import list_or_sweep  # noqa: PLC0415 - as said

    return list_or_sweep(given)
