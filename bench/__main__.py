"""The command: `python -m bench [--quick | --smoke] [--only NAME] [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

from bench import (
    boundaries,
    calls,
    effort,
    end_to_end,
    evidence,
    loops,
    scenarios,
    start,
    suites_postgresql,
    undo,
    untouched,
)
from bench.page import replace_tables
from bench.place import ROOT, machine
from bench.server import named

MEASURES = {
    "end-to-end": end_to_end.measure,
    "boundaries": boundaries.measure,
    "untouched": untouched.measure,
    "start": start.measure,
    "calls": calls.measure,
    "loops": loops.measure,
    "scenarios": scenarios.measure,
    "undo": undo.measure,
    "suites-postgresql": suites_postgresql.measure,
    "evidence": evidence.measure,
}
PAGE = ROOT / "docs" / "explanation" / "speed.md"


def main() -> None:
    """Measure, print, and write the page, if all of it was measured in full."""
    given = _arguments()
    chosen = effort.SMOKE if given.smoke else effort.QUICK if given.quick else effort.FULL
    where = ", ".join(filter(None, (machine(), named())))
    parts, tables = [f"{datetime.now(UTC):%Y-%m-%d}, {where}.\n"], []
    print(parts[0])
    for name in given.only or MEASURES:
        started = perf_counter()
        for table in MEASURES[name](chosen):
            tables.append({"measure": name, **asdict(table)})
            parts.append(table.markdown())
            print(parts[-1])
        print(f"({name}: {perf_counter() - started:.0f} s)\n", file=sys.stderr)
    if given.json:
        given.json.write_text(json.dumps({"where": where, "tables": tables}, indent=2))
    if chosen is effort.FULL and not given.only:
        replace_tables(PAGE, "\n".join(parts))
        print(f"written to {PAGE.relative_to(ROOT)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="within a minute; writes nothing")
    size.add_argument("--smoke", action="store_true", help="does it run at all? No number is right")
    parser.add_argument("--only", action="append", choices=list(MEASURES), help="may be repeated")
    parser.add_argument("--json", type=Path, help="write the tables to this file as well")
    return parser.parse_args()


if __name__ == "__main__":
    main()
