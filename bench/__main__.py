"""The command: `python -m bench [--quick | --smoke] [--only NAME] [--json FILE]`.

What lasts long, `LASTING`, is measured where it is named alone.
"""

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
    endurance,
    evidence,
    live_server,
    loops,
    mysql,
    rollback,
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
    "undo": undo.measure,
    "rollback": rollback.measure,
    "mysql": mysql.measure,
    "suites-postgresql": suites_postgresql.measure,
    "evidence": evidence.measure,
    "live-server": live_server.measure,
}
LASTING = {"endurance": endurance.measure}
PAGE = ROOT / "docs" / "explanation" / "speed.md"


def main() -> None:
    """Measure, print, and write the page, if all of it was measured in full."""
    given = _arguments()
    chosen = effort.SMOKE if given.smoke else effort.QUICK if given.quick else effort.FULL
    where = ", ".join(filter(None, (machine(), named())))
    is_lasting = given.only == [*LASTING]
    # The page names the machine once, above the tables of the other measures.
    place = "on the same machine" if is_lasting else where
    parts, tables = [f"{datetime.now(UTC):%Y-%m-%d}, {place}.\n"], []
    print(parts[0])
    everything = MEASURES | LASTING
    for name in given.only or (everything if given.smoke else MEASURES):
        started = perf_counter()
        for table in everything[name](chosen):
            tables.append({"measure": name, **asdict(table)})
            parts.append(table.markdown())
            print(parts[-1])
        print(f"({name}: {perf_counter() - started:.0f} s)\n", file=sys.stderr)
    if given.json:
        given.json.write_text(json.dumps({"where": where, "tables": tables}, indent=2))
    if chosen is effort.FULL and (is_lasting or not given.only):
        target = "bench-endurance" if is_lasting else "bench"
        replace_tables(PAGE, "\n".join(parts), target=target)
        print(f"written to {PAGE.relative_to(ROOT)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="within a minute; writes nothing")
    size.add_argument("--smoke", action="store_true", help="does it run at all? No number is right")
    parser.add_argument(
        "--only", action="append", choices=[*MEASURES, *LASTING], help="may be repeated"
    )
    parser.add_argument("--json", type=Path, help="write the tables to this file as well")
    return parser.parse_args()


if __name__ == "__main__":
    main()
