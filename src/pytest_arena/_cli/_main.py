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
    from collections.abc import Callable, Sequence

    # argparse has no public name for the result of add_subparsers().
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - no public name
    Options = argparse.Namespace

_FAILED = 1
_USAGE = 2
_STOPPED = 130
_PARSER_OPTIONS: dict[str, Any] = {
    "formatter_class": argparse.RawDescriptionHelpFormatter,
    "allow_abbrev": False,
}

_ABOUT = """\
The databases of pytest-arena, the set-up of a project, checks of a test suite, and
scenarios. pytest runs the tests."""
_DATABASES = """\
The databases that pytest-arena created: databases of test runs, the templates from
which they are copied, databases that you keep for a look, and private servers."""
_WHERE = """\
The command looks at the SQLite files of your runs, the cache (ARENA_CACHE), the private
servers, and one server of each product. The server is the value of --database, or of
ARENA_DATABASE, or of arena_database in pytest's configuration file, or the local
service. The command starts no server."""
_LIST = f"""\
List the databases: name, kind, the process of the run and whether it is alive, age,
last use, and size.

{_WHERE}"""
_SWEEP = f"""\
Remove the databases of dead runs, which a crash or a kill -9 leaves. The next run does
the same. Databases of living runs, and databases that pytest-arena did not create, stay.

With --all, the command lists all databases that no living run uses, and removes them
after a yes. With the URL of a server, it removes only databases on that server. With
sqlite, it removes the files of runs and the cache.

{_WHERE}"""
_MARK = """\
Let tests run in a database that pytest-arena did not create and that is not empty. Tests
use it with arena_isolation = rollback, if the role in arena_database may not create
databases. No transaction of the tests commits there.

The command shows the tables and rows, and writes the mark after a yes. The mark is in the
comment of the database, so the URL needs its owner. An empty database needs no mark."""
_SERVE = """\
Serve the app of arena_app, and its database, to tests in another language, such as
tests of Playwright. The tests send HTTP requests when a test begins and when it ends.
Between these requests the app has a test database. pytest-arena restores it after each
test.

The command prints one line of JSON with the URLs of the app and of the control
interface. The output of pytest goes to stderr. Each request to the control interface
needs the secret of ARENA_SERVE_TOKEN, as the header Authorization: Bearer ...

pytest gets all other arguments: a folder, whose conftest.py is used, and options. addopts
of the configuration file is ignored. The command ends on SIGTERM and Ctrl-C, and when
its parent process ends."""
_EXPLAIN = """\
Print the page for coding agents: how to write tests in a project that uses
pytest-arena, and how to read a failure. With the code at the end of an error, print
the page of that error. The command needs no network."""
_INIT = """\
Read the files of the project in this folder. Import its app once, while pytest-arena
refuses connections to your databases. Show the missing options and a first test, and
write them after a yes.

With --check, run the suite with the plugin and without it, and explain the differences.
The run without the plugin (-p no:arena) may reach your databases."""
_DOCTOR = """\
Find faults in a test suite without importing it: tests that use the wrong database, mix
event loops, wait for each other, or pass whatever the app does. The command reads
test_*.py, *_test.py, conftest.py, and all Python files in folders named tests, test or
testing.

A comment on the line waives a fault, with a reason: # arena: ignore[ARD602] why it is right
For a whole file: # arena: ignore-file[ARD602] why it is right

With --migrations, the command checks no rule and runs no test. It imports the tests, and
compares the database that Alembic's migrations build with the app's models."""
_DATABASES_STATUS = "1 if a server cannot be used, or without a yes to --all"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Return the exit status."""
    parser = _parser()
    options, others = parser.parse_known_args(arguments)
    if others and not hasattr(options, "takes_others"):
        options.parser.error(f"unrecognized arguments: {' '.join(others)}")
    options.others = others  # the arguments of pytest
    try:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")
        status: int = options.do(options)
        sys.stdout.flush()
    except ArenaError as error:
        sys.stderr.write(f"{error}\n")
        return _USAGE if isinstance(error, ConfigError) else _FAILED
    except KeyboardInterrupt:
        return _STOPPED
    except BrokenPipeError:
        # A reader such as `head` has ended. At its exit Python would flush stdout again.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        return _FAILED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="arena", description=_ABOUT, **_PARSER_OPTIONS
    )
    parser.add_argument(
        "--version", action="version", version=f"arena {version('pytest-arena')}"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    databases = commands.add_parser(
        "databases",
        help="list or remove the databases of pytest-arena",
        description=_DATABASES,
        **_PARSER_OPTIONS,
    )
    _add_databases(databases.add_subparsers(metavar="COMMAND", required=True))
    _add_serve(commands)
    _add_explain(commands)
    _add_init(commands)
    _add_doctor(commands)
    scenarios.add(commands)
    return parser


def _add(
    commands: Commands,
    name: str,
    do: Callable[[Options], int],
    about: str,
    text: str,
    *,
    fails: str,
    usage: str | None = None,
) -> argparse.ArgumentParser:
    """Add a command. Its help says when it ``fails``."""
    parser = commands.add_parser(
        name,
        help=about,
        description=text,
        epilog=f"exit status: 0, {fails}, or 2 for wrong options",
        usage=usage,
        **_PARSER_OPTIONS,
    )
    parser.set_defaults(do=do, parser=parser)
    return parser


def _add_databases(verbs: Commands) -> None:
    about = "list all databases"
    listing = _add(verbs, "list", _do_databases, about, _LIST, fails=_DATABASES_STATUS)
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(sweeps=False, everything=False)
    about = "remove the databases of dead runs"
    sweep = _add(verbs, "sweep", _do_databases, about, _SWEEP, fails=_DATABASES_STATUS)
    sweep.set_defaults(sweeps=True)
    sweep.add_argument(
        "--all",
        action="store_true",
        dest="everything",
        help="also remove templates, kept databases, the registry and private servers that "
        "no living run uses, after a question",
    )
    sweep.add_argument("--yes", action="store_true", help="with --all: do not ask")
    for command in (listing, sweep):
        command.add_argument(
            "--database",
            metavar="URL",
            help="the server, as in arena_database: a URL, own, sqlite, postgresql or auto",
        )

    url = "postgresql://owner@host:5432/name"
    about = "let tests run in a database that is not empty"
    fails = "1 if the server refuses, or without a yes"
    marking = _add(verbs, "mark", _do_mark, about, _MARK, fails=fails)
    marking.add_argument("url", metavar="URL", help=f"the database: {url}")
    marking.add_argument("--yes", action="store_true", help="do not ask")
    about = "remove the mark of a database"
    text = "Remove the mark of `arena databases mark`."
    unmarking = _add(verbs, "unmark", _do_unmark, about, text, fails=fails)
    unmarking.add_argument("url", metavar="URL", help=f"the database: {url}")


def _do_mark(options: Options) -> int:
    from pytest_arena._cli._databases import mark  # noqa: PLC0415 - imports SQLAlchemy

    return mark(options)


def _do_unmark(options: Options) -> int:
    from pytest_arena._cli._databases import unmark  # noqa: PLC0415 - imports SQLAlchemy

    return unmark(options)


def _do_databases(options: Options) -> int:
    from pytest_arena._cli._databases import list_or_sweep  # noqa: PLC0415 - imports SQLAlchemy

    return list_or_sweep(options)


def _add_serve(commands: Commands) -> None:
    parser = _add(
        commands,
        "serve",
        _do_serve,
        "serve the app and its database to tests in another language",
        _SERVE,
        fails="1 if a level had a problem",
        usage="arena serve [-h] [--port N] [--control-port N] [--seeds MODULE] "
        "[PYTEST ARGUMENTS]",
    )
    parser.set_defaults(takes_others=True)
    parser.add_argument(
        "--port",
        type=int,
        default=0,
        metavar="N",
        help="the port of the app (default: a free one)",
    )
    parser.add_argument(
        "--control-port",
        type=int,
        default=0,
        metavar="N",
        help="the port of the control interface (default: a free one)",
    )
    parser.add_argument(
        "--seeds",
        default="",
        metavar="MODULE",
        help="the module with the functions that POST /seed/NAME calls with a session",
    )


def _do_serve(options: Options) -> int:
    from pytest_arena._cli._serve import serve  # noqa: PLC0415 - imports pytest

    return serve(options)


def _add_explain(commands: Commands) -> None:
    parser = commands.add_parser(
        "explain",
        help="print the page for coding agents, or the page of an error",
        description=_EXPLAIN,
        epilog="exit status: 0, or 2 if no error has the code",
        **_PARSER_OPTIONS,
    )
    parser.set_defaults(do=_do_explain, parser=parser)
    parser.add_argument(
        "code",
        nargs="?",
        type=str.upper,
        default="FOR-AGENTS",
        metavar="CODE",
        help="such as A203, or ARD206 of arena doctor (default: the page for agents)",
    )


def _do_explain(options: Options) -> int:
    code = options.code
    if code.startswith("ARD"):
        return main(["doctor", "--explain", code])
    # The wheel has a part of the pages, and an editable install has all.
    docs = Path(__file__).parents[1] / "docs"
    if not docs.is_dir():
        docs = Path(__file__).parents[3] / "docs"
    files = [docs / "how-to" / "for-agents.md"]
    files += sorted(docs.glob("reference/errors/A*.md"))
    pages = {file.stem.upper(): file for file in files}
    if code not in pages:
        raise ConfigError(
            f"arena explain {code}: no error has this code",
            why="each error of pytest-arena ends with its code, in brackets",
            cause="the command line",
            fix=f"one of {', '.join(pages)}",
        )
    print(pages[code].read_text(encoding="utf-8"), end="")  # noqa: T201 - a command prints
    return 0


def _add_init(commands: Commands) -> None:
    parser = _add(
        commands,
        "init",
        _do_init,
        "write the options of a project and a first test",
        _INIT,
        fails="1 if nothing was written, or tests differ",
    )
    parser.add_argument(
        "--app",
        default="",
        metavar="MODULE:NAME",
        help="the app, if none or several are found",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare the suite with and without the plugin",
    )
    parser.add_argument(
        "--timeout",
        type=_positive_seconds,
        default=60,
        metavar="SECONDS",
        help="the time limit of the import of the app, and of its requests (default: 60)",
    )


def _positive_seconds(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text} must be more than 0 seconds")
    return seconds


def _do_init(options: Options) -> int:
    if options.check:
        from pytest_arena._cli.init._compare import check  # noqa: PLC0415 - imports pytest

        return check(is_agreed=options.yes)
    from pytest_arena._cli.init._init import init  # noqa: PLC0415 - imports pytest

    return init(options.app, is_agreed=options.yes, seconds=options.timeout)


def _add_doctor(commands: Commands) -> None:
    parser = _add(
        commands,
        "doctor",
        _do_doctor,
        "find faults in a test suite without importing it",
        _DOCTOR,
        fails="1 if there are faults",
    )
    parser.add_argument(
        "paths",
        nargs="*",
        default=["."],
        metavar="PATH",
        help="a folder or a file (default: this folder)",
    )
    for name, about in (
        ("--select", "check only rules whose codes begin with these: ARD1,ARD602"),
        ("--ignore", "check no rules whose codes begin with these: ARD1,ARD602"),
    ):
        parser.add_argument(name, type=_codes, default=[], metavar="CODES", help=about)
    parser.add_argument(
        "--explain",
        metavar="CODE",
        help="explain a rule with an example, or all rules whose codes begin with CODE",
    )
    forms = ("text", "json", "sarif", "github")
    parser.add_argument(
        "--output-format", choices=forms, default="text", help="default: text"
    )
    parser.add_argument(
        "--fix",
        action="store_true",
        help="repair the faults that can be repaired safely",
    )
    parser.add_argument(
        "--diff", action="store_true", help="show what --fix would write"
    )
    parser.add_argument(
        "--migrations",
        action="store_true",
        help="only compare the database that Alembic's migrations build with the models",
    )


def _codes(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _do_doctor(options: Options) -> int:
    if options.migrations:
        from pytest_arena._cli.doctor import _compare_migrations  # noqa: PLC0415 - imports pytest

        return _compare_migrations.compare_migrations()
    from pytest_arena._cli.doctor._doctor import doctor  # noqa: PLC0415 - not for --help

    return doctor(options)
