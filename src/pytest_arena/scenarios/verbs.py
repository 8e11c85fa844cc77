"""The command ``arena scenarios``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_arena.scenarios import require_extra

if TYPE_CHECKING:
    import argparse

    # argparse has no public name for the result of add_subparsers().
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - no public name


def add(commands: Verbs) -> None:
    """Add the command to those of ``arena``."""
    about = "list the scenarios of a specification"
    scenarios = commands.add_parser("scenarios", help=about, description=about)
    verbs = scenarios.add_subparsers(metavar="COMMAND", required=True)
    parser = verbs.add_parser(
        "list",
        help=about,
        description="List the scenarios of files, folders and patterns (docs/**/*.md).",
        epilog="exit status: 0, or 1 if a file is wrong or no scenario was found",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "specs", nargs="+", metavar="SPEC", help="a file, a folder, a pattern"
    )
    parser.set_defaults(do=_list, parser=parser)


def _list(options: argparse.Namespace) -> int:
    require_extra("arena scenarios list")
    from pytest_arena.scenarios._specs import plain, read_specs  # noqa: PLC0415 - needs the extra
    from pytest_arena.scenarios._terminal import listing  # noqa: PLC0415 - needs the extra

    specification = read_specs(options.specs, Path.cwd())
    lines = listing(specification)
    if options.json:
        scenarios = [plain(scenario) for scenario in specification.scenarios]
        lines = [json.dumps({"scenarios": scenarios}, indent=1, ensure_ascii=True)]
    print("\n".join(lines))  # noqa: T201 - the output of the command
    return 0
